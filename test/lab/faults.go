//go:build e2e && linux

package lab

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"sync"
	"testing"
)

// Below is a CA of its own whose certificate c signs: an intermediate one. Its
// certificates are worth nothing to who is not shown its own.
func (c *Certs) Below(t testing.TB, name string) *Certs {
	t.Helper()
	b := &Certs{Dir: t.TempDir()}
	b.CA = b.Dir + "/ca.pem"
	if err := b.makeCA(); err != nil {
		t.Fatal("lab: ", err)
	}
	tmpl := *b.cert
	tmpl.Subject.CommonName = name
	tmpl.RawSubject, tmpl.AuthorityKeyId = nil, nil
	der, err := x509.CreateCertificate(rand.Reader, &tmpl, c.cert, &b.key.PublicKey, c.key)
	if err == nil {
		b.cert, err = x509.ParseCertificate(der)
	}
	if err == nil {
		err = writePEM(b.CA, "CERTIFICATE", der, 0o644)
	}
	if err != nil {
		t.Fatal("lab: ", err)
	}
	return b
}

// Answer takes TCP connections on a free loopback port, and does with each what
// talk does. The result is the endpoint; it ends with the test.
func Answer(t testing.TB, talk func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal("lab: ", err)
	}
	var mu sync.Mutex
	var open []net.Conn
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, c)
			mu.Unlock()
			running.Go(func() {
				defer c.Close() //nolint:errcheck // a peer of a test
				talk(c)
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for _, c := range open {
			_ = c.Close()
		}
		mu.Unlock()
		running.Wait()
	})
	return "tcp://" + l.Addr().String()
}

// Front is a TLS server in front of a plain daemon, for what a daemon itself
// cannot be made to do. It ends with the test.
func Front(t testing.TB, config *tls.Config, target string) string {
	t.Helper()
	return Answer(t, func(c net.Conn) {
		near := tls.Server(c, config)
		if near.Handshake() != nil {
			return
		}
		far, err := net.Dial("tcp", target[len("tcp://"):])
		if err != nil {
			return
		}
		defer far.Close() //nolint:errcheck // the daemon of a test
		go func() {
			_, _ = io.Copy(far, near)
			_ = far.Close()
		}()
		_, _ = io.Copy(near, far)
	})
}

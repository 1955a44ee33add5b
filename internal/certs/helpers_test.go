package certs

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// now is a moment at which real clocks agree that what is made is valid.
func now() time.Time { return time.Now() }

func mustCreate(t *testing.T, o CreateOptions) *Result {
	t.Helper()
	if o.Days == 0 {
		o.Days = DefaultDays
	}
	if o.Now.IsZero() {
		o.Now = now()
	}
	r, err := Create(o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// made is a folder with certificates for the names.
func made(t *testing.T, names ...string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), DefaultDir)
	mustCreate(t, CreateOptions{Dir: dir, Names: names})
	return dir
}

func mustRenew(t *testing.T, o RenewOptions) *Result {
	t.Helper()
	if o.Days == 0 {
		o.Days = DefaultDays
	}
	if o.Now.IsZero() {
		o.Now = now()
	}
	r, err := Renew(o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func readFile(t *testing.T, elem ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(elem...))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func cert(t *testing.T, elem ...string) *x509.Certificate {
	t.Helper()
	all, err := ParseCertificates([]byte(readFile(t, elem...)))
	if err != nil {
		t.Fatal(err)
	}
	return all[0]
}

// tree is every file below dir with its content.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil || d.IsDir() {
			all[filepath.ToSlash(rel)+"/"] = ""
			return err
		}
		all[filepath.ToSlash(rel)] = readFile(t, path)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// side is what a program of one side reads out of a folder.
func side(t *testing.T, dir string) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, certFile), filepath.Join(dir, keyFile))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(readFile(t, dir, caFile))) {
		t.Fatal("no CA in ", dir)
	}
	return pair, pool
}

// shake connects a client to a daemon over loopback, as buildkitd and its
// clients do, and gives what either side says against it.
func shake(t *testing.T, daemon, client, name string, at time.Time) error {
	t.Helper()
	dc, dp := side(t, daemon)
	cc, cp := side(t, client)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	clock := func() time.Time { return at }
	served := make(chan error, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			served <- err
			return
		}
		defer conn.Close()
		srv := tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{dc}, ClientCAs: dp, ClientAuth: tls.RequireAndVerifyClientCert, Time: clock})
		if err := srv.Handshake(); err != nil {
			served <- fmt.Errorf("the daemon: %w", err)
			return
		}
		_, err = io.WriteString(srv, "welcome")
		served <- err
	}()
	raw, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	conn := tls.Client(raw, &tls.Config{Certificates: []tls.Certificate{cc}, RootCAs: cp, ServerName: name, Time: clock})
	buf := make([]byte, len("welcome"))
	_, err = io.ReadFull(conn, buf)
	if err != nil {
		raw.Close()
		if served := <-served; strings.Contains(err.Error(), "remote error") {
			return served
		}
		return fmt.Errorf("the client: %w", err)
	}
	return <-served
}

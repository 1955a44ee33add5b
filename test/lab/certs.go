//go:build e2e && linux

package lab

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Pair is a certificate and its key, both PEM files.
type Pair struct{ Cert, Key string }

// Certs are a certificate authority with one server's and one client's
// certificate, as files in Dir.
type Certs struct {
	Dir    string
	CA     string // the CA's certificate, PEM
	Server Pair   // for serverAuth, with the names given to NewCerts
	Client Pair   // for clientAuth

	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// CertOpts says what certificate to issue.
type CertOpts struct {
	File    string   // base name of the files; required
	Names   []string // host names and IP addresses
	Client  bool     // for clientAuth instead of serverAuth
	Expired bool     // valid until an hour ago
	Future  bool     // valid from tomorrow on
}

// NewCerts makes a CA, a server certificate for the names (host names or IP
// addresses) and a client certificate. A second call makes a second CA, which
// the first one's certificates do not satisfy.
func NewCerts(t testing.TB, names ...string) *Certs {
	t.Helper()
	c, err := makeCerts(t.TempDir(), names...)
	if err != nil {
		t.Fatal("lab: ", err)
	}
	return c
}

func makeCerts(dir string, names ...string) (*Certs, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	c := &Certs{Dir: dir, CA: filepath.Join(dir, "ca.pem")}
	if err := c.makeCA(); err != nil {
		return nil, err
	}
	var err error
	if c.Server, err = c.issue(CertOpts{File: "server", Names: names}); err != nil {
		return nil, err
	}
	c.Client, err = c.issue(CertOpts{File: "client", Client: true})
	return c, err
}

func (c *Certs) makeCA() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	tmpl, err := template("berth lab CA", time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour))
	if err != nil {
		return err
	}
	tmpl.IsCA, tmpl.BasicConstraintsValid = true, true
	tmpl.KeyUsage = x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		return err
	}
	c.key = key
	if c.cert, err = x509.ParseCertificate(der); err != nil {
		return err
	}
	return writePEM(c.CA, "CERTIFICATE", der, 0o644)
}

// Issue makes one more certificate of this CA.
func (c *Certs) Issue(t testing.TB, opts CertOpts) Pair {
	t.Helper()
	p, err := c.issue(opts)
	if err != nil {
		t.Fatal("lab: ", err)
	}
	return p
}

func (c *Certs) issue(opts CertOpts) (Pair, error) {
	from, to := time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	switch {
	case opts.Expired:
		from, to = from.Add(-24*time.Hour), time.Now().Add(-time.Hour)
	case opts.Future:
		from, to = to, to.Add(24*time.Hour)
	}
	tmpl, err := template("berth lab "+opts.File, from, to)
	if err != nil {
		return Pair{}, err
	}
	tmpl.KeyUsage = x509.KeyUsageDigitalSignature
	tmpl.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	if opts.Client {
		tmpl.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	}
	for _, n := range opts.Names {
		if ip := net.ParseIP(n); ip != nil {
			tmpl.IPAddresses = append(tmpl.IPAddresses, ip)
		} else {
			tmpl.DNSNames = append(tmpl.DNSNames, n)
		}
	}
	return c.sign(tmpl, opts.File)
}

func (c *Certs) sign(tmpl *x509.Certificate, file string) (Pair, error) {
	p := Pair{
		Cert: filepath.Join(c.Dir, file+"-cert.pem"),
		Key:  filepath.Join(c.Dir, file+"-key.pem"),
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return p, err
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, c.cert, &key.PublicKey, c.key)
	if err != nil {
		return p, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return p, err
	}
	if err := writePEM(p.Key, "PRIVATE KEY", keyDER, 0o600); err != nil {
		return p, err
	}
	return p, writePEM(p.Cert, "CERTIFICATE", der, 0o644)
}

func template(name string, from, to time.Time) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	return &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name},
		NotBefore: from, NotAfter: to,
	}, nil
}

func writePEM(path, kind string, der []byte, mode os.FileMode) error {
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), mode)
}

// DriverOpt is the value for --driver-opt that uses the CA and the client
// certificate; servername "" leaves the name to the endpoint.
func (c *Certs) DriverOpt(servername string) string {
	s := fmt.Sprintf("cacert=%s,cert=%s,key=%s", c.CA, c.Client.Cert, c.Client.Key)
	if servername != "" {
		s += ",servername=" + servername
	}
	return s
}

// tlsAnswers tells whether somebody shows a certificate at addr, valid or not.
func tlsAnswers(ctx context.Context, addr string) error {
	d := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}} // only asks whether it is up
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	return conn.Close()
}

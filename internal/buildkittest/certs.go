package buildkittest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Pair is the paths of a certificate and of its key, both PEM.
type Pair struct{ Cert, Key string }

// CA signs certificates and keeps them in one folder.
type CA struct {
	// File is the path of the CA's own certificate.
	File string

	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// Leaf says what a certificate is for.
type Leaf struct {
	Names   []string // DNS names and IP addresses; a client needs none
	Client  bool     // for a client rather than a server
	Expired bool     // ended yesterday
	Future  bool     // begins tomorrow
}

// NewCA makes a CA called name, whose certificate is dir/name.pem.
func NewCA(dir, name string) (*CA, error) { return newCA(dir, name, nil) }

// Intermediate makes a CA below this one, in the same folder.
func (ca *CA) Intermediate(name string) (*CA, error) { return newCA(ca.dir, name, ca) }

// newCA makes a CA that above has signed; nil is itself.
func newCA(dir, name string, above *CA) (*CA, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	tmpl := template(name, Leaf{})
	tmpl.IsCA, tmpl.BasicConstraintsValid = true, true
	tmpl.KeyUsage = x509.KeyUsageCertSign
	tmpl.ExtKeyUsage = nil
	parent, signer := tmpl, key
	if above != nil {
		parent, signer = above.cert, above.key
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, key.Public(), signer)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	ca := &CA{File: filepath.Join(dir, name+".pem"), dir: dir, cert: cert, key: key}
	return ca, writePEM(ca.File, "CERTIFICATE", der)
}

// Issue signs a certificate and writes name.pem and name-key.pem.
func (ca *CA) Issue(name string, l Leaf) (Pair, error) {
	p := Pair{Cert: filepath.Join(ca.dir, name+".pem"), Key: filepath.Join(ca.dir, name+"-key.pem")}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return p, err
	}
	der, err := x509.CreateCertificate(rand.Reader, template(name, l), ca.cert, key.Public(), ca.key)
	if err != nil {
		return p, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return p, err
	}
	if err := writePEM(p.Cert, "CERTIFICATE", der); err != nil {
		return p, err
	}
	return p, writePEM(p.Key, "PRIVATE KEY", pkcs8)
}

func template(name string, l Leaf) *x509.Certificate {
	serial, _ := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 100))
	now := time.Now()
	tmpl := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    now.Add(-48 * time.Hour),
		NotAfter:     now.Add(48 * time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if l.Client {
		tmpl.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	}
	if l.Expired {
		tmpl.NotAfter = now.Add(-24 * time.Hour)
	}
	if l.Future {
		tmpl.NotBefore = now.Add(24 * time.Hour)
	}
	for _, n := range l.Names {
		if ip := net.ParseIP(n); ip != nil {
			tmpl.IPAddresses = append(tmpl.IPAddresses, ip)
		} else {
			tmpl.DNSNames = append(tmpl.DNSNames, n)
		}
	}
	return tmpl
}

func writePEM(path, kind string, der []byte) error {
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}

// Certs is what a test of mutual TLS needs: one CA, good certificates of it
// for a server on loopback and for a client, and what goes wrong with them.
type Certs struct {
	Dir string
	CA  *CA
	// OtherCA signed nothing but OtherClient and OtherServer.
	OtherCA *CA

	Server        Pair // for localhost, 127.0.0.1 and ::1
	NamedServer   Pair // for build.example and *.build.example only
	ExpiredServer Pair
	FutureServer  Pair
	OtherServer   Pair
	Client        Pair
	ExpiredClient Pair
	OtherClient   Pair
}

// NewCerts writes a set of certificates into dir, which must exist.
func NewCerts(dir string) (*Certs, error) {
	ca, err := NewCA(dir, "ca")
	if err != nil {
		return nil, err
	}
	other, err := NewCA(dir, "other-ca")
	if err != nil {
		return nil, err
	}
	c := &Certs{Dir: dir, CA: ca, OtherCA: other}
	loopback := []string{"localhost", "127.0.0.1", "::1"}
	for _, w := range []struct {
		to   *Pair
		ca   *CA
		name string
		leaf Leaf
	}{
		{&c.Server, ca, "server", Leaf{Names: loopback}},
		{&c.NamedServer, ca, "named-server", Leaf{Names: []string{"build.example", "*.build.example"}}},
		{&c.ExpiredServer, ca, "expired-server", Leaf{Names: loopback, Expired: true}},
		{&c.FutureServer, ca, "future-server", Leaf{Names: loopback, Future: true}},
		{&c.OtherServer, other, "other-server", Leaf{Names: loopback}},
		{&c.Client, ca, "client", Leaf{Client: true}},
		{&c.ExpiredClient, ca, "expired-client", Leaf{Client: true, Expired: true}},
		{&c.OtherClient, other, "other-client", Leaf{Client: true}},
	} {
		if *w.to, err = w.ca.Issue(w.name, w.leaf); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// TestCerts is NewCerts in a temporary folder of the test.
func TestCerts(t testing.TB) *Certs {
	t.Helper()
	c, err := NewCerts(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

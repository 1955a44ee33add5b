package certs

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"strings"
	"time"

	"github.com/berthbuild/berth/internal/hint"
)

// KeyType is a kind of private key.
type KeyType string

// The kinds of keys. ECDSA is on the curve P-256, and RSA has 3072 bits, which
// is as strong.
const (
	ECDSA   KeyType = "ecdsa"
	Ed25519 KeyType = "ed25519"
	RSA     KeyType = "rsa"
)

// KeyTypes lists them, the default first.
func KeyTypes() []string { return []string{string(ECDSA), string(Ed25519), string(RSA)} }

// ParseKeyType reads the value of --key-type; empty is the default.
func ParseKeyType(s string) (KeyType, error) {
	switch k := KeyType(strings.ToLower(s)); k {
	case "":
		return ECDSA, nil
	case ECDSA, Ed25519, RSA:
		return k, nil
	}
	return "", hint.New(fmt.Sprintf("--key-type %q is unknown", clip(s)), "take one of "+strings.Join(KeyTypes(), ", "))
}

const rsaBits = 3072

func newKey(kind KeyType) (crypto.Signer, error) {
	switch kind {
	case Ed25519:
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	case RSA:
		return rsa.GenerateKey(rand.Reader, rsaBits)
	}
	return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
}

// kindOf is the kind of a key that is there, for one more like it.
func kindOf(key crypto.Signer) KeyType {
	switch key.(type) {
	case ed25519.PrivateKey:
		return Ed25519
	case *rsa.PrivateKey:
		return RSA
	}
	return ECDSA
}

// authority is a CA that can sign.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// newAuthority makes a CA. Its name carries a piece of its key, so that two
// of them can be told apart.
func newAuthority(kind KeyType, now time.Time) (*authority, error) {
	key, err := newKey(kind)
	if err != nil {
		return nil, err
	}
	id, err := keyID(key.Public())
	if err != nil {
		return nil, err
	}
	subject := pkix.Name{CommonName: "BuildKit CA " + hex.EncodeToString(id[:4])}
	return (&authority{key: key}).selfSign(subject, id, now)
}

// renewed is the same CA, with the same key and name, valid from now on: what
// it signed before and what it signs after verify against either certificate.
func (a *authority) renewed(now time.Time) (*authority, error) {
	return a.selfSign(a.cert.Subject, a.cert.SubjectKeyId, now)
}

func (a *authority) selfSign(subject pkix.Name, id []byte, now time.Time) (*authority, error) {
	tmpl, err := template(subject, id, now, now.Add(MaxDays*day))
	if err != nil {
		return nil, err
	}
	tmpl.IsCA, tmpl.MaxPathLenZero = true, true // it signs no other CA
	tmpl.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, a.key.Public(), a.key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	return &authority{cert: cert, key: a.key}, err
}

// leaf is what a certificate is asked to be.
type leaf struct {
	role     Role
	subject  pkix.Name
	names    []string // the daemon's; see ParseNames
	key      crypto.PublicKey
	from, to time.Time
}

// issue signs a certificate, which ends with the CA at the latest.
func (a *authority) issue(l leaf) (*x509.Certificate, error) {
	id, err := keyID(l.key)
	if err != nil {
		return nil, err
	}
	if l.to.After(a.cert.NotAfter) {
		l.to = a.cert.NotAfter
	}
	tmpl, err := template(l.subject, id, l.from, l.to)
	if err != nil {
		return nil, err
	}
	tmpl.KeyUsage = x509.KeyUsageDigitalSignature
	tmpl.ExtKeyUsage = []x509.ExtKeyUsage{extUsage(l.role)}
	for _, name := range l.names {
		if ip := net.ParseIP(name); ip != nil {
			tmpl.IPAddresses = append(tmpl.IPAddresses, ip)
		} else {
			tmpl.DNSNames = append(tmpl.DNSNames, name)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, l.key, a.key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

func extUsage(role Role) x509.ExtKeyUsage {
	if role == RoleDaemon {
		return x509.ExtKeyUsageServerAuth
	}
	return x509.ExtKeyUsageClientAuth
}

func template(subject pkix.Name, id []byte, from, to time.Time) (*x509.Certificate, error) {
	serial := make([]byte, 16)
	if _, err := rand.Read(serial); err != nil {
		return nil, err
	}
	return &x509.Certificate{
		SerialNumber: new(big.Int).SetBytes(serial), Subject: subject, SubjectKeyId: id,
		NotBefore: from.UTC().Add(-backdate), NotAfter: to.UTC(), BasicConstraintsValid: true,
	}, nil
}

// keyID is the subject key identifier: SHA-256 of the key, cut to 160 bits
// (RFC 7093, method 1).
func keyID(pub crypto.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return nil, err
	}
	var info struct {
		Algorithm pkix.AlgorithmIdentifier
		Bits      asn1.BitString
	}
	if _, err := asn1.Unmarshal(der, &info); err != nil {
		return nil, err
	}
	sum := sha256.Sum256(info.Bits.RightAlign())
	return sum[:20], nil
}

// subjectOf is the subject of the daemon: its first name, for people to read;
// clients look at the names themselves.
func subjectOf(names []string) pkix.Name {
	const most = 64 // a common name's limit in X.509
	if len(names[0]) > most {
		return pkix.Name{CommonName: "buildkitd"}
	}
	return pkix.Name{CommonName: names[0]}
}

// fits tells whether key is the private half of what cert certifies.
func fits(cert *x509.Certificate, key crypto.Signer) bool {
	pub, ok := cert.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	return ok && pub.Equal(key.Public())
}

func encodeCert(certs ...*x509.Certificate) []byte {
	var out []byte
	for _, c := range certs {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return out
}

func encodeKey(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, errors.New("the private key cannot be written as PKCS#8")
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

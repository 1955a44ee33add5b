// Command createcerts writes a CA, and certificates of a BuildKit daemon and of a
// client: what the guide of the remote driver has made by a bake.
package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

func main() {
	dir, names := os.Args[1], os.Args[2:]
	caKey := key()
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().AddDate(1, 0, 0), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	caDER := sign(ca, ca, caKey, caKey)
	for i, kind := range []string{"daemon", "client"} {
		leaf := &x509.Certificate{SerialNumber: big.NewInt(int64(i) + 2), Subject: pkix.Name{CommonName: kind}, NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
			ExtKeyUsage: []x509.ExtKeyUsage{[]x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}[i]}}
		if kind == "daemon" {
			for _, n := range names {
				if ip := net.ParseIP(n); ip != nil {
					leaf.IPAddresses = append(leaf.IPAddresses, ip)
				} else {
					leaf.DNSNames = append(leaf.DNSNames, n)
				}
			}
		}
		k := key()
		keyDER, err := x509.MarshalPKCS8PrivateKey(k)
		check(err)
		write(dir, kind, "ca.pem", "CERTIFICATE", caDER)
		write(dir, kind, "cert.pem", "CERTIFICATE", sign(leaf, ca, k, caKey))
		write(dir, kind, "key.pem", "PRIVATE KEY", keyDER)
	}
}

func key() *ecdsa.PrivateKey {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(err)
	return k
}

func sign(c, by *x509.Certificate, k, byKey *ecdsa.PrivateKey) []byte {
	der, err := x509.CreateCertificate(rand.Reader, c, by, &k.PublicKey, byKey)
	check(err)
	return der
}

func write(dir, kind, name, typ string, der []byte) {
	check(os.MkdirAll(filepath.Join(dir, kind), 0o755))
	check(os.WriteFile(filepath.Join(dir, kind, name), pem.EncodeToMemory(&pem.Block{Type: typ, Bytes: der}), 0o644))
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

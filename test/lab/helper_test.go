//go:build e2e && linux

package lab

import (
	"crypto/x509"
	"os"
	"testing"
)

func pool(t *testing.T, path string) *x509.CertPool {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	p := x509.NewCertPool()
	if !p.AppendCertsFromPEM(b) {
		t.Fatal("no certificate in ", path)
	}
	return p
}

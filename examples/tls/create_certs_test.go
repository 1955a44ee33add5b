// Package tls is an example of certificates for mutual TLS; its test runs the
// script that makes them.
package tls

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
)

func create(t *testing.T, args ...string) (string, error) {
	t.Helper()
	for _, program := range []string{"bash", "openssl"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip("no ", program)
		}
	}
	out, err := exec.Command("bash", append([]string{"create-certs.sh"}, args...)...).CombinedOutput()
	return string(out), err
}

func load(t *testing.T, dir string) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	ca, err := os.ReadFile(filepath.Join(dir, "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		t.Fatal("no CA in ", dir)
	}
	return pair, pool
}

func TestCreateCerts(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "my certs")
	if out, err := create(t, dir, "build.test", "127.0.0.1", "::1"); err != nil {
		t.Fatal(err, out)
	}
	daemon, pool := load(t, filepath.Join(dir, "daemon"))
	client, _ := load(t, filepath.Join(dir, "client"))
	for _, name := range []string{"build.test", "127.0.0.1", "::1"} {
		if _, err := daemon.Leaf.Verify(x509.VerifyOptions{Roots: pool, DNSName: name}); err != nil {
			t.Errorf("the daemon's certificate for %s: %v", name, err)
		}
	}
	if _, err := daemon.Leaf.Verify(x509.VerifyOptions{Roots: pool, DNSName: "other.test"}); err == nil {
		t.Error("the daemon's certificate is good for any name")
	}
	asClient := []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	if _, err := client.Leaf.Verify(x509.VerifyOptions{Roots: pool, KeyUsages: asClient}); err != nil {
		t.Error("the client's certificate: ", err)
	}
	if _, err := daemon.Leaf.Verify(x509.VerifyOptions{Roots: pool, KeyUsages: asClient}); err == nil {
		t.Error("the daemon's certificate is good for a client")
	}
	if runtime.GOOS != "windows" {
		for _, key := range []string{"ca-key.pem", "daemon/key.pem", "client/key.pem"} {
			if fi, err := os.Stat(filepath.Join(dir, key)); err != nil || fi.Mode().Perm() != 0o600 {
				t.Errorf("%s: %v, %v", key, fi, err)
			}
		}
	}
}

func TestCreateCertsRefuses(t *testing.T) {
	dir := t.TempDir()
	before := []byte("mine")
	if err := os.WriteFile(filepath.Join(dir, "ca-key.pem"), before, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{}, {dir}, {dir, "localhost"}, {filepath.Join(dir, "new"), "two words"}} {
		if out, err := create(t, args...); err == nil {
			t.Errorf("%q: no error: %s", args, out)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
	if after, err := os.ReadFile(filepath.Join(dir, "ca-key.pem")); err != nil || string(after) != string(before) {
		t.Errorf("overwritten: %s, %v", after, err)
	}
}

package remote

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/berthbuild/berth/internal/buildkittest"
	"github.com/berthbuild/berth/internal/endpoint"
	"github.com/berthbuild/berth/internal/hint"
)

func write(t *testing.T, dir, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestCheckTLS(t *testing.T) {
	certs := buildkittest.TestCerts(t)
	dir := t.TempDir()
	ca, key := read(t, certs.CA.File), read(t, certs.Client.Key)
	block, _ := pem.Decode(ca)
	garbage := write(t, dir, "garbage", []byte("this is no PEM, s3cret"))
	encrypted := write(t, dir, "encrypted", pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte("x")}))
	legacy := write(t, dir, "legacy", pem.EncodeToMemory(&pem.Block{
		Type: "RSA PRIVATE KEY", Headers: map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "IDEA-CBC,00"}, Bytes: []byte("x"),
	}))
	damaged := write(t, dir, "damaged", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("not DER")}))
	badKey := write(t, dir, "badkey", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("not DER")}))
	half := write(t, dir, "half", ca[:len(ca)/2])
	second := write(t, dir, "second", append(bytes.Clone(ca), ca[:len(ca)/2]...))
	halfKey := write(t, dir, "halfkey", key[:len(key)/2])
	empty := write(t, dir, "empty", []byte("\n"))
	huge := write(t, dir, "huge", bytes.Repeat([]byte("x"), 10<<20))
	der := write(t, dir, "der", block.Bytes)
	both := write(t, dir, "both", append(bytes.Clone(key), read(t, certs.Client.Cert)...))
	client, other := certs.Client, certs.OtherClient
	tests := []struct {
		name    string
		options endpoint.Options
		want    string // in the error; "" is good
		hint    string
	}{
		{"none", endpoint.Options{}, "", ""},
		{"servername only", endpoint.Options{ServerName: "x"}, "", ""},
		{"all", endpoint.Options{CACert: certs.CA.File, Cert: client.Cert, Key: client.Key}, "", ""},
		{"expired is not looked at", endpoint.Options{Cert: certs.ExpiredClient.Cert, Key: certs.ExpiredClient.Key}, "", ""},
		{"one file with both", endpoint.Options{Cert: both, Key: both}, "", ""},
		{"missing", endpoint.Options{CACert: dir + "/none"}, "driver option cacert: " + dir + "/none: no such file", ""},
		{"directory", endpoint.Options{CACert: dir}, "driver option cacert: " + dir + ": is a directory", ""},
		{"device", endpoint.Options{CACert: os.DevNull}, "is not a regular file", ""},
		{"empty", endpoint.Options{CACert: empty}, "is empty", ""},
		{"huge", endpoint.Options{CACert: huge}, "is larger than 1 MiB", ""},
		{"garbage", endpoint.Options{CACert: garbage}, "holds no PEM certificate", ""},
		{"DER", endpoint.Options{CACert: der}, "looks like DER", "openssl x509"},
		{"truncated", endpoint.Options{CACert: half}, "truncated", ""},
		{"truncated after a good one", endpoint.Options{CACert: second}, "truncated", ""},
		{"damaged", endpoint.Options{CACert: damaged}, "damaged certificate", ""},
		{"key as CA", endpoint.Options{CACert: client.Key}, "holds a PRIVATE KEY, not a certificate", ""},
		{"cert: garbage", endpoint.Options{Cert: garbage, Key: client.Key}, "driver option cert: " + garbage, ""},
		{"key: missing", endpoint.Options{Cert: client.Cert, Key: dir + "/none"}, "driver option key: " + dir + "/none: no such file", ""},
		{"key: garbage", endpoint.Options{Cert: client.Cert, Key: garbage}, "driver option key: " + garbage + ": holds no PEM private key", ""},
		{"key: truncated", endpoint.Options{Cert: client.Cert, Key: halfKey}, "truncated", ""},
		{"key: damaged", endpoint.Options{Cert: client.Cert, Key: badKey}, "damaged or unknown", ""},
		{"key: a certificate", endpoint.Options{Cert: client.Cert, Key: client.Cert}, "holds a CERTIFICATE, not a private key", ""},
		{"key: encrypted, damaged", endpoint.Options{Cert: client.Cert, Key: encrypted}, "damaged encrypted key", ""},
		{"key: encrypted, old form", endpoint.Options{Cert: client.Cert, Key: legacy}, "cannot read (IDEA-CBC)", "openssl pkey -in " + legacy},
		{"key of another", endpoint.Options{Cert: client.Cert, Key: other.Key}, other.Key + " (driver option key) does not belong to the certificate in " + client.Cert, "openssl"},
		{"cert without key", endpoint.Options{Cert: client.Cert}, "belong together", ""},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			err := CheckTLS(tc.options)
			if tc.want == "" {
				if err != nil {
					t.Errorf("refused: %v", err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("error = %v, want %q in it", err, tc.want)
			}
			if strings.Contains(err.Error(), "s3cret") {
				t.Errorf("the file's content is in the error: %v", err)
			}
			if hints := strings.Join(hint.Of(err), "\n"); !strings.Contains(hints, tc.hint) {
				t.Errorf("hints = %q, want %q", hints, tc.hint)
			}
		})
	}
	if err := CheckTLS(endpoint.Options{CACert: dir + "/none"}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the chain is broken: %v", err)
	}
}

// TestNoPermission: as root everything can be read, so there it is not tested.
func TestNoPermission(t *testing.T) {
	path := write(t, t.TempDir(), "ca.pem", []byte("x"))
	if err := os.Chmod(path, 0); err != nil {
		t.Fatal(err)
	}
	if f, err := os.Open(path); err == nil {
		_ = f.Close()
		return
	}
	if err := CheckTLS(endpoint.Options{CACert: path}); !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), path) {
		t.Errorf("error = %v", err)
	}
}

func TestKindsOfKeys(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ed, err := x509.MarshalPKCS8PrivateKey(edKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{
		"RSA, PKCS 1":     {Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(rsaKey)},
		"Ed25519, PKCS 8": {Type: "PRIVATE KEY", Bytes: ed},
	} {
		params := pem.EncodeToMemory(&pem.Block{Type: "EC PARAMETERS", Bytes: []byte{6}})
		if _, err := parseKey(append(params, pem.EncodeToMemory(block)...)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestFilesAreReadAnew: a certificate that was rotated is used at once.
func TestFilesAreReadAnew(t *testing.T) {
	certs := buildkittest.TestCerts(t)
	dir := t.TempDir()
	ca := write(t, dir, "ca.pem", read(t, certs.OtherCA.File))
	s := buildkittest.New(t, buildkittest.Options{TLS: &buildkittest.TLS{Server: certs.Server}})
	tg := target(t, s.Endpoint(), "cacert", ca)
	_, err := Connect(t.Context(), tg, quick())
	wantFailure(t, err, TLSUntrusted, "unknown CA")
	write(t, dir, "ca.pem", read(t, certs.CA.File))
	mustConnect(t, tg, quick())
}

func FuzzPEM(f *testing.F) {
	dir := f.TempDir()
	certs, err := buildkittest.NewCerts(dir)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(read(f, certs.CA.File))
	f.Add(read(f, certs.Client.Key))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\n"))
	f.Add([]byte("\x30\x82"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		if cs, err := parseCerts(data); (err == nil) != (len(cs) > 0) {
			t.Errorf("%d certificates and error %v", len(cs), err)
		}
		if k, err := parseKey(data); (err == nil) != (k.signer != nil || k.unlock != nil) {
			t.Errorf("key %T and error %v", k, err)
		}
	})
}

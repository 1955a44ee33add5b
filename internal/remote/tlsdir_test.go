package remote

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/berthbuild/berth/internal/buildkittest"
	"github.com/berthbuild/berth/internal/endpoint"
	"github.com/berthbuild/berth/internal/hint"
)

// folder makes one with the files of content by name.
func folder(t *testing.T, content map[string][]byte) string {
	t.Helper()
	dir := t.TempDir()
	for name, data := range content {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, dir, name, data)
	}
	return dir
}

func TestTLSDir(t *testing.T) {
	certs := buildkittest.TestCerts(t)
	ca, cert, key := read(t, certs.CA.File), read(t, certs.Client.Cert), read(t, certs.Client.Key)
	none := []byte(nil)
	for _, tc := range []struct {
		name   string
		files  map[string][]byte
		system bool
		finds  string // the certificate's path, or the CA's, within the folder
		says   string // the error
		hint   string
	}{
		{name: "pem", files: map[string][]byte{"ca.pem": ca, "cert.pem": cert, "key.pem": key}, finds: "cert.pem"},
		{name: "Kubernetes", files: map[string][]byte{"ca.crt": ca, "tls.crt": cert, "tls.key": key}, finds: "tls.crt"},
		{name: "client", files: map[string][]byte{"client/ca.pem": ca, "client/cert.pem": cert, "client/key.pem": key, "daemon/cert.pem": none}, finds: "client/cert.pem"},
		{name: "client, with a CA above", files: map[string][]byte{"ca.pem": ca, "ca-key.pem": none, "client/ca.pem": ca, "client/cert.pem": cert, "client/key.pem": key}, finds: "client/cert.pem"},
		{name: "its own before client's", files: map[string][]byte{"ca.pem": ca, "cert.pem": cert, "key.pem": key, "client/cert.pem": none}, finds: "cert.pem"},
		{name: "CA only", files: map[string][]byte{"ca.crt": ca}, finds: "ca.crt"},
		{name: "CA only, empty client", files: map[string][]byte{"ca.pem": ca, "client/x": none}, finds: "ca.pem"},
		{name: "no CA, system's", files: map[string][]byte{"tls.crt": cert, "tls.key": key}, system: true, finds: "tls.crt"},

		{name: "no CA", files: map[string][]byte{"tls.crt": cert, "tls.key": key}, says: "has DIR/tls.crt but no ca.crt", hint: "ca=system"},
		{name: "no key", files: map[string][]byte{"ca.pem": ca, "cert.pem": cert}, says: "has DIR/cert.pem but no key.pem"},
		{name: "no certificate", files: map[string][]byte{"client/ca.pem": ca, "client/key.pem": key}, says: "has DIR/client/key.pem but no cert.pem"},
		{name: "two layouts", files: map[string][]byte{"ca.pem": ca, "cert.pem": cert, "key.pem": key, "tls.crt": cert}, says: "ambiguous: DIR has files of two layouts, such as ca.pem and tls.crt", hint: "cacert="},
		{name: "nothing", files: map[string][]byte{"x": none}, says: "has neither ca.pem, cert.pem and key.pem nor ca.crt"},
		{name: "the daemon's only", files: map[string][]byte{"daemon/cert.pem": cert}, says: "has neither", hint: "none for a client's"},
		{name: "empty certificate", files: map[string][]byte{"ca.pem": ca, "cert.pem": {}, "key.pem": key}, says: "DIR/cert.pem: is empty"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := folder(t, tc.files)
			f, err := ReadTLS(t.Context(), endpoint.Options{TLSDir: dir, SystemCA: tc.system}, nil)
			if tc.says != "" {
				want := strings.ReplaceAll(tc.says, "DIR", dir)
				if err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "driver option tlsdir: "+dir) {
					t.Errorf("error = %v, want %q", err, want)
				}
				if tips := strings.Join(hint.Of(err), "\n"); !strings.Contains(tips, tc.hint) {
					t.Errorf("hints %q, want %q", tips, tc.hint)
				}
				return
			}
			got := f.CertFrom
			if got == "" {
				got = f.CAFrom
			}
			if err != nil || got != filepath.Join(dir, tc.finds) || f.SystemCAs != tc.system {
				t.Errorf("%+v, %v", f, err)
			}
		})
	}
	file := write(t, t.TempDir(), "file", ca)
	for path, says := range map[string]string{file: "is not a folder", file + "-none": "no such file"} {
		if err := CheckTLS(endpoint.Options{TLSDir: path}); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestInlineAndVariables(t *testing.T) {
	certs := buildkittest.TestCerts(t)
	s := buildkittest.New(t, buildkittest.Options{TLS: &buildkittest.TLS{Server: certs.Server, ClientCA: certs.CA.File}})
	vars := map[string]string{
		endpoint.EnvCACertPEM: string(read(t, certs.CA.File)),
		endpoint.EnvCertPEM:   strings.ReplaceAll(string(read(t, certs.Client.Cert)), "\n", `\n`),
		endpoint.EnvKeyPEM:    string(read(t, certs.Client.Key)),
	}
	from := func() endpoint.Options {
		t.Helper()
		o, err := endpoint.TLSFromEnv(func(name string) string { return vars[name] })
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	tg := target(t, s.Endpoint())
	tg.Options = tg.Options.WithTLSFrom(from())
	mustConnect(t, tg, quick())

	vars[endpoint.EnvKeyPEM] = string(read(t, certs.OtherClient.Key))
	tg.Options = from()
	_, err := Connect(t.Context(), tg, quick())
	wantFailure(t, err, BadConfig, "the key in BERTH_TLS_KEY_PEM does not belong to the certificate in BERTH_TLS_CERT_PEM")

	vars[endpoint.EnvKeyPEM] = "-----BEGIN PRIVATE KEY-----\nczNjcmV0\n-----END PRIVATE KEY-----"
	tg.Options = from()
	_, err = Connect(t.Context(), tg, quick())
	if f := wantFailure(t, err, BadConfig, "BERTH_TLS_KEY_PEM: holds a damaged"); f != nil && strings.Contains(f.Error(), "s3cret") {
		t.Error(f)
	}

	vars = map[string]string{endpoint.EnvCACert: certs.OtherCA.File}
	tg.Options = from()
	_, err = Connect(t.Context(), tg, quick())
	wantFailure(t, err, TLSUntrusted, "unknown CA (CN=ca)")
	if tips := strings.Join(hint.Of(err), "\n"); !strings.Contains(tips, "export BERTH_TLS_CACERT=CA.pem") || !strings.Contains(tips, certs.OtherCA.File) {
		t.Errorf("hints %q", tips)
	}
}

// TestHalfReplaced: who renews certificates replaces one file after the other.
func TestHalfReplaced(t *testing.T) {
	certs := buildkittest.TestCerts(t)
	renewed, err := certs.CA.Issue("renewed", buildkittest.Leaf{Client: true})
	if err != nil {
		t.Fatal(err)
	}
	s := buildkittest.New(t, buildkittest.Options{TLS: &buildkittest.TLS{Server: certs.Server, ClientCA: certs.CA.File}})
	dir := folder(t, map[string][]byte{"ca.pem": read(t, certs.CA.File), "cert.pem": read(t, certs.Client.Cert), "key.pem": read(t, certs.Client.Key)})
	tg := target(t, s.Endpoint(), "tlsdir", dir)
	mustConnect(t, tg, quick())

	for name, half := range map[string][]byte{
		"mismatch":  read(t, renewed.Cert),
		"truncated": read(t, renewed.Cert)[:100],
		"empty":     {},
	} {
		write(t, dir, "cert.pem", half)
		waited := 0
		_, err := settle(func() (TLSFiles, error) { return readTLS(tg.Options, nil) }, func() bool {
			replace(t, filepath.Join(dir, "cert.pem"), read(t, renewed.Cert))
			if waited++; waited > 1 {
				replace(t, filepath.Join(dir, "key.pem"), read(t, renewed.Key))
			}
			return waited < 5
		})
		if err != nil || waited != 2 {
			t.Errorf("%s: %v after %d readings", name, err, waited)
		}
		replace(t, filepath.Join(dir, "cert.pem"), read(t, certs.Client.Cert))
		replace(t, filepath.Join(dir, "key.pem"), read(t, certs.Client.Key))
	}
	mustConnect(t, tg, quick())
}

// replace writes a file as those who renew certificates should.
func replace(t *testing.T, path string, data []byte) {
	if err := os.WriteFile(path+".new", data, 0o600); err != nil {
		t.Error(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Error(err)
	}
}

package remote

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/berthbuild/berth/internal/buildkittest"
	"github.com/berthbuild/berth/internal/dial"
	"github.com/berthbuild/berth/internal/dial/schemes"
	"github.com/berthbuild/berth/internal/endpoint"
	"github.com/berthbuild/berth/internal/hint"
)

// The files of testdata/keys are one key, written by openssl in all its ways.
func TestEncryptedKeys(t *testing.T) {
	block, _ := pem.Decode(read(t, "testdata/keys/public.pem"))
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("testdata/keys/[^u]*-*.pem")
	if err != nil || len(files) != 10 {
		t.Fatalf("%q, %v", files, err)
	}
	for _, file := range append(files, "testdata/keys/scrypt.pem") {
		k, err := parseKey(read(t, file))
		if err != nil || k.signer != nil {
			t.Errorf("%s: %+v, %v", file, k, err)
			continue
		}
		signer, err := k.unlock([]byte("correct horse"))
		if err != nil || !public.(interface{ Equal(crypto.PublicKey) bool }).Equal(signer.Public()) {
			t.Errorf("%s: %v", file, err)
		}
		for _, wrong := range []string{"", "correct hors", "correct horse\n", "x"} {
			if _, err := k.unlock([]byte(wrong)); !errors.Is(err, errPassphrase) {
				t.Errorf("%s with %q: %v", file, wrong, err)
			}
		}
	}
	unknown, err := filepath.Glob("testdata/keys/unknown-*.pem")
	if err != nil || len(unknown) != 2 {
		t.Fatalf("%q, %v", unknown, err)
	}
	for _, file := range unknown {
		if _, err := parseKey(read(t, file)); !errors.Is(err, errCipher) {
			t.Errorf("%s: %v", file, err)
		}
	}
}

// encrypt writes p's key encrypted with the passphrase "correct horse".
func encrypt(t *testing.T, p buildkittest.Pair, dir string) buildkittest.Pair {
	t.Helper()
	block, _ := pem.Decode(read(t, p.Key))
	sealed, err := x509.EncryptPEMBlock(nil2rand{}, "EC PRIVATE KEY", block.Bytes, []byte("correct horse"), x509.PEMCipherAES256) //nolint:staticcheck // there are such files
	if err != nil {
		t.Fatal(err)
	}
	return buildkittest.Pair{Cert: p.Cert, Key: write(t, dir, "locked-key.pem", pem.EncodeToMemory(sealed))}
}

// nil2rand is a source of what need not be random.
type nil2rand struct{}

func (nil2rand) Read(p []byte) (int, error) { return len(p), nil }

// world is what schemes know in a test.
type world struct {
	mu     sync.Mutex
	vars   map[string]string
	typed  []string // answers, in turn
	asked  []string
	warned []string
}

func (w *world) env(terminal bool) dial.Env {
	e := dial.Env{
		LookupEnv: func(name string) (string, bool) { v, ok := w.vars[name]; return v, ok },
		Warn: func(text string) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.warned = append(w.warned, text)
		},
	}
	if terminal {
		e.Ask = func(_ context.Context, question string) (string, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.asked = append(w.asked, question)
			if len(w.typed) == 0 {
				return "", nil
			}
			a := w.typed[0]
			w.typed = w.typed[1:]
			return a, nil
		}
	}
	return e
}

func TestPassphrase(t *testing.T) {
	certs := buildkittest.TestCerts(t)
	dir := t.TempDir()
	locked := encrypt(t, certs.Client, dir)
	s := buildkittest.New(t, buildkittest.Options{TLS: &buildkittest.TLS{Server: certs.Server, ClientCA: certs.CA.File}})
	tg := target(t, s.Endpoint(), "cacert", certs.CA.File, "cert", locked.Cert, "key", locked.Key)
	config := func(w *world, terminal bool) Config {
		c := quick()
		c.Schemes = schemes.All(w.env(terminal))
		return c
	}

	t.Run("asked once", func(t *testing.T) {
		w := &world{typed: []string{"wrong", "correct horse"}}
		c := config(w, true)
		mustConnect(t, tg, c)
		mustConnect(t, tg, c)
		if len(w.asked) != 2 || !strings.Contains(w.asked[1], "That is not it") || !strings.Contains(w.asked[0], locked.Key) {
			t.Errorf("asked %q", w.asked)
		}
	})
	t.Run("from a file", func(t *testing.T) {
		w := &world{vars: map[string]string{dial.EnvPassphraseFile: write(t, dir, "phrase", []byte("correct horse\r\n"))}}
		mustConnect(t, tg, config(w, true))
		if len(w.asked) != 0 {
			t.Errorf("asked %q", w.asked)
		}
	})
	for _, tc := range []struct {
		name, file string
		terminal   bool
		class      Class
		text, hint string
	}{
		{"nobody there", "", false, dial.KeyLocked, locked.Key + ": the key is encrypted, and nobody was asked", dial.EnvPassphraseFile},
		{"nobody answers", "", true, dial.KeyLocked, "was not given", ""},
		{"wrong in the file", "hunter2", true, BadConfig, "(" + dial.EnvPassphraseFile + ") does not open it", "quotes"},
		{"two lines in the file", "correct\nhunter2", true, BadConfig, "more than one line", ""},
		{"empty file", "\n", true, BadConfig, "is empty", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := &world{vars: map[string]string{}}
			if tc.file != "" {
				w.vars[dial.EnvPassphraseFile] = write(t, dir, "phrase-"+strings.ReplaceAll(tc.name, " ", "-"), []byte(tc.file))
			}
			_, err := Connect(t.Context(), tg, config(w, tc.terminal))
			f := wantFailure(t, err, tc.class, tc.text)
			if f == nil || f.Heals || strings.Contains(err.Error()+strings.Join(w.asked, ""), "hunter2") {
				t.Errorf("%v", err)
			}
			if !strings.Contains(strings.Join(hint.Of(err), "\n"), tc.hint) {
				t.Errorf("hints %q", hint.Of(err))
			}
		})
	}
	t.Run("missing file", func(t *testing.T) {
		w := &world{vars: map[string]string{dial.EnvPassphraseFile: filepath.Join(dir, "none")}}
		_, err := Connect(t.Context(), tg, config(w, true))
		wantFailure(t, err, BadConfig, dial.EnvPassphraseFile+": "+filepath.Join(dir, "none")+": no such file")
	})
	t.Run("create does not ask", func(t *testing.T) {
		if err := CheckTLS(tg.Options); err != nil {
			t.Error(err)
		}
		f, err := ReadTLS(t.Context(), tg.Options, nil)
		if err != nil || !f.KeyLocked || len(f.Chain) != 1 {
			t.Errorf("%+v, %v", f, err)
		}
	})
}

func TestOpenKeyIsWarnedAbout(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no such modes")
	}
	certs := buildkittest.TestCerts(t)
	s := buildkittest.New(t, buildkittest.Options{TLS: &buildkittest.TLS{Server: certs.Server, ClientCA: certs.CA.File}})
	w := &world{}
	c := quick()
	c.Schemes = schemes.All(w.env(false))
	mustConnect(t, target(t, s.Endpoint(), mutual(certs)...), c)
	if len(w.warned) != 0 {
		t.Errorf("warned about mode 0600: %q", w.warned)
	}
	if err := os.Chmod(certs.Client.Key, 0o640); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		mustConnect(t, target(t, s.Endpoint(), mutual(certs)...), c)
	}
	if len(w.warned) != 1 || !strings.Contains(w.warned[0], "chmod 600 "+certs.Client.Key) || !strings.Contains(w.warned[0], "0640") {
		t.Errorf("warned %q", w.warned)
	}
	// A Secret's volume: chmod would be refused there.
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "..data"), 0o700); err != nil {
		t.Fatal(err)
	}
	data := write(t, filepath.Join(dir, "..data"), "tls.key", read(t, certs.Client.Key))
	if err := os.Chmod(data, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join("..data", "tls.key"), filepath.Join(dir, "tls.key")); err != nil {
		t.Fatal(err)
	}
	o := endpoint.Options{Cert: certs.Client.Cert, Key: filepath.Join(dir, "tls.key")}
	scheme, _ := c.Schemes.Lookup("tcp")
	if _, err := ReadTLS(t.Context(), o, scheme.Keys); err != nil {
		t.Fatal(err)
	}
	if len(w.warned) != 2 || !strings.Contains(w.warned[1], "defaultMode") {
		t.Errorf("warned %q", w.warned)
	}
}

func FuzzEncryptedKey(f *testing.F) {
	for _, name := range []string{"scrypt", "pbkdf2-aes-256-cbc", "pbkdf2-des3", "unknown-pbes1"} {
		block, _ := pem.Decode(read(f, "testdata/keys/"+name+".pem"))
		f.Add(block.Bytes)
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		k, err := parsePBES2(der)
		if err == nil && (k.derive == nil || len(k.data) == 0) {
			t.Fatalf("%+v", k)
		}
	})
}

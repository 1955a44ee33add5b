package certs

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/berthbuild/berth/internal/atomicfile"
	"github.com/berthbuild/berth/internal/hint"
	"sigs.k8s.io/yaml"
)

// The layout is that of BuildKit's create-certs.sh, with the CA beside it.
func TestLayoutAndModes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "sub", "my certs")
	mustCreate(t, CreateOptions{Dir: dir, Names: []string{"build.test", "127.0.0.1", "build.test"}, Kubernetes: true})
	want := []string{
		"./", "SAN", "buildkit-client-certs.yaml", "buildkit-daemon-certs.yaml",
		"ca/", "ca/cert.pem", "ca/key.pem",
		"client/", "client/ca.pem", "client/cert.pem", "client/key.pem",
		"daemon/", "daemon/ca.pem", "daemon/cert.pem", "daemon/key.pem",
	}
	files := tree(t, dir)
	if got := slices.Sorted(maps.Keys(files)); !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
	if files["SAN"] != "build.test\n127.0.0.1\n" {
		t.Errorf("SAN: %q", files["SAN"])
	}
	if files["daemon/ca.pem"] != files["ca/cert.pem"] || files["client/ca.pem"] != files["ca/cert.pem"] {
		t.Error("the CA differs between the folders")
	}
	for name, text := range files {
		if strings.HasSuffix(name, "key.pem") != strings.Contains(text, "PRIVATE KEY") && !strings.HasSuffix(name, "/") {
			t.Errorf("%s: a key where none belongs, or none: %q", name, text)
		}
		if runtime.GOOS == "windows" {
			continue
		}
		fi, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		mode := fs.FileMode(publicMode)
		switch {
		case fi.IsDir():
			mode = dirMode
		case strings.HasSuffix(name, "key.pem"), strings.HasSuffix(name, ".yaml"):
			mode = secretMode
		}
		if fi.Mode().Perm() != mode {
			t.Errorf("%s has mode %04o, want %04o", name, fi.Mode().Perm(), mode)
		}
	}
}

func TestWhatIsInTheCertificates(t *testing.T) {
	for _, kind := range []KeyType{ECDSA, Ed25519, RSA} {
		t.Run(string(kind), func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), DefaultDir)
			at := now()
			mustCreate(t, CreateOptions{Dir: dir, Names: []string{"Build.Test.", "*.build.test", "10.1.2.3", "::1"}, Client: "ci", Days: 30, KeyType: kind, Now: at})
			ca, daemon, client := cert(t, dir, "ca/cert.pem"), cert(t, dir, "daemon/cert.pem"), cert(t, dir, "client/cert.pem")
			if !ca.IsCA || ca.MaxPathLen != 0 || !ca.MaxPathLenZero || ca.KeyUsage != x509.KeyUsageCertSign|x509.KeyUsageCRLSign || len(ca.ExtKeyUsage) != 0 {
				t.Errorf("CA: IsCA %v, path length %d, usage %b, %v", ca.IsCA, ca.MaxPathLen, ca.KeyUsage, ca.ExtKeyUsage)
			}
			if !slices.Equal(daemon.DNSNames, []string{"build.test", "*.build.test"}) || len(daemon.IPAddresses) != 2 || daemon.IPAddresses[0].String() != "10.1.2.3" || daemon.IPAddresses[1].String() != "::1" {
				t.Errorf("daemon's names: %q %v", daemon.DNSNames, daemon.IPAddresses)
			}
			if client.Subject.CommonName != "ci" || len(namesIn(client)) != 0 {
				t.Errorf("client: %v, %q", client.Subject, namesIn(client))
			}
			serials := map[string]bool{}
			for _, c := range []*x509.Certificate{ca, daemon, client} {
				serials[c.SerialNumber.String()] = true
				if bits := c.SerialNumber.BitLen(); bits < 90 || bits > 128 {
					t.Errorf("a serial of %d bits", bits)
				}
				if len(c.SubjectKeyId) != 20 || !c.BasicConstraintsValid {
					t.Errorf("%v: key id %x", c.Subject, c.SubjectKeyId)
				}
				if skew := at.Sub(c.NotBefore); skew < backdate || skew > backdate+time.Second {
					t.Errorf("%v begins %v ago", c.Subject, skew)
				}
			}
			if len(serials) != 3 {
				t.Errorf("serials are used twice: %v", serials)
			}
			for c, use := range map[*x509.Certificate]x509.ExtKeyUsage{daemon: x509.ExtKeyUsageServerAuth, client: x509.ExtKeyUsageClientAuth} {
				if !slices.Equal(c.ExtKeyUsage, []x509.ExtKeyUsage{use}) || c.KeyUsage != x509.KeyUsageDigitalSignature || c.IsCA {
					t.Errorf("%v: %v, usage %b", c.Subject, c.ExtKeyUsage, c.KeyUsage)
				}
				if !bytes.Equal(c.AuthorityKeyId, ca.SubjectKeyId) {
					t.Errorf("%v: the CA's key id is %x, not %x", c.Subject, c.AuthorityKeyId, ca.SubjectKeyId)
				}
				if days := c.NotAfter.Sub(at).Hours() / 24; days < 29.9 || days > 30 {
					t.Errorf("%v lives %.2f days", c.Subject, days)
				}
			}
			if err := shake(t, filepath.Join(dir, "daemon"), filepath.Join(dir, "client"), "sub.build.test", at); err != nil {
				t.Error(err)
			}
			key, err := ParseKey([]byte(readFile(t, dir, "daemon/key.pem")))
			if err != nil || kindOf(key) != kind {
				t.Errorf("the key is %T, %v", key, err)
			}
		})
	}
}

// Both sides take each other and nobody else.
func TestHandshakes(t *testing.T) {
	dir, other := made(t, "build.test", "127.0.0.1"), made(t, "build.test")
	at := func(elem ...string) string { return filepath.Join(elem...) }
	for _, c := range []struct {
		name, daemon, client, host string
		when                       time.Duration
		refused                    string // by whom; empty: it works
	}{
		{name: "name", host: "build.test"},
		{name: "address", host: "127.0.0.1"},
		{name: "other name", host: "other.test", refused: "the client"},
		{name: "other daemon", daemon: at(other, "daemon"), host: "build.test", refused: "the client"},
		{name: "daemon shows a client's", daemon: at(dir, "client"), host: "client", refused: "the client"},
		{name: "client shows the daemon's", client: at(dir, "daemon"), host: "build.test", refused: "the daemon"},
		{name: "a peer's clock is behind", host: "build.test", when: -backdate + time.Minute},
		{name: "yesterday", host: "build.test", when: -day, refused: "the"},
		{name: "too late", host: "build.test", when: (DefaultDays + 1) * day, refused: "the"},
	} {
		t.Run(c.name, func(t *testing.T) {
			daemon, client := at(dir, "daemon"), at(dir, "client")
			if c.daemon != "" {
				daemon = c.daemon
			}
			if c.client != "" {
				client = c.client
			}
			err := shake(t, daemon, client, c.host, now().Add(c.when))
			if (err != nil) != (c.refused != "") || err != nil && !strings.HasPrefix(err.Error(), c.refused) {
				t.Errorf("got %v, wanted a refusal by %q", err, c.refused)
			}
		})
	}
	// A daemon that trusts the CA of dir refuses a client of another one.
	mixed := t.TempDir()
	for _, f := range []string{certFile, keyFile} {
		writeFile(t, at(mixed, f), readFile(t, other, "client", f))
	}
	writeFile(t, at(mixed, caFile), readFile(t, dir, "client", caFile))
	if err := shake(t, at(dir, "daemon"), mixed, "build.test", now()); err == nil || !strings.HasPrefix(err.Error(), "the daemon") {
		t.Errorf("a client of another CA: %v", err)
	}
}

func TestSecrets(t *testing.T) {
	dir := filepath.Join(t.TempDir(), DefaultDir)
	mustCreate(t, CreateOptions{Dir: dir, Names: []string{"build.test"}, Kubernetes: true})
	for _, folder := range []string{"daemon", "client"} {
		var got struct {
			APIVersion, Kind string
			Metadata         struct{ Name string }
			Data             map[string]string
		}
		if err := yaml.UnmarshalStrict([]byte(readFile(t, dir, "buildkit-"+folder+"-certs.yaml")), &got); err != nil {
			t.Fatal(err)
		}
		if got.APIVersion != "v1" || got.Kind != "Secret" || got.Metadata.Name != "buildkit-"+folder+"-certs" || len(got.Data) != 3 {
			t.Errorf("%s: %+v", folder, got)
		}
		for _, f := range []string{"ca.pem", "cert.pem", "key.pem"} {
			text, err := base64.StdEncoding.DecodeString(got.Data[f])
			if err != nil || string(text) != readFile(t, dir, folder, f) {
				t.Errorf("%s: %s: %q, %v", folder, f, text, err)
			}
		}
	}
}

func TestNothingIsOverwritten(t *testing.T) {
	dir := made(t, "build.test")
	before := tree(t, dir)
	_, err := Create(CreateOptions{Dir: dir, Names: []string{"other.test"}, Days: 1, Now: now()})
	if err == nil || !strings.Contains(err.Error(), "there already, and 8 more") || len(hint.Of(err)) == 0 {
		t.Errorf("got %v", err)
	}
	if after := tree(t, dir); !maps.Equal(before, after) {
		t.Error("something changed")
	}
	// One file of the layout is enough.
	lone := t.TempDir()
	writeFile(t, filepath.Join(lone, "SAN"), "mine")
	if _, err := Create(CreateOptions{Dir: lone, Names: []string{"other.test"}, Days: 1, Now: now()}); err == nil {
		t.Error("SAN was overwritten")
	}
	if got := slices.Sorted(maps.Keys(tree(t, lone))); len(got) != 2 {
		t.Errorf("left behind: %q", got)
	}
	mustCreate(t, CreateOptions{Dir: dir, Names: []string{"other.test"}, Force: true})
	after := tree(t, dir)
	for name, text := range after {
		if text == before[name] && !strings.HasSuffix(name, "/") {
			t.Errorf("--force left %s as it was", name)
		}
	}
	if len(after) != len(before) {
		t.Errorf("files: %d, before %d", len(after), len(before))
	}
}

// --force replaces files, and never what is something else.
func TestObstacles(t *testing.T) {
	for _, c := range []struct{ name, folder, file string }{
		{"a folder for a file", "daemon/cert.pem", ""},
		{"a file for a folder", "", "daemon"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			if c.folder != "" {
				if err := os.MkdirAll(filepath.Join(dir, c.folder), 0o755); err != nil {
					t.Fatal(err)
				}
			} else {
				writeFile(t, filepath.Join(dir, c.file), "mine")
			}
			before := tree(t, dir)
			if _, err := Create(CreateOptions{Dir: dir, Names: []string{"x"}, Days: 1, Now: now(), Force: true}); err == nil {
				t.Error("no error")
			}
			if after := tree(t, dir); !maps.Equal(before, after) {
				t.Errorf("left: %q", slices.Sorted(maps.Keys(after)))
			}
		})
	}
}

// A write that fails leaves everything as it was, whichever file it is.
func TestInterruptedWrite(t *testing.T) {
	broken := errors.New("the disk is gone")
	for _, fresh := range []bool{true, false} {
		for n := range 5 {
			t.Run(fmt.Sprint(fresh, n), func(t *testing.T) {
				dir := t.TempDir()
				target := filepath.Join(dir, "a", "b")
				if !fresh {
					if err := os.MkdirAll(filepath.Join(target, "d2"), 0o755); err != nil {
						t.Fatal(err)
					}
					for _, f := range []string{"f0", "f1", "d2/f2"} {
						writeFile(t, filepath.Join(target, f), "old "+f)
					}
				}
				before := tree(t, dir)
				p := &plan{}
				for _, f := range []string{"f0", "f1", "d2/f2", "d3/f3", "d4/f4"} {
					p.add(filepath.Join(target, f), []byte("new "+f), secretMode)
				}
				count := 0
				p.commit = func(f *atomicfile.File) error {
					if count++; count > n {
						return errors.Join(broken, f.Abort())
					}
					return f.Commit()
				}
				if err := p.apply(); !errors.Is(err, broken) {
					t.Fatalf("got %v", err)
				}
				if after := tree(t, dir); !maps.Equal(before, after) {
					t.Errorf("before %q\nafter %q", before, after)
				}
				p.commit = nil
				if err := p.apply(); err != nil {
					t.Fatal(err)
				}
				if got := readFile(t, target, "d4/f4"); got != "new d4/f4" {
					t.Errorf("after all: %q", got)
				}
			})
		}
	}
}

func TestCreateRefuses(t *testing.T) {
	for _, c := range []struct {
		name string
		o    CreateOptions
		want string
	}{
		{"no name", CreateOptions{Days: 1}, "no name"},
		{"bad name", CreateOptions{Days: 1, Names: []string{"ok", "tcp://build:1234"}}, `"tcp://build:1234"`},
		{"bad client", CreateOptions{Days: 1, Names: []string{"x"}, Client: "../x"}, "../x"},
		{"no days", CreateOptions{Names: []string{"x"}}, "--days 0"},
		{"too many days", CreateOptions{Names: []string{"x"}, Days: MaxDays + 1}, "--days 3651"},
		{"hostile folder", CreateOptions{Names: []string{"x"}, Days: 1, Dir: "a\nb"}, "control character"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.o.Now = now()
			c.o.Dir = filepath.Join(t.TempDir(), "certs"+c.o.Dir)
			if _, err := Create(c.o); err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v", err)
			}
			if exists(c.o.Dir) {
				t.Error("the folder was made")
			}
		})
	}
}

// BenchmarkCreate is the work of `berth certs create`: three keys, three
// signatures, nine files flushed to the disk.
func BenchmarkCreate(b *testing.B) {
	base := b.TempDir()
	for i := 0; b.Loop(); i++ {
		if _, err := Create(CreateOptions{Dir: filepath.Join(base, fmt.Sprint(i)), Names: []string{"build.test"}, Days: 1, Now: time.Now()}); err != nil {
			b.Fatal(err)
		}
	}
}

// What ForKubernetes reads is what Create wrote, for a Secret of any name.
func TestForKubernetes(t *testing.T) {
	dir := t.TempDir()
	if _, err := Create(CreateOptions{Dir: dir, Names: []string{"10.0.0.1", "b.example"}, Days: 10, KeyType: ECDSA, Kubernetes: true, Now: now()}); err != nil {
		t.Fatal(err)
	}
	daemon, client, err := ForKubernetes(dir, now())
	if err != nil || !slices.Equal(daemon.Names, []string{"10.0.0.1", "b.example"}) {
		t.Fatalf("%v, %v", daemon.Names, err)
	}
	for _, b := range []Bundle{daemon, client} {
		file, err := os.ReadFile(filepath.Join(dir, secretName(b.Folder)+".yaml"))
		if got := string(b.Secret(secretName(b.Folder), "build")); err != nil || got != string(file)+"  namespace: \"build\"\n" {
			t.Errorf("%s: %s, %v", b.Folder, got, err)
		}
	}
	if _, _, err := ForKubernetes(dir, now().Add(20*day)); err == nil || !strings.Contains(err.Error(), "daemon: certificate expired on") {
		t.Errorf("expired: %v", err)
	}
	if err := os.RemoveAll(filepath.Join(dir, clientDir)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := ForKubernetes(dir, now()); err == nil || !strings.Contains(err.Error(), "has not both daemon and client") {
		t.Errorf("half: %v", err)
	}
}

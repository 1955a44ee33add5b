package builder

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/berthbuild/berth/internal/builderfile"
	"github.com/berthbuild/berth/internal/buildkittest"
	"github.com/berthbuild/berth/internal/state"
)

func sha256Of(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// certsIn copies a client's certificates into a folder, by the names of tlsdir.
func certsIn(t *testing.T, dir string) {
	t.Helper()
	certs := buildkittest.TestCerts(t)
	for name, from := range map[string]string{"ca.pem": certs.CA.File, "cert.pem": certs.Client.Cert, "key.pem": certs.Client.Key} {
		data, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, name), string(data))
	}
}

// travel exports a builder, prints it for dir, and reads that again.
func travel(t *testing.T, s *Service, name, dir string, embed bool) (builderfile.File, string) {
	t.Helper()
	def, left, err := s.Export(find(t, s, name), embed)
	if err != nil {
		t.Fatal(err)
	}
	text, err := builderfile.Print(builderfile.File{Builders: []builderfile.Builder{def}}, dir, "")
	if err != nil {
		t.Fatal(err)
	}
	f, err := builderfile.Parse(text, builderfile.Place{File: "travels.yaml", Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	return f, string(text) + strings.Join(left, "\n")
}

func TestTravel(t *testing.T) {
	s, state := service(t)
	dir := t.TempDir()
	certsIn(t, filepath.Join(dir, "certs"))
	opts := func(kv string) []string { return []string{strings.ReplaceAll(kv, "DIR", dir)} }
	create(t, s,
		CreateOptions{Name: "b", Endpoint: "tcp://h:1", DriverOpts: opts("cacert=DIR/certs/ca.pem,cert=DIR/certs/cert.pem,key=DIR/certs/key.pem,default-load=true"), Platforms: plats("linux/amd64")},
		CreateOptions{Name: "b", Append: true, Node: "other", Endpoint: "tcp://h:2", DriverOpts: opts("tlsdir=DIR/certs,connect-timeout=1m")},
		CreateOptions{Name: "b", Append: true, Endpoint: "unix:///run/b.sock"},
	)
	before := files(t, state)[filepath.Join(state, "instances", "b")]
	f, text := travel(t, s, "b", dir, false)
	for _, want := range []string{"cacert: certs/ca.pem", "tlsdir: certs\n", "platforms: [linux/amd64]", "name: other"} {
		if !strings.Contains(text, want) {
			t.Errorf("lacks %q:\n%s", want, text)
		}
	}
	if strings.Contains(text, "BEGIN") || strings.Contains(text, dir) {
		t.Errorf("keys, or absolute paths:\n%s", text)
	}
	// The same daemons in a file hide nothing.
	s.Definition = func() (*Definition, error) {
		return &Definition{Path: filepath.Join(dir, builderfile.Name), File: f}, nil
	}
	s.Note = func(text string) { t.Errorf("noted: %s", text) }
	find(t, s, "b")
	s.Definition = nil
	// What is there just so stays; another of the name is in the way.
	names, err := s.Import(t.Context(), f, ImportOptions{Dir: dir})
	if err != nil || len(names) != 1 {
		t.Fatal(names, err)
	}
	other := f.Builders[0]
	other.Nodes = other.Nodes[:1]
	if _, err := s.Import(t.Context(), builderfile.File{Builders: []builderfile.Builder{other}}, ImportOptions{Dir: dir}); err == nil || !strings.Contains(err.Error(), "another one") {
		t.Errorf("%v", err)
	}
	if err := s.Remove(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Import(t.Context(), f, ImportOptions{Dir: dir, Use: true}); err != nil {
		t.Fatal(err)
	}
	if after := files(t, state)[filepath.Join(state, "instances", "b")]; after != before {
		t.Errorf("before %s\nafter  %s", before, after)
	}
	if b := find(t, s, ""); b.Name != "b" || b.LastActivity.IsZero() {
		t.Errorf("%+v", b)
	}
}

func TestTravelWithCertificates(t *testing.T) {
	s, dir := service(t)
	certs := t.TempDir()
	certsIn(t, certs)
	create(t, s, CreateOptions{Name: "b", Endpoint: "tcp://h:1", DriverOpts: []string{"tlsdir=" + certs + ",ca=system"}})
	f, text := travel(t, s, "b", certs, true)
	if !strings.Contains(text, "BEGIN CERTIFICATE") || !strings.Contains(text, "PRIVATE KEY") || strings.Contains(text, "tlsdir") {
		t.Errorf("%s", text)
	}
	if err := os.RemoveAll(certs); err != nil {
		t.Fatal(err)
	}
	f.Builders[0].Name = "c"
	for range 2 { // the second changes nothing
		if _, err := s.Import(t.Context(), f, ImportOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	opts := find(t, s, "c").Nodes[0].DriverOpts
	key := filepath.Join(dir, "certs", "c", "b0", "key.pem")
	if info, err := os.Stat(key); err != nil || info.Mode().Perm() != 0o600 || opts["key"] != key || opts["ca"] != "system" {
		t.Errorf("%v %v %v", info, err, opts)
	}
	if _, err := mustTargetErr(s, t, "c"); err != nil {
		t.Error(err)
	}
	write(t, key, "another")
	if _, err := s.Import(t.Context(), f, ImportOptions{}); err == nil {
		t.Error("a key that was changed counts as the same")
	}
	if err := s.Remove(t.Context(), "c"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(key); err == nil {
		t.Error("the key stays")
	}
	// Used from the file, the texts are not written down.
	path := filepath.Join(t.TempDir(), builderfile.Name)
	whole, err := builderfile.Print(f, "", "")
	if err != nil {
		t.Fatal(err)
	}
	write(t, path, string(whole))
	s.Definition = func() (*Definition, error) { return ReadDefinition(path) }
	trust(t, s, path)
	b := find(t, s, "c")
	target, err := b.Nodes[0].Target()
	if err != nil || target.Options.Inline.Key.IsZero() || !strings.Contains(target.Options.Inline.CACert.Reveal(), "BEGIN") {
		t.Errorf("%+v %v", target.Options, err)
	}
	_, left, err := s.Export(b, false)
	if err != nil || len(left) != 1 || !strings.Contains(left[0], "--embed-certs") {
		t.Errorf("%q %v", left, err)
	}
}

func mustTargetErr(s *Service, t *testing.T, name string) (any, error) {
	t.Helper()
	return find(t, s, name).Nodes[0].Target()
}

func TestExportLeavesThePassword(t *testing.T) {
	s, _ := service(t)
	create(t, s, CreateOptions{Name: "b", Endpoint: "tcp://h:1", DriverOpts: []string{"proxy=http://me:hunter2@proxy.example:3128"}})
	if _, text := travel(t, s, "b", "", false); strings.Contains(text, "hunter2") || !strings.Contains(text, "proxy: http://me@proxy.example:3128") || !strings.Contains(text, "the proxy's password") {
		t.Errorf("%s", text)
	}
	if _, text := travel(t, s, "b", "", true); !strings.Contains(text, "hunter2") {
		t.Errorf("%s", text)
	}
}

func TestExportRefuses(t *testing.T) {
	s, _ := service(t)
	for _, b := range []*Builder{
		{Name: "d", Driver: DriverDocker, Nodes: []Node{{}}}, {Name: "k", Driver: DriverKubernetes, Nodes: []Node{{}}},
		{Name: "e", Driver: DriverRemote}, {Name: "x", Driver: DriverRemote, Err: errors.New("damaged")},
		{Name: "n", Driver: DriverRemote, Nodes: []Node{{Endpoint: "nonsense"}}},
	} {
		if _, _, err := s.Export(b, false); err == nil || !strings.Contains(err.Error(), `builder "`+b.Name+`"`) {
			t.Errorf("%s: %v", b.Name, err)
		}
	}
}

// All of a file is stored, or nothing.
func TestImportAllOrNothing(t *testing.T) {
	s, dir := service(t)
	parse := func(text string) builderfile.File {
		f, err := builderfile.Parse([]byte("version: 1\nbuilders:\n"+text), builderfile.Place{File: "f", Dir: "/"})
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	good := "  - name: good\n    nodes: [{endpoint: unix:///a}]\n"
	f := parse(good + "  - name: bad\n    nodes: [{endpoint: 'tcp://h:1?cacert=nosuch.pem'}]\n")
	if _, err := s.Import(t.Context(), f, ImportOptions{Dir: t.TempDir()}); err == nil || !strings.Contains(err.Error(), "nosuch.pem") || !strings.Contains(err.Error(), `builder "bad"`) {
		t.Errorf("%v", err)
	}
	two := parse(good + "  - name: more\n    nodes: [{endpoint: unix:///b}]\n")
	if _, err := s.Import(t.Context(), two, ImportOptions{Use: true}); err == nil {
		t.Error("two are chosen at once")
	}
	if got := files(t, dir); len(got) != 0 {
		t.Errorf("stored: %v", got)
	}
	// The second cannot be written: the first goes again.
	if err := os.MkdirAll(filepath.Join(dir, "instances", "more"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Import(t.Context(), two, ImportOptions{}); err == nil {
		t.Error("no error")
	}
	if _, err := s.Store.Get(t.Context(), "good"); !errors.Is(err, state.ErrNotFound) {
		t.Errorf("the first one stays: %v", err)
	}
}

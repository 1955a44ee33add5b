package builder

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/berthbuild/berth/internal/builderfile"
	"github.com/berthbuild/berth/internal/dockerconfig"
	"github.com/berthbuild/berth/internal/hint"
)

const repoFile = `version: 1
builders:
  - name: team
    nodes:
      - endpoint: tcp://stranger.example:1234
        options: {tlsdir: certs}
  - name: mine
    nodes:
      - endpoint: unix:///stranger.sock
`

// repo is a service whose definition file is text, and the file.
func repo(t *testing.T, text string) (*Service, string) {
	t.Helper()
	s, _ := service(t)
	path := filepath.Join(t.TempDir(), builderfile.Name)
	write(t, path, text)
	s.Definition = func() (*Definition, error) { return ReadDefinition(path) }
	return s, path
}

// trust agrees to the file as it is now.
func trust(t *testing.T, s *Service, path string) {
	t.Helper()
	d, err := ReadDefinition(path)
	if err == nil {
		err = s.Trust(t.Context(), d)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// A file's builders are used when named and agreed to, and at no other time.
func TestFileIsNotTrusted(t *testing.T) {
	s, path := repo(t, repoFile)
	refused := func(when string, changed bool) {
		t.Helper()
		_, err := s.Find(t.Context(), "team")
		var no *NotAgreed
		if !errors.As(err, &no) || no.Changed != changed || no.Path != path {
			t.Errorf("%s: %v", when, err)
		}
		if hints := hint.Of(err); len(hints) != 1 || !strings.HasPrefix(hints[0], "read it, and agree") {
			t.Errorf("%s: hints %q", when, hints)
		}
		all, err := s.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range all {
			if len(b.Nodes) != 0 || !errors.As(b.Err, &no) || b.Current {
				t.Errorf("%s: listed with something to contact: %+v", when, b)
			}
		}
	}
	refused("never agreed", false)
	trust(t, s, path)
	b := find(t, s, "TEAM")
	if b.Name != "team" || b.Source != OfFile || b.File != path || b.Current || b.KeepsRecords() {
		t.Errorf("%+v", b)
	}
	target, err := b.Nodes[0].Target()
	if err != nil || target.Endpoint.Host != "stranger.example" || target.Options.TLSDir != filepath.Join(filepath.Dir(path), "certs") {
		t.Errorf("%+v %v", target, err)
	}
	if all, err := s.List(t.Context()); err != nil || len(all) != 2 || len(all[1].Nodes) != 1 {
		t.Errorf("%+v %v", all, err)
	}
	if _, err := s.Find(t.Context(), ""); err == nil {
		t.Error("a file's builder is the default")
	}
	write(t, path, repoFile+"# a comment\n")
	refused("changed", true)
	write(t, path, repoFile)
	if _, err := s.Find(t.Context(), "team"); err != nil {
		t.Errorf("as agreed again: %v", err)
	}
	// The same content elsewhere is another file.
	other := filepath.Join(t.TempDir(), builderfile.Name)
	write(t, other, repoFile)
	s.Definition = func() (*Definition, error) { return ReadDefinition(other) }
	path = other
	refused("elsewhere", false)
}

func TestFileNeverStandsIn(t *testing.T) {
	s, path := repo(t, repoFile)
	trust(t, s, path)
	var notes []string
	s.Note = func(text string) { notes = append(notes, text) }
	create(t, s, CreateOptions{Name: "team", Endpoint: "unix:///own.sock"})
	if b := find(t, s, "team"); b.Source != Stored || b.Nodes[0].Endpoint != "unix:///own.sock" {
		t.Errorf("%+v", b)
	}
	if len(notes) != 1 || !strings.Contains(notes[0], "the stored one of that name is used") {
		t.Errorf("notes %q", notes)
	}
	all, err := s.List(t.Context())
	if err != nil || len(all) != 2 || all[0].Name != "team" || all[0].Source != Stored || all[1].Name != "mine" {
		t.Errorf("%+v %v", all, err)
	}
	// A damaged stored one is not replaced either.
	write(t, filepath.Join(s.Store.Dir(), "instances", "mine"), "{")
	if b, err := s.Find(t.Context(), "mine"); err == nil {
		t.Errorf("in place of a damaged one: %+v", b)
	}
	// Nor is a docker context's.
	config := dockerConfig(t, "staging")
	s.Docker = func() (*dockerconfig.Config, error) { return config, nil }
	write(t, path, strings.ReplaceAll(repoFile, "team", "staging"))
	trust(t, s, path)
	if b := find(t, s, "staging"); b.Source != OfDocker {
		t.Errorf("%+v", b)
	}
	if !strings.Contains(strings.Join(notes, "\n"), "the docker context of that name is used") {
		t.Errorf("notes %q", notes)
	}
}

// dockerConfig has docker contexts of these names.
func dockerConfig(t *testing.T, names ...string) *dockerconfig.Config {
	t.Helper()
	dir := t.TempDir()
	for i, name := range names {
		write(t, filepath.Join(dir, "contexts", "meta", fmt.Sprintf("%064d", i), "meta.json"),
			`{"Name":"`+name+`","Metadata":{},"Endpoints":{"docker":{"Host":"unix:///no.sock"}}}`)
	}
	config, err := dockerconfig.Load(dockerconfig.Input{Home: dir, ConfigDir: dir, Env: func(string) string { return "" }})
	if err != nil {
		t.Fatal(err)
	}
	return config
}

// Whoever is asked decides, and a yes is remembered for this content.
func TestFileIsAskedFor(t *testing.T) {
	s, path := repo(t, repoFile)
	var asked []Consent
	answer := false
	s.Ask = func(_ context.Context, d *Definition, c Consent) (bool, error) {
		asked = append(asked, c)
		if d.Path != path {
			t.Errorf("asked about %s", d.Path)
		}
		return answer, nil
	}
	if _, err := s.Find(t.Context(), "team"); !errors.As(err, new(*NotAgreed)) {
		t.Errorf("after a no: %v", err)
	}
	answer = true
	find(t, s, "team")
	find(t, s, "team")
	write(t, path, repoFile+"#\n")
	find(t, s, "team")
	if _, err := s.Find(t.Context(), "nosuch"); err == nil || !strings.Contains(err.Error(), `no builder "nosuch" found`) {
		t.Errorf("a name that it does not have: %v", err)
	}
	equal(t, "asked", asked, []Consent{Unknown, Unknown, Changed})
	boom := errors.New("boom")
	s.Ask = func(context.Context, *Definition, Consent) (bool, error) { return false, boom }
	write(t, path, repoFile+"##\n")
	if _, err := s.Find(t.Context(), "team"); !errors.Is(err, boom) {
		t.Errorf("%v", err)
	}
	// A record that cannot be read is no agreement.
	entries, err := filepath.Glob(filepath.Join(s.Store.Dir(), "trust", "*"))
	if err != nil || len(entries) != 1 {
		t.Fatal(entries, err)
	}
	write(t, entries[0], "{")
	s.Ask = nil
	if _, err := s.Find(t.Context(), "team"); err == nil || !strings.Contains(err.Error(), entries[0]) {
		t.Errorf("%v", err)
	}
}

// Where the agreement cannot be kept, the build goes on, and that is said.
func TestFileAgreedInVain(t *testing.T) {
	s, _ := repo(t, repoFile)
	write(t, filepath.Join(s.Store.Dir(), "trust"), "a file where a folder belongs")
	var notes []string
	s.Note = func(text string) { notes = append(notes, text) }
	s.Ask = func(context.Context, *Definition, Consent) (bool, error) { return true, nil }
	b, err := s.Find(t.Context(), "team")
	if err == nil { // reading the record fails first on some systems
		if b.Name != "team" || len(notes) != 1 || !strings.Contains(notes[0], "could not be kept") {
			t.Errorf("%+v %q", b, notes)
		}
		return
	}
	if !strings.Contains(err.Error(), "trust") {
		t.Error(err)
	}
}

// A kubeconfig in the file's folder is a part of what is agreed to.
func TestDigest(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, builderfile.Name)
	read := func() string {
		t.Helper()
		d, err := ReadDefinition(path)
		if err != nil {
			t.Fatal(err)
		}
		return d.Digest
	}
	write(t, path, repoFile)
	plain := read()
	if plain != "sha256:"+sha256Of(repoFile) {
		t.Errorf("without kubeconfigs: %s", plain)
	}
	write(t, path, "version: 1\nbuilders:\n  - name: b\n    nodes:\n      - endpoint: kube-pod://p?kubeconfig=kube/config\n      - endpoint: kube-pod://p?kubeconfig="+filepath.Join(t.TempDir(), "elsewhere")+"\n")
	missing := read()
	config := filepath.Join(dir, "kube", "config")
	write(t, config, "")
	empty := read()
	write(t, config, "apiVersion: v1\n")
	full := read()
	if missing == empty || empty == full || full != read() {
		t.Errorf("digests %q", []string{missing, empty, full})
	}
}

func TestFindDefinition(t *testing.T) {
	root := t.TempDir()
	deep := filepath.Join(root, "home", "repo", "a", "b")
	if err := os.MkdirAll(deep, 0o700); err != nil {
		t.Fatal(err)
	}
	home := filepath.Join(root, "home")
	at := func(dir string) string { return filepath.Join(dir, builderfile.Name) }
	write(t, at(root), repoFile)
	if got := FindDefinition(deep, home); got != "" {
		t.Errorf("above home: %s", got)
	}
	if got := FindDefinition(deep, ""); got != at(root) {
		t.Errorf("without a home: %s", got)
	}
	if got := FindDefinition(root, home); got != at(root) {
		t.Errorf("outside of home: %s", got)
	}
	write(t, at(home), repoFile)
	if got := FindDefinition(deep, home); got != at(home) {
		t.Errorf("in home: %s", got)
	}
	write(t, at(filepath.Join(home, "repo")), repoFile)
	if got := FindDefinition(deep, home); got != at(filepath.Join(home, "repo")) {
		t.Errorf("the nearest: %s", got)
	}
}

// A link leads to the file that it is, with that file's folder.
func TestDefinitionThroughALink(t *testing.T) {
	s, path := repo(t, repoFile)
	trust(t, s, path)
	link := filepath.Join(t.TempDir(), builderfile.Name)
	if err := os.Symlink(path, link); err != nil {
		t.Skip("no symbolic links here: ", err)
	}
	s.Definition = func() (*Definition, error) { return ReadDefinition(link) }
	b := find(t, s, "team")
	if want := filepath.Join(filepath.Dir(path), "certs"); b.Nodes[0].DriverOpts["tlsdir"] != want {
		t.Errorf("paths are relative to the link: %v", b.Nodes[0].DriverOpts)
	}
}

func TestBadDefinitions(t *testing.T) {
	s, path := repo(t, "version: 1\nbuilder: []\n")
	_, err := s.Find(t.Context(), "team")
	if err == nil || !strings.Contains(err.Error(), `no builder "team" found`) || !strings.Contains(err.Error(), path+":2: the file has no key") {
		t.Errorf("%v", err)
	}
	all, err := s.List(t.Context())
	if err != nil || len(all) != 1 || all[0].Err == nil || all[0].Name != builderfile.Name {
		t.Errorf("%+v %v", all, err)
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, builderfile.Name), 0o700); err != nil {
		t.Fatal(err)
	}
	big := filepath.Join(dir, "big")
	write(t, big, strings.Repeat("#", builderfile.MaxSize+1))
	for path, want := range map[string]string{
		filepath.Join(dir, builderfile.Name): "is a directory", filepath.Join(dir, "nosuch"): "no such file", big: "larger than 1 MiB", os.DevNull: "is not a regular file",
	} {
		_, err := ReadDefinition(path)
		if err == nil || !strings.Contains(err.Error(), want) && path != filepath.Join(dir, "nosuch") || strings.Count(err.Error(), path) != 1 {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestUseAndRemoveOfWhatIsNotStored(t *testing.T) {
	s, _ := repo(t, repoFile)
	for _, name := range []string{"team", "tcp://h:1", "tcp://h:1?tlsdir=x", "nonsense://"} {
		for what, err := range map[string]error{"use": s.Use(t.Context(), name, UseOptions{}), "rm": s.Remove(t.Context(), name)} {
			if err == nil || len(hint.Of(err)) == 0 || strings.Contains(err.Error(), "no builder") {
				t.Errorf("%s %s: %v", what, name, err)
			}
		}
	}
	if err := s.Remove(t.Context(), "nosuch"); err == nil || !strings.Contains(err.Error(), `no builder "nosuch" found`) {
		t.Error(err)
	}
	if s.Lookup(t.Context(), "team") != nil {
		t.Error("Lookup gives what is not stored")
	}
}

func TestReview(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, builderfile.Name)
	outside := filepath.Join(t.TempDir(), "key.pem")
	kube := `apiVersion: v1
kind: Config
current-context: c
contexts: [{name: c, context: {cluster: c, user: u}}]
clusters: [{name: c, cluster: {server: "https://api.example:6443"}}]
users: [{name: u, user: {exec: {apiVersion: client.authentication.k8s.io/v1, command: /bin/steal, args: [all], interactiveMode: Never}}}]
`
	write(t, filepath.Join(dir, "kube"), kube)
	write(t, filepath.Join(dir, "quiet"), strings.Replace(kube, "exec: {apiVersion: client.authentication.k8s.io/v1, command: /bin/steal, args: [all], interactiveMode: Never}", "token: x", 1))
	lines := []string{
		"tcp://plain.example:1", "tcp://tls.example:1?cacert=ca.pem&cert=cert.pem&key=" + outside, "tcp://proxied.example:1?ca=system&proxy=http://me:pw@proxy.example:80",
		"exec://?cmd=sh+-c+%27steal+all%27", "ssh://me@host.example", "podman-container://c", "docker-container://c?context=prod",
		"kube-pod://p?kubeconfig=kube", "kube-pod://p?kubeconfig=quiet", "kube-pod://p?kubeconfig=nosuch", "kube-pod://p?context=x", "unix:///run/x.sock",
	}
	text := "version: 1\nbuilders:\n  - name: b\n    nodes:\n"
	for _, l := range lines {
		text += "      - endpoint: \"" + l + "\"\n"
	}
	write(t, path, text)
	d, err := ReadDefinition(path)
	if err != nil {
		t.Fatal(err)
	}
	all := d.Review(dir, func(string) string { return "" })
	if len(all) != len(lines) {
		t.Fatalf("%+v", all)
	}
	for i, want := range []struct{ runs, minds, options string }{
		{"", "is not encrypted", ""},
		{"", "key is outside of the file's folder: " + outside, "cert=cert.pem"},
		{"", "goes through the proxy http://me:", "proxy=http://me:"},
		{"runs a command: sh -c 'steal all'", "", ""},
		{"logs in on host.example", "", ""},
		{"runs podman exec", "", ""},
		{"through your docker context prod", "", ""},
		{"which runs a command: /bin/steal all", "", ""},
		{"which leads to https://api.example:6443 and runs no command", "", ""},
		{"cannot be read now and may run commands", "", ""},
		{"uses your kubeconfig (context x)", "", ""},
		{"", "", ""},
	} {
		r := all[i]
		for _, c := range []struct {
			what, want string
			got        []string
		}{{"runs", want.runs, r.Runs}, {"minds", want.minds, r.Minds}, {"options", want.options, r.Options}} {
			got := strings.Join(c.got, "\n")
			if !strings.Contains(got, c.want) || (c.want == "") != (got == "") && c.what != "options" {
				t.Errorf("%s: %s %q, want %q", lines[i], c.what, got, c.want)
			}
			if strings.Contains(got, "pw@") {
				t.Errorf("%s: the password is shown: %q", lines[i], got)
			}
		}
	}
}

// A name that leads out of the folder by a link counts as outside.
func TestReviewFollowsLinks(t *testing.T) {
	dir, secret := t.TempDir(), t.TempDir()
	write(t, filepath.Join(secret, "key.pem"), "x")
	if err := os.Symlink(secret, filepath.Join(dir, "certs")); err != nil {
		t.Skip("no symbolic links here: ", err)
	}
	path := filepath.Join(dir, builderfile.Name)
	write(t, path, "version: 1\nbuilders:\n  - name: b\n    nodes:\n      - endpoint: tcp://h:1?tlsdir=certs\n")
	d, err := ReadDefinition(path)
	if err != nil {
		t.Fatal(err)
	}
	if minds := d.Review("", nil)[0].Minds; len(minds) != 1 || !strings.Contains(minds[0], "tlsdir is outside") {
		t.Errorf("%q", minds)
	}
}

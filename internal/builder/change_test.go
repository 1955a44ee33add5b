package builder

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/berthbuild/berth/internal/buildkittest"
	"github.com/berthbuild/berth/internal/hint"
)

func TestCreate(t *testing.T) {
	s, dir := service(t)
	name, err := s.Create(t.Context(), CreateOptions{Name: "Remote", Endpoint: "unix:///x.sock", DriverOpts: []string{"default-load=true"}, Platforms: plats("linux/arm64")})
	if err != nil || name != "remote" {
		t.Fatalf("%q, %v", name, err)
	}
	b := find(t, s, "remote")
	n := b.Nodes[0]
	if b.Driver != DriverRemote || b.Current || b.LastActivity.IsZero() || n.Name != "remote0" || n.Endpoint != "unix:///x.sock" ||
		n.DriverOpts["default-load"] != "true" || len(n.Platforms) != 1 {
		t.Errorf("%+v", b)
	}
	create(t, s, CreateOptions{Name: "named", Node: "first", Driver: "remote", Endpoint: "tcp://[::1]:1234", Use: true})
	if b := find(t, s, ""); b.Name != "named" || b.Nodes[0].Name != "first" || b.Nodes[0].DriverOpts != nil {
		t.Errorf("%+v", b)
	}
	if fi, err := os.Stat(filepath.Join(dir, "instances", "remote")); err != nil || fi.Mode().Perm() != 0o600 && os.PathSeparator == '/' {
		t.Errorf("%v, %v", fi, err)
	}
}

// Names are made up, are not taken twice, and not when a damaged file has them.
func TestMadeUpNames(t *testing.T) {
	s, dir := service(t)
	for _, q := range qualities { // every name of two words is gone, and cannot be read
		for _, v := range vessels {
			write(t, filepath.Join(dir, "instances", q+"_"+v), "{")
		}
	}
	var wg sync.WaitGroup
	names := make([]string, 8)
	for i := range names {
		wg.Go(func() {
			var err error
			if names[i], err = s.Create(t.Context(), CreateOptions{Endpoint: "unix:///x.sock"}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	seen := map[string]bool{}
	for _, n := range names {
		if !regexp.MustCompile(`^[a-z]+_[a-z]+[0-9]+$`).MatchString(n) || seen[n] {
			t.Errorf("made up: %q of %q", n, names)
		}
		seen[n] = true
		find(t, s, n)
	}
}

func TestAppend(t *testing.T) {
	s, _ := service(t)
	create(t, s,
		CreateOptions{Name: "b", Endpoint: "unix:///0.sock", Use: true},
		CreateOptions{Append: true, Endpoint: "unix:///1.sock"},
		CreateOptions{Append: true, Name: "B", Endpoint: "unix:///x.sock", Node: "extra"},
		CreateOptions{Append: true, Name: "b", Endpoint: "unix:///0.sock", DriverOpts: []string{"connect-timeout=1s"}},
	)
	equal(t, "nodes", nodeNames(find(t, s, "b")), []string{"b0", "b1", "extra", "b3"})
	if _, err := s.Leave(t.Context(), "", "b1"); err != nil {
		t.Fatal(err)
	}
	create(t, s, CreateOptions{Append: true, Name: "b", Endpoint: "unix:///1.sock"}) // b3 is taken
	equal(t, "nodes", nodeNames(find(t, s, "b")), []string{"b0", "extra", "b3", "b4"})
}

// What was not said about a node stays as it was.
func TestChangeNode(t *testing.T) {
	s, dir := service(t)
	write(t, filepath.Join(dir, "instances", "far"), strings.Replace(foreign, `"Flags":null`, `"Flags":["x"],"Unknown":7`, 1))
	change := func(o CreateOptions) Node {
		t.Helper()
		o.Name, o.Node = "far", "far0"
		create(t, s, o)
		b := find(t, s, "far")
		equal(t, "nodes", nodeNames(b), []string{"far0"})
		return b.Nodes[0]
	}
	n := change(CreateOptions{Endpoint: "tcp://near.example:1", Platforms: plats("linux/amd64", "linux/386")})
	if n.Endpoint != "tcp://near.example:1" || len(n.Platforms) != 2 || n.DriverOpts["cacert"] != "/ca.pem" {
		t.Errorf("the certificate would be forgotten: %+v", n)
	}
	n = change(CreateOptions{Endpoint: "tcp://near.example:1", DriverOpts: []string{"connect-timeout=3s"}})
	if !maps.Equal(n.DriverOpts, map[string]string{"connect-timeout": "3s"}) || len(n.Platforms) != 2 || n.Flags[0] != "x" || string(n.Files["a"]) != "b" {
		t.Errorf("%+v", n)
	}
	if raw := files(t, dir)[filepath.Join(dir, "instances", "far")]; !strings.Contains(raw, `"Unknown":7`) {
		t.Errorf("a field of others is lost: %s", raw)
	}
}

func TestLeave(t *testing.T) {
	s, dir := service(t)
	create(t, s, CreateOptions{Name: "b", Endpoint: "unix:///0.sock"}, CreateOptions{Name: "b", Append: true, Endpoint: "unix:///1.sock"})
	before := files(t, dir)
	for _, c := range []struct{ name, node, want string }{
		{"b", "", "which node"},
		{"b", "b7", `builder b has no node "b7"`},
		{"nosuch", "x", `no builder "nosuch" found`},
		{"", "b0", "no builder is chosen"},
	} {
		if _, err := s.Leave(t.Context(), c.name, c.node); err == nil || !strings.Contains(err.Error(), c.want) || len(hint.Of(err)) == 0 {
			t.Errorf("%+v: %v", c, err)
		}
	}
	if !maps.Equal(before, files(t, dir)) {
		t.Error("a refusal changed something")
	}
	if name, err := s.Leave(t.Context(), "B", "b0"); err != nil || name != "b" {
		t.Fatalf("%q, %v", name, err)
	}
	equal(t, "nodes", nodeNames(find(t, s, "b")), []string{"b1"})
	if _, err := s.Leave(t.Context(), "b", "b1"); err == nil || !strings.Contains(err.Error(), "b1 is the last node of builder b") {
		t.Errorf("the last one: %v", err)
	}
}

// Certificates are stored under paths that mean the same from everywhere.
func TestPaths(t *testing.T) {
	s, _ := service(t)
	home, dir := t.TempDir(), t.TempDir()
	ca, err := buildkittest.NewCA(t.TempDir(), "ca")
	if err != nil {
		t.Fatal(err)
	}
	client, err := ca.Issue("client", buildkittest.Leaf{Client: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, to := range []string{home, dir} {
		for name, from := range map[string]string{"ca.pem": ca.File, "cert.pem": client.Cert, "key.pem": client.Key} {
			data, err := os.ReadFile(from)
			if err != nil {
				t.Fatal(err)
			}
			write(t, filepath.Join(to, "c", name), string(data))
		}
	}
	create(t, s, CreateOptions{Name: "b", Endpoint: "tcp://h:1", Dir: dir, Home: home,
		DriverOpts: []string{"cacert=~/c/ca.pem,cert=c/cert.pem", "key=" + filepath.Join(dir, "c", "key.pem")}})
	want := map[string]string{"cacert": filepath.Join(home, "c", "ca.pem"), "cert": filepath.Join(dir, "c", "cert.pem"), "key": filepath.Join(dir, "c", "key.pem")}
	if got := find(t, s, "b").Nodes[0].DriverOpts; !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// Everything is checked before anything is written.
func TestRefusalsLeaveNothing(t *testing.T) {
	s, dir := service(t)
	create(t, s, CreateOptions{Name: "b", Endpoint: "unix:///0.sock"}, CreateOptions{Name: "b", Append: true, Endpoint: "unix:///1.sock"})
	write(t, filepath.Join(dir, "instances", "box"), container)
	write(t, filepath.Join(dir, "instances", "far"), foreign)
	write(t, filepath.Join(dir, "instances", "broken"), "{")
	before := files(t, dir)
	const sock = "unix:///new.sock"
	for _, c := range []struct {
		o    CreateOptions
		want string
	}{
		{CreateOptions{Name: "x"}, "no remote endpoint provided"},
		{CreateOptions{Name: "x", Endpoint: "tcp://h"}, "port"},
		{CreateOptions{Name: "x", Endpoint: sock, Driver: "kubernetes"}, "kubernetes driver starts daemons"},
		{CreateOptions{Name: "x", Endpoint: sock, Driver: "nonsense"}, `unknown driver "nonsense"`},
		{CreateOptions{Name: "default", Endpoint: sock}, "default is a reserved name"},
		{CreateOptions{Name: "a/b", Endpoint: sock}, "--name: "},
		{CreateOptions{Name: "x", Node: "../x", Endpoint: sock}, "--node: "},
		{CreateOptions{Name: "x", Endpoint: sock, DriverOpts: []string{"nonsense=1"}}, "nonsense"},
		{CreateOptions{Name: "x", Endpoint: sock, DriverOpts: []string{"=1"}}, ""},
		{CreateOptions{Name: "x", Endpoint: "tcp://h:1", DriverOpts: []string{"cacert=nosuch.pem"}, Dir: dir}, "nosuch.pem"},
		{CreateOptions{Name: "B", Endpoint: sock}, `existing instance for "b" but no append mode`},
		{CreateOptions{Name: "b", Endpoint: sock, Node: "b7"}, "node b7 not found in builder b, did you mean to append?"},
		{CreateOptions{Name: "x", Endpoint: sock, Append: true}, `failed to find instance "x" for append`},
		{CreateOptions{Endpoint: sock, Append: true}, "no builder is chosen"},
		{CreateOptions{Name: "b", Endpoint: "unix:///0.sock", Append: true}, "node b0 of builder b already is at unix:///0.sock"},
		{CreateOptions{Name: "b", Endpoint: "unix:///0.sock", Node: "b1"}, "node b0 of builder b already is at unix:///0.sock"},
		{CreateOptions{Name: "box", Endpoint: sock, Append: true}, `mismatched driver "docker-container"`},
		{CreateOptions{Name: "far", Node: "far0", Endpoint: sock}, "node far0 of builder far: "}, // its cacert stays
		{CreateOptions{Name: "broken", Endpoint: sock}, "broken"},
	} {
		name, err := s.Create(t.Context(), c.o)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %q, %v; want %s", c.o, name, err, c.want)
		}
	}
	noKey := errors.New("docker's configuration is garbage")
	s.Key = func() (string, error) { return "", noKey }
	if _, err := s.Create(t.Context(), CreateOptions{Name: "x", Endpoint: sock, Use: true}); !errors.Is(err, noKey) {
		t.Errorf("no key to choose by: %v", err)
	}
	if after := files(t, dir); !maps.Equal(before, after) {
		t.Errorf("a refusal changed something: %v", after)
	}
}

// A cancelled create says so and stores nothing.
func TestCreateCancelled(t *testing.T) {
	s, dir := service(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("interrupted")
	cancel(why)
	if _, err := s.Create(ctx, CreateOptions{Name: "x", Endpoint: "unix:///x.sock"}); !errors.Is(err, why) {
		t.Errorf("got %v", err)
	}
	if all := files(t, dir); len(all) != 0 {
		t.Errorf("left: %v", all)
	}
}

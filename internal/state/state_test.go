package state

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/berthbuild/berth/internal/hint"
)

// buildx gives a store on a copy of a folder that Buildx wrote.
func buildx(t *testing.T) *Store {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "buildx")
	if err := os.CopyFS(dir, os.DirFS("testdata/buildx")); err != nil {
		t.Fatal(err)
	}
	return Open(dir)
}

func put(t *testing.T, s *Store, name, content string) string {
	t.Helper()
	path := s.path(filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func create(t *testing.T, s *Store, name string) {
	t.Helper()
	err := s.Change(t.Context(), name, func(*Group) (*Group, error) {
		return &Group{Name: name, Driver: "remote", Nodes: []Node{{Name: name + "0", Endpoint: "tcp://h:1"}}}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func names(groups []Group) []string {
	var all []string
	for _, g := range groups {
		all = append(all, g.Name)
	}
	return all
}

func keep(g *Group) (*Group, error) { return g, nil }
func drop(*Group) (*Group, error)   { return nil, nil }

func TestReadsWhatBuildxWrote(t *testing.T) {
	s := buildx(t)
	groups, damages, err := s.List(t.Context())
	if err != nil || damages != nil {
		t.Fatal(damages, err)
	}
	if got, want := names(groups), []string{"bold_williams", "Foo", "remote", "remote-unix"}; !slices.Equal(got, want) {
		t.Fatalf("List = %q, want %q", got, want)
	}
	if at := groups[1].LastActivity; !at.Equal(time.Date(2026, 11, 23, 20, 35, 7, 0, time.UTC)) {
		t.Errorf("Foo's last activity is %v", at)
	}
	node := groups[2].Nodes[0]
	if node.Endpoint != "tcp://127.0.0.1:21234" || node.DriverOpts["cacert"] != "/home/me/certs/ca.pem" || node.Platforms == nil {
		t.Errorf("node of remote: %+v", node)
	}
	if name, err := s.Current(t.Context(), "unix:///var/run/docker.sock"); name != "remote-unix" || err != nil {
		t.Errorf("Current = %q, %v", name, err)
	}
	if id, err := s.NodeID(t.Context()); id != "ab1cf1d89fb17edc" || err != nil {
		t.Errorf("NodeID = %q, %v", id, err)
	}
}

// What Buildx wrote must come out byte for byte when nothing was changed.
func TestStoringAgainChangesNothing(t *testing.T) {
	s := buildx(t)
	for _, name := range []string{"bold_williams", "foo", "remote", "remote-unix"} {
		path := s.path(instancesDir, name)
		before := read(t, path)
		if err := s.Change(t.Context(), name, keep); err != nil {
			t.Fatal(err)
		}
		if after := read(t, path); after != before {
			t.Errorf("%s became\n%s, was\n%s", name, after, before)
		}
		if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v, %v", name, fi.Mode(), err)
		}
	}
}

func TestUnknownFieldsAreKept(t *testing.T) {
	s := Open(t.TempDir())
	stored := `{"Name":"b","Driver":"remote","Nodes":[{"Name":"b0","Endpoint":"tcp://h:1","Platforms":[{"architecture":"amd64","os":"linux","os.future":{"x":[1,2.50]}}],"DriverOpts":null,"Flags":null,"Files":{"ca":"QQ=="},"Node.New":{"deep":{"er":[null,1e400]}}}],"Dynamic":true,"Another":"<&>","ZZ":null}`
	path := put(t, s, "instances/b", stored)
	err := s.Change(t.Context(), "b", func(g *Group) (*Group, error) {
		g.Nodes = append(g.Nodes, Node{Name: "b1", Endpoint: "tcp://h:2"})
		return g, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Change(t.Context(), "b", func(g *Group) (*Group, error) {
		if n := g.Nodes[0]; len(n.Platforms) != 1 || n.Platforms[0].Architecture != "amd64" || string(n.Files["ca"]) != "A" {
			t.Errorf("node read as %+v", n)
		}
		g.Nodes = g.Nodes[:1]
		return g, nil
	}); err != nil {
		t.Fatal(err)
	}
	if got := strings.NewReplacer(`\u003c`, "<", `\u003e`, ">", `\u0026`, "&").Replace(read(t, path)); got != stored {
		t.Errorf("became\n%s, was\n%s", got, stored)
	}
	// A changed list of platforms is the new one, not what was read.
	if err := s.Change(t.Context(), "b", func(g *Group) (*Group, error) { g.Nodes[0].Platforms = nil; return g, nil }); err != nil {
		t.Fatal(err)
	}
	if g, err := s.Get(t.Context(), "b"); err != nil || g.Nodes[0].Platforms != nil {
		t.Errorf("platforms are %+v, %v", g.Nodes[0].Platforms, err)
	}
}

func TestCreateChangeRemove(t *testing.T) {
	s := Open(filepath.Join(t.TempDir(), "not", "yet"))
	if _, err := s.Get(t.Context(), "b"); !errors.Is(err, ErrNotFound) {
		t.Fatalf("Get in no folder: %v", err)
	}
	if _, err := os.Stat(s.dir); !errors.Is(err, fs.ErrNotExist) {
		t.Error("reading made the folder")
	}
	create(t, s, "Bld")
	if got, want := read(t, s.path("instances", "bld")), `{"Name":"Bld","Driver":"remote","Nodes":[{"Name":"Bld0","Endpoint":"tcp://h:1","Platforms":null,"DriverOpts":null,"Flags":null,"Files":null}],"Dynamic":false}`; got != want {
		t.Errorf("stored\n%s, want\n%s", got, want)
	}
	for path, mode := range map[string]fs.FileMode{".": 0o700, "instances": 0o700, "instances/bld": 0o600, ".lock": 0o600} {
		if fi, err := os.Stat(s.path(path)); err != nil || fi.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v; want %v", path, fi.Mode(), err, mode)
		}
	}
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.FixedZone("x", 3600))
	if err := s.Touch(t.Context(), "bld", at); err != nil {
		t.Fatal(err)
	}
	if g, err := s.Get(t.Context(), "BLD"); err != nil || !g.LastActivity.Equal(at.Truncate(time.Second)) {
		t.Errorf("Get = %+v, %v", g, err)
	}
	if got := read(t, s.path("activity", "Bld")); got != "2026-01-02T02:04:05Z" {
		t.Errorf("activity holds %q", got)
	}
	if err := s.SaveRef(t.Context(), "Bld", "Bld0", "x1", Ref{Target: "default", LocalPath: "/src"}); err != nil {
		t.Fatal(err)
	}
	if err := s.Change(t.Context(), "bld", drop); err != nil {
		t.Fatal(err)
	}
	for _, gone := range []string{"instances/bld", "activity/Bld", "refs/Bld"} {
		if _, err := os.Lstat(s.path(gone)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is still there: %v", gone, err)
		}
	}
	if err := s.Change(t.Context(), "bld", drop); err != nil {
		t.Errorf("removing what is not there by Change: %v", err)
	}
	for _, err := range []error{s.Remove(t.Context(), "bld"), s.Touch(t.Context(), "bld", at), s.SetCurrent(t.Context(), "k", "bld", false, false)} {
		if !errors.Is(err, ErrNotFound) {
			t.Errorf("a builder that is not there: %v", err)
		}
	}
}

func TestRemoveLeavesOthers(t *testing.T) {
	s := buildx(t)
	create(t, s, "remote0")
	if err := s.Remove(t.Context(), "Remote"); err != nil {
		t.Fatal(err)
	}
	groups, _, err := s.List(t.Context())
	if want := []string{"bold_williams", "Foo", "remote-unix", "remote0"}; err != nil || !slices.Equal(names(groups), want) {
		t.Errorf("left are %q, %v", names(groups), err)
	}
	if _, err := os.Stat(s.path("refs", "remote-unix", "remote-unix0")); err != nil {
		t.Error(err)
	}
}

func TestChangePassesErrorsOn(t *testing.T) {
	s := Open(t.TempDir())
	create(t, s, "b")
	before := read(t, s.path("instances", "b"))
	own := errors.New("my own")
	for _, tc := range []struct {
		next *Group
		err  error
		want error
	}{
		{nil, own, own},
		{&Group{Name: "other"}, nil, ErrInvalidName},
		{&Group{Name: "b/c"}, nil, ErrInvalidName},
		{&Group{}, nil, ErrInvalidName},
	} {
		err := s.Change(t.Context(), "b", func(*Group) (*Group, error) { return tc.next, tc.err })
		if !errors.Is(err, tc.want) {
			t.Errorf("Change to %+v: %v, want %v", tc.next, err, tc.want)
		}
	}
	huge := Group{Name: "b", Nodes: []Node{{Files: map[string][]byte{"f": make([]byte, maxFile)}}}}
	if err := s.Change(t.Context(), "b", func(*Group) (*Group, error) { return &huge, nil }); err == nil {
		t.Error("stored what cannot be read again")
	}
	if after := read(t, s.path("instances", "b")); after != before {
		t.Errorf("a failed change left %s", after)
	}
}

func TestNames(t *testing.T) {
	for name, want := range map[string]string{"a": "a", "Foo.Bar-1_2": "foo.bar-1_2", "0": "0", strings.Repeat("a", 128): strings.Repeat("a", 128)} {
		if got, err := ValidName(name); got != want || err != nil {
			t.Errorf("ValidName(%q) = %q, %v", name, got, err)
		}
	}
	s := Open(filepath.Join(t.TempDir(), "s"))
	for _, name := range []string{"", ".", "..", "../x", "a/b", `a\b`, ".a", "-a", "_a", "a b", "ä", "a\x00", "a\n", "\u212a", strings.Repeat("a", 129)} {
		_, verr := ValidName(name)
		_, gerr := s.Get(t.Context(), name)
		for what, err := range map[string]error{
			"ValidName":    verr,
			"Get":          gerr,
			"Change":       s.Change(t.Context(), name, keep),
			"Remove":       s.Remove(t.Context(), name),
			"Touch":        s.Touch(t.Context(), name, time.Now()),
			"SaveRef":      s.SaveRef(t.Context(), name, "n", "i", Ref{}),
			"SaveRef node": s.SaveRef(t.Context(), "b", name, "i", Ref{}),
			"SaveRef id":   s.SaveRef(t.Context(), "b", "n", name, Ref{}),
		} {
			if !errors.Is(err, ErrInvalidName) {
				t.Errorf("%s(%q): %v", what, name, err)
			}
		}
		if name != "" {
			if err := s.SetCurrent(t.Context(), "k", name, false, false); !errors.Is(err, ErrInvalidName) {
				t.Errorf("SetCurrent(%q): %v", name, err)
			}
		}
	}
	if _, err := os.Stat(s.dir); err == nil {
		t.Error("an invalid name made the folder")
	}
}

func TestSaveRef(t *testing.T) {
	s := Open(t.TempDir())
	if err := s.SaveRef(t.Context(), "b", "b0", "id1", Ref{Target: "t", LocalPath: "/l", DockerfilePath: "/d"}); err != nil {
		t.Fatal(err)
	}
	if err := s.SaveRef(t.Context(), "b", "b0", "id2", Ref{GroupRef: "g"}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"refs/version":  "2",
		"refs/b/b0/id1": `{"Target":"t","LocalPath":"/l","DockerfilePath":"/d"}`,
		"refs/b/b0/id2": `{"Target":"","LocalPath":"","DockerfilePath":"","GroupRef":"g"}`,
	} {
		if got := read(t, s.path(name)); got != want {
			t.Errorf("%s holds %s, want %s", name, got, want)
		}
	}
	if fi, err := os.Stat(s.path("refs/b/b0/id1")); err != nil || fi.Mode().Perm() != 0o644 {
		t.Errorf("mode %v, %v", fi.Mode(), err)
	}
	put(t, s, "refs/version", "3")
	if err := s.SaveRef(t.Context(), "b", "b0", "id3", Ref{}); err != nil || read(t, s.path("refs/version")) != "3" {
		t.Errorf("the version of a later layout was overwritten: %v", err)
	}
	if err := s.SaveRef(t.Context(), "Version", "b0", "id", Ref{}); !errors.Is(err, ErrInvalidName) {
		t.Errorf("a builder named version: %v", err)
	}
	create(t, s, "version")
	if err := s.Remove(t.Context(), "version"); err != nil || read(t, s.path("refs/version")) != "3" {
		t.Errorf("removing a builder named version: %v", err)
	}
}

func TestCurrent(t *testing.T) {
	s := Open(t.TempDir())
	ctx := t.Context()
	for _, name := range []string{"a", "b", "c"} {
		create(t, s, name)
	}
	is := func(key, want string) {
		t.Helper()
		if got, err := s.Current(ctx, key); got != want || err != nil {
			t.Errorf("Current(%q) = %q, %v; want %q", key, got, err, want)
		}
	}
	set := func(key, name string, global, def bool) {
		t.Helper()
		if err := s.SetCurrent(ctx, key, name, global, def); err != nil {
			t.Fatal(err)
		}
	}
	is("k1", "")
	set("k1", "a", false, false)
	is("k1", "a")
	is("k2", "")
	if got := read(t, s.path("current")); got != `{"Key":"k1","Name":"a","Global":false}` {
		t.Errorf("current holds %s", got)
	}
	set("k1", "a", false, true)
	set("k2", "b", false, false)
	is("k1", "a") // from defaults
	is("k2", "b")
	// sha256("k1") begins with these 20 digits.
	if got := read(t, s.path("defaults", "6ab9f1eb8f7d3388f4f9")); got != "a" {
		t.Errorf("defaults holds %q", got)
	}
	set("k2", "c", true, false)
	is("k1", "c")
	is("k3", "c")
	if err := s.Remove(ctx, "c"); err != nil {
		t.Fatal(err)
	}
	is("k1", "a") // the global one is gone
	is("k3", "")
	set("k1", "b", false, false) // without default: the lasting choice goes
	set("k2", "b", false, false)
	is("k1", "")
	set("k2", "", false, false)
	is("k2", "")
	put(t, s, "defaults/6ab9f1eb8f7d3388f4f9", "gone")
	is("k1", "")
	put(t, s, "instances/b", "garbage") // chosen is chosen: building must not go elsewhere
	put(t, s, "current", `{"Key":"k1","Name":"B"}`)
	is("k1", "B")
}

func TestNodeID(t *testing.T) {
	s := Open(filepath.Join(t.TempDir(), "new"))
	id, err := s.NodeID(t.Context())
	if err != nil || len(id) != 16 || strings.Trim(id, "0123456789abcdef") != "" {
		t.Fatalf("NodeID = %q, %v", id, err)
	}
	if again, err := s.NodeID(t.Context()); again != id || err != nil {
		t.Errorf("the second NodeID = %q, %v; want %q", again, err, id)
	}
	if fi, err := os.Stat(s.path(".buildNodeID")); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", fi.Mode(), err)
	}
	for _, bad := range []string{"", "x", "ab1cf1d89fb17ed", "ab1cf1d89fb17edcab", "zz1cf1d89fb17edc"} {
		put(t, s, ".buildNodeID", bad)
		if again, err := s.NodeID(t.Context()); err != nil || len(again) != 16 || again == bad {
			t.Errorf("instead of %q: %q, %v", bad, again, err)
		}
	}
}

func TestStaleStagingFiles(t *testing.T) {
	s := Open(t.TempDir())
	create(t, s, "b")
	old := put(t, s, "instances/.berth-1.tmp", `{"Name":"half`)
	young := put(t, s, "instances/.berth-2.tmp", "")
	foreign := put(t, s, "instances/.tmp-b123", "")
	past := time.Now().Add(-2 * staleAfter)
	if err := errors.Join(os.Chtimes(old, past, past), os.Chtimes(foreign, past, past)); err != nil {
		t.Fatal(err)
	}
	groups, damages, err := s.List(t.Context())
	if len(groups) != 1 || damages != nil || err != nil {
		t.Errorf("List = %q, %v, %v", names(groups), damages, err)
	}
	create(t, s, "c")
	if _, err := os.Stat(old); !errors.Is(err, fs.ErrNotExist) {
		t.Error("an old staging file was not swept")
	}
	for _, path := range []string{young, foreign} {
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
		}
	}
}

func TestLockIsWaitedForWithinABudget(t *testing.T) {
	s := Open(t.TempDir())
	create(t, s, "b")
	unlock, err := s.lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	impatient := Open(s.dir)
	impatient.lockBudget = 1
	for what, try := range lockers(impatient) {
		err := try(t.Context())
		if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), s.path(".lock")) || len(hint.Of(err)) == 0 {
			t.Errorf("%s while locked: %v, hints %q", what, err, hint.Of(err))
		}
	}
	cause := errors.New("pressed Ctrl-C")
	for what, try := range lockers(s) {
		ctx, cancel := context.WithCancelCause(t.Context())
		done := make(chan error)
		go func() { done <- try(ctx) }()
		cancel(cause)
		if err := <-done; !errors.Is(err, cause) {
			t.Errorf("%s, cancelled: %v", what, err)
		}
	}
	done := make(chan error)
	go func() { done <- s.Change(t.Context(), "b", keep) }()
	unlock()
	if err := <-done; err != nil {
		t.Errorf("after the lock was released: %v", err)
	}
}

func lockers(s *Store) map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"List":       func(ctx context.Context) error { _, _, err := s.List(ctx); return err },
		"Get":        func(ctx context.Context) error { _, err := s.Get(ctx, "b"); return err },
		"Change":     func(ctx context.Context) error { return s.Change(ctx, "b", keep) },
		"Remove":     func(ctx context.Context) error { return s.Remove(ctx, "b") },
		"Current":    func(ctx context.Context) error { _, err := s.Current(ctx, "k"); return err },
		"SetCurrent": func(ctx context.Context) error { return s.SetCurrent(ctx, "k", "b", false, false) },
		"Touch":      func(ctx context.Context) error { return s.Touch(ctx, "b", time.Now()) },
		"NodeID":     func(ctx context.Context) error { _, err := s.NodeID(ctx); return err },
		"SaveRef":    func(ctx context.Context) error { return s.SaveRef(ctx, "b", "n", "i", Ref{}) },
	}
}

// Two stores in one process must exclude each other like two processes.
func TestChangesDoNotOverlap(t *testing.T) {
	dir := t.TempDir()
	create(t, Open(dir), "b")
	const n = 20
	done := make(chan error)
	for range n {
		go func() {
			done <- Open(dir).Change(t.Context(), "b", func(g *Group) (*Group, error) {
				g.Nodes = append(g.Nodes, Node{Name: "x"})
				return g, nil
			})
		}()
	}
	for range n {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if g, err := Open(dir).Get(t.Context(), "b"); err != nil || len(g.Nodes) != n+1 {
		t.Errorf("%d nodes, %v; want %d", len(g.Nodes), err, n+1)
	}
}

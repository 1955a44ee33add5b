package build

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/berthbuild/berth/internal/buildflag"
	"github.com/berthbuild/berth/internal/request"
	"github.com/berthbuild/berth/internal/snapshot"
)

// keyOf is the shared key of a build of r that begins now.
func keyOf(t *testing.T, r request.Request, o Options) string {
	t.Helper()
	in, err := openInputs(r, o)
	if err != nil {
		t.Fatal(err)
	}
	defer in.close()
	snaps := newSnapshots(t.Context(), builderOf(node("n", "unix:///x")), o)
	defer snaps.close()
	in.beginSnapshots(snaps)
	if err := in.takeSnapshots(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	return in.sharedKey
}

// The copy that a daemon keeps belongs to one machine, one folder under one name,
// and to what no other content of the same size and time was ever announced of.
func TestSharedKey(t *testing.T) {
	o := options(t)
	o.Machine = "m"
	o.Contexts.Store = snapshot.NewStore(t.TempDir())
	a, b := req(t), req(t)
	first := keyOf(t, a, o)
	if again := keyOf(t, a, o); again != first {
		t.Error("the same folder has another key: everything is sent again")
	}
	if keyOf(t, b, o) == first {
		t.Error("two folders have one key")
	}
	other := o
	other.Machine = "m2"
	if keyOf(t, a, other) == first {
		t.Error("two machines have one key")
	}
	named := a
	named.Contexts = []buildflag.NamedContext{{Name: "x", Value: b.Context.Dir}}
	withX := keyOf(t, named, o)
	named.Contexts = []buildflag.NamedContext{{Name: "y", Value: b.Context.Dir}}
	if withX == first || keyOf(t, named, o) == withX {
		t.Error("a named folder is not in the key, or its name is not")
	}
	full := o
	full.Contexts.Full = true
	if one := keyOf(t, a, full); one == keyOf(t, a, full) || one == first {
		t.Error("a folder that is sent whole has a key that a daemon may know")
	}

	path := filepath.Join(a.Context.Dir, "same")
	at := time.Unix(1_000_000_000, 0)
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
	write("one")
	before := keyOf(t, a, o)
	if before != first {
		t.Error("a new file has moved the key: everything is sent again")
	}
	write("two")
	if keyOf(t, a, o) == before {
		t.Error("the daemon would not see that the file has changed")
	}
}

// The Dockerfile has a name by its content too, but not where all is sent as it is:
// what failed by another build of the same content must not fail by it again.
func TestDockerfileNames(t *testing.T) {
	o := options(t)
	r := req(t)
	name := func() string {
		t.Helper()
		in, err := openInputs(r, o)
		if err != nil {
			t.Fatal(err)
		}
		defer in.close()
		return in.dockerfile
	}
	if one := name(); one == "" || one != name() {
		t.Error("the same Dockerfile has another name")
	}
	o.Contexts.Full = true
	if one := name(); one == "" || one == name() {
		t.Error("a Dockerfile that is sent as it is has a name that others have")
	}
}

// The patterns are those of the Dockerfile's own .dockerignore, or else those of
// the context's.
func TestIgnoredAsTheFrontendDoes(t *testing.T) {
	r := req(t)
	dir := r.Context.Dir
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	excludes := func() []string {
		t.Helper()
		in, err := openInputs(r, options(t))
		if err != nil {
			t.Fatal(err)
		}
		defer in.close()
		list, always, err := in.ignored(request.LocalContext, in.mounts[request.LocalContext].(strictFS).dir)
		if err != nil || len(always) != 1 || always[0] != ".dockerignore" {
			t.Fatal(always, err)
		}
		return list
	}
	if got := excludes(); got != nil {
		t.Error(got)
	}
	write(".dockerignore", "# a comment\na\n!b\n")
	if got := excludes(); len(got) != 2 || got[0] != "a" || got[1] != "!b" {
		t.Error(got)
	}
	write("Dockerfile.dockerignore", "c\n")
	if got := excludes(); len(got) != 1 || got[0] != "c" {
		t.Error(got)
	}
	write("Dockerfile.dockerignore", "")
	if got := excludes(); got != nil {
		t.Error("an empty one counts:", got)
	}
}

// A session is compressed towards other machines only, and to daemons that are known
// to know how.
func TestZips(t *testing.T) {
	for _, c := range []struct {
		endpoint, version string
		want              bool
	}{
		{"tcp://buildkit.example:1234", "v0.34.2", true},
		{"ssh://buildkit.example", "v0.11.0", true},
		{"kube-pod://b", "v0.34.2", true},
		{"tcp://buildkit.example:1234", "", false},
		{"tcp://127.0.0.1:1234", "v0.34.2", false},
		{"unix:///run/buildkit.sock", "v0.34.2", false},
		{"docker-container://b", "v0.34.2", false},
	} {
		if got := zips(node("n", c.endpoint), c.version); got != c.want {
			t.Errorf("%s, %q: %v", c.endpoint, c.version, got)
		}
	}
}

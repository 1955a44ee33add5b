//go:build e2e && linux

package test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/berthbuild/berth/test/lab"
	"github.com/moby/buildkit/client"
)

// Each test here is a way in which a build could get other bytes than its folder
// holds, or pay for being sure that it does not. contextmodel_test.go looks for more
// of them.

// longAgo is the time of files that look as if nothing had happened to them.
var longAgo = time.Unix(1_000_000_000, 0)

// look puts a file into a folder whose time tells nothing.
func look(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, longAgo, longAgo); err != nil {
		t.Fatal(err)
	}
}

// sent builds a folder, and gives its file f and what was said.
func sent(t *testing.T, berth *lab.CLI, dir string, args ...string) (string, string) {
	t.Helper()
	out := t.TempDir()
	r := berth.OK(append([]string{"build", "--progress", "plain", "-o", out, dir}, args...)...)
	return read(t, join(out, "f")), r.Stderr
}

// Two folders with the same base name, and files of the same size and time: buildx
// gives the second build the first one's bytes.
func TestContextOfTheSameBaseName(t *testing.T) {
	berth, _ := shared(t)
	one, two := join(t.TempDir(), "proj"), join(t.TempDir(), "proj")
	for dir, text := range map[string]string{one: "1111", two: "2222"} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		look(t, join(dir, "f"), text)
		look(t, join(dir, "Dockerfile"), "FROM scratch\nCOPY f /\n")
	}
	for range 2 {
		for dir, want := range map[string]string{one: "1111", two: "2222"} {
			if got, _ := sent(t, berth, dir); got != want {
				t.Errorf("%q, wanted %q", got, want)
			}
		}
	}
	// And when they change places.
	tmp := join(t.TempDir(), "proj")
	for _, move := range [][2]string{{one, tmp}, {two, one}, {tmp, two}} {
		if err := os.Rename(move[0], move[1]); err != nil {
			t.Fatal(err)
		}
	}
	for dir, want := range map[string]string{one: "2222", two: "1111"} {
		if got, _ := sent(t, berth, dir); got != want {
			t.Errorf("changed places: %q, wanted %q", got, want)
		}
	}
}

// An edit that leaves size and time as they were is sent, also of the Dockerfile and
// of .dockerignore, and when the file was as it is now before.
func TestContextUnseenEdits(t *testing.T) {
	berth, _ := shared(t)
	dir := lab.Context(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY f /\n"})
	for _, text := range []string{"one.", "two.", "one.", "thre", "two."} {
		look(t, join(dir, "f"), text)
		if got, _ := sent(t, berth, dir); got != text {
			t.Errorf("%q, wanted %q", got, text)
		}
	}
	for _, from := range []string{"a", "b", "a"} {
		look(t, join(dir, "a"), "is a")
		look(t, join(dir, "b"), "is b")
		look(t, join(dir, "Dockerfile"), "FROM scratch\nCOPY "+from+" /f\n")
		if got, _ := sent(t, berth, dir); got != "is "+from {
			t.Errorf("%q, wanted %q", got, "is "+from)
		}
	}
	look(t, join(dir, "Dockerfile"), "FROM scratch\nCOPY . /\n")
	for _, left := range []string{"a", "b", "a"} {
		look(t, join(dir, ".dockerignore"), left+"\n")
		out := t.TempDir()
		berth.OK("build", "-o", out, dir)
		if exists(join(out, left)) || !exists(join(out, map[string]string{"a": "b", "b": "a"}[left])) {
			t.Errorf("without %s: %q", left, names(t, out))
		}
	}
}

// A file with other bytes that is a hard link now, to one that the Dockerfile does not
// ask for, is a file of its own to the daemon, and looks as it did.
// (TestContextModel, seed 20261201, history 14.)
func TestContextHardLinkToWhatIsNotSent(t *testing.T) {
	berth, _ := shared(t)
	dir := lab.Context(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY d1 /\n", "d0/other": "", "d1/f": ""})
	for _, text := range []string{"one.", "two.", "thre"} {
		look(t, join(dir, "d1/f"), text)
		link := join(dir, "d0/a")
		if err := os.Remove(link); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		if text == "two." {
			if err := os.Link(join(dir, "d1/f"), link); err != nil {
				t.Fatal(err)
			}
		}
		if got, _ := sent(t, berth, dir); got != text {
			t.Errorf("%q, wanted %q", got, text)
		}
	}
}

// A daemon that gives its copy of a folder another mode goes on with what it knew of
// the copy's content.
func TestContextFolderMode(t *testing.T) {
	berth, _ := shared(t)
	dir := lab.Context(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY . /\n", "d/f": "text"})
	for _, mode := range []os.FileMode{0o755, 0o700, 0o755, 0o750} {
		if err := os.Chmod(join(dir, "d"), mode); err != nil {
			t.Fatal(err)
		}
		out := t.TempDir()
		berth.OK("build", "-o", out, dir)
		if fi, err := os.Stat(join(out, "d")); err != nil || fi.Mode().Perm() != mode {
			t.Errorf("%v, wanted %v: %v", fi.Mode(), mode, err)
		}
	}
}

// What .dockerignore leaves out is no reason to build again: not for being there, and
// not for being a link that a pattern of the Dockerfile matches.
func TestContextIgnoredFiles(t *testing.T) {
	berth, _ := shared(t)
	dir := lab.Context(t, map[string]string{
		"Dockerfile": "FROM scratch\nCOPY f* /\n", ".dockerignore": "left\nf-link\n", "f": "text", "left/g": "not wanted",
	})
	if err := os.Symlink("left/g", join(dir, "f-link")); err != nil {
		t.Fatal(err)
	}
	got, said := sent(t, berth, dir)
	if got != "text" {
		t.Error(got)
	}
	hasNot(t, "the first build", said, "sending the context as it is")
	has(t, "the first build", said, "sent 1 of 3 files")
	_, said = sent(t, berth, dir)
	has(t, "the second build", said, "context unchanged (3 files checked in ")
}

// A folder that is one build's context and a named one of another has a session for
// each: the daemon asks the later of two sessions with one name for everything.
func TestContextUnderTwoNames(t *testing.T) {
	berth, bk := shared(t)
	dir := lab.Context(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY . /\n", "f": "text"})
	other := lab.Context(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY --from=extra . /\n"})
	c := bk.Client(t)
	for i := range 10 {
		look(t, join(dir, "f"), fmt.Sprintf("text %d", i))
		var all []*lab.Process
		var outs []string
		for _, args := range [][]string{{dir}, {other, "--build-context", "extra=" + dir}, {dir}} {
			outs = append(outs, t.TempDir())
			all = append(all, berth.Start(append([]string{"build", "--progress", "plain", "-o", outs[len(outs)-1]}, args...)...))
		}
		for n, p := range all {
			r := p.Wait()
			if r.Code != 0 {
				t.Fatal(r)
			}
			hasNot(t, "a build", r.Stderr, "sending the context as it is")
			if got := read(t, join(outs[n], "f")); got != fmt.Sprintf("text %d", i) {
				t.Errorf("round %d, build %d: %q", i, n, got)
			}
		}
		if err := c.Prune(t.Context(), nil, client.WithFilter([]string{"type==source.local"})); err != nil {
			t.Fatal(err)
		}
	}
}

// Of several builds with one name the first is killed: the others do not fail with
// it, whichever of them the daemon had asked for the folder.
func TestContextOfAKilledBuild(t *testing.T) {
	berth, _ := shared(t)
	dir := lab.Context(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY . /\n"})
	for i := range 6 {
		for n := range 300 {
			look(t, join(dir, fmt.Sprint("g", n)), fmt.Sprint(i, n))
		}
		look(t, join(dir, "f"), fmt.Sprint("text ", i))
		var all []*lab.Process
		var outs []string
		for range 3 {
			outs = append(outs, t.TempDir())
			all = append(all, berth.Start("build", "--progress", "plain", "-o", outs[len(outs)-1], dir))
		}
		all[i%3].WaitFor("load build context")
		all[i%3].Kill()
		<-all[i%3].Done()
		for n, p := range all {
			if n == i%3 {
				continue
			}
			if r := p.Wait(); r.Code != 0 {
				t.Fatal(r)
			}
			if got := read(t, join(outs[n], "f")); got != fmt.Sprint("text ", i) {
				t.Errorf("round %d, build %d: %q", i, n, got)
			}
		}
	}
}

// A session that the build names is there, and is asked: a daemon looks 5 s for one
// that is not, for each folder, before it asks the build's own.
func TestContextSessionsAreFound(t *testing.T) {
	berth, _ := shared(t)
	dir := lab.Context(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY f /\nCOPY --from=extra g /\n", "f": fmt.Sprint(time.Now())})
	extra := lab.Context(t, map[string]string{"g": fmt.Sprint(time.Now())})
	_, said := sent(t, berth, dir, "--build-context", "extra="+extra)
	// Only what those sessions send is told of.
	has(t, "the build", said, "sent 1 of 2 files", "sent 1 of 1 file,")
}

// Frontends in images get the same: one of today finds an unchanged folder, and one
// that knows nothing of sessions for folders is sent them by the build's own.
func TestContextOfOtherFrontends(t *testing.T) {
	berth, _ := shared(t)
	registry := lab.Registry(t)
	for how, unchanged := range map[string]bool{"dockerfiles": true, "as before v0.16": false} {
		image := registry.Addr() + "/" + strings.ReplaceAll(how, " ", "-")
		frontend := lab.FrontendContext(t, `ENV BUILDS="`+how+`"`+"\n"+`LABEL moby.buildkit.frontend.caps="moby.buildkit.frontend.inputs,moby.buildkit.frontend.subrequests,moby.buildkit.frontend.contexts"`)
		berth.OK("build", frontend, "-t", image, "--push")
		dir := lab.Context(t, map[string]string{"Dockerfile": "# syntax=" + image + "\nFROM scratch\nCOPY f /\nCOPY --from=extra g /\n", ".dockerignore": "left\n", "left": "not wanted"})
		extra := lab.Context(t, map[string]string{"g": "of extra"})
		for _, text := range []string{"one.", "two.", "one."} {
			look(t, join(dir, "f"), text)
			if got, _ := sent(t, berth, dir, "--build-context", "extra="+extra); got != text {
				t.Errorf("%s: %q, wanted %q", how, got, text)
			}
		}
		got, said := sent(t, berth, dir, "--build-context", "extra="+extra)
		if got != "one." {
			t.Errorf("%s: %q", how, got)
		}
		hasNot(t, how, said, "sending the context as it is")
		if is := strings.Contains(said, "context unchanged ("); is != unchanged {
			t.Errorf("%s: unchanged: %v\n%s", how, is, said)
		}
	}
}

// An edit while a build runs gives the bytes before or after it, and the next build
// has those after it, in every build of the folder that trusts the name.
func TestContextEditsWhileItIsSent(t *testing.T) {
	berth, _ := shared(t)
	dir := lab.Context(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY . /\n"})
	large := func(c string) string { return strings.Repeat(c, 300_000) }
	for i := range 12 {
		before, after := large(string(rune('a'+i))), large(string(rune('A'+i)))
		for n := range 40 {
			look(t, join(dir, fmt.Sprint("x", n)), fmt.Sprint(i, n))
		}
		look(t, join(dir, "f"), before)
		out := t.TempDir()
		p := berth.Start("build", "--progress", "plain", "-o", out, dir)
		if i%2 == 0 {
			p.WaitFor("load build definition")
		} else {
			p.WaitFor("load build context")
		}
		look(t, join(dir, "tmp"), after)
		if err := os.Rename(join(dir, "tmp"), join(dir, "f")); err != nil {
			t.Fatal(err)
		}
		if r := p.Wait(); r.Code != 0 {
			t.Fatal(r)
		}
		if got := read(t, join(out, "f")); got != before && got != after {
			t.Errorf("round %d: a mixture: %q … %q", i, got[:4], got[len(got)-4:])
		}
		for range 2 {
			if got, _ := sent(t, berth, dir); got != after {
				t.Errorf("round %d: the next build has %q …", i, got[:4])
			}
		}
	}
}

// A daemon that is killed while it fetches a folder has some of the new files, and
// the old digests of them: what it has must not be used again.
func TestContextOfAKilledDaemon(t *testing.T) {
	bk := lab.BuildKit(t, lab.BuildKitOpts{})
	berth := lab.Berth(t)
	berth.OK("create", "--name", "b", "--driver", "remote", "--use", bk.UnixAddr())
	dir := lab.Context(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY early /\nCOPY late /late/\n", "early/f": "", "late/f": ""})
	write := func(text string) {
		t.Helper()
		look(t, join(dir, "early/f"), text)
		for n := range 3000 {
			if err := os.WriteFile(join(dir, fmt.Sprintf("late/f%04d", n)), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	write("at first")
	sent(t, berth, dir)
	for i := range 4 {
		text := "round " + strings.Repeat("x", i)
		write(text)
		p := berth.Start("build", "--progress", "plain", "-o", t.TempDir(), dir)
		p.WaitFor("transferring context: ")
		bk.Kill()
		bk.Start(t)
		p.Wait() // well or not
		if got, _ := sent(t, berth, dir); got != text {
			t.Errorf("round %d: %q", i, got)
		}
	}
}

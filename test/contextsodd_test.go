//go:build e2e && linux

package test

import (
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berthbuild/berth/test/lab"
)

// What a folder may hold besides plain files with plain names arrives as it is,
// as it does from buildx: sockets as empty files, links as links.
func TestContextOddFiles(t *testing.T) {
	berth, _ := shared(t)
	outside := join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, []byte("private"), 0o644); err != nil {
		t.Fatal(err)
	}
	dir := lab.Context(t, map[string]string{
		"Dockerfile": "FROM scratch\nCOPY . /x/\n", "a\xffb": "latin", "new\nline": "", "ü": "", "A": "upper", "a": "lower",
		strings.Repeat("n", 255): "long", strings.Repeat("deep/", 200) + "f": "deep",
	})
	for name, to := range map[string]string{"out": outside, "up": "../../../etc/passwd", "nowhere": "nosuch", "bad\xfe": "to\xfe", "folder": "/etc", "self": "self"} {
		if err := os.Symlink(to, join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mkfifo(join(dir, "pipe"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mknod(join(dir, "device"), unix.S_IFCHR|0o644, int(unix.Mkdev(1, 3))); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(join(dir, "a"), join(dir, "hard")); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir) // the path of a socket must be short
	l, err := net.Listen("unix", "socket")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	// A folder takes no devices and pipes from a daemon; an archive is what it is.
	r := berth.Cmd("build", "-o", t.TempDir(), ".").Dir(dir).Run()
	if r.Code != 1 || !strings.Contains(lastLine(r.Stderr), "not a file, a folder or a link") {
		t.Error(r)
	}
	out, archive := t.TempDir(), join(t.TempDir(), "x.tar")
	build(t, berth, dir, "-o", "type=tar,dest="+archive)
	if text, err := exec.Command("tar", "-x", "-f", archive, "-C", out).CombinedOutput(); err != nil {
		t.Fatalf("tar: %v: %s", err, text)
	}
	got := list(t, join(out, "x"))
	want := list(t, dir)
	want["socket"] = "-rwxr-xr-x " // an empty file
	for name := range want {
		if got[name] != want[name] {
			t.Errorf("%q: %q, wanted %q", name, got[name], want[name])
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d of %d arrived", len(got), len(want))
	}
}

// list is what is in a folder: kind and mode, and what it holds.
func list(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		rel := strings.TrimPrefix(path, dir+"/")
		all[rel] = fi.Mode().String() + " "
		switch {
		case fi.Mode().IsRegular():
			all[rel] += read(t, path)
		case fi.Mode()&fs.ModeSymlink != 0:
			to, err := os.Readlink(path)
			all[rel] += to
			return err
		case fi.Mode()&fs.ModeDevice != 0:
			if st, ok := fi.Sys().(*syscall.Stat_t); ok {
				all[rel] += fmt.Sprint(st.Rdev)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// The folder that is built may be reached by a link, and may have nothing in it.
func TestContextByLinkAndEmpty(t *testing.T) {
	berth, _ := shared(t)
	folder := simple(t)
	link := join(t.TempDir(), "link")
	if err := os.Symlink(folder, link); err != nil {
		t.Fatal(err)
	}
	if got := copies(t, berth, "default", link); got != "text" {
		t.Errorf("by a link: %q", got)
	}
	out, empty := t.TempDir(), t.TempDir()
	r := berth.Cmd("build", "-o", out, "-f", "-", empty).Stdin(strings.NewReader("FROM scratch\nCOPY . /all/\n")).Run()
	if r.Code != 0 || len(names(t, out)) > 1 {
		t.Errorf("an empty folder: %q, %s", names(t, out), r)
	}
	r = berth.Run("build", empty)
	if r.Code != 1 || !strings.Contains(lastLine(r.Stderr), "failed to read dockerfile: no such file: "+empty) {
		t.Errorf("an empty folder without a Dockerfile: %s", r)
	}
}

// What the user may not read is named, unless .dockerignore leaves it out.
func TestContextUnreadable(t *testing.T) {
	bk := lab.BuildKit(t, lab.BuildKitOpts{TCP: true})
	n := newNobody(t)
	if stderr, code := n.run(nil, "create", "--name", "b", "--use", bk.TCPAddr()); code != 0 {
		t.Fatal(stderr)
	}
	n.file("ctx/private/x", "text")
	n.file("ctx/secret.txt", "text")
	for name, mode := range map[string]os.FileMode{"ctx/Dockerfile": 0o644, "ctx/private": 0o700} {
		if name == "ctx/Dockerfile" {
			n.file(name, "FROM scratch\nCOPY . /\n")
		}
		if err := os.Chmod(join(n.dir, name), mode); err != nil {
			t.Fatal(err)
		}
	}
	ignore := func(text string) {
		if err := os.WriteFile(join(n.dir, "ctx", ".dockerignore"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	ignore("secret.txt\n")
	stderr, code := n.run(nil, "build", "ctx")
	if want := "ERROR: failed to build: build context: open " + join(n.dir, "ctx", "private") + ": permission denied"; code != 1 || lastLine(stderr) != want {
		t.Errorf("a folder: exit %d, wanted %s\n%s", code, want, stderr)
	}
	has(t, "stderr", stderr, "hint: make it readable, or leave it out with a line in .dockerignore")
	ignore("private\n")
	stderr, code = n.run(nil, "build", "ctx")
	if want := "ERROR: failed to build: build context: open " + join(n.dir, "ctx", "secret.txt") + ": permission denied"; code != 1 || lastLine(stderr) != want {
		t.Errorf("a file: exit %d, wanted %s\n%s", code, want, stderr)
	}
	ignore("private\nsecret.txt\n")
	if stderr, code = n.run(nil, "build", "ctx"); code != 0 {
		t.Errorf("both are ignored: exit %d\n%s", code, stderr)
	}
}

// A hundred thousand files arrive, all of them.
func TestContextManyFiles(t *testing.T) {
	const folders, each = 100, 1000
	berth, _ := shared(t)
	dir := lab.ShellContext(t, "RUN --mount=type=bind,source=files,target=/files find /files -type f | wc -l > /count\nFROM scratch\nCOPY --from=0 /count /\n", nil)
	for i := range folders {
		sub := join(dir, "files", fmt.Sprint(i))
		if err := os.MkdirAll(sub, 0o755); err != nil {
			t.Fatal(err)
		}
		for j := range each {
			f, err := os.Create(join(sub, fmt.Sprint(j)))
			if err != nil {
				t.Fatal(err)
			}
			_ = f.Close()
		}
	}
	out := t.TempDir()
	// Half a minute on a quiet machine, most of it the daemon's.
	if r := berth.Cmd("build", "-o", out, dir).Limit(8 * time.Minute).Run(); r.Code != 0 {
		t.Fatal(r)
	}
	if got := strings.TrimSpace(read(t, join(out, "count"))); got != fmt.Sprint(folders*each) {
		t.Errorf("%s files arrived", got)
	}
}

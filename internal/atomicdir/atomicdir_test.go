package atomicdir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// lay makes things in a folder: "a/" is a folder, "a@b" a link from a to b, and
// "a=text" a file.
func lay(t *testing.T, dir string, things ...string) {
	t.Helper()
	for _, s := range things {
		var err error
		switch name, rest, _ := strings.Cut(s, "="); {
		case strings.HasSuffix(s, "/"):
			err = os.MkdirAll(filepath.Join(dir, s), 0o755)
		case strings.Contains(s, "@"):
			link, target, _ := strings.Cut(s, "@")
			err = os.Symlink(target, filepath.Join(dir, link))
		default:
			err = errors.Join(os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755), os.WriteFile(filepath.Join(dir, name), []byte(rest), 0o644))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// found is what is in a folder, in the words of lay; with meta also modes, times,
// and which file it is.
func found(t *testing.T, dir string, meta bool) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		rel = filepath.ToSlash(rel)
		switch {
		case d.IsDir():
			rel += "/"
		case d.Type()&fs.ModeSymlink != 0:
			target, _ := os.Readlink(path)
			rel += "@" + target
		default:
			data, _ := os.ReadFile(path)
			rel += "=" + string(data)
		}
		if meta {
			fi, err := d.Info()
			if err != nil {
				return err
			}
			rel += fmt.Sprintf(" %v %d", fi.Mode(), fi.ModTime().UnixNano())
		}
		all = append(all, rel)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func same(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n got %q\nwant %q", what, got, want)
	}
}

// staged begins new content for path, of trees with things in them.
func staged(t *testing.T, path string, trees ...[]string) *Dir {
	t.Helper()
	d, err := Create(path)
	if err != nil {
		t.Fatal(err)
	}
	for i, things := range trees {
		tree, err := d.NewTree(fmt.Sprintf("node %d", i))
		if err != nil {
			t.Fatal(err)
		}
		lay(t, tree.Path, things...)
	}
	return d
}

func TestCommit(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("links")
	}
	for _, c := range []struct {
		name   string
		had    []string // nil: there is no folder
		new    []string
		remove bool
		want   []string
	}{
		{"no folder", nil, []string{"a=1", "d/", "d/b=2", "l@/etc"}, false, []string{"a=1", "d/", "d/b=2", "l@/etc"}},
		{"empty folder", []string{}, []string{"a=1", "d/b=2"}, false, []string{"a=1", "d/", "d/b=2"}},
		{"nothing new", []string{"x=old"}, []string{}, false, []string{"x=old"}},
		{"merged", []string{"a=old", "x=old", "d/b=old", "d/y=old", "e/z=old"}, []string{"a=1", "d/b=2", "d/c=3", "f/g=4"}, false,
			[]string{"a=1", "d/", "d/b=2", "d/c=3", "d/y=old", "e/", "e/z=old", "f/", "f/g=4", "x=old"}},
		{"a file for a folder", []string{"a/deep/x=old", "b=old"}, []string{"a=1"}, false, []string{"a=1", "b=old"}},
		{"a folder for a file", []string{"a=old"}, []string{"a/x=1"}, false, []string{"a/", "a/x=1"}},
		{"a folder for a link to one", []string{"real/x=old", "a@real"}, []string{"a/x=1"}, false, []string{"a/", "a/x=1", "real/", "real/x=old"}},
		{"a file for a link", []string{"x=old", "a@x"}, []string{"a=1"}, false, []string{"a=1", "x=old"}},
		{"a link for a folder", []string{"a/x=old"}, []string{"a@.."}, false, []string{"a@.."}},
		{"the rest goes", []string{"a=old", "x=old", "d/b=old", "d/y=old", "e/z=old", ".berth-OLD.tmp/x=crash", "l@a"}, []string{"a=1", "d/b=2"}, true,
			[]string{"a=1", "d/", "d/b=2"}},
		{"all goes", []string{"x=old", "e/z=old"}, []string{}, true, nil},
		{"no folder, and nothing to go", nil, []string{"a=1"}, true, []string{"a=1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			above := t.TempDir()
			path := filepath.Join(above, "out")
			if c.had != nil {
				lay(t, above, "out/")
				lay(t, path, c.had...)
			}
			d := staged(t, path, c.new)
			if c.had == nil {
				if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("before the end: %v", err)
				}
			}
			if err := d.Commit(Options{Delete: c.remove}); err != nil {
				t.Fatal(err)
			}
			same(t, "folder", found(t, path, false), c.want)
			entries, _ := os.ReadDir(above)
			if len(entries) != 1 {
				t.Errorf("left: %v", entries)
			}
			if err := d.Commit(Options{}); !errors.Is(err, fs.ErrClosed) {
				t.Errorf("a second time: %v", err)
			}
			if err := d.Abort(); err != nil {
				t.Error(err)
			}
		})
	}
}

// A folder that is reached by a link is filled where it is, and the link stays.
func TestCommitBehindLink(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("links")
	}
	dir := t.TempDir()
	lay(t, dir, "real/", "out@real")
	if err := staged(t, filepath.Join(dir, "out"), []string{"a=1"}).Commit(Options{}); err != nil {
		t.Fatal(err)
	}
	same(t, "folders", found(t, dir, false), []string{"out@real", "real/", "real/a=1"})
}

// Somebody else may make the folder while it is staged.
func TestCommitAppeared(t *testing.T) {
	dir := t.TempDir()
	d := staged(t, filepath.Join(dir, "out"), []string{"a=1", "x/y=2"})
	lay(t, dir, "out/x/z=theirs")
	if err := d.Commit(Options{}); err != nil {
		t.Fatal(err)
	}
	same(t, "folder", found(t, dir, false), []string{"out/", "out/a=1", "out/x/", "out/x/y=2", "out/x/z=theirs"})
	d = staged(t, filepath.Join(dir, "file"), []string{"a=1"})
	lay(t, dir, "file=theirs")
	err := d.Commit(Options{})
	var pe *fs.PathError
	if !errors.As(err, &pe) {
		t.Error(err)
	}
	same(t, "files", found(t, dir, false), []string{"file=theirs", "out/", "out/a=1", "out/x/", "out/x/y=2", "out/x/z=theirs"})
}

func TestAbort(t *testing.T) {
	dir := t.TempDir()
	lay(t, dir, "in/x=old")
	before := found(t, dir, false)
	for _, path := range []string{"in", "out"} {
		d := staged(t, filepath.Join(dir, path), []string{"a/b=1"}, []string{"x=2"})
		for _, tree := range d.trees {
			_ = os.Chmod(filepath.Join(tree.Path, "a"), 0) // what an export may say
		}
		if err := d.Abort(); err != nil {
			t.Error(err)
		}
		if err := d.Commit(Options{}); !errors.Is(err, fs.ErrClosed) {
			t.Error(err)
		}
	}
	same(t, "folders", found(t, dir, false), before)
}

// The modes and times of what is new are kept, also of folders that were there.
func TestModes(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("modes")
	}
	dir := t.TempDir()
	old := time.Unix(1_000_000_000, 0)
	for range 2 { // the second time, locked folders are in the way
		d := staged(t, filepath.Join(dir, "out"), []string{"locked/in/x=1", "open/y=2"})
		at := func(name string) string { return filepath.Join(d.trees[0].Path, name) }
		for _, name := range []string{"locked/in", "locked", "open"} {
			if err := os.Chtimes(at(name), old, old); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(os.Chmod(at("locked/in"), 0o555), os.Chmod(at("locked"), 0o511)); err != nil {
			t.Fatal(err)
		}
		if err := d.Commit(Options{}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = errors.Join(os.Chmod(filepath.Join(dir, "out/locked"), 0o755), os.Chmod(filepath.Join(dir, "out/locked/in"), 0o755))
		})
		for name, mode := range map[string]fs.FileMode{"locked": 0o511, "locked/in": 0o555, "open": 0o755} {
			fi, err := os.Stat(filepath.Join(dir, "out", name))
			if err != nil || fi.Mode().Perm() != mode || !fi.ModTime().Equal(old) {
				t.Errorf("%s: %v, %v", name, fi, err)
			}
		}
	}
	if fi, err := os.Stat(filepath.Join(dir, "out")); err != nil || fi.Mode().Perm()&0o700 != 0o700 || fi.Mode().Perm()&0o022 != 0 {
		t.Errorf("%v, %v", fi, err)
	}
}

// All that a merge does can be undone, to the last bit.
func TestTakeBack(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("links")
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "out")
	lay(t, path, "a=old", "d/b=old", "d/e/f=old", "gone/x=old", "kind/x=old", "l@a", "d/gone=old")
	if err := os.Chmod(filepath.Join(path, "d", "e"), 0o555); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chmod(filepath.Join(path, "d", "e"), 0o755) })
	long := time.Unix(1_000_000_000, 0)
	for _, name := range []string{"d/e", "d", "kind"} {
		if err := os.Chtimes(filepath.Join(path, name), long, long); err != nil {
			t.Fatal(err)
		}
	}
	before := found(t, path, true)
	d := staged(t, path, []string{"a=1", "d/b=2", "d/e/f=3", "d/e/g=4", "new/x=5", "kind=6", "l/y=7"})
	st, err := d.base.open(d.temp)
	if err != nil {
		t.Fatal(err)
	}
	src, err := st.open("0")
	if err != nil {
		t.Fatal(err)
	}
	m := &merge{base: d.base, staged: st, replace: true, remove: true, ours: map[string]bool{d.temp: true}}
	if err := m.folder(src, d.base); err != nil {
		t.Fatal(err)
	}
	if slices.Equal(before, found(t, path, true)) {
		t.Fatal("nothing was done")
	}
	m.takeBack()
	m.tidy()
	src.close()
	st.close()
	if err := d.Abort(); err != nil {
		t.Error(err)
	}
	same(t, "folder", found(t, path, true), before)
}

// Where the system cannot exchange two things, the old one is put aside.
func TestPutAside(t *testing.T) {
	dir := t.TempDir()
	lay(t, dir, "x/a=old", "s/1=new")
	base, err := openFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer base.close()
	x, err1 := base.open("x")
	s, err2 := base.open("s")
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	defer x.close()
	defer s.close()
	m := &merge{base: base, staged: s, replace: true, ours: map[string]bool{}}
	if err := m.putAside(x, "a"); err != nil {
		t.Fatal(err)
	}
	same(t, "after", found(t, dir, false), []string{"s/", "s/1=new", "s/old/", "s/old/1=old", "x/"})
	m.takeBack()
	m.tidy()
	same(t, "undone", found(t, dir, false), []string{"s/", "s/1=new", "s/old/", "x/", "x/a=old"})
}

// What a rename cannot carry over is copied beside its place first.
func TestBring(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("links")
	}
	dir := t.TempDir()
	lay(t, dir, "s/a/b=1", "s/a/l@b", "s/c=2", "x/c=old")
	if err := os.Chmod(filepath.Join(dir, "s/a/b"), 0o4511); err != nil {
		t.Fatal(err)
	}
	want := found(t, filepath.Join(dir, "s"), true)
	base, err := openFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer base.close()
	x, err1 := base.open("x")
	s, err2 := base.open("s")
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	defer x.close()
	defer s.close()
	m := &merge{base: base, staged: s, replace: true, ours: map[string]bool{}}
	entries, err := s.list()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		l, err := m.bring(s, x, e)
		if err != nil || filepath.Dir(l.rel) != "x" || !m.ours[l.rel] {
			t.Fatal(err, l)
		}
	}
	if len(m.local) != 1 {
		t.Fatalf("%d staging folders", len(m.local))
	}
	got := found(t, m.local[0].path, true)
	for i := range want { // the times of links and of what holds them are not copied
		if strings.Contains(want[i], "@") || strings.HasPrefix(want[i], "a/l") {
			continue
		}
		if got[i] != want[i] {
			t.Errorf("%q, want %q", got[i], want[i])
		}
	}
	m.tidy()
	same(t, "left", found(t, filepath.Join(dir, "x"), false), []string{"c=old"})
}

func TestJoin(t *testing.T) {
	for _, c := range []struct {
		name  string
		how   How
		trees [][]string
		want  []string
		err   string
	}{
		{"one", Apart, [][]string{{"a=1"}}, []string{"a=1"}, ""},
		{"apart", Apart, [][]string{{"amd/x=1"}, {"arm/x=2"}}, []string{"amd/", "amd/x=1", "arm/", "arm/x=2"}, ""},
		{"one folder for both", Apart, [][]string{{"amd/x=1"}, {"amd/y=2"}}, nil, "amd was sent by node 0 and by node 1"},
		{"together", Together, [][]string{{"d/x=1"}, {"d/y=2"}, {"d/z=3", "e=4"}}, []string{"d/", "d/x=1", "d/y=2", "d/z=3", "e=4"}, ""},
		{"blobs", Blobs, [][]string{{"d/x=1", "d/y=1"}, {"d/x=1", "d/z=1"}}, []string{"d/", "d/x=1", "d/y=1", "d/z=1"}, ""},
		{"a blob and a folder", Blobs, [][]string{{"d=1"}, {"d/x=1"}}, nil, "d was sent by node 0 and by node 1"},
		{"the same file", Together, [][]string{{"d/x=1"}, {"d/x=1"}}, nil, filepath.Join("d", "x") + " was sent by node 0 and by node 1"},
		{"a file and a folder", Together, [][]string{{"d=1"}, {"d/x=1"}}, nil, "d was sent by node 0 and by node 1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			d := staged(t, filepath.Join(dir, "out"), c.trees...)
			_, err := d.Join(c.how)
			if c.err != "" {
				var clash *Clash
				if !errors.As(err, &clash) || err.Error() != c.err {
					t.Errorf("%v, want %q", err, c.err)
				}
				if err := d.Abort(); err != nil {
					t.Error(err)
				}
				same(t, "left", found(t, dir, false), nil)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if err := d.Commit(Options{}); err != nil {
				t.Fatal(err)
			}
			same(t, "folder", found(t, filepath.Join(dir, "out"), false), c.want)
		})
	}
	if got := (&Clash{Path: "x", First: "node a", Second: "node a"}).Error(); got != "x was sent twice" {
		t.Error(got)
	}
}

func TestCheck(t *testing.T) {
	dir := t.TempDir()
	lay(t, dir, "file=x", "in/")
	for _, good := range []string{"in", "new", "new/below/it"} {
		if err := Check(filepath.Join(dir, good)); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{"file", "file/below"} {
		var pe *fs.PathError
		if err := Check(filepath.Join(dir, bad)); !errors.As(err, &pe) {
			t.Errorf("%s: %v", bad, err)
		}
	}
	if runtime.GOOS != "windows" {
		lay(t, dir, "loose@nowhere", "link@in")
		if err := Check(filepath.Join(dir, "loose")); err == nil || !strings.Contains(err.Error(), "leads nowhere") {
			t.Error(err)
		}
		if _, err := Create(filepath.Join(dir, "loose")); err == nil {
			t.Error("a link was to be replaced")
		}
		if err := Check(filepath.Join(dir, "link")); err != nil {
			t.Error(err)
		}
	}
	if _, err := Create(filepath.Join(dir, "file")); err == nil {
		t.Error("a file was to be replaced")
	}
	if _, err := Create(filepath.Join(dir, "new", "below")); err == nil {
		t.Error("a folder was made")
	}
	if n := len(found(t, dir, false)); n > 4 {
		t.Errorf("left: %q", found(t, dir, false))
	}
}

package atomicdir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// nobody does something as a user whom modes stop, as they do not stop root, and
// gives him a folder. Whose files a thread works on can be said for it alone.
func nobody(t *testing.T, do func(dir string)) {
	t.Helper()
	dir := t.TempDir()
	t.Cleanup(func() { // RemoveAll of the standard library is stopped by modes
		if root, err := os.OpenRoot(filepath.Dir(dir)); err == nil {
			_ = removeAll(root, filepath.Base(dir))
			_ = root.Close()
		}
	})
	if os.Getuid() != 0 {
		do(dir)
		return
	}
	const who = 65534
	if err := errors.Join(os.Chmod(filepath.Dir(dir), 0o711), os.Chown(dir, who, who)); err != nil {
		t.Fatal(err)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer become(t, 0)
	become(t, who)
	do(dir)
}

func become(t *testing.T, who int) {
	t.Helper()
	_, _ = unix.SetfsgidRetGid(who)
	_, _ = unix.SetfsuidRetUid(who)
	if now, err := unix.SetfsuidRetUid(-1); err != nil || now != who { // -1 only asks
		t.Errorf("working as %d, not as %d: %v", now, who, err)
	}
}

// stuck makes a commit fail that comes to the names from '.' on: nothing can take the
// place of the folder in which it is staged.
func stuck(t *testing.T, d *Dir) {
	t.Helper()
	lay(t, d.trees[0].Path, d.temp+"=in the way")
}

// chmod sets modes, the deepest first.
func chmod(t *testing.T, dir string, mode fs.FileMode, names ...string) {
	t.Helper()
	for _, name := range names {
		if err := os.Chmod(filepath.Join(dir, name), mode); err != nil {
			t.Fatal(err)
		}
	}
}

// A commit that fails gives back all, whatever modes the new content has brought.
func TestTakeBackShut(t *testing.T) {
	for _, mode := range []fs.FileMode{0, 0o311, 0o500, 0o555, 0o600} {
		t.Run(fmt.Sprintf("%#o", mode), func(t *testing.T) {
			nobody(t, func(dir string) {
				path := filepath.Join(dir, "out")
				lay(t, path, "-d/e/y=old", "-d/gone=old", "-d/x=old", "-k/x=old", "z=old")
				chmod(t, path, 0o555, "-d/e")
				before := found(t, dir, true)
				d := staged(t, path, []string{"-d/e/y=1", "-d/new/f=2", "-d/x=3", "-k=4", "-n/in/f=5"})
				chmod(t, d.trees[0].Path, mode, "-d/e", "-d/new", "-d", "-n/in", "-n")
				stuck(t, d)
				err := d.Commit(Options{Delete: true})
				if err == nil || strings.Contains(err.Error(), "undone") {
					t.Errorf("%v", err)
				}
				same(t, "folder", withoutTop(found(t, dir, true)), withoutTop(before))
			})
		})
	}
}

// withoutTop leaves out the folder itself, whose time nobody keeps.
func withoutTop(all []string) []string { return all[1:] }

// In a folder of somebody else's, times cannot be given back. Nothing is lost by it, so
// nothing is kept.
func TestTakeBackForeign(t *testing.T) {
	nobody(t, func(dir string) {
		path := filepath.Join(dir, "out")
		lay(t, path, "theirs/f=old")
		if os.Getuid() == 0 {
			if err := errors.Join(os.Chmod(filepath.Join(path, "theirs"), 0o777), asRoot(t, func() error { return os.Chown(filepath.Join(path, "theirs"), 0, 0) })); err != nil {
				t.Fatal(err)
			}
		}
		before := found(t, dir, false)
		err := staged(t, path, []string{"theirs/f=1", "theirs/g=2"}).Commit(Options{})
		if os.Getuid() != 0 { // he cannot give folders away
			before = append(before[:2], "out/theirs/f=1", "out/theirs/g=2")
		} else if err == nil || strings.Contains(err.Error(), "undone") {
			t.Errorf("%v", err)
		}
		same(t, "folder", found(t, dir, false), before)
	})
}

func asRoot(t *testing.T, do func() error) error {
	t.Helper()
	become(t, 0)
	defer become(t, 65534)
	return do()
}

// Folders that their owner may not write to are exchanged, moved and put aside like
// others, and keep their modes.
func TestCommitShut(t *testing.T) {
	for _, mode := range []fs.FileMode{0, 0o500, 0o555} {
		t.Run(fmt.Sprintf("%#o", mode), func(t *testing.T) {
			nobody(t, func(dir string) {
				path := filepath.Join(dir, "out")
				lay(t, path, "a/x=old", "b=old", "c/x=old", "d/gone/x=old", "gone/x=old")
				chmod(t, path, mode, "a", "c", "d/gone", "d", "gone")
				d := staged(t, path, []string{"a=1", "b/x=2", "c@b", "d/new/x=3", "e/x=4"})
				chmod(t, d.trees[0].Path, mode, "b", "d/new", "d", "e")
				if err := d.Commit(Options{Delete: true}); err != nil {
					t.Fatal(err)
				}
				for _, name := range []string{"b", "d", "d/new", "e"} { // the outer ones first, to see what is in them
					at := filepath.Join(path, name)
					if fi, err := os.Lstat(at); err != nil || fi.Mode().Perm() != mode {
						t.Errorf("%s: %v, %v", name, fi, err)
					}
					chmod(t, path, 0o755, name)
				}
				same(t, "folder", found(t, dir, false), []string{"out/", "out/a=1", "out/b/", "out/b/x=2", "out/c@b", "out/d/", "out/d/new/", "out/d/new/x=3", "out/e/", "out/e/x=4"})
			})
		})
	}
}

// All that can be undone, too.
func TestCommitShutFails(t *testing.T) {
	for _, mode := range []fs.FileMode{0, 0o555} {
		t.Run(fmt.Sprintf("%#o", mode), func(t *testing.T) {
			nobody(t, func(dir string) {
				path := filepath.Join(dir, "out")
				lay(t, path, "-a/x=old", "-b=old", "-c/x=old", "-d/gone/x=old", "-d/x/y=old", "-d/z=old")
				chmod(t, path, 0o555, "-a", "-c", "-d/gone", "-d/x", "-d")
				before := found(t, dir, true)
				d := staged(t, path, []string{"-a=1", "-b/x=2", "-c@b", "-d/new/x=3", "-d/x=4", "-d/z/x=5"})
				chmod(t, d.trees[0].Path, mode, "-b", "-d/new", "-d/z", "-d")
				stuck(t, d)
				err := d.Commit(Options{Delete: true})
				if err == nil || errors.Is(err, fs.ErrPermission) || strings.Contains(err.Error(), "undone") {
					t.Errorf("%v", err)
				}
				same(t, "folder", withoutTop(found(t, dir, true)), withoutTop(before))
			})
		})
	}
}

// So can what is put aside where nothing can be exchanged, and what is copied to
// another file system first.
func TestPutAsideShut(t *testing.T) {
	nobody(t, func(dir string) {
		lay(t, dir, "x/a/f=old", "s/a/f=1", "s/b/f=2")
		chmod(t, dir, 0o555, "x/a", "s/a", "s/b")
		s, x := filepath.Join(dir, "s"), filepath.Join(dir, "x")
		before := append(found(t, s, true), found(t, x, true)...)
		base, err := openFolder(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer base.close()
		src, dst := opened(t, base, "s"), opened(t, base, "x")
		entries, err := src.list()
		if err != nil {
			t.Fatal(err)
		}
		m := &merge{base: base, staged: src, replace: true, ours: map[string]bool{}}
		if err := errors.Join(m.putAside(dst, "a"), m.move(src, dst, entries[0])); err != nil {
			t.Fatal(err)
		}
		for range 2 { // the second time, it is there
			if _, err := m.bring(src, dst, entries[1]); err != nil {
				t.Fatal(err)
			}
		}
		if err := m.shift(step{fromName: "b", toName: "b"}, m.local[0], dst); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"a", "b"} {
			if fi, err := os.Lstat(filepath.Join(x, name)); err != nil || fi.Mode().Perm() != 0o555 {
				t.Errorf("%s: %v, %v", name, fi, err)
			}
		}
		if err := m.takeBack(); err != nil {
			t.Error(err)
		}
		m.tidy()
		if err := os.Remove(filepath.Join(s, "old")); err != nil {
			t.Error(err)
		}
		same(t, "undone", append(found(t, s, true), found(t, x, true)...), before)
	})
}

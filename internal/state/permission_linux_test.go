//go:build linux

package state

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// unprivileged runs fn without root's power over files. Only the file access
// of this thread changes, and only until fn returns.
func unprivileged(t *testing.T, s *Store, fn func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		fn()
		return
	}
	const nobody = 65534
	for dir := s.dir; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		fi, err := os.Stat(dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir, fi.Mode().Perm()|0o055); err != nil {
			t.Fatal(err)
		}
	}
	if err := filepath.WalkDir(s.dir, func(path string, _ fs.DirEntry, err error) error {
		return errors.Join(err, os.Chown(path, nobody, nobody))
	}); err != nil {
		t.Fatal(err)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := syscall.Setfsuid(nobody); err != nil {
		t.Fatal(err)
	}
	defer syscall.Setfsuid(0) //nolint:errcheck // the previous value is always allowed
	fn()
}

func TestReadOnlyFolder(t *testing.T) {
	s := buildx(t) // has no lock file
	if err := os.Chmod(s.dir, 0o500); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chmod(s.dir, 0o700) })
	unprivileged(t, s, func() {
		groups, damages, err := s.List(t.Context())
		if len(groups) != 4 || damages != nil || err != nil {
			t.Errorf("List = %q, %v, %v", names(groups), damages, err)
		}
		if g, err := s.Get(t.Context(), "remote"); err != nil || g.Name != "remote" {
			t.Errorf("Get = %+v, %v", g, err)
		}
		if name, err := s.Current(t.Context(), "unix:///var/run/docker.sock"); name != "remote-unix" || err != nil {
			t.Errorf("Current = %q, %v", name, err)
		}
		for what, err := range map[string]error{
			"Change":     s.Change(t.Context(), "remote", keep),
			"Remove":     s.Remove(t.Context(), "remote"),
			"Touch":      s.Touch(t.Context(), "remote", time.Now()),
			"SetCurrent": s.SetCurrent(t.Context(), "k", "remote", false, false),
			"SaveRef":    s.SaveRef(t.Context(), "remote", "n", "i", Ref{}),
		} {
			if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), s.dir) {
				t.Errorf("%s: %v", what, err)
			}
		}
	})
	if err := os.Remove(s.path(nodeIDFile)); err != nil {
		if err := os.Chmod(s.dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(s.path(nodeIDFile)); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(s.dir, 0o500); err != nil {
			t.Fatal(err)
		}
	}
	unprivileged(t, s, func() {
		if id, err := s.NodeID(t.Context()); err != nil || len(id) != 16 {
			t.Errorf("NodeID = %q, %v", id, err)
		}
	})
}

func TestNoPermission(t *testing.T) {
	s := Open(t.TempDir())
	create(t, s, "a")
	create(t, s, "bad")
	path := s.path("instances", "bad")
	if err := os.Chmod(path, 0); err != nil {
		t.Fatal(err)
	}
	unprivileged(t, s, func() {
		groups, damages, err := s.List(t.Context())
		if err != nil || len(groups) != 1 || len(damages) != 1 || damages[0].Path != path || !errors.Is(damages[0], fs.ErrPermission) {
			t.Errorf("List = %q, %v, %v", names(groups), damages, err)
		}
	})
	if err := os.Chmod(s.path("instances"), 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chmod(s.path("instances"), 0o700) })
	unprivileged(t, s, func() {
		if _, _, err := s.List(t.Context()); !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "instances") {
			t.Errorf("List: %v", err)
		}
	})
}

// Opening a pipe would wait for a writer for ever.
func TestPipeInPlaceOfAFile(t *testing.T) {
	s := Open(t.TempDir())
	create(t, s, "a")
	if err := syscall.Mkfifo(s.path("instances", "bad"), 0o600); err != nil {
		t.Fatal(err)
	}
	groups, damages, err := s.List(t.Context())
	if len(groups) != 1 || len(damages) != 1 || err != nil {
		t.Errorf("List = %q, %v, %v", names(groups), damages, err)
	}
}

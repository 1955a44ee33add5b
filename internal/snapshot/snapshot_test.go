package snapshot

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/tonistiigi/fsutil"
)

// The name follows from what is sent, and from nothing else.
func TestName(t *testing.T) {
	base := func() string {
		dir := t.TempDir()
		put(t, dir, "a/f", "text")
		put(t, dir, "a/g", "text")
		ok(t, os.Symlink("a", filepath.Join(dir, "l")))
		return dir
	}
	first := take(t, base(), Options{}).Name()
	if !first.Content || len(first.ID) != 64 {
		t.Fatal(first)
	}
	same := map[string]func(dir string){
		"another folder": func(string) {},
		"times":          func(dir string) { sameTime(t, filepath.Join(dir, "a/f")) },
		"a hard link": func(dir string) {
			ok(t, os.Remove(filepath.Join(dir, "a/g")), os.Link(filepath.Join(dir, "a/f"), filepath.Join(dir, "a/g")))
		},
	}
	for what, edit := range same {
		dir := base()
		edit(dir)
		if got := take(t, dir, Options{}).Name(); what == "a hard link" {
			// Images have it as a link too.
			if got == first {
				t.Error("a hard link has the name of a file")
			}
		} else if got != first {
			t.Errorf("%s: another name", what)
		}
	}
	other := map[string]func(dir string){
		"bytes":       func(dir string) { put(t, dir, "a/f", "TEXT") },
		"mode":        func(dir string) { ok(t, os.Chmod(filepath.Join(dir, "a/f"), 0o755)) },
		"folder mode": func(dir string) { ok(t, os.Chmod(filepath.Join(dir, "a"), 0o700)) },
		"new file":    func(dir string) { put(t, dir, "a/h", "") },
		"new folder":  func(dir string) { ok(t, os.Mkdir(filepath.Join(dir, "b"), 0o755)) },
		"removal":     func(dir string) { ok(t, os.Remove(filepath.Join(dir, "a/g"))) },
		"rename":      func(dir string) { ok(t, os.Rename(filepath.Join(dir, "a/g"), filepath.Join(dir, "a/i"))) },
		"link": func(dir string) {
			ok(t, os.Remove(filepath.Join(dir, "l")), os.Symlink("b", filepath.Join(dir, "l")))
		},
		"file for link": func(dir string) {
			ok(t, os.Remove(filepath.Join(dir, "l")))
			put(t, dir, "l", "a")
		},
	}
	seen := map[string]string{first.ID: "the folder"}
	for what, edit := range other {
		dir := base()
		edit(dir)
		got := take(t, dir, Options{}).Name().ID
		if before, ok := seen[got]; ok {
			t.Errorf("%s has the name of %s", what, before)
		}
		seen[got] = what
	}
	for what, o := range map[string]Options{"salt": {Salt: "s"}, "excludes": {Excludes: []string{"x"}}, "one more": {Excludes: []string{"x", "y"}}} {
		got := take(t, base(), o).Name().ID
		if before, ok := seen[got]; ok {
			t.Errorf("%s has the name of %s", what, before)
		}
		seen[got] = what
	}
	if take(t, base(), Options{Machine: "m"}).Name() != first {
		t.Error("a name by content depends on the machine")
	}
}

// A file that was just written can be written again in the same tick of the clock:
// what its times tell is not believed.
func TestFreshFilesAreReadAnew(t *testing.T) {
	dir, store := t.TempDir(), NewStore(t.TempDir())
	put(t, dir, "f", "0000")
	path := filepath.Join(dir, "f")
	last := Name{}
	for i := range 100 {
		file, err := os.OpenFile(path, os.O_WRONLY, 0)
		ok(t, err)
		_, err = file.WriteAt([]byte{byte('0' + i/10), byte('0' + i%10)}, 1)
		ok(t, err, file.Close())
		sameTime(t, path)
		s := take(t, dir, Options{Store: store})
		if s.Name() == last {
			t.Fatalf("%d: the old name", i)
		}
		last = s.Name()
		s.Announce(t.Context())
	}
}

// Above the limit the name is made of what the file system tells, and is another
// one on each machine.
func TestNameByMetadata(t *testing.T) {
	if !tellsChanges {
		t.Skip("this system tells no changes")
	}
	dir := t.TempDir()
	put(t, dir, "f", "text")
	o := Options{HashLimit: 1}
	s := take(t, dir, o) // it waits until the file has settled
	if s.Name().Content || s.Name().ID == "" {
		t.Fatal(s.Name())
	}
	if take(t, dir, o).Name() != s.Name() {
		t.Error("another name for the same folder")
	}
	o.Machine = "m"
	if take(t, dir, o).Name() == s.Name() {
		t.Error("two machines have one name")
	}
	o.Machine = ""
	sameTime(t, filepath.Join(dir, "f"))
	if take(t, dir, o).Name() == s.Name() {
		t.Error("another time has the same name")
	}
}

// What a store knows is what would have been read.
func TestNameWithStore(t *testing.T) {
	dir, store := t.TempDir(), NewStore(t.TempDir())
	put(t, dir, "a/f", "text")
	s := take(t, dir, Options{Store: store})
	s.Announce(t.Context())
	settled := take(t, dir, Options{Store: store, HashLimit: 1}) // it waits until all has settled
	settled.Announce(t.Context())
	read := take(t, dir, Options{Store: store})
	read.Announce(t.Context())
	if read.Name() != s.Name() {
		t.Error("another name")
	}
	if again := take(t, dir, Options{Store: store, HashLimit: 1}); again.Name() != s.Name() {
		t.Error("what was read is not remembered")
	}
}

// readAll reads a file of a snapshot as it is sent.
func readAll(t *testing.T, s *Snapshot, path string) (string, error) {
	t.Helper()
	f, err := s.Open(path)
	ok(t, err)
	defer f.Close() //nolint:errcheck // it was only read
	var b bytes.Buffer
	_, err = io.CopyBuffer(&b, struct{ io.Reader }{f}, make([]byte, 3))
	return b.String(), err
}

// Each way in which a file is not any more what was named ends the sending, and is
// told once.
func TestMoved(t *testing.T) {
	at := filepath.Join
	ways := map[string]func(dir string){
		"other bytes": func(dir string) { put(t, dir, "f", "TEXT"); sameTime(t, at(dir, "f")) },
		"longer":      func(dir string) { put(t, dir, "f", "text and more of it") },
		"shorter":     func(dir string) { put(t, dir, "f", "te") },
		"empty":       func(dir string) { put(t, dir, "f", "") },
		"gone":        func(dir string) { ok(t, os.Remove(at(dir, "f"))) },
		"a link":      func(dir string) { ok(t, os.Rename(at(dir, "f"), at(dir, "g")), os.Symlink("g", at(dir, "f"))) },
		"a folder":    func(dir string) { ok(t, os.Remove(at(dir, "f")), os.Mkdir(at(dir, "f"), 0o755)) },
		"another file": func(dir string) {
			put(t, dir, "g", "TEXT")
			sameTime(t, at(dir, "g"))
			ok(t, os.Rename(at(dir, "g"), at(dir, "f")))
		},
	}
	for what, way := range ways {
		for _, limit := range []int64{1 << 30, 1} {
			if limit == 1 && !tellsChanges {
				continue
			}
			dir := t.TempDir()
			put(t, dir, "f", "text")
			sameTime(t, at(dir, "f"))
			s := take(t, dir, Options{HashLimit: limit})
			if s.Name().Content != (limit > 1) {
				t.Fatal(s.Name())
			}
			told := 0
			s.OnMoved(func(error) { told++ })
			if got, err := readAll(t, s, "f"); err != nil || got != "text" || s.Moved() != nil {
				t.Fatal(got, err)
			}
			way(dir)
			_, err := readAll(t, s, "f")
			var moved *Moved
			if !errors.As(err, &moved) || moved.Path != "f" || told != 1 {
				t.Errorf("%s, limit %d: %v, told %d times", what, limit, err, told)
				continue
			}
			if _, err := readAll(t, s, "f"); err == nil || told != 1 {
				t.Errorf("%s: the second time: %v, told %d times", what, err, told)
			}
			late := 0
			s.OnMoved(func(error) { late++ })
			select {
			case <-s.Broken():
			default:
				t.Errorf("%s: not broken", what)
			}
			if late != 1 || s.Moved() == nil {
				t.Errorf("%s: told %d times later", what, late)
			}
		}
	}
}

// Two of them would not be wrong: a file with other times and the same bytes is what
// was named.
func TestNotMoved(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "f", "text")
	s := take(t, dir, Options{})
	put(t, dir, "g", "text")
	ok(t, os.Rename(filepath.Join(dir, "g"), filepath.Join(dir, "f")))
	if got, err := readAll(t, s, "f"); got != "text" || err != nil || s.Moved() != nil {
		t.Error(got, err, s.Moved())
	}
}

// More than what was named is never told of.
func TestAskedForMore(t *testing.T) {
	for what, ask := range map[string]func(s *Snapshot) error{
		"an excluded file": func(s *Snapshot) error {
			return s.Walk(t.Context(), "", func(_ string, e fs.DirEntry, _ error) error {
				_, err := e.Info()
				return err
			})
		},
		"an excluded folder": func(s *Snapshot) error {
			return s.Walk(t.Context(), "", func(string, fs.DirEntry, error) error { return nil })
		},
		"a file by its name": func(s *Snapshot) error {
			f, err := s.Open("left/f")
			if err == nil {
				_, err = f.Read(nil)
			}
			return err
		},
	} {
		dir := t.TempDir()
		put(t, dir, "a", "")
		put(t, dir, "left/f", "text")
		s := take(t, dir, Options{Excludes: []string{"left"}})
		err := ask(s)
		var moved *Moved
		if !errors.As(err, &moved) || s.Moved() == nil {
			t.Errorf("%s: %v", what, err)
		}
		_ = s.Close()
	}
	dir := t.TempDir()
	put(t, dir, "left/f", "text")
	s := take(t, dir, Options{Excludes: []string{"left"}})
	filtered, err := fsutil.NewFilterFS(s, &fsutil.FilterOpt{ExcludePatterns: []string{"left"}})
	ok(t, err)
	if list := walked(t, filtered, "/"); len(list) > 0 || s.Moved() != nil {
		t.Error(list, s.Moved())
	}
}

// A folder that cannot be read has trouble and no name.
func TestTrouble(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "f", "text")
	s, err := Take(t.Context(), dir, Options{HashLimit: 1 << 20, Excludes: []string{"[a"}})
	ok(t, err)
	defer s.Close() //nolint:errcheck // it was only read
	if s.Trouble() == nil || s.Name().ID != "" {
		t.Error(s.Trouble(), s.Name())
	}
	if _, err := Take(t.Context(), filepath.Join(dir, "nosuch"), Options{}); err == nil {
		t.Error("no error for a folder that is not there")
	}
}

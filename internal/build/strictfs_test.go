package build

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/berthbuild/berth/internal/buildkittest"
	"github.com/berthbuild/berth/internal/dial/dialtest"
	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/request"
	"github.com/tonistiigi/fsutil"
)

// sent is what arrives of a folder: paths, and what the files hold.
func sent(t *testing.T, r request.Request) map[string]string {
	t.Helper()
	dest := t.TempDir()
	asked(t, r, options(t), func(ctx context.Context, b *buildkittest.Build) error {
		return b.FetchDir(ctx, request.LocalContext, dest)
	})
	got := map[string]string{}
	err := filepath.WalkDir(dest, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dest {
			return err
		}
		rel, err := filepath.Rel(dest, path)
		switch {
		case err != nil:
			return err
		case d.Type().IsRegular():
			got[rel] = read(t, path)
		case d.Type()&fs.ModeSymlink != 0:
			got[rel], err = os.Readlink(path)
		default:
			got[rel] = d.Type().String()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// Names that are not UTF-8, control characters, long names: what the file system
// has is what arrives.
func TestOddNames(t *testing.T) {
	r := req(t)
	dir := r.Context.Dir
	for i, name := range []string{"a\xffb", "\xf0\x28\x8c\xbc", "ü ö", "new\nline", " ", "-rf", "*", "a", "A", strings.Repeat("x", 255), strings.Repeat("d/", 100) + "deep", "..hidden", "%2e%2e", `back\slash`} {
		if runtime.GOOS != "linux" && (name == "A" || !fs.ValidPath(name) || i < 4) {
			continue // other systems have their own ideas of names
		}
		put(t, filepath.Join(dir, name), name)
	}
	if err := os.Symlink("to\xfe", filepath.Join(dir, "link\xfd")); err != nil && runtime.GOOS == "linux" {
		t.Fatal(err)
	}
	got := sent(t, r)
	count := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		count++
		rel, err := filepath.Rel(dir, path)
		if d.Type().IsRegular() && got[rel] != read(t, path) {
			t.Errorf("%q arrived as %q", rel, got[rel])
		}
		return err
	})
	if err != nil || count != len(got) {
		t.Errorf("%d of %d arrived, %v", len(got), count, err)
	}
	if runtime.GOOS == "linux" && got["link\xfd"] != "to\xfe" {
		t.Errorf("a link: %q", got["link\xfd"])
	}
}

// A socket becomes an empty file, as BuildKit knows none; a pipe is not read.
func TestSocketsAndPipes(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("neither is a file there")
	}
	r := req(t)
	t.Chdir(r.Context.Dir) // the path of a socket must be short
	l, err := net.Listen("unix", "socket")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	mkfifo(t, "pipe")
	got := sent(t, r)
	if text, ok := got["socket"]; !ok || text != "" {
		t.Errorf("the socket: %q, %v", text, ok)
	}
	if got["pipe"] != fs.ModeNamedPipe.String() {
		t.Errorf("the pipe: %q", got["pipe"])
	}
}

// vanishing loses a file after its folder was listed.
type vanishing struct {
	fsutil.FS
	at, path string // when at is reached, path goes
}

func (v vanishing) Walk(ctx context.Context, target string, fn fs.WalkDirFunc) error {
	return v.FS.Walk(ctx, target, func(path string, d fs.DirEntry, err error) error {
		if path == v.at {
			_ = os.RemoveAll(v.path)
		}
		return fn(path, d, err)
	})
}

// A file that goes while the folder is read is left out, and nothing else is.
func TestVanishingFiles(t *testing.T) {
	for _, c := range []struct{ goes, want string }{
		{"b", "a c d d/x e"}, {"d", "a b c e"}, {"d/x", "a b c d e"},
	} {
		dir := tree(t, map[string]string{"a": "", "b": "", "c": "", "d/x": "", "e": ""})
		files, err := newStrictFS(dir, "build context", func(err error) { t.Error(err) })
		if err != nil {
			t.Fatal(err)
		}
		defer files.Close()
		files.FS = vanishing{files.FS, "a", filepath.Join(dir, filepath.FromSlash(c.goes))}
		var filtered fsutil.FS = files
		for range 2 { // as BuildKit's library has it
			if filtered, err = fsutil.NewFilterFS(filtered, &fsutil.FilterOpt{ExcludePatterns: []string{"nosuch"}}); err != nil {
				t.Fatal(err)
			}
		}
		var got []string
		err = filtered.Walk(t.Context(), "/", func(path string, _ fs.DirEntry, err error) error {
			got = append(got, path)
			return err
		})
		if err != nil || strings.Join(got, " ") != filepath.FromSlash(c.want) {
			t.Errorf("without %s: %q, %v", c.goes, got, err)
		}
	}
}

// A file that is something else by the time that it is sent ends the build, and
// does not hold it up.
func TestReplacedFiles(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("needs pipes and links")
	}
	outside := tree(t, map[string]string{"secret": "private"})
	for what, replace := range map[string]func(path string) error{
		"is no plain file any more": func(path string) error { mkfifo(t, path); return nil },
		"no such file":              func(string) error { return nil },
		"path escapes":              func(path string) error { return os.Symlink(filepath.Join(outside, "secret"), path) },
		"is a directory":            nil, // see below
	} {
		dir := tree(t, map[string]string{"f": "text"})
		path := filepath.Join(dir, "f")
		var why error
		files, err := newStrictFS(dir, "build context", func(err error) { why = err })
		if err != nil {
			t.Fatal(err)
		}
		defer files.Close()
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if replace == nil {
			what, replace = "is no plain file any more", func(path string) error { return os.Mkdir(path, 0o755) }
		}
		if err := replace(path); err != nil {
			t.Fatal(err)
		}
		if f, err := files.Open("f"); err == nil {
			t.Errorf("%s: opened", what)
			_ = f.Close()
		}
		if why == nil || !strings.Contains(why.Error(), what) || !strings.HasPrefix(why.Error(), "build context: ") || !strings.Contains(why.Error(), path) {
			t.Errorf("%s: %v", what, why)
		}
		if len(hint.Of(why)) == 0 {
			t.Errorf("%s: no hint", what)
		}
	}
}

// What cannot be looked at is named.
func TestUnreadableFolder(t *testing.T) {
	dialtest.NoLeaks(t)
	dir := tree(t, map[string]string{"Dockerfile": "", "sub/x": ""})
	var why error
	files, err := newStrictFS(dir, "build context", func(err error) { why = err })
	if err != nil {
		t.Fatal(err)
	}
	defer files.Close()
	denied := &fs.PathError{Op: "open", Path: filepath.Join(dir, "sub"), Err: fs.ErrPermission}
	files.FS = refusing{files.FS, "sub", denied}
	err = files.Walk(t.Context(), "/", func(_ string, _ fs.DirEntry, err error) error { return err })
	if !errors.Is(err, fs.ErrPermission) || !errors.Is(why, fs.ErrPermission) || !strings.Contains(why.Error(), denied.Path) {
		t.Errorf("%v; the build: %v", err, why)
	}
	why = nil
	err = files.Walk(t.Context(), "/", func(path string, _ fs.DirEntry, err error) error {
		if path == "sub" {
			return nil // left out anyway
		}
		return err
	})
	if err != nil || why != nil {
		t.Errorf("a folder that nobody wants: %v; the build: %v", err, why)
	}
}

// refusing cannot read one folder, which root can always do.
type refusing struct {
	fsutil.FS
	path string
	err  error
}

func (r refusing) Walk(ctx context.Context, target string, fn fs.WalkDirFunc) error {
	return r.FS.Walk(ctx, target, func(path string, d fs.DirEntry, err error) error {
		if path == r.path {
			err = r.err
		}
		return fn(path, d, err)
	})
}

func TestManyFiles(t *testing.T) {
	r := req(t)
	for i := range 2000 {
		put(t, filepath.Join(r.Context.Dir, fmt.Sprint(i%20), fmt.Sprint(i)), "x")
	}
	got := sent(t, r)
	var paths []string
	for p := range got {
		paths = append(paths, p)
	}
	if slices.Sort(paths); len(paths) != 2021 {
		t.Errorf("%d arrived", len(paths))
	}
}

package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/berthbuild/berth/internal/beneath"
	"github.com/berthbuild/berth/internal/hint"
	"github.com/tonistiigi/fsutil"
)

// strictFS is a folder whose files are sent as they are, or not at all. The
// library that sends them takes a file that it cannot open for an empty one,
// without a word, waits for ever after one that it cannot read to its end,
// leaves out the files after one that vanishes, and looks outside of the folder
// when it is asked to. What goes wrong ends the build.
type strictFS struct {
	fsutil.FS              // walks
	dir       *beneath.Dir // opens
	what      string       // as errors begin: "build context"
	failed    func(error)
}

// newStrictFS opens a folder. The caller closes it.
func newStrictFS(dir, what string, failed func(error)) (strictFS, error) {
	files, err := fsutil.NewFS(dir)
	if err != nil {
		return strictFS{}, err
	}
	own, err := beneath.OpenDir(dir)
	if err != nil {
		return strictFS{}, err
	}
	return strictFS{FS: files, dir: own, what: what, failed: failed}, nil
}

// Close implements io.Closer.
func (f strictFS) Close() error { return f.dir.Close() }

// fail ends the build.
func (f strictFS) fail(err error) {
	f.failed(hint.Wrap(err, f.what, "make it readable, or leave it out with a line in .dockerignore"))
}

// Walk implements fsutil.FS. A daemon names the target when it asks what links
// lead to.
func (f strictFS) Walk(ctx context.Context, target string, fn fs.WalkDirFunc) error {
	if err := f.within(target); err != nil {
		return err
	}
	return f.FS.Walk(ctx, target, func(path string, entry fs.DirEntry, err error) error {
		if entry == nil || err != nil {
			err2 := fn(path, entry, err)
			if err != nil && errors.Is(err2, err) { // not a folder that is left out anyway
				f.fail(err)
			}
			return err2
		}
		e := &strictEntry{DirEntry: entry}
		err2 := fn(path, e, nil)
		switch {
		case errors.Is(e.err, fs.ErrNotExist) && !entry.IsDir():
			return nil // it has gone since its folder was listed; those beside it have not
		case e.err != nil && errors.Is(err2, e.err):
			f.fail(e.err)
		}
		return err2
	})
}

// within refuses a target that leads out of the folder, by itself or by a link.
func (f strictFS) within(target string) error {
	rel := strings.TrimLeft(filepath.Clean(target), string(filepath.Separator))
	if rel == "" || rel == "." {
		return nil
	}
	_, err := f.dir.Root().Lstat(rel)
	var errno syscall.Errno
	if err == nil || errors.As(err, &errno) {
		return nil // the walk says by itself what is not there
	}
	err = hint.New(fmt.Sprintf("%s: the daemon asked for %s, which is outside of %s", f.what, rel, f.dir.Name()),
		"do not build on this daemon: no Dockerfile makes one ask for that")
	f.failed(err)
	return err
}

// strictEntry remembers why a file could not be looked at.
type strictEntry struct {
	fs.DirEntry
	err error
}

// Info implements fs.DirEntry.
func (e *strictEntry) Info() (fs.FileInfo, error) {
	fi, err := e.DirEntry.Info()
	e.err = err
	return fi, err
}

// Open implements fsutil.FS.
func (f strictFS) Open(path string) (io.ReadCloser, error) {
	file, err := f.open(path)
	if err != nil {
		f.fail(err)
		return nil, err
	}
	return strictFile{file, f.fail}, nil
}

func (f strictFS) open(path string) (io.ReadCloser, error) {
	full := filepath.Join(f.dir.Name(), filepath.FromSlash(path))
	file, err := f.dir.Open(path)
	if err != nil {
		if fi, lerr := f.dir.Root().Lstat(filepath.FromSlash(path)); lerr == nil && fi.Mode()&fs.ModeSocket != 0 {
			return io.NopCloser(strings.NewReader("")), nil // BuildKit knows no sockets; it was announced as an empty file
		}
		var pe *fs.PathError
		if errors.As(err, &pe) {
			err = &fs.PathError{Op: "open", Path: full, Err: pe.Err}
		}
		return nil, err
	}
	if fi, err := file.Stat(); err != nil || !fi.Mode().IsRegular() {
		_ = file.Close() // it was only opened
		return nil, errors.Join(err, fmt.Errorf("%s is no plain file any more", full))
	}
	return file, nil
}

type strictFile struct {
	io.ReadCloser
	fail func(error)
}

// Read implements io.Reader.
func (f strictFile) Read(b []byte) (int, error) {
	n, err := f.ReadCloser.Read(b)
	if err != nil && !errors.Is(err, io.EOF) {
		f.fail(err)
	}
	return n, err
}

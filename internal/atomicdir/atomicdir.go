// Package atomicdir brings new content into a folder, whole or not at all: it is
// staged in a hidden folder on the same file system, and then renamed into place.
//
// It is not for single files (internal/atomicfile), nor for receiving what is
// staged (internal/receive).
//
// Rules: nothing that the folder had is touched before Commit, and a Commit that
// fails takes back what it has done; when it cannot, it throws nothing away. A
// symbolic link in the folder is something that stands there, not a way to somewhere
// else. What is replaced goes when all else is done. Nothing is flushed to the disk:
// an export of 50,000 files would wait for 50,000 flushes.
package atomicdir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/berthbuild/berth/internal/atomicfile"
)

// Check refuses a folder that could not take files, as far as that can be known
// beforehand: a file stands there, or above it, or this user may not write. It
// leaves nothing behind. The error is an *fs.PathError.
func Check(path string) error {
	path, err := behind(path)
	if err != nil {
		return err
	}
	for {
		fi, err := os.Stat(path)
		switch {
		case errors.Is(err, fs.ErrNotExist) && path != filepath.Dir(path):
			path = filepath.Dir(path)
			continue
		case err != nil:
			return err
		case !fi.IsDir():
			return &fs.PathError{Op: "open", Path: path, Err: errors.New("is a file")}
		}
		probe, err := os.MkdirTemp(path, atomicfile.TempPattern)
		if err != nil {
			return &fs.PathError{Op: "write", Path: path, Err: cause(err)}
		}
		return os.Remove(probe)
	}
}

// behind is the folder that a path leads to. One that does not exist is itself;
// a link to one is refused, since the link would have to be replaced.
func behind(path string) (string, error) {
	fi, err := os.Lstat(path)
	if err != nil || fi.Mode()&fs.ModeSymlink == 0 {
		return path, nil //nolint:nilerr // whoever uses it will see
	}
	led, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", &fs.PathError{Op: "open", Path: path, Err: fmt.Errorf("is a symbolic link that leads nowhere (%w)", cause(err))}
	}
	return led, nil
}

// cause is an error without the path that it carries.
func cause(err error) error {
	var pe *fs.PathError
	var le *os.LinkError
	switch {
	case errors.As(err, &pe):
		return pe.Err
	case errors.As(err, &le):
		return le.Err
	}
	return err
}

// Dir is the new content of a folder, under construction. Its maker must call
// Commit or Abort; Abort after Commit does nothing. It is not for several
// goroutines, but what is in its trees may be written by as many.
type Dir struct {
	path  string // of the folder, behind symbolic links
	base  *folder
	final string // the folder's name in base; "" when it is base itself
	temp  string // the staging folder's name in base
	trees []Tree
	done  bool
	kept  bool // what is staged is not to be thrown away
}

// Tree is a part of the new content, which starts empty.
type Tree struct {
	From string // who fills it, for errors
	Path string // where it is until Commit
	name string // in the staging folder
}

// Create begins new content for the folder called path. When that exists, what is
// staged is staged inside, since it may be a mount point; when it does not, beside
// it, so that one rename makes it. The folder above must exist.
func Create(path string) (*Dir, error) {
	path, err := behind(path)
	if err != nil {
		return nil, err
	}
	d := &Dir{path: path, temp: atomicfile.TempName()}
	at := path
	switch fi, err := os.Stat(path); {
	case errors.Is(err, fs.ErrNotExist):
		at, d.final = filepath.Dir(path), filepath.Base(path)
	case err != nil:
		return nil, err
	case !fi.IsDir():
		return nil, &fs.PathError{Op: "open", Path: path, Err: errors.New("is a file")}
	}
	if d.base, err = openFolder(at); err != nil {
		return nil, err
	}
	// Nobody else looks at what is not complete, whatever its modes are.
	if err := d.base.root.Mkdir(d.temp, 0o700); err != nil {
		d.base.close()
		return nil, &fs.PathError{Op: "write", Path: at, Err: cause(err)}
	}
	return d, nil
}

// NewTree makes another tree.
func (d *Dir) NewTree(from string) (Tree, error) {
	t := Tree{From: from, name: strconv.Itoa(len(d.trees))}
	rel := filepath.Join(d.temp, t.name)
	t.Path = filepath.Join(d.base.path, rel)
	// One of them may become the folder itself, with the mode that new folders get.
	if err := d.base.root.Mkdir(rel, 0o755); err != nil {
		return Tree{}, err
	}
	d.trees = append(d.trees, t)
	return t, nil
}

// Open opens a tree, for writing into it. The caller closes it.
func (d *Dir) Open(t Tree) (*os.Root, error) {
	return d.base.root.OpenRoot(filepath.Join(d.temp, t.name))
}

// Abort throws the new content away. Nobody may write to its trees any more.
func (d *Dir) Abort() error {
	if d.done {
		return nil
	}
	d.done = true
	defer d.base.close()
	if d.kept {
		return nil
	}
	return removeAll(d.base.root, d.temp)
}

// removeAll removes a folder, also when its own modes are in the way.
func removeAll(root *os.Root, name string) error {
	err := root.RemoveAll(name)
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	for range 64 { // a folder shows what is in it when it has been opened
		shut := 0
		_ = fs.WalkDir(root.FS(), filepath.ToSlash(name), func(path string, e fs.DirEntry, err error) error {
			if fi, ierr := root.Lstat(path); ierr == nil && fi.IsDir() && fi.Mode().Perm()&0o700 != 0o700 {
				shut++
				_ = root.Chmod(path, fi.Mode().Perm()|0o700) // the removal says what is left
			}
			if err != nil && e != nil && e.IsDir() {
				return fs.SkipDir
			}
			return nil
		})
		if shut == 0 {
			break
		}
	}
	return root.RemoveAll(name)
}

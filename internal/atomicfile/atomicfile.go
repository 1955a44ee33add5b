// Package atomicfile writes files that appear whole or not at all: into a
// temporary name in the same folder, flushed to the disk, then renamed.
//
// It is not for devices, pipes or standard output, which cannot be renamed
// over; callers write to those directly.
package atomicfile

import (
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// The staging files' names: the leading dot hides them from a careless glob,
// and they say whose they are if a crash leaves one.
const (
	tempPrefix = ".berth-"
	tempSuffix = ".tmp"
)

// TempPattern makes such names with os.CreateTemp and os.MkdirTemp.
const TempPattern = tempPrefix + "*" + tempSuffix

// TempName is a name for something that is staged, which nothing has yet.
func TempName() string { return tempPrefix + rand.Text() + tempSuffix }

// IsTemp tells whether a name, without its folder, is one of something staged.
func IsTemp(name string) bool {
	return strings.HasPrefix(name, tempPrefix) && strings.HasSuffix(name, tempSuffix)
}

// File is a file under construction. Nothing exists under its final name
// until Commit. The creator must call Commit or Abort; Abort after Commit
// does nothing, so that it can be deferred.
type File struct {
	f    *os.File
	path string
	done bool
}

// Create begins a file that will be named path with the permissions mode, less
// what the process's umask takes away.
// The folder must exist. A path that exists and is not a regular file is
// refused: renaming over a folder or a device is never what was meant.
func Create(path string, mode fs.FileMode) (*File, error) {
	if fi, err := os.Stat(path); err == nil && !fi.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "write", Path: path, Err: notRegular(fi)}
	}
	for {
		name := filepath.Join(filepath.Dir(path), TempName())
		f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, mode) // less the user's umask
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		return &File{f: f, path: path}, nil
	}
}

func notRegular(fi fs.FileInfo) error {
	if fi.IsDir() {
		return errors.New("is a directory")
	}
	return errors.New("is not a regular file")
}

// Write appends to the staged file.
func (w *File) Write(p []byte) (int, error) { return w.f.Write(p) }

// Path is the final name.
func (w *File) Path() string { return w.path }

// Commit flushes the file to the disk and gives it its final name. After an
// error the staged file is gone and the final name is as it was.
func (w *File) Commit() error {
	if w.done {
		return fs.ErrClosed
	}
	w.done = true
	err := w.f.Sync()
	if cerr := w.f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(w.f.Name(), w.path)
	}
	if err != nil {
		_ = os.Remove(w.f.Name())
	}
	return err
}

// Abort throws the staged file away.
func (w *File) Abort() error {
	if w.done {
		return nil
	}
	w.done = true
	return errors.Join(w.f.Close(), os.Remove(w.f.Name()))
}

// Write replaces the content of path with data.
func Write(path string, data []byte, mode fs.FileMode) error {
	w, err := Create(path, mode)
	if err != nil {
		return err
	}
	defer w.Abort() //nolint:errcheck // after a failed write the first error is the one to tell
	if _, err := w.Write(data); err != nil {
		return err
	}
	return w.Commit()
}

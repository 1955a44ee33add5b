// Package beneath opens what lies in a folder, and nothing outside of it, whatever
// symbolic links there are.
//
// It is os.Root, with one call to the kernel where there is such a call: build
// contexts have many files, and os.Root makes a call for each folder on the way.
package beneath

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
)

// Dir is an open folder. Whoever opened it closes it. It is safe for concurrent use:
// what is opened after Close is fs.ErrClosed.
type Dir struct {
	root *os.Root

	mu     sync.RWMutex
	self   *os.File // the same folder
	closed bool
}

// OpenDir opens the folder that path names, links followed.
func OpenDir(path string) (*Dir, error) {
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	self, err := root.Open(".")
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return &Dir{root: root, self: self}, nil
}

// Close implements io.Closer. What was opened in the folder stays open.
func (d *Dir) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil
	}
	d.closed = true
	return errors.Join(d.self.Close(), d.root.Close())
}

// Name is the path that OpenDir was given.
func (d *Dir) Name() string { return d.root.Name() }

// Root is the folder as the standard library has it. It is closed with d.
func (d *Dir) Root() *os.Root { return d.root }

// Open opens a file or a folder for reading, by its path in the folder. Links are
// followed where they stay inside. It does not wait for the other end of a pipe.
func (d *Dir) Open(path string) (*os.File, error) { return d.open(path, true) }

// OpenPlain is Open for a path without symbolic links; where the kernel can tell,
// one with links is an error.
func (d *Dir) OpenPlain(path string) (*os.File, error) { return d.open(path, false) }

func (d *Dir) open(path string, links bool) (*os.File, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.closed {
		return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrClosed}
	}
	path = filepath.FromSlash(path)
	file, err := open(d.self, path, links)
	if errors.Is(err, errUnknown) {
		file, err = d.root.OpenFile(path, os.O_RDONLY|NonBlocking, 0)
	}
	return file, err
}

// errUnknown is for kernels that do not know the call.
var errUnknown = errors.New("no such system call")

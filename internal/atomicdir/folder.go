package atomicdir

import (
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// folder is one that is held open, so that nobody can put another in its place
// while it is worked on.
type folder struct {
	path string // for messages, and where the system has no calls for open folders
	rel  string // from the base
	root *os.Root
	file *os.File // the same, for calls that os.Root has not
}

// openFolder opens a base.
func openFolder(path string) (*folder, error) {
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	return newFolder(path, "", root)
}

func newFolder(path, rel string, root *os.Root) (*folder, error) {
	file, err := root.Open(".")
	if err != nil {
		_ = root.Close()
		return nil, err
	}
	return &folder{path: path, rel: rel, root: root, file: file}, nil
}

// open opens a folder that is in f, and nothing that a link leads to.
func (f *folder) open(name string) (*folder, error) {
	fi, err := f.root.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !fi.IsDir() {
		return nil, &fs.PathError{Op: "open", Path: filepath.Join(f.path, name), Err: syscall.ENOTDIR}
	}
	root, err := f.root.OpenRoot(name)
	if err != nil {
		return nil, err
	}
	return newFolder(filepath.Join(f.path, name), filepath.Join(f.rel, name), root)
}

// at opens a folder by its path from the base.
func (f *folder) at(rel string) (*folder, error) {
	if rel == "" {
		rel = "."
	}
	root, err := f.root.OpenRoot(rel)
	if err != nil {
		return nil, err
	}
	return newFolder(filepath.Join(f.path, rel), rel, root)
}

func (f *folder) close() { _, _ = f.file.Close(), f.root.Close() } // folders that were only read

// list gives what is in the folder, sorted by name.
func (f *folder) list() ([]fs.DirEntry, error) { return fs.ReadDir(f.root.FS(), ".") }

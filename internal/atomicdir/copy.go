package atomicdir

import (
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// copyEntry copies a thing, and all that is in it, from one folder to another,
// where a rename cannot go.
func copyEntry(from, to *os.Root, name string) error {
	fi, err := from.Lstat(name)
	if err != nil {
		return err
	}
	switch {
	case fi.IsDir():
		return copyFolder(from, to, name, fi)
	case fi.Mode()&fs.ModeSymlink != 0:
		target, err := from.Readlink(name)
		if err != nil {
			return err
		}
		return to.Symlink(target, name)
	}
	return copyFile(from, to, name, fi)
}

func copyFolder(from, to *os.Root, name string, fi fs.FileInfo) error {
	if err := to.Mkdir(name, 0o700); err != nil {
		return err
	}
	entries, err := fs.ReadDir(from.FS(), filepath.ToSlash(name))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := copyEntry(from, to, filepath.Join(name, e.Name())); err != nil {
			return err
		}
	}
	if err := to.Chtimes(name, fi.ModTime(), fi.ModTime()); err != nil {
		return err
	}
	return to.Chmod(name, fi.Mode())
}

func copyFile(from, to *os.Root, name string, fi fs.FileInfo) error {
	in, err := from.Open(name)
	if err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // it was only read
	out, err := to.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if err == nil {
		err = out.Chmod(fi.Mode())
	}
	if cerr := out.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return to.Chtimes(name, fi.ModTime(), fi.ModTime())
}

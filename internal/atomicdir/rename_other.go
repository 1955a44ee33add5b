//go:build !linux

package atomicdir

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
)

// rename moves a thing to where nothing stands; fs.ErrExist says that something
// does.
func rename(from *folder, a string, to *folder, b string) error {
	if _, err := to.root.Lstat(b); err == nil {
		return syscall.EEXIST
	}
	return os.Rename(filepath.Join(from.path, a), filepath.Join(to.path, b))
}

// swap would exchange two things.
func swap(*folder, string, *folder, string) error { return errors.ErrUnsupported }

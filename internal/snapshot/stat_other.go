//go:build !linux && !darwin

package snapshot

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/tonistiigi/fsutil"
)

// tellsChanges says that the system has change times and inodes. It may have them,
// but they are not asked for here: all files are read each time.
const tellsChanges = false

// lstat fills in what the file system tells of a file in an open folder. Change
// times and inodes are not told here, so that files are read each time.
func (e *entry) lstat(folder *os.File, name string) error {
	fi, err := os.Lstat(filepath.Join(folder.Name(), name))
	if err != nil {
		return err
	}
	e.mode, e.size, e.mtime = fi.Mode(), fi.Size(), fi.ModTime().UnixNano()
	if runtime.GOOS == "windows" { // as fsutil: everything can be run
		e.mode = e.mode&^fs.ModePerm | (e.mode&fs.ModePerm|0o111)&0o755
	}
	return nil
}

func readLink(folder *os.File, name string) (string, error) {
	return os.Readlink(filepath.Join(folder.Name(), name))
}

// readAttributes reads the extended attributes that are sent: those that fsutil
// sends.
func (e *entry) readAttributes(path string) error {
	st, err := fsutil.Stat(path)
	if err != nil {
		return err
	}
	e.xattrs = st.Xattrs
	return nil
}

// same tells whether an open file is still what the entry says.
func (e *entry) same(file *os.File) error {
	fi, err := file.Stat()
	if err != nil {
		return errors.New("cannot be looked at: " + cause(err))
	}
	if fi.Mode().Type() != e.mode.Type() || fi.Size() != e.size || fi.ModTime().UnixNano() != e.mtime {
		return errors.New("has changed since the folder was looked at")
	}
	return nil
}

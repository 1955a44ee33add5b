//go:build linux || darwin

package snapshot

import (
	"errors"
	"io/fs"
	"os"
	"strings"

	"github.com/containerd/continuity/sysx"
	"golang.org/x/sys/unix"
)

// tellsChanges says that the system has change times and inodes. Without, all files
// are read each time.
const tellsChanges = true

// lstat fills in what the file system tells of a file in an open folder.
func (e *entry) lstat(folder *os.File, name string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(int(folder.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &fs.PathError{Op: "lstat", Path: e.path, Err: err}
	}
	e.set(&st)
	return nil
}

func (e *entry) set(st *unix.Stat_t) {
	// The systems have these in different sizes.
	e.mode = fileMode(uint32(st.Mode)) //nolint:unconvert // see above
	e.size = st.Size
	e.mtime, e.ctime = st.Mtim.Nano(), st.Ctim.Nano()
	e.inode, e.device = st.Ino, uint64(st.Dev) //nolint:unconvert,gosec // see above
	e.links = uint64(st.Nlink)                 //nolint:unconvert // see above
	if e.mode&fs.ModeDevice != 0 {
		r := uint64(st.Rdev) //nolint:unconvert,gosec // see above
		e.major, e.minor = int64(unix.Major(r)), int64(unix.Minor(r))
	}
}

// fileMode is a mode as package os has it.
func fileMode(mode uint32) fs.FileMode {
	m := fs.FileMode(mode & 0o777)
	switch mode & unix.S_IFMT {
	case unix.S_IFBLK:
		m |= fs.ModeDevice
	case unix.S_IFCHR:
		m |= fs.ModeDevice | fs.ModeCharDevice
	case unix.S_IFDIR:
		m |= fs.ModeDir
	case unix.S_IFIFO:
		m |= fs.ModeNamedPipe
	case unix.S_IFLNK:
		m |= fs.ModeSymlink
	case unix.S_IFSOCK:
		m |= fs.ModeSocket
	}
	if mode&unix.S_ISGID != 0 {
		m |= fs.ModeSetgid
	}
	if mode&unix.S_ISUID != 0 {
		m |= fs.ModeSetuid
	}
	if mode&unix.S_ISVTX != 0 {
		m |= fs.ModeSticky
	}
	return m
}

func readLink(folder *os.File, name string) (string, error) {
	for size := 256; ; size *= 2 {
		buf := make([]byte, size)
		n, err := unix.Readlinkat(int(folder.Fd()), name, buf)
		if err != nil {
			return "", &fs.PathError{Op: "readlink", Path: name, Err: err}
		}
		if n < size {
			return string(buf[:n]), nil
		}
	}
}

// readAttributes reads the extended attributes that are sent: those that fsutil
// sends.
func (e *entry) readAttributes(path string) error {
	names, err := sysx.LListxattr(path)
	if errors.Is(err, unix.ENOTSUP) {
		return nil
	}
	if err != nil {
		return &fs.PathError{Op: "listxattr", Path: path, Err: err}
	}
	for _, n := range names {
		if strings.HasPrefix(n, "com.apple.") {
			continue
		}
		v, err := sysx.LGetxattr(path, n)
		if err != nil {
			continue // it may not be for everybody to read; those who send it leave it out too
		}
		if e.xattrs == nil {
			e.xattrs = map[string][]byte{}
		}
		e.xattrs[n] = v
	}
	return nil
}

// same tells whether an open file is still what the entry says.
func (e *entry) same(file *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil {
		return errors.New("cannot be looked at: " + err.Error())
	}
	var now entry
	now.set(&st)
	if now.mode != e.mode || now.size != e.size || now.mtime != e.mtime || now.ctime != e.ctime || now.inode != e.inode || now.device != e.device {
		return errors.New("has changed since the folder was looked at")
	}
	return nil
}

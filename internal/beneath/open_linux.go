package beneath

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// open is os.Root's in one call. Kernels before 5.6, and some filters of system
// calls, do not know it: errUnknown. EXDEV and EAGAIN are left to os.Root too, which
// has words for the one and patience for the other.
func open(dir *os.File, path string, links bool) (*os.File, error) {
	how := unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_NONBLOCK | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS,
	}
	if !links {
		how.Resolve |= unix.RESOLVE_NO_SYMLINKS
	}
	for {
		fd, err := unix.Openat2(int(dir.Fd()), path, &how)
		switch {
		case err == nil:
			return os.NewFile(uintptr(fd), path), nil
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EPERM), errors.Is(err, unix.EXDEV), errors.Is(err, unix.EAGAIN):
			return nil, errUnknown
		default:
			return nil, &fs.PathError{Op: "open", Path: path, Err: err}
		}
	}
}

//go:build unix

package state

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// readSmall reads the beginning of a file in dir, as much of it as buf holds, and
// gives how much that is. It makes three calls to the kernel and nothing else: where
// a thousand files are read, what os.File has to do for each takes longer than that.
func readSmall(dir *os.File, name string, buf []byte) (n int, err error) {
	at := int(dir.Fd())
	fd, err := again(func() (int, error) { return unix.Openat(at, name, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0) })
	if err != nil {
		return 0, err
	}
	n, err = again(func() (int, error) { return unix.Read(fd, buf) })
	return n, errors.Join(err, unix.Close(fd))
}

// again makes a call once more that a signal has interrupted.
func again(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if err != unix.EINTR { //nolint:errorlint // as the kernel gives it
			return n, err
		}
	}
}

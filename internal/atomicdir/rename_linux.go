package atomicdir

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// rename moves a thing to where nothing stands; fs.ErrExist says that something
// does.
func rename(from *folder, a string, to *folder, b string) error {
	err := unix.Renameat2(int(from.file.Fd()), a, int(to.file.Fd()), b, unix.RENAME_NOREPLACE)
	if !unsupported(err) {
		return err
	}
	// Old network file systems. A folder is replaced only when it is empty.
	if _, err := to.root.Lstat(b); err == nil {
		return unix.EEXIST
	}
	return unix.Renameat(int(from.file.Fd()), a, int(to.file.Fd()), b)
}

// swap exchanges two things. The error is errors.ErrUnsupported where that cannot
// be done in one step.
func swap(from *folder, a string, to *folder, b string) error {
	err := unix.Renameat2(int(from.file.Fd()), a, int(to.file.Fd()), b, unix.RENAME_EXCHANGE)
	if unsupported(err) {
		return fmt.Errorf("%w (%w)", errors.ErrUnsupported, err)
	}
	return err
}

func unsupported(err error) bool {
	return errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.ENOTSUP)
}

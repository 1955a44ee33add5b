//go:build !windows

package state

import (
	"errors"
	"syscall"
)

// readOnlyFS tells whether the file system is mounted for reading only.
func readOnlyFS(err error) bool { return errors.Is(err, syscall.EROFS) }

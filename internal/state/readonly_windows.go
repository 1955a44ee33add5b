package state

import (
	"errors"

	"golang.org/x/sys/windows"
)

// readOnlyFS tells whether the medium is write-protected.
func readOnlyFS(err error) bool { return errors.Is(err, windows.ERROR_WRITE_PROTECT) }

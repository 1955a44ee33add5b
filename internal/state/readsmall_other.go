//go:build !unix

package state

import (
	"errors"
	"io"
	"os"
	"path/filepath"
)

// readSmall reads the beginning of a file in dir, as much of it as buf holds, and
// gives how much that is.
func readSmall(dir *os.File, name string, buf []byte) (n int, err error) {
	f, err := os.Open(filepath.Join(dir.Name(), name))
	if err != nil {
		return 0, err
	}
	n, err = io.ReadFull(f, buf)
	_ = f.Close() // only read
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil
	}
	return n, err
}

//go:build unix

package ssh

import (
	"io/fs"
	"os"
	"syscall"
)

// ours tells whether the file belongs to this user. Nobody minds how open the
// others are: a key that was mounted into a container, for example.
func ours(st fs.FileInfo) bool {
	sys, ok := st.Sys().(*syscall.Stat_t)
	return ok && int(sys.Uid) == os.Getuid()
}

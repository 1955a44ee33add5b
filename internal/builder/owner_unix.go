//go:build unix

package builder

import (
	"io/fs"
	"os"
	"os/user"
	"strconv"
	"syscall"
)

// otherOwner is who owns a file that is neither ours nor root's, else "".
func otherOwner(info fs.FileInfo) string {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || st.Uid == 0 || int(st.Uid) == os.Geteuid() {
		return ""
	}
	id := strconv.FormatUint(uint64(st.Uid), 10)
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return "user " + id
}

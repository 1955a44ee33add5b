//go:build !windows

package remote

import (
	"fmt"
	"io/fs"
	"os/user"
	"strconv"
	"syscall"
)

func refusedErrnos() []error { return []error{syscall.ECONNREFUSED} }
func resetErrnos() []error   { return []error{syscall.ECONNRESET, syscall.ECONNABORTED, syscall.EPIPE} }
func busyErrnos() []error    { return []error{syscall.EAGAIN} }
func noRouteErrnos() []error { return []error{syscall.ENETUNREACH, syscall.ENETDOWN} }

func unreachableErrnos() []error {
	return append(noRouteErrnos(), syscall.EHOSTUNREACH, syscall.EHOSTDOWN)
}

func windows() bool { return false }

// ownedBy is " (owner root:docker, mode 0660)".
func ownedBy(st fs.FileInfo) string {
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return ""
	}
	return fmt.Sprintf(" (owner %s:%s, mode %04o)", userName(sys.Uid), groupName(sys.Gid), st.Mode().Perm())
}

// groupHints helps where the group may open the socket and others may not.
func groupHints(st fs.FileInfo) []string {
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok || st.Mode().Perm()&0o060 != 0o060 || sys.Gid == 0 {
		return nil
	}
	return []string{fmt.Sprintf("join its group, then log in again: sudo usermod -aG %s \"$USER\"", groupName(sys.Gid))}
}

func userName(id uint32) string {
	if u, err := user.LookupId(strconv.FormatUint(uint64(id), 10)); err == nil {
		return u.Username
	}
	return strconv.FormatUint(uint64(id), 10)
}

func groupName(id uint32) string {
	if g, err := user.LookupGroupId(strconv.FormatUint(uint64(id), 10)); err == nil {
		return g.Name
	}
	return strconv.FormatUint(uint64(id), 10)
}

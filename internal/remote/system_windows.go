package remote

import (
	"io/fs"
	"syscall"
)

// Winsock's own numbers: package syscall does not name them.
const (
	wsaeNetDown     = syscall.Errno(10050)
	wsaeNetUnreach  = syscall.Errno(10051)
	wsaeRefused     = syscall.Errno(10061)
	wsaeHostDown    = syscall.Errno(10064)
	wsaeHostUnreach = syscall.Errno(10065)
)

func refusedErrnos() []error     { return []error{wsaeRefused} }
func resetErrnos() []error       { return []error{syscall.WSAECONNRESET, syscall.WSAECONNABORTED} }
func busyErrnos() []error        { return nil }
func noRouteErrnos() []error     { return []error{wsaeNetUnreach, wsaeNetDown} }
func unreachableErrnos() []error { return append(noRouteErrnos(), wsaeHostUnreach, wsaeHostDown) }

func windows() bool { return true } // where a socket's file mode does not tell that it is one

func ownedBy(fs.FileInfo) string      { return "" }
func groupHints(fs.FileInfo) []string { return nil }

//go:build !windows

package beneath

import "syscall"

// NonBlocking is the flag that keeps the opening of a file from waiting, should a
// pipe have taken its place.
const NonBlocking = syscall.O_NONBLOCK

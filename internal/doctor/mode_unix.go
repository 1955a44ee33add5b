//go:build !windows

package doctor

import "io/fs"

// open tells whether others than the owner may read.
func open(m fs.FileMode) bool { return m.Perm()&0o077 != 0 }

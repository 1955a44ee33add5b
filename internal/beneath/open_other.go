//go:build !linux

package beneath

import "os"

// open is for Linux only.
func open(*os.File, string, bool) (*os.File, error) { return nil, errUnknown }

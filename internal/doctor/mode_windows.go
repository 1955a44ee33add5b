package doctor

import "io/fs"

// open cannot tell: the mode says nothing of a file's access list.
func open(fs.FileMode) bool { return false }

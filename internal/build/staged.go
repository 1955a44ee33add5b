package build

import (
	"context"
	"io/fs"
	"path/filepath"

	"github.com/berthbuild/berth/internal/atomicfile"
	"github.com/tonistiigi/fsutil"
)

// unstaged hides from a daemon what is staged in a build context: results of this
// build, or of one that crashed. With names that are never the same twice they would
// also make every COPY of the context a new one.
type unstaged struct{ fsutil.FS }

// Walk implements fsutil.FS.
func (u unstaged) Walk(ctx context.Context, target string, fn fs.WalkDirFunc) error {
	return u.FS.Walk(ctx, target, func(path string, e fs.DirEntry, err error) error {
		if !atomicfile.IsTemp(filepath.Base(path)) {
			return fn(path, e, err)
		}
		if e != nil && e.IsDir() {
			return filepath.SkipDir
		}
		return nil
	})
}

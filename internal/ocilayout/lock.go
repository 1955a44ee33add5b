package ocilayout

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/gofrs/flock"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// lockPause is how long to pause between two tries for a layout's lock.
const lockPause = 10 * time.Millisecond

// Lock waits until nobody else changes the index of the layout in a folder,
// which is made when it is missing: no other target, no other berth, and no buildctl
// either, whose lock it is. The wait ends with ctx.
func Lock(ctx context.Context, dir string, makeFolder func(string) error) (unlock func(), err error) {
	path := filepath.Join(dir, ocispecs.ImageIndexFile+".lock")
	for {
		if err := makeFolder(dir); err != nil {
			return nil, err
		}
		lock := flock.New(path)
		ok, err := lock.TryLock()
		switch {
		case ok && stands(lock):
			return func() { release(lock) }, nil
		case err != nil && !errors.Is(err, fs.ErrNotExist): // the build that made the folder has failed, and taken it back
			return nil, err
		}
		_ = lock.Close()
		pause := time.NewTimer(lockPause)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return nil, context.Cause(ctx)
		}
	}
}

// stands tells whether a lock is still that of its path. Whoever is done removes the
// file, and those who had opened it before hold what nobody else will ask for.
func stands(lock *flock.Flock) bool {
	mine, err := lock.Stat()
	now, nerr := os.Stat(lock.Path())
	return err == nil && nerr == nil && os.SameFile(mine, now)
}

// release gives a lock back, and leaves no file in a folder that is to be copied. It
// is removed while it is held, or else it could be the next one's. Windows removes
// no file that is open, so neither one that somebody else holds.
func release(lock *flock.Flock) {
	_ = os.Remove(lock.Path())
	_ = lock.Close()
	if runtime.GOOS == "windows" {
		_ = os.Remove(lock.Path())
	}
}

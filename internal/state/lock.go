package state

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"time"

	"github.com/gofrs/flock"

	"github.com/berthbuild/berth/internal/hint"
)

// lockPause is about how long to pause between two tries for the lock.
const lockPause = 10 * time.Millisecond

// lock takes the exclusive lock of the folder, which is the one of Buildx.
// The caller must call unlock. The wait ends with ctx, or with the budget.
func (s *Store) lock(ctx context.Context) (unlock func(), err error) {
	path := s.path(lockFile)
	fl := flock.New(path, flock.SetPermissions(fileMode))
	deadline := time.NewTimer(s.lockBudget)
	defer deadline.Stop()
	for {
		ok, err := fl.TryLock()
		switch {
		case err != nil:
			_ = fl.Close()
			return nil, hint.Wrap(err, "locking the state folder "+s.dir)
		case ok:
			return func() { _ = fl.Close() }, nil
		}
		// Not in step with the others who wait, or one of them would lose
		// every time.
		pause := time.NewTimer(lockPause/2 + rand.N(lockPause))
		select {
		case <-pause.C:
			continue
		case <-ctx.Done():
			err = context.Cause(ctx)
		case <-deadline.C:
			err = hint.Wrap(fmt.Errorf("%w for more than %s", ErrLocked, s.lockBudget), "the lock "+path,
				"see who holds it: fuser -v '"+path+"'", "end that process, or try again")
		}
		pause.Stop()
		_ = fl.Close()
		return nil, err
	}
}

// unwritable tells a folder in which nothing may be written from every other
// failure.
func unwritable(err error) bool {
	return errors.Is(err, fs.ErrPermission) || readOnlyFS(err)
}

package build

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/berthbuild/berth/internal/builder"
)

// slots bounds how many targets are built at once. A target has a slot while its
// steps may run: not while it waits for what it is built upon, and not while it
// waits for others, or all would wait for those that have none.
type slots chan struct{}

// newSlots makes n slots; 0 is no bound.
func newSlots(n int) slots {
	if n == 0 {
		return nil
	}
	return make(slots, n)
}

// take waits for a slot; release gives it back, once.
func (s slots) take(ctx context.Context) (release func(), err error) {
	if s == nil {
		return func() {}, nil
	}
	select {
	case s <- struct{}{}:
		return sync.OnceFunc(func() { <-s }), nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// barrier holds what all parts of all targets wait for: that each has been
// evaluated. One that fails never comes, and the context ends then.
type barrier struct {
	missing atomic.Int64
	all     chan struct{}
}

func newBarrier(parts int) *barrier {
	b := &barrier{all: make(chan struct{})}
	b.missing.Store(int64(parts))
	return b
}

// arrive is called once by each part.
func (b *barrier) arrive() {
	if b != nil && b.missing.Add(-1) == 0 {
		close(b.all)
	}
}

func (b *barrier) wait(ctx context.Context) error {
	if b == nil {
		return nil
	}
	select {
	case <-b.all:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// errNotBuilt is why a target is left out whose ground has failed.
var errNotBuilt = errors.New("not built, since a target that it is built upon failed")

// Failures are the targets that failed where the others went on.
type Failures struct {
	Targets []string // sorted
	Of      int      // of how many
	Causes  []error  // in the order of Targets; each names its target
}

// Error is the first failure that is none by another's, and how many there are.
func (f *Failures) Error() string {
	text := f.Causes[0].Error()
	for _, err := range f.Causes {
		if !errors.Is(err, errNotBuilt) {
			text = err.Error()
			break
		}
	}
	if len(f.Targets) == 1 {
		return text
	}
	return fmt.Sprintf("%s (%d of %d targets failed: %s)", text, len(f.Targets), f.Of, strings.Join(f.Targets, ", "))
}

// Unwrap gives the causes.
func (f *Failures) Unwrap() []error { return f.Causes }

// runAll runs the jobs as o.Jobs wants. With DeferError those that succeeded have
// a result, and the error is a *Failures.
func runAll(ctx context.Context, jobs []*job, b *builder.Builder, into *engines, o Options) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s := newSlots(o.Jobs.Parallel)
	if o.Jobs.DeferOutput {
		parts := 0
		for _, j := range jobs {
			parts += len(j.parts)
		}
		all := newBarrier(parts)
		for _, j := range jobs {
			for i := range j.parts {
				j.parts[i].tied().output = all
			}
		}
	}
	for _, j := range jobs {
		for i := range j.parts {
			own := j.parts[i].tied()
			own.alone, own.whole = o.Jobs.DeferError, ctx.Done()
		}
	}
	var running sync.WaitGroup
	var mu sync.Mutex
	failed := map[*job]error{}
	for _, j := range jobs {
		running.Go(func() {
			err := j.runIn(ctx, s, b, into, o)
			if err == nil {
				return
			}
			mu.Lock()
			failed[j] = err
			mu.Unlock()
			if !o.Jobs.DeferError {
				cancel(err) // the first one is the one to tell
			}
		})
	}
	running.Wait()
	if len(failed) == 0 {
		return nil
	}
	if !o.Jobs.DeferError {
		return context.Cause(ctx)
	}
	return failures(failed, len(jobs))
}

// failures are those jobs that failed, of so many.
func failures(failed map[*job]error, of int) *Failures {
	f := &Failures{Of: of}
	for _, j := range slices.SortedFunc(maps.Keys(failed), func(x, y *job) int { return strings.Compare(x.target.Name, y.target.Name) }) {
		f.Targets = append(f.Targets, j.target.Name)
		f.Causes = append(f.Causes, failed[j])
	}
	return f
}

// runIn is run in a slot.
func (j *job) runIn(ctx context.Context, s slots, b *builder.Builder, into *engines, o Options) (err error) {
	defer func() { // nobody may wait for it, however far it came
		for i := range j.parts {
			j.parts[i].ties.end(cmp.Or(err, errNotBuilt))
		}
	}()
	for i := range j.parts {
		if err := j.parts[i].ties.awaitBases(ctx); err != nil {
			return j.named(ctx, err)
		}
	}
	release, err := s.take(ctx)
	if err != nil {
		return err
	}
	defer release()
	var busy atomic.Int64
	busy.Store(int64(len(j.parts)))
	for i := range j.parts {
		j.parts[i].tied().idle = sync.OnceFunc(func() {
			if busy.Add(-1) == 0 {
				release()
			}
		})
	}
	return j.run(ctx, b, into, o)
}

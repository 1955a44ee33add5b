package remote

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/berthbuild/berth/internal/dial"
)

// hung is how long an attempt may take before it says more than the failed
// one before it.
const hung = time.Second

// Connect tries until a BuildKit daemon answers, a failure cannot heal, or the
// budget ends. The error is a *Failure, or ctx's cause when the caller
// cancelled. The caller closes the Conn.
func Connect(ctx context.Context, t Target, c Config) (*Conn, error) {
	scheme, ok := c.Schemes.Lookup(t.Endpoint.Scheme)
	if !ok {
		return nil, newFailure(t, &cause{class: BadConfig, text: fmt.Sprintf("no way to dial %s://", t.Endpoint.Scheme)}, 0, 0)
	}
	budget := c.Budget
	if budget <= 0 {
		budget = t.Options.ConnectTimeout
	}
	if budget <= 0 {
		budget = DefaultBudget
	}
	start := time.Now()
	bctx, cancel := context.WithDeadline(ctx, start.Add(budget))
	defer cancel()
	deadline, _ := bctx.Deadline() // the caller's, when that is earlier
	r := &run{target: t, config: c, scheme: scheme, limits: c.limits.orDefault(), start: start}
	r.report = newReporter(t, c.OnWait, deadline)
	defer r.report.start(r.limits)()
	return r.loop(ctx, bctx)
}

// interrupted is the caller's own reason to stop, nil when ctx lives or has
// merely come to its deadline, which is a budget like ours.
func interrupted(ctx context.Context) error {
	if ctx.Err() == nil {
		return nil
	}
	if why := context.Cause(ctx); !errors.Is(why, context.DeadlineExceeded) {
		return why
	}
	return nil
}

// run is one Connect.
type run struct {
	target Target
	config Config
	scheme dial.Scheme
	limits limits
	start  time.Time
	report *reporter

	tries int
	last  *cause
}

// loop makes attempts. ctx is the caller's, bctx has the budget in it.
func (r *run) loop(ctx, bctx context.Context) (*Conn, error) {
	delay := r.limits.minDelay
	for {
		began := time.Now()
		r.tries++
		conn, why := r.attempt(bctx)
		if conn != nil {
			return conn, nil
		}
		if err := interrupted(ctx); err != nil {
			return nil, err
		}
		r.note(why, bctx.Err() != nil, time.Since(began))
		if r.config.Once || !r.last.class.Heals() || !sleep(bctx, jitter(delay)) {
			break
		}
		delay = min(delay*8/5, r.limits.maxDelay)
	}
	if err := interrupted(ctx); err != nil {
		return nil, err
	}
	return nil, newFailure(r.target, r.last, time.Since(r.start), r.tries)
}

// note keeps the cause that is worth telling. An attempt that was cut by the
// end of the budget knows only that time ran out; what was seen before is
// better, unless this attempt came further and really hung there.
func (r *run) note(why *cause, cut bool, took time.Duration) {
	further := r.last != nil && why.stage > r.last.stage && took >= hung
	if r.last != nil && cut && why.bare && !further {
		return
	}
	r.last = why
	r.report.failed(why)
}

// jitter keeps many clients from coming back at the same moment.
func jitter(d time.Duration) time.Duration {
	return d*4/5 + rand.N(d*2/5+1)
}

// sleep waits, and tells whether there is time for another attempt.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

package remote

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"time"

	"github.com/berthbuild/berth/internal/dial"
	"github.com/berthbuild/berth/internal/telemetry"
)

// maxAsked bounds the questions of one Connect: on the way to a machine there
// may be several, each with a key of its own.
const maxAsked = 16

// hung is how long an attempt may take before it says more than the failed
// one before it.
const hung = time.Second

// Connect tries until a BuildKit daemon answers, a failure cannot heal, or the
// budget ends. The error is a *Failure, or ctx's cause when the caller
// cancelled. The caller closes the Conn.
func Connect(ctx context.Context, t Target, c Config) (*Conn, error) {
	var conn *Conn
	ctx, end := telemetry.Span(ctx, "connect", t.attributes()...)
	err := try(ctx, t, c, func(ctx context.Context, r *run) (why *cause) {
		conn, why = r.attempt(ctx)
		return why
	})
	end(err)
	return conn, err
}

// Dial is Connect for a caller who speaks to the daemon itself: the connection
// as the scheme made it, with TLS where the options say so. It has proven to
// lead somewhere, but not that BuildKit is there, and its reads may fail with a
// *dial.Error. The error is a *Failure, or ctx's cause when the caller
// cancelled. The caller closes the connection.
func Dial(ctx context.Context, t Target, c Config) (net.Conn, error) {
	var l *line
	err := try(ctx, t, c, func(ctx context.Context, r *run) (why *cause) {
		l, why = r.open(ctx)
		return why
	})
	if err != nil {
		return nil, err
	}
	l.prove()
	return l.app.Conn, nil // without the recorder, which cannot be closed half
}

// try makes attempts until one succeeds, a failure cannot heal, or the budget
// ends. Where a scheme needs an answer of a person, the clock stands still until
// it is given; a snapshot asks nobody.
func try(ctx context.Context, t Target, c Config, attempt func(context.Context, *run) *cause) error {
	for range maxAsked {
		err := tryOnce(ctx, t, c, attempt)
		var f *Failure
		var own *dial.Error
		if c.Once && !c.Ask || !errors.As(err, &f) || !errors.As(f.Cause, &own) || own.Ask == nil {
			return err
		}
		err = own.Ask(ctx)
		if cut := interrupted(ctx); cut != nil {
			return cut
		}
		if err != nil {
			return newFailure(t, &cause{class: own.Class, text: printable(err.Error(), maxText), tries: own.Tries, err: err}, f.Waited, f.Tries)
		}
	}
	return newFailure(t, &cause{class: BadConfig, text: "there are too many questions on the way"}, 0, 0)
}

// tryOnce is try up to a question.
func tryOnce(ctx context.Context, t Target, c Config, attempt func(context.Context, *run) *cause) error {
	scheme, ok := c.Schemes.Lookup(t.Endpoint.Scheme)
	if !ok {
		return newFailure(t, &cause{class: BadConfig, text: fmt.Sprintf("no way to dial %s://", t.Endpoint.Scheme)}, 0, 0)
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
	return r.loop(ctx, bctx, attempt)
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
	until time.Time // by when the attempt that is running must have its answer
}

// loop makes attempts. ctx is the caller's, bctx has the budget in it.
func (r *run) loop(ctx, bctx context.Context, attempt func(context.Context, *run) *cause) error {
	delay := r.limits.minDelay
	for {
		began := time.Now()
		r.tries++
		why := attempt(bctx, r)
		if why == nil {
			return nil
		}
		if err := interrupted(ctx); err != nil {
			return err
		}
		r.note(why, spent(bctx), time.Since(began))
		if r.config.Once || !r.last.heals() || !sleep(bctx, jitter(delay)) {
			break
		}
		delay = min(delay*8/5, r.limits.maxDelay)
	}
	if err := interrupted(ctx); err != nil {
		return err
	}
	return newFailure(r.target, r.last, time.Since(r.start), r.tries)
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

// spent tells whether the budget is used up. A dial that ends by the same clock
// may return before the context itself has noticed.
func spent(ctx context.Context) bool {
	deadline, ok := ctx.Deadline()
	return ctx.Err() != nil || ok && !time.Now().Before(deadline)
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

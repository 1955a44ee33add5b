package remote

import (
	"fmt"
	"sync"
	"time"
)

// reporter tells OnWait what Connect is waiting for.
type reporter struct {
	target   Target
	fn       func(Waiting)
	deadline time.Time
	changed  chan struct{} // has room for one: the loop looks at the newest state

	mu    sync.Mutex
	last  *cause    // of the last attempt that failed
	busy  bool      // an attempt is running
	stage stage     // of that attempt
	since time.Time // when that stage began
}

func newReporter(t Target, fn func(Waiting), deadline time.Time) *reporter {
	return &reporter{target: t, fn: fn, deadline: deadline, changed: make(chan struct{}, 1)}
}

// start begins to report; the function that it returns ends that, and returns
// when no call is running any more.
func (r *reporter) start(l limits) (stop func()) {
	if r.fn == nil {
		return func() {}
	}
	done, over := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(over)
		r.loop(l, done)
	}()
	return func() { close(done); <-over }
}

func (r *reporter) loop(l limits, done <-chan struct{}) {
	grace := time.NewTimer(l.grace)
	defer grace.Stop()
	select { // a daemon that answers at once needs no words
	case <-grace.C:
	case <-done:
		return
	}
	tick := time.NewTicker(l.tick)
	defer tick.Stop()
	said := ""
	for again := true; ; {
		why := r.now(l.tick)
		if again || why.Error() != said {
			said = why.Error()
			r.fn(Waiting{Target: r.target, Cause: why, Left: max(0, time.Until(r.deadline))})
		}
		select {
		case <-tick.C:
			again = true
		case <-r.changed:
			again = false
		case <-done:
			return
		}
	}
}

// now is the cause as it stands. A stage that has been hanging for longer than
// a tick says more than the attempt before it, unless that hung as well.
func (r *reporter) now(tick time.Duration) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.last != nil && (!r.busy || r.last.bare || time.Since(r.since) < tick) {
		return r.last
	}
	return &cause{class: Silent, text: fmt.Sprintf("no answer yet (%s)", r.stage), stage: r.stage, bare: true}
}

func (r *reporter) at(s stage) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.busy, r.stage, r.since = true, s, time.Now()
}

func (r *reporter) failed(c *cause) {
	r.mu.Lock()
	r.last, r.busy = c, false
	r.mu.Unlock()
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

// repeatAfter is how often Pace lets an unchanged cause be said again.
const repeatAfter = 5 * time.Second

// Pace thins out what OnWait is told, for a place where lines cannot be
// rewritten: a new cause at once, the same one now and then. The zero value is
// ready; it is for one node, and not for several goroutines.
type Pace struct {
	cause string
	left  time.Duration
	said  bool
}

// Due tells whether w should be said.
func (p *Pace) Due(w Waiting) bool {
	cause := ""
	if w.Cause != nil {
		cause = w.Cause.Error()
	}
	if p.said && cause == p.cause && p.left-w.Left < repeatAfter {
		return false
	}
	p.cause, p.left, p.said = cause, w.Left, true
	return true
}

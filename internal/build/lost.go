package build

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/berthbuild/berth/internal/dial"
	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/outcome"
	"github.com/berthbuild/berth/internal/remote"
)

// lookBudget is how long it is looked whether a daemon still answers whose
// connection has ended, or fallen silent.
const lookBudget = 2 * time.Second

// explain finds the real cause of a failed solve: that it was cancelled, an
// input that could not be sent, the build's own failure, or a daemon that was
// lost. begun tells whether that had said anything of the build.
func explain(ctx context.Context, p part, in *inputs, err error, begun bool, o Options) error {
	if why := outcome.Interrupted(ctx, err); why != nil {
		return why
	}
	if why := in.failure(); why != nil {
		return why
	}
	f := outcome.Facts{Err: err, Wire: p.conn.Wire(), Begun: begun, Exporting: p.outs.begun()}
	if in.unsent.failed(err) && in.snapped() && f.Wire.Err == nil && f.Wire.Session == nil {
		in.distrust(ctx) // whatever it was
		return &Elsewhere{Cause: err}
	}
	v := outcome.Judge(f)
	var told *dial.Error // by the scheme, which knows why
	if v.Kind == outcome.Closed && !errors.As(f.Wire.Err, &told) || v.Kind == outcome.Silent {
		f.Look = look(ctx, p.Target, o)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		v = outcome.Judge(f)
	}
	if v.Class == outcome.Lost {
		in.distrust(ctx)
		return &Lost{Target: p.Target, Verdict: v, Cause: err, Wire: f.Wire.Err, Exported: p.outs.gone()}
	}
	if p.share == "" {
		return err
	}
	return hint.Wrap(err, fmt.Sprintf("%s on node %s", p.share, p.Node.Name)) // which of several
}

// look tries once whether the daemon answers. It asks nobody for a passphrase.
func look(ctx context.Context, t remote.Target, o Options) outcome.Look {
	c, err := remote.Connect(ctx, t, remote.Config{Schemes: o.Schemes, Budget: lookBudget, Once: true})
	var f *remote.Failure
	switch {
	case err == nil:
		_ = c.Close() // nothing ran on it
	case errors.As(err, &f):
		err = f.Cause // the rest is said by Lost
	}
	return outcome.Look{Done: true, Err: err}
}

// Lost is a daemon, or the way to it, that was lost in a build which may be well
// otherwise.
type Lost struct {
	Target  remote.Target
	Verdict outcome.Verdict // of the class outcome.Lost
	Cause   error           // as the build saw it
	Wire    error           // as the connection saw it; may be nil
	// Exported: the daemon had begun to export what is seen elsewhere at once, so
	// that the build must not be repeated.
	Exported bool
}

// stays tells whether the daemon is there to do it again, which may have been done
// before: only the way to it broke, or it ended the build alone.
func (l *Lost) stays(before bool) bool {
	return l.Verdict.Kind != outcome.Closed && (l.Verdict.Retry == outcome.Same || l.Verdict.Retry == outcome.Once && !before)
}

// Error says what was lost, where and why.
func (l *Lost) Error() string {
	when := "before the build began"
	if l.Verdict.Begun {
		when = "during the build"
	}
	format := "connection to %s was lost " + when + ": %s"
	switch k := l.Verdict.Kind; {
	case k == outcome.Draining && !l.Verdict.Begun:
		format = "%s takes no new builds: %s"
	case k == outcome.Session:
		format = "session with %s was lost " + when + ": %s"
	case k == outcome.Unfit:
		format = "%s cannot build: %s"
	case k == outcome.Dropped, k == outcome.Taken:
		format = "%s did not end the build: %s"
	}
	return fmt.Sprintf(format, l.Target, l.Verdict.Text)
}

// Unwrap gives the solve's error.
func (l *Lost) Unwrap() error { return l.Cause }

// Hints implements hint.Hinter.
func (l *Lost) Hints() []string {
	again := "build again: the steps that had finished are in the daemon's cache"
	tries := hint.Of(l.Wire) // what the scheme knows of its other side
	switch l.Verdict.Kind {
	case outcome.Silent:
		if l.Verdict.Retry == outcome.Same {
			tries = append(tries, again)
		}
		tries = append(tries, "see on which step of the way it hangs: berth doctor "+hint.Quote(l.Target.Builder))
	case outcome.Cut:
		tries = append(tries, again, "the daemon's log says whether it was restarted (out of memory?); if it was not, look for a proxy or firewall that ends long connections")
	case outcome.Draining:
		tries = append(tries, "build again when it is back, or on another builder: --builder NAME")
	case outcome.Session:
		tries = append(tries, again, "was this machine, or berth, suspended or very busy for more than 40 s?")
	case outcome.Unfit:
		if name := hint.Quote(l.Target.Builder); strings.HasSuffix(l.Verdict.Text, "no space left on device") {
			tries = append(tries, "see what its cache holds: berth du --builder "+name, "make room in it: berth prune --builder "+name)
		} else {
			tries = append(tries, "the daemon's log, and that of its machine's kernel, may say more")
		}
	case outcome.Dropped, outcome.Taken, outcome.Unavailable:
		tries = append(tries, again, "the daemon's log may say why")
	default:
		tries = append(tries,
			"see whether the daemon still answers: berth inspect "+hint.Quote(l.Target.Builder),
			"its own log says whether it stopped or was killed (out of memory?); steps that had finished are in its cache",
		)
	}
	return tries
}

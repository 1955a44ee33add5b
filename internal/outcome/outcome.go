// Package outcome judges how a solve ended: by the user's own will, by the
// build itself, or because the daemon, or the way to it, was lost.
//
// It is not for solving again, nor for saying on which node it was: those who
// solve do that. It opens nothing and asks nobody; what it needs to know comes
// as Facts.
//
// Rules: codes alone mislead, since a daemon passes on those of registries and
// of our own helpers, so what counts is who made an error (a daemon's carries
// the daemon's stack) and what the connection itself saw. What was decided by
// ourselves is known by our own flags and never read out of an error. A build
// that failed is never to be tried again; where in doubt, it has failed.
package outcome

import (
	"context"
	"errors"
	"time"

	"github.com/moby/buildkit/util/grpcerrors"
	"google.golang.org/grpc/codes"
)

// Class is whose doing an end is.
type Class string

// The classes.
const (
	Ours   Class = "ours"   // the user cancelled, or the user's own deadline came
	Failed Class = "failed" // the build: it would fail again
	Lost   Class = "lost"   // the daemon or the way to it: it may be solved again
)

// Kind is what happened, as far as a person wants to know it. The strings are
// stable.
type Kind string

// The kinds of Ours.
const (
	Canceled Kind = "canceled"
	Deadline Kind = "deadline"
)

// The kinds of Failed.
const (
	Step  Kind = "step"  // a program that the build ran ended with an error
	Build Kind = "build" // the daemon says that it cannot be built
	Input Kind = "input" // it did not come to a build: what is to be built cannot be sent
)

// The kinds of Lost.
const (
	GivenUp     Kind = "given-up"    // by ourselves, see Facts.GaveUp
	Closed      Kind = "closed"      // the other side closed the connection; Facts.Look may say more
	Ended       Kind = "ended"       // closed, and the daemon is not there any more
	Cut         Kind = "cut"         // closed, but the daemon answers
	Silent      Kind = "silent"      // frozen, or cut off without a word: nothing came, not even the answer to a ping
	Draining    Kind = "draining"    // the daemon is being stopped
	Pings       Kind = "pings"       // it hung up because it was pinged too often
	Unavailable Kind = "unavailable" // something on the way answered in its place
	Session     Kind = "session"     // the daemon lost touch with this machine, and went on until it needed it
	Dropped     Kind = "dropped"     // the daemon cancelled the build by itself
	Taken       Kind = "taken"       // another build has the same reference
	Unfit       Kind = "unfit"       // the daemon's own machine cannot: its disk is full, say
)

// Retry is whether, and where, the same may be solved again: on a new
// connection, with a new reference.
type Retry string

// What Retry can be.
const (
	Never     Retry = "never"
	Once      Retry = "once"      // on the same daemon, but one time only: the cause may be ours
	Same      Retry = "same"      // on the same daemon, which has in its cache what was done
	Elsewhere Retry = "elsewhere" // on another one; this one is not there to do it
)

// GoAway is what a peer said when it wanted no more calls on a connection.
type GoAway string

// What GoAway can be.
const (
	NoGoAway     GoAway = ""
	GoDraining   GoAway = "draining"       // it is being stopped; what runs may end
	TooManyPings GoAway = "too-many-pings" // it hangs up on who pings too often
	GoOther      GoAway = "other"          // it found fault with us
)

// Wire is what became of the connection of a build, as its bytes tell.
type Wire struct {
	Err    error         // what ended it; nil while it lives, and when we ended it
	Silent time.Duration // how long nothing had come when it was given up for that; 0 when it was not
	GoAway GoAway
	// Session is what ended the session on it before we did; nil when nothing has.
	Session error
}

// over tells whether the connection has ended, and not by us.
func (w Wire) over() bool { return w.Err != nil || w.Silent > 0 }

// Look is what was seen by one attempt to connect anew, right after the end.
type Look struct {
	Done bool  // it was looked
	Err  error // why there is no connection; nil when the daemon answered
}

func (l Look) answered() bool { return l.Done && l.Err == nil }

// Facts are what an end is judged by.
type Facts struct {
	Err    error // the solve's; never nil
	User   error // why the user stopped it, see Interrupted; nil when not
	GaveUp error // why we ourselves ended the solve, other than for the user; nil when we did not
	Wire   Wire
	Begun  bool // the daemon had told something of the build
	// Exporting: it had begun to export, so that what a disk or a registry says may
	// be said of another one than its own.
	Exporting bool
	Look      Look // tells Closed, Ended and Cut apart, and who is Silent from a way that is
}

// Verdict is how it ended.
type Verdict struct {
	Class Class
	Kind  Kind
	Retry Retry
	Begun bool   // see Facts
	Text  string // what happened, in a few words for a person; "" unless Lost
}

// Interrupted is the cause of the end of the user's context, nil while it lives.
// A daemon knows the context's deadline, too, and may give up just before it: that
// is the end of the context as well. err is the solve's.
func Interrupted(ctx context.Context, err error) error {
	const almost = 100 * time.Millisecond
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if deadline, ok := ctx.Deadline(); ok && grpcerrors.Code(err) == codes.DeadlineExceeded && time.Until(deadline) < almost {
		return context.DeadlineExceeded
	}
	return nil
}

// Judge says how a solve ended. The order of the questions matters: each is
// asked only when those above did not say.
func Judge(f Facts) Verdict {
	v := judge(f)
	v.Begun = f.Begun
	if v.Kind == Silent && f.Look.answered() {
		v.Retry = Same // where the step goes on, since the daemon does not know of it
	}
	if v.Class == Lost {
		v.Text = text(f, v.Kind)
	}
	return v
}

func judge(f Facts) Verdict {
	switch {
	case f.GaveUp != nil:
		return lost(GivenUp)
	case errors.Is(f.User, context.DeadlineExceeded):
		return Verdict{Class: Ours, Kind: Deadline, Retry: Never}
	case f.User != nil:
		return Verdict{Class: Ours, Kind: Canceled, Retry: Never}
	case exited(f.Err): // also when the session was lost meanwhile
		return failed(Step)
	case FromDaemon(f.Err):
		return told(f)
	}
	return cut(f)
}

// cut is for an error that no daemon made.
func cut(f Facts) Verdict {
	code, grpc := code(f.Err)
	switch {
	case f.Wire.over(), code == codes.Unavailable && f.Wire.GoAway != NoGoAway:
		return lost(ended(f))
	case code == codes.Unavailable, code == codes.Canceled, code == codes.DeadlineExceeded:
		return lost(Unavailable)
	case code == codes.Internal && grpc: // a stream that was reset
		return lost(Unavailable)
	}
	return failed(Input)
}

// ended is how the connection ended.
func ended(f Facts) Kind {
	switch {
	case f.Wire.Silent > 0: // also when it had begun to shut down
		return Silent
	case f.Wire.GoAway == GoDraining:
		return Draining
	case f.Wire.GoAway == TooManyPings:
		return Pings
	case !f.Look.Done:
		return Closed
	case f.Look.Err != nil:
		return Ended
	}
	return Cut
}

// told is for an error that the daemon made, on a connection that carried it.
func told(f Facts) Verdict {
	code, _ := code(f.Err)
	switch {
	case f.Wire.Session != nil, noSession(f.Err):
		return lost(Session)
	case code == codes.Canceled:
		return lost(Dropped)
	case refTaken(f.Err):
		return lost(Taken)
	case !f.Exporting && ownTrouble(f.Err):
		return lost(Unfit)
	}
	return failed(Build)
}

func failed(k Kind) Verdict { return Verdict{Class: Failed, Kind: k, Retry: Never} }

func lost(k Kind) Verdict {
	v := Verdict{Class: Lost, Kind: k, Retry: Same}
	switch k {
	case GivenUp, Ended, Silent, Draining, Unavailable, Unfit:
		v.Retry = Elsewhere
	case Dropped, Taken:
		v.Retry = Once
	}
	return v
}

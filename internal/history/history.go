// Package history reads the records that daemons keep of their builds: it lists
// them, finds one by its reference, reads what is attached to it, its log and
// its trace, removes it, and writes it into a bundle. Bundles are read, too, and
// kept in the state folder as the builds of a builder of their own (Imported).
//
// It is not for showing: the surface makes tables and text of what this package
// gives. It starts no builds.
//
// Rules: all nodes of a builder are asked at once, each within a budget of its
// own; one that does not answer takes nothing from the others. Daemons and
// bundles are not trusted: whatever is read has a bound, and a blob is what its
// digest says or an error. Records vanish while they are read, which is an error
// that says so (ErrGone).
package history

import (
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/berthbuild/berth/internal/state"
	controlapi "github.com/moby/buildkit/api/services/control"
	"google.golang.org/grpc/codes"
)

// Status is how far a build has come, in the words of filters.
type Status string

// The statuses.
const (
	Running   Status = "running"
	Completed Status = "completed"
	Failed    Status = "error"
	Canceled  Status = "canceled"
)

// ErrGone is the cause when a record, or what it points to, is there no more.
var ErrGone = errors.New("the record has been removed meanwhile")

// Record is one build, as a daemon or a bundle has it.
type Record struct {
	*controlapi.BuildHistoryRecord

	Builder, Node string
	Local         *state.Ref      // what this machine knows of it; nil: nothing
	Group         *state.GroupRef // the bake that it was part of; nil: none

	place           place
	defaultPlatform string // what it was for where nothing else is said; "" where that is the place's
}

// Reference is builder/node/id.
func (r *Record) Reference() string { return r.Builder + "/" + r.Node + "/" + r.Ref }

// Daemon is the name of the daemon that has it: Node, and which of the daemons
// where that leads to several ("node/pod-0").
func (r *Record) Daemon() string { return r.place.name() }

// Created is when the build began.
func (r *Record) Created() time.Time { return r.GetCreatedAt().AsTime() }

// Ended is when it ended; zero while it runs.
func (r *Record) Ended() time.Time {
	if r.CompletedAt == nil {
		return time.Time{}
	}
	return r.CompletedAt.AsTime()
}

// Duration is how long it took, or has taken until now.
func (r *Record) Duration(now time.Time) time.Duration {
	if r.CompletedAt != nil {
		now = r.Ended()
	}
	return max(0, now.Sub(r.Created())) // the daemon's clock may be ahead of ours
}

// Status is how far it has come.
func (r *Record) Status() Status {
	switch {
	case r.CompletedAt == nil:
		return Running
	case r.Error == nil:
		return Completed
	case codes.Code(r.Error.Code) == codes.Canceled, strings.Contains(r.Error.Message, "context canceled"): //nolint:gosec // a code of gRPC
		return Canceled
	}
	return Failed
}

// newestFirst is the order of every list.
func newestFirst(all []*Record) {
	slices.SortFunc(all, func(a, b *Record) int {
		if c := b.Created().Compare(a.Created()); c != 0 {
			return c
		}
		return strings.Compare(a.Reference(), b.Reference())
	})
}

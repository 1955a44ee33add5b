package build

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/berthbuild/berth/internal/builder"
	"github.com/berthbuild/berth/internal/buildflag"
	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/outcome"
	"github.com/berthbuild/berth/internal/pool"
	"github.com/berthbuild/berth/internal/request"
)

// defaultRetries is how often a build is solved again whose daemon was lost.
const defaultRetries = 2

// maxOvertaken bounds how often a build that found room may find it taken.
const maxOvertaken = 1000

// overtaken is a build that found room on a daemon that another build took first.
type overtaken struct{ node string }

// Error says so.
func (e *overtaken) Error() string {
	return "node " + e.node + " has as many builds as it may have: another one came first"
}

// withFailover runs f, and again when a daemon was lost that another one, or the same
// on a new connection, can stand in for. Each run of f opens and closes all that it
// needs, so that nothing of the one before is left. What may have been pushed, or
// written to standard output, is not done again; nor is what can be read only once.
// A build's own failure is never repeated. The only daemon of a builder does it again
// when it is there; that it is waited for has to be asked for, with a number of retries.
func withFailover[T any](ctx context.Context, b *builder.Builder, o Options, repeatable bool, f func(Options) (T, error)) (T, error) {
	said := pool.SettingsOf(b.Nodes).Retries
	left := 0
	if repeatable {
		left = said.Or(defaultRetries)
	}
	only := !pool.Choosing(b.Nodes, o.Schemes)
	if o.Lapses == nil {
		o.Lapses = &recall{}
	}
	lostAt := map[string]int{}
	o.queue = &queue{}
	for {
		res, err := f(o)
		var lost *Lost
		var race *overtaken
		switch {
		case err == nil || ctx.Err() != nil:
			return res, err
		case errors.As(err, &race) && repeatable && o.queue.races < maxOvertaken:
			o.queue.begin()
			o.queue.races++
			continue
		case !errors.As(err, &lost) || left == 0 || lost.Exported || lost.Verdict.Retry == outcome.Never:
			return res, notAgain(err, lost, left)
		case only && !said.Said() && !lost.stays(lostAt[lost.Target.Endpoint.String()] > 0):
			return res, err
		}
		left--
		*o.queue = queue{}
		address := lost.Target.Endpoint.String()
		lostAt[address]++
		where := o.again(address, !only && (lost.Verdict.Retry == outcome.Elsewhere || lostAt[address] > 1))
		switch {
		case lost.Verdict.Kind == outcome.Unfit:
			o.Lapses.Unfit(ctx, address, lost.Verdict.Text)
		case where.avoid[address]:
			o.Lapses.Lapsed(ctx, address, lost.Verdict.Text)
		}
		o = where
		step := o.Progress.Step("[internal] building again: " + lost.Error())
		step.Log(fmt.Sprintf("%s, %d more of such failures are put up with", o.intent(), left))
		step.Done(nil)
	}
}

// notAgain says of a lost build that it was not repeated, where that was allowed.
func notAgain(err error, lost *Lost, left int) error {
	if lost == nil || left == 0 || !lost.Exported {
		return err
	}
	return hint.Wrap(err, "not built again, since its result may have been pushed or written already")
}

// again is o for the next run: on the daemon that was lost first, or last.
func (o Options) again(address string, elsewhere bool) Options {
	avoid := map[string]bool{}
	for a := range o.avoid {
		avoid[a] = true
	}
	o.prefer = ""
	if elsewhere {
		avoid[address] = true
	} else {
		o.prefer = address
	}
	o.avoid = avoid
	return o
}

// intent is where the next run goes, for a person.
func (o Options) intent() string {
	if o.prefer != "" {
		return "on the same node first, which has in its cache what was done"
	}
	return "on another node first"
}

// irrevocable tells whether an export of r does something that is seen elsewhere
// before the build has ended: an upload, or bytes on standard output.
func irrevocable(r request.Request) bool {
	return slices.ContainsFunc(r.Outputs, func(out buildflag.Output) bool { return out.Pushes() || out.Dest == buildflag.Stdout })
}

package build

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/berthbuild/berth/internal/endpoint"
	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/pool"
	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/client"
)

const (
	// claimBudget is how long a build waits to see itself among those of its daemon.
	// It is there within milliseconds, but for a daemon that has far too much to do.
	claimBudget = 30 * time.Second
	claimAgain  = 5 * time.Millisecond // at first; it grows
	// unlist bounds taking the record of a build away that never was one.
	unlist = 10 * time.Second
)

// claim makes sure that a daemon with a limit of builds has room for this one. Two
// who look at the same moment see the same room; so each looks again when its own
// build is listed, and of those that are too many, the ones that were listed last
// give way: their err is *overtaken. The order is the daemon's, the same for all.
type claim struct {
	m    *member
	stay bool // it waits for its turn where it is: what it sends can be read once only
	lost bool // it gave way

	budget, queue time.Duration // until it is listed; until its turn has come, where it stays
}

// claimFor is the claim of a part; nil where its daemon has no limit, or does not
// say what it builds. A bake has its place as a whole, which was looked for before:
// targets that wait for one another must not wait for a place as well.
func claimFor(p part) *claim {
	if p.ties != nil || p.Target.Options.MaxBuilds == 0 || !p.told {
		return nil
	}
	return &claim{m: p.member, stay: !repeatable(p.req), budget: claimBudget, queue: cmp.Or(p.Target.Options.QueueTimeout, pool.DefaultQueue)}
}

// look tells whether there still is room, just before the build is sent: since the
// daemon was chosen the context was looked at, which takes a while. Whoever gives way
// here leaves no trace on the daemon; for one that does not answer, check decides.
func (c *claim) look(ctx context.Context) error {
	all, err := pool.Active(ctx, c.m.conn.Client())
	if err == nil && !c.stay && len(all) >= c.m.Target.Options.MaxBuilds {
		return &overtaken{node: c.m.Name}
	}
	return interrupted(ctx)
}

// check is called when the daemon has the build, before it has anything to do for it.
// A daemon that cannot answer the question is not asked again; from one that has too
// much to do to answer, the build goes elsewhere when that lasts.
func (c *claim) check(ctx context.Context, ref string) error {
	began := time.Now()
	for rest := claimAgain; ; rest = min(2*rest, minRest) {
		all, err := pool.Active(ctx, c.m.conn.Client())
		before, listed := pool.Rank(all, ref)
		over, waited := before >= c.m.Target.Options.MaxBuilds, time.Since(began)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil && !pool.Busy(err), listed && !over:
			return nil
		case c.stay && (err != nil || listed):
			if waited > c.queue {
				return hint.New(fmt.Sprintf("node %s had no room within %s", c.m.Name, c.queue), "wait longer: the driver option "+endpoint.OptQueueTimeout)
			}
			rest = minRest
		case listed, err != nil && waited > c.budget:
			c.lost = true
			return &overtaken{node: c.m.Name}
		case waited > c.budget: // it has answered, and lists others only
			return nil
		}
		if !sleep(ctx, rest) {
			return context.Cause(ctx)
		}
	}
}

// forget takes the record of a build away that gave way: it was never begun.
func (c *claim) forget(ctx context.Context, ref string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), unlist)
	defer cancel()
	control := c.m.conn.Client().ControlClient()
	for rest := claimAgain; ; rest = min(2*rest, minRest) {
		_, err := control.UpdateBuildHistory(ctx, &controlapi.UpdateBuildHistoryRequest{Ref: ref, Delete: true})
		if err == nil || !sleep(ctx, rest) {
			return // whoever lists the records sees that it was cancelled
		}
	}
}

// solve is client.Solve, with others told of the result's definition where they
// are built upon it, and with a place claimed where places are few.
func (p part) solve(ctx context.Context, opt client.SolveOpt, statuses chan *client.SolveStatus) (*client.SolveResponse, error) {
	c := claimFor(p)
	if c == nil {
		return p.ties.solve(ctx, p.conn.Client(), opt, statuses)
	}
	if err := c.look(ctx); err != nil {
		close(statuses) // as the client does
		return nil, err
	}
	one := &ties{begin: func(ctx context.Context) error { return c.check(ctx, opt.Ref) }}
	resp, err := one.solve(ctx, p.conn.Client(), opt, statuses)
	if c.lost {
		c.forget(ctx, opt.Ref)
		return nil, &overtaken{node: c.m.Name}
	}
	return resp, err
}

package build

import (
	"context"
	"time"

	"github.com/berthbuild/berth/internal/pool"
	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/client"
)

const (
	// claimBudget is how long a build waits to see itself among those of its daemon.
	claimBudget = 2 * time.Second
	claimAgain  = 5 * time.Millisecond
	// unlist bounds taking the record of a build away that never was one.
	unlist = 2 * time.Second
)

// claim makes sure that a daemon with a limit of builds has room for this one. Two
// who look at the same moment see the same room; so each looks again when its own
// build is listed, and of those that are too many, the ones that were listed last
// give way: their err is *overtaken. The order is the daemon's, the same for all.
type claim struct {
	m    *member
	stay bool // it waits for its turn where it is: what it sends can be read once only
	lost bool // it gave way
}

// claimFor is the claim of a part; nil where its daemon has no limit, or does not
// say what it builds. A bake has its place as a whole, which was looked for before:
// targets that wait for one another must not wait for a place as well.
func claimFor(p part) *claim {
	if p.ties != nil || p.Target.Options.MaxBuilds == 0 || !p.told {
		return nil
	}
	return &claim{m: p.member, stay: !repeatable(p.req)}
}

// check is called when the daemon has the build, before it has anything to do for it.
// A daemon that does not answer the question is not asked again: the build itself
// will show whether it is there.
func (c *claim) check(ctx context.Context, ref string) error {
	until := time.Now().Add(claimBudget)
	for {
		all, err := pool.Active(ctx, c.m.conn.Client())
		if err != nil {
			return interrupted(ctx)
		}
		switch before, listed := pool.Rank(all, ref); {
		case c.stay && listed && before >= c.m.Target.Options.MaxBuilds:
			if !sleep(ctx, minRest) {
				return context.Cause(ctx)
			}
			continue
		case listed && before >= c.m.Target.Options.MaxBuilds:
			c.lost = true
			return &overtaken{node: c.m.Name}
		case listed, time.Now().After(until):
			return nil
		}
		if !sleep(ctx, claimAgain) {
			return context.Cause(ctx)
		}
	}
}

// forget takes the record of a build away that gave way: it was never begun.
func (c *claim) forget(ctx context.Context, ref string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), unlist)
	defer cancel()
	control := c.m.conn.Client().ControlClient()
	for {
		_, err := control.UpdateBuildHistory(ctx, &controlapi.UpdateBuildHistoryRequest{Ref: ref, Delete: true})
		if err == nil || !sleep(ctx, claimAgain) {
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
	one := &ties{begin: func(ctx context.Context) error { return c.check(ctx, opt.Ref) }}
	resp, err := one.solve(ctx, p.conn.Client(), opt, statuses)
	if c.lost {
		c.forget(ctx, opt.Ref)
		return nil, &overtaken{node: c.m.Name}
	}
	return resp, err
}

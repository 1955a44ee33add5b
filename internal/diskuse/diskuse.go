// Package diskuse tells what the caches of a builder's daemons hold, and
// removes of it.
//
// It asks all nodes at once, and a node that fails takes nothing from the
// others: each has its own result. It prints nothing. The grammar of filters
// and sizes is here too, apart from what contacts daemons, so that mistakes are
// found before that.
//
// Rules: every wait ends. A daemon that has fallen silent in the middle of a
// call is noticed within half a minute, however long the call itself may take.
package diskuse

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/berthbuild/berth/internal/builder"
	"github.com/berthbuild/berth/internal/dial"
	"github.com/berthbuild/berth/internal/remote"
	"github.com/berthbuild/berth/internal/request"
	"github.com/moby/buildkit/client"
)

// Options are what asking needs from the surface.
type Options struct {
	Schemes dial.Registry
	Budget  time.Duration        // for connecting to each node; 0 is the node's own
	OnWait  func(remote.Waiting) // may be nil; may be called from several goroutines

	pulse, patience time.Duration // set by tests
}

// Usage is what one node answered.
type Usage struct {
	Node    builder.Node
	Records []client.UsageInfo // by size, the smallest first
	Err     error              // why there is no answer
}

// List asks every node of b for the records that f chooses. The usages are in
// the order of the nodes. The error is b's own; those of nodes are in their
// usages.
func List(ctx context.Context, b *builder.Builder, f Filter, o Options) ([]Usage, error) {
	if err := b.Usable(); err != nil {
		return nil, err
	}
	all := make([]Usage, len(b.Nodes))
	o.each(ctx, b, func(ctx context.Context, i int, c *remote.Conn) (err error) {
		all[i].Records, err = list(ctx, c, f)
		return err
	}, func(i int, err error) { all[i].Node, all[i].Err = b.Nodes[i], err })
	return all, nil
}

func list(ctx context.Context, c *remote.Conn, f Filter) ([]client.UsageInfo, error) {
	found, err := c.Client().DiskUsage(ctx, client.WithFilter(selectors(f.selector())), client.WithAgeLimit(f.until))
	if err != nil {
		return nil, err
	}
	caps, err := capabilities(ctx, c)
	if err != nil {
		return nil, err
	}
	cutOff := time.Time{}
	if f.until > 0 && !caps.CacheLimits() { // it has not looked
		cutOff = time.Now().Add(-f.until)
	}
	var all []client.UsageInfo
	for _, r := range found {
		recent := !cutOff.IsZero() && r.LastUsedAt != nil && r.LastUsedAt.After(cutOff)
		if recent || f.inUse == "false" && r.InUse {
			continue
		}
		all = append(all, *r)
	}
	return all, nil
}

// each connects to all nodes at once, calls ask with each connection, and done
// with how that went. It returns when all are done.
func (o Options) each(ctx context.Context, b *builder.Builder, ask func(context.Context, int, *remote.Conn) error, done func(int, error)) {
	var wg sync.WaitGroup
	for i, n := range b.Nodes {
		wg.Go(func() {
			done(i, o.with(ctx, n, func(ctx context.Context, c *remote.Conn) error { return ask(ctx, i, c) }))
		})
	}
	wg.Wait()
}

// with connects to a node and calls ask, for as long as the daemon is there.
func (o Options) with(ctx context.Context, n builder.Node, ask func(context.Context, *remote.Conn) error) error {
	t, err := n.Target()
	if err != nil {
		return err
	}
	c, err := remote.Connect(ctx, t, remote.Config{Schemes: o.Schemes, Budget: o.Budget, OnWait: o.OnWait})
	if err != nil {
		return err
	}
	defer c.Close() //nolint:errcheck // what was asked for is here, or the error is told
	watched, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go c.Watch(watched, remote.Pulse{Every: o.pulse, Patience: o.patience}, cancel)
	err = ask(watched, c)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(context.Cause(watched), remote.ErrSilent):
		err = remote.ErrSilent
	case c.Lost() != nil:
		err = remote.LostText(c.Lost())
	}
	return explain(t, n.Builder, err)
}

// capabilities is what the daemon can do. One that is part of a Docker engine
// and cannot say its version may say it of its worker.
func capabilities(ctx context.Context, c *remote.Conn) (request.Capabilities, error) {
	v := c.Version()
	if v.Version == "" {
		workers, err := c.Workers(ctx)
		if err != nil {
			return request.Capabilities{}, err
		}
		if len(workers) > 0 {
			v = workers[0].BuildkitVersion
		}
	}
	caps := request.CapabilitiesOf(v)
	caps.Engine = c.Host()
	return caps, nil
}

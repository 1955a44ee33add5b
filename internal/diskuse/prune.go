package diskuse

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"github.com/berthbuild/berth/internal/builder"
	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/remote"
	"github.com/moby/buildkit/client"
)

// Prune is what is to be removed.
type Prune struct {
	Filter Filter
	All    bool // what frontends and the daemon itself keep, too

	// In bytes; 0 where it does not matter.
	Reserved int64 // always kept
	MaxUsed  int64 // what the cache may take
	MinFree  int64 // what is to be free on the disk
}

// Removed is what one node removed.
type Removed struct {
	Node    builder.Node
	Bytes   int64
	Records int
	Err     error // why it stopped; what stands above is gone all the same
}

// Run removes on every node of b at once. seen is told of each record that is
// gone, one call at a time, with the number of its node; it may be nil. The
// results are in the order of the nodes. A ctx that ends stops the daemons, who
// may have removed more by then than they have told. The error is b's own.
func (p Prune) Run(ctx context.Context, b *builder.Builder, o Options, seen func(node int, r client.UsageInfo)) ([]Removed, error) {
	if err := b.Usable(); err != nil {
		return nil, err
	}
	all := make([]Removed, len(b.Nodes))
	var mu sync.Mutex
	o.each(ctx, b, func(ctx context.Context, i int, c *remote.Conn) error {
		return p.on(ctx, c, func(r client.UsageInfo) {
			mu.Lock()
			defer mu.Unlock()
			all[i].Bytes += max(r.Size, 0)
			all[i].Records++
			if seen != nil {
				seen(i, r)
			}
		})
	}, func(i int, err error) {
		mu.Lock()
		defer mu.Unlock()
		all[i].Node, all[i].Err = b.Nodes[i], err
	})
	return all, nil
}

// on removes on one node.
func (p Prune) on(ctx context.Context, c *remote.Conn, seen func(client.UsageInfo)) error {
	if err := p.check(ctx, c); err != nil {
		return err
	}
	filter, none, err := p.selectors(ctx, c)
	if err != nil || none {
		return err
	}
	opts := []client.PruneOption{
		client.WithKeepOpt(p.Filter.until, p.Reserved, p.MaxUsed, p.MinFree),
		client.WithFilter(filter),
	}
	if p.All {
		opts = append(opts, client.PruneAll)
	}
	gone := make(chan client.UsageInfo)
	ended := make(chan error, 1)
	go func() {
		defer close(gone)
		ended <- c.Client().Prune(ctx, gone, opts...)
	}()
	for r := range gone {
		seen(r)
	}
	return <-ended
}

// check refuses limits that the daemon would ignore, and remove too much.
func (p Prune) check(ctx context.Context, c *remote.Conn) error {
	if p.MaxUsed == 0 && p.MinFree == 0 {
		return nil
	}
	caps, err := capabilities(ctx, c)
	if err != nil || caps.CacheLimits() {
		return err
	}
	return hint.New(fmt.Sprintf("buildkit v0.17.0+ is required for max-used-space and min-free-space filters, and this is %s", caps.Name()),
		"--reserved-space is for older ones too")
}

// maxNamed is how many records are named in one call.
const maxNamed = 1000

// selectors are the filter as the daemon takes it for removing, none where
// there is nothing to remove. When it removes, a daemon does not look at
// parents; when it lists, it does. So those records are named.
func (p Prune) selectors(ctx context.Context, c *remote.Conn) (list []string, none bool, err error) {
	whole := p.Filter.selector()
	if !p.Filter.byParents() {
		return selectors(whole), false, nil
	}
	found, err := c.Client().DiskUsage(ctx, client.WithFilter(selectors(whole)))
	if err != nil {
		return nil, false, err
	}
	if len(found) > maxNamed {
		return nil, false, hint.New(fmt.Sprintf(`"parents" filter: %d records are too many to be named`, len(found)), "narrow it with another --filter")
	}
	var others []string
	for _, cond := range p.Filter.conditions {
		if cond.key != "parents" {
			others = append(others, cond.String())
		}
	}
	for _, r := range found {
		one := append([]string{condition{"id", "==", r.ID}.String()}, others...)
		list = append(list, strings.Join(one, ","))
	}
	return list, len(list) == 0, nil
}

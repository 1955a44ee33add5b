package builder

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/berthbuild/berth/internal/remote"
	"github.com/containerd/platforms"
	"github.com/moby/buildkit/client"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// State is how a node is, in the words that scripts compare.
type State string

// The states of a node. A daemon that nobody could reach is inactive; one that
// was reached but cannot be used, or that can never be reached as configured,
// is an error.
const (
	Running  State = "running"
	Inactive State = "inactive"
	Failing  State = "error"
)

// Status is what a node answered, or why it did not.
type Status struct {
	State   State
	Version string // of BuildKit, empty when unknown
	Workers []*client.WorkerInfo
	Err     error // nil when running
}

// ProbeOptions bound and observe the asking.
type ProbeOptions struct {
	Budget time.Duration          // for each node; 0 is the node's own connect-timeout
	Once   bool                   // a snapshot: do not wait for what may come up
	OnWait func(w remote.Waiting) // may be nil; may be called from several goroutines
}

// Probe asks one node.
func (s *Service) Probe(ctx context.Context, n Node, o ProbeOptions) Status {
	t, err := n.Target()
	if err != nil {
		return Status{State: Failing, Err: err}
	}
	c, err := remote.Connect(ctx, t, remote.Config{
		Schemes: s.Schemes, Budget: o.Budget, Once: o.Once, OnWait: o.OnWait,
	})
	if err != nil {
		return Status{State: stateOf(err), Err: err}
	}
	defer c.Close() //nolint:errcheck // nothing is lost with a connection that only asked
	st := Status{State: Running, Version: c.Version().Version}
	if st.Workers, err = c.Workers(ctx); err != nil {
		return Status{State: Failing, Version: st.Version, Err: err}
	}
	if st.Version == "" && len(st.Workers) > 0 {
		st.Version = st.Workers[0].BuildkitVersion.Version
	}
	if st.Version == "" {
		st.Version = bundled(c.Host())
	}
	return st
}

func stateOf(err error) State {
	var f *remote.Failure
	if errors.As(err, &f) && !f.Heals {
		return Failing
	}
	return Inactive
}

// ProbeAll asks every node of every builder at once, and calls done for each
// as its answer comes, one call at a time. It returns when all have answered.
func (s *Service) ProbeAll(ctx context.Context, all []*Builder, o ProbeOptions, done func(b, n int, st Status)) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	for i, b := range all {
		for j, node := range b.Nodes {
			wg.Go(func() {
				st := s.Probe(ctx, node, o)
				mu.Lock()
				defer mu.Unlock()
				done(i, j, st)
			})
		}
	}
	wg.Wait()
}

// Offered are the platforms that the node builds for: those that its owner
// fixed first, then what its workers answered, each once.
func Offered(n Node, st Status) []ocispecs.Platform {
	all := slices.Clone(n.Platforms)
	for _, w := range st.Workers {
		all = append(all, w.Platforms...)
	}
	seen := map[string]bool{}
	return slices.DeleteFunc(all, func(p ocispecs.Platform) bool {
		key := platforms.FormatAll(platforms.Normalize(p))
		dup := seen[key]
		seen[key] = true
		return dup
	})
}

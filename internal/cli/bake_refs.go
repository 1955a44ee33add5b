package cli

import (
	"context"
	"slices"
	"sync"

	"github.com/berthbuild/berth/internal/bake"
	"github.com/berthbuild/berth/internal/build"
	"github.com/berthbuild/berth/internal/builder"
	"github.com/berthbuild/berth/internal/state"
	"github.com/moby/buildkit/identity"
)

// bakeRefs are the references of a bake's builds: each leaves one of its own, and
// all of them one that names them.
type bakeRefs struct {
	group string
	asked []string // the names that were asked for

	saving sync.WaitGroup
	mu     sync.Mutex
	ids    []string
}

func newBakeRefs(names []string) *bakeRefs {
	if len(names) == 0 {
		names = []string{bake.DefaultName}
	}
	return &bakeRefs{group: identity.NewID(), asked: names}
}

// started notes a build, and does what else is to be done with it beside the build:
// forty builds would wait for each other's turn to write, and for the disk.
func (r *bakeRefs) started(then func(node, ref string)) func(node, ref string) {
	if then == nil {
		return nil
	}
	return func(node, ref string) {
		r.mu.Lock()
		r.ids = append(r.ids, ref)
		r.mu.Unlock()
		r.saving.Go(func() { then(node, ref) })
	}
}

// save keeps the group's reference, also of a bake that has failed.
func (r *bakeRefs) save(ctx context.Context, a *app, s *builder.Service) {
	r.saving.Wait()
	if len(r.ids) == 0 {
		return
	}
	slices.Sort(r.ids)
	// A record that cannot be written must not fail a build that has not.
	if err := s.Store.SaveGroupRef(context.WithoutCancel(ctx), r.group, state.GroupRef{Targets: r.asked, Refs: r.ids}); err != nil && a.debug {
		a.warn("the bake's reference was not kept: %v", err)
	}
}

// bakeSolveOptions are what the builds need of the world.
func (a *app) bakeSolveOptions(ctx context.Context, s *builder.Service, b *builder.Builder, targets []build.Target, sources map[string]buildOptions, o bakeOptions, d display) (build.Options, *bakeRefs, error) {
	refs := newBakeRefs(o.names)
	opts, err := a.solveOptions(ctx, s, b, targets[0].Request, buildOptions{timeout: o.timeout, contextSync: o.contextSync, affinity: o.affinity, metadataFile: o.metadataFile}, d.printer)
	if err != nil {
		return opts, refs, err
	}
	git := readOnce()
	for i, t := range targets {
		kept := a.reference(t.Request, sources[t.Name])
		kept.Target, kept.GroupRef = t.Name, refs.group
		targets[i].Started = refs.started(a.saveReference(ctx, s, b, t.Request, kept))
		targets[i].Origin = a.origin(t.Request, git)
	}
	return opts, refs, nil
}

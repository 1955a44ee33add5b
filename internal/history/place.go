package history

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/berthbuild/berth/internal/builder"
	"github.com/berthbuild/berth/internal/dial"
	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/remote"
	"github.com/berthbuild/berth/internal/state"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/moby/buildkit/client"
)

// place is where records are: on a node, or in the folder of the imported ones.
// It is used by one goroutine at a time, save for close.
type place interface {
	builder() string
	node() string
	// name is node, with the daemon's own name where the node leads to several.
	name() string
	// records gives those that q is for, or more. With an error come those that can
	// be read all the same.
	records(ctx context.Context, q Query) ([]*Record, error)
	// reading calls read with where what the record points to is, for as long as the
	// place is there.
	reading(ctx context.Context, r *Record, read func(context.Context, content.Provider) error) error
	// status sends the build's progress, of one that runs until it ends.
	status(ctx context.Context, r *Record, send func(*client.SolveStatus)) error
	remove(ctx context.Context, id string) error
	finalize(ctx context.Context, id string) error
	// platform is what builds are for where nothing else is said; "" where it is
	// not known.
	platform(ctx context.Context) (string, error)
	// explain says where err happened.
	explain(err error) error
	close()
}

// Options are what asking needs from the surface.
type Options struct {
	Schemes dial.Registry
	Budget  time.Duration        // for connecting to each node; 0 is the node's own
	OnWait  func(remote.Waiting) // may be nil; may be called from several goroutines
	Store   *state.Store         // knows what builds of this machine were made of

	pulse remote.Pulse  // set by tests
	list  time.Duration // set by tests
}

// History is the records of one builder. It must be closed.
type History struct {
	name   string
	places []place
	store  *state.Store

	mu     sync.Mutex
	failed map[place]error
}

// Open gives the records of a builder. Nodes are connected to when they are asked
// something.
func Open(b *builder.Builder, o Options) (*History, error) {
	if err := b.Usable(); err != nil {
		return nil, err
	}
	h := &History{name: b.Name, store: o.Store, failed: map[place]error{}}
	for _, n := range b.Nodes {
		h.places = append(h.places, &daemon{n: n, o: o, builderName: b.Name})
	}
	return h, nil
}

// OpenImported gives the records that came in bundles.
func OpenImported(store *state.Store) *History {
	return &History{name: Imported, store: store, places: []place{&folder{store: store}}, failed: map[place]error{}}
}

// Close ends the connections.
func (h *History) Close() {
	for _, p := range h.places {
		p.close()
	}
}

// Name is the builder's.
func (h *History) Name() string { return h.name }

// Nodes is how many places there are.
func (h *History) Nodes() int { return len(h.places) }

// Failed are the errors of nodes that could not be asked, in the order of the
// nodes. What the others have is not complete without them.
func (h *History) Failed() []error {
	h.mu.Lock()
	defer h.mu.Unlock()
	var all []error
	for _, p := range h.places {
		if err := h.failed[p]; err != nil {
			all = append(all, err)
		}
	}
	return all
}

// Query is which records are asked for. The zero value is all of them.
type Query struct {
	ID     string // the one that has it; "" is all
	Newest int    // those that run, and so many of those that have ended; 0 is all
}

// Records gives all records that the filter chooses, the newest first. Those of
// nodes that fail are missing; see Failed. The error is ctx's.
func (h *History) Records(ctx context.Context, f Filter) ([]*Record, error) {
	all, _, err := h.Newest(ctx, f, 0)
	return all, err
}

// Newest is Records with at most n of each daemon, and those that run; 0 is no bound.
// more tells whether there are others that the filter chooses.
func (h *History) Newest(ctx context.Context, f Filter, n int) (chosen []*Record, more bool, err error) {
	q := Query{}
	if n > 0 && f.All() {
		q.Newest = n + 1 // to see whether there are more
	}
	all, err := h.ask(ctx, h.places, q)
	if err != nil {
		return nil, false, err
	}
	now := time.Now()
	seen := map[place]int{}
	chosen = all[:0]
	for _, r := range all {
		if !f.Match(r, now) {
			continue
		}
		if r.CompletedAt != nil {
			if seen[r.place]++; n > 0 && seen[r.place] > n {
				more = true
				continue
			}
		}
		chosen = append(chosen, r)
	}
	return chosen, more, nil
}

// ask asks places at once. For an id, the first that has it ends the search.
func (h *History) ask(ctx context.Context, places []place, q Query) ([]*Record, error) {
	asking, found := context.WithCancel(ctx)
	defer found()
	answers := make([][]*Record, len(places))
	var wg sync.WaitGroup
	for i, p := range places {
		wg.Go(func() {
			all, err := p.records(asking, q)
			if err != nil && asking.Err() == nil {
				h.mu.Lock()
				h.failed[p] = p.explain(err)
				h.mu.Unlock()
			}
			h.complete(p, all)
			answers[i] = all
			if q.ID != "" && len(all) > 0 {
				found()
			}
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	var all []*Record
	for _, a := range answers {
		all = append(all, a...)
	}
	newestFirst(all)
	return all, nil
}

// complete adds what this machine knows. A reference that cannot be read only
// makes a record say less.
func (h *History) complete(p place, all []*Record) {
	var ids []string
	for _, r := range all {
		r.Builder, r.Node, r.place = p.builder(), p.node(), p
		if r.Local == nil {
			ids = append(ids, r.Ref)
		}
	}
	if h.store == nil || len(ids) == 0 {
		return
	}
	known := h.store.Refs(p.builder(), p.node(), ids)
	for _, r := range all {
		if ref, ok := known[r.Ref]; ok && r.Local == nil {
			r.Local = &ref
		}
	}
}

// group finds the bake that the record was part of.
func (h *History) group(r *Record) *state.GroupRef {
	if r.Group != nil || r.Local == nil || r.Local.GroupRef == "" || h.store == nil {
		return r.Group
	}
	g, err := h.store.GroupRef(r.Local.GroupRef)
	if err != nil {
		return nil
	}
	return &g
}

// Find finds one record. The error is a *NotFound, or why it may be on a node
// that could not be asked.
func (h *History) Find(ctx context.Context, ref Reference) (*Record, error) {
	places := h.places
	if ref.Node != "" {
		places = nil
		for _, p := range h.places {
			if p.node() == ref.Node {
				places = append(places, p)
			}
		}
		if len(places) == 0 {
			return nil, hint.Wrap(fmt.Errorf("builder %s has no node %q", h.name, ref.Node), "", "list the nodes: berth inspect "+h.name)
		}
	}
	if len(ref.ID) == idLength {
		if all, err := h.ask(ctx, places, Query{ID: ref.ID}); err != nil || len(all) > 0 {
			if err != nil {
				return nil, err
			}
			return all[0], nil
		}
		return nil, h.missing(ref, places)
	}
	all, err := h.ask(ctx, places, Query{})
	if err != nil {
		return nil, err
	}
	r, err := ref.choose(all)
	if IsNotFound(err) {
		err = h.missing(ref, places)
	}
	return r, err
}

// Sure tells whether a record that was found is the one that the reference means,
// whatever nodes that could not be asked have: it was named by its whole id, or all
// of the nodes that it may be on were asked.
func (h *History) Sure(ref Reference, r *Record) error {
	if r.Ref == ref.ID {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	var failed []error
	for _, p := range h.places {
		if err := h.failed[p]; err != nil && (ref.Node == "" || ref.Node == p.node()) {
			failed = append(failed, err)
		}
	}
	if len(failed) == 0 {
		return nil
	}
	return hint.Wrap(errors.Join(failed...), fmt.Sprintf("%q may be another record: not all nodes could be asked", ref.text), "name the record by its whole id: berth history ls")
}

// missing is why a record was not found. A single node that failed says it all.
func (h *History) missing(ref Reference, places []place) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	var failed []error
	for _, p := range places {
		if err := h.failed[p]; err != nil {
			failed = append(failed, err)
		}
	}
	missing := &NotFound{ref}
	switch {
	case len(failed) == 0:
		return missing
	case len(failed) == len(places):
		return errors.Join(failed...)
	}
	return hint.Wrap(fmt.Errorf("%w; %d of %d nodes could not be asked", missing, len(failed), len(places)), "", hint.Of(errors.Join(failed...))...)
}

// Remove removes the record. The error is ErrGone when it is there no more.
func (r *Record) Remove(ctx context.Context) error {
	return r.explain(r.place.remove(ctx, r.Ref))
}

// Finalize has the daemon complete the record, which without it waits some
// seconds for traces that clients send. The record is read again.
func (r *Record) Finalize(ctx context.Context) error {
	if err := r.place.finalize(ctx, r.Ref); err != nil {
		return r.explain(err)
	}
	all, err := r.place.records(ctx, Query{ID: r.Ref})
	switch {
	case err != nil:
		return r.explain(err)
	case len(all) == 0:
		return r.explain(ErrGone)
	}
	r.BuildHistoryRecord = all[0].BuildHistoryRecord
	return nil
}

// Progress sends the build's progress; of one that runs, until it ends.
func (r *Record) Progress(ctx context.Context, send func(*client.SolveStatus)) error {
	return r.explain(r.place.status(ctx, r, send))
}

// explain says which record an error is about, and where it is.
func (r *Record) explain(err error) error {
	if err == nil {
		return nil
	}
	return r.place.explain(hint.Wrap(err, "record "+r.Ref))
}

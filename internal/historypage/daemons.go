package historypage

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/berthbuild/berth/internal/builder"
	"github.com/berthbuild/berth/internal/diskuse"
	"github.com/berthbuild/berth/internal/history"
	"github.com/containerd/platforms"
)

// How often daemons are asked, and how long each may take.
const (
	listEvery   = 2 * time.Second
	probeEvery  = 15 * time.Second
	cacheEvery  = time.Minute
	nodeBudget  = 4 * time.Second
	roundBudget = 45 * time.Second
	patience    = 700 * time.Millisecond // of a page for what has been asked now
	maxRows     = 500
	maxFollowed = 16
	idle        = 30 * time.Second // after which a build that nobody looks at is not followed
)

// Options are what asking daemons needs from the surface.
type Options struct {
	Service *builder.Service
	Only    string        // this builder only; "" is all
	Budget  time.Duration // for connecting to a node for one build; 0 is the node's own
	Dir     string        // the working directory

	// Expand gives a node for each daemon of a builder, where a node leads to several.
	// It may be nil: each node is one daemon then.
	Expand func(context.Context, *builder.Builder) *builder.Builder
}

// Daemons is the Source that asks the daemons of builders. It must be closed.
//
// Each builder is asked on its own, and only while somebody looks: a page asks again
// and again, and gets what is known by then.
type Daemons struct {
	o   Options
	ctx context.Context // of what goes on between requests, until Close
	end context.CancelFunc
	wg  sync.WaitGroup

	mu       sync.Mutex
	watched  map[string]*watched
	followed map[string]*followed
}

// watched is what is known of a builder.
type watched struct {
	b       *builder.Builder
	nodes   []Node
	records []*history.Record
	failed  []error

	asking                  chan struct{} // closed when the round ends; nil: none is under way
	listed, probed, counted time.Time
	h                       *history.History
	of                      string // the nodes that h is of
}

// NewDaemons gives the builds of builders.
func NewDaemons(o Options) *Daemons {
	ctx, end := context.WithCancel(context.Background())
	return &Daemons{o: o, ctx: ctx, end: end, watched: map[string]*watched{}, followed: map[string]*followed{}}
}

// Close ends what goes on.
func (d *Daemons) Close() {
	d.end()
	d.wg.Wait()
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, w := range d.watched {
		if w.h != nil {
			w.h.Close()
		}
	}
}

// builders are those that are shown, and why some may be missing.
func (d *Daemons) builders(ctx context.Context) ([]*builder.Builder, error) {
	if d.o.Only == history.Imported {
		return []*builder.Builder{d.imported()}, nil
	}
	if d.o.Only != "" {
		b, err := d.o.Service.Find(ctx, d.o.Only)
		if err != nil {
			return nil, err
		}
		return []*builder.Builder{b}, nil
	}
	all, err := d.o.Service.List(ctx)
	if all == nil && err != nil {
		return nil, err
	}
	return append(slices.Clone(all), d.imported()), nil
}

// imported stands for the builds that came in bundles.
func (d *Daemons) imported() *builder.Builder { return &builder.Builder{Name: history.Imported} }

// Overview implements Source.
func (d *Daemons) Overview(ctx context.Context) (*Overview, error) {
	all, err := d.builders(ctx)
	if err != nil {
		return nil, err
	}
	rounds := d.ask(all)
	wait, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for _, done := range rounds {
		select {
		case <-done:
		case <-wait.Done():
		}
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return d.known(all), nil
}

// ask begins a round for each builder that is due, and gives what is closed when the
// rounds end.
func (d *Daemons) ask(all []*builder.Builder) []chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	var rounds []chan struct{}
	for _, b := range all {
		w := d.watched[b.Name]
		if w == nil {
			w = &watched{}
			d.watched[b.Name] = w
		}
		if w.asking == nil && b.Err == nil && d.ctx.Err() == nil && time.Since(w.listed) >= listEvery {
			w.asking = make(chan struct{})
			d.wg.Go(func() { d.round(w, b) })
		}
		if w.asking != nil {
			rounds = append(rounds, w.asking)
		}
	}
	return rounds
}

// round asks a builder's nodes. Only one is under way for a builder.
func (d *Daemons) round(w *watched, b *builder.Builder) {
	ctx, cancel := context.WithTimeoutCause(d.ctx, roundBudget, fmt.Errorf("the daemons have not answered within %s", roundBudget))
	defer cancel()
	b = d.expand(ctx, b)
	d.mu.Lock()
	w.b = b
	of := nodesText(b)
	if of != w.of {
		w.nodes, w.probed, w.counted = make([]Node, len(b.Nodes)), time.Time{}, time.Time{}
		for i, n := range b.Nodes {
			w.nodes[i] = Node{Name: texts{}.line(n.Name), Endpoint: texts{}.line(n.Endpoint), Running: -1, Cache: -1}
		}
	}
	probe, count := time.Since(w.probed) >= probeEvery, time.Since(w.counted) >= cacheEvery
	d.mu.Unlock()
	var wg sync.WaitGroup
	wg.Go(func() { d.list(ctx, w, b, of) })
	if probe && len(b.Nodes) > 0 {
		wg.Go(func() { d.probe(ctx, w, b) })
	}
	if count && len(b.Nodes) > 0 {
		wg.Go(func() { d.count(ctx, w, b) })
	}
	wg.Wait()
	d.mu.Lock()
	defer d.mu.Unlock()
	w.listed = time.Now()
	close(w.asking)
	w.asking = nil
}

// nodesText tells whether a builder has changed.
func nodesText(b *builder.Builder) string {
	var s strings.Builder
	s.WriteString(b.Driver)
	for _, n := range b.Nodes {
		fmt.Fprintf(&s, "\n%s %s %v", n.Name, n.Endpoint, n.DriverOpts)
	}
	return s.String()
}

// list reads the records. The connections stay; after a failure they are made anew.
func (d *Daemons) list(ctx context.Context, w *watched, b *builder.Builder, of string) {
	d.mu.Lock()
	h := w.h
	if h != nil && of != w.of {
		h.Close()
		h = nil
	}
	w.of, w.h = of, h
	d.mu.Unlock()
	if h == nil {
		var err error
		if h, err = d.open(b, nodeBudget); err != nil {
			d.mu.Lock()
			w.failed = []error{err}
			d.mu.Unlock()
			return
		}
	}
	records, err := h.Records(ctx, history.Filter{})
	failed := h.Failed()
	if err != nil {
		failed = append(failed, err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	w.h, w.failed = h, failed
	if err == nil {
		w.records = records
	}
	if len(failed) > 0 {
		h.Close()
		w.h = nil
	}
}

// expand gives a node for each daemon of the builder.
func (d *Daemons) expand(ctx context.Context, b *builder.Builder) *builder.Builder {
	if d.o.Expand == nil {
		return b
	}
	ctx, cancel := context.WithTimeout(ctx, nodeBudget)
	defer cancel()
	return d.o.Expand(ctx, b)
}

func (d *Daemons) open(b *builder.Builder, budget time.Duration) (*history.History, error) {
	if b.Name == history.Imported {
		return history.OpenImported(d.o.Service.Store), nil
	}
	return history.Open(b, history.Options{Schemes: d.o.Service.Schemes, Budget: budget, Store: d.o.Service.Store})
}

func (d *Daemons) probe(ctx context.Context, w *watched, b *builder.Builder) {
	d.o.Service.ProbeAll(ctx, []*builder.Builder{b}, builder.ProbeOptions{Budget: nodeBudget, Once: true}, func(_, i int, st builder.Status) {
		d.mu.Lock()
		defer d.mu.Unlock()
		n := &w.nodes[i]
		n.Health, n.Version, n.Error, n.Platforms = string(st.State), texts{}.line(st.Version), "", nil
		if st.Err != nil {
			n.Error = text(st.Err)
		}
		for _, p := range builder.Offered(b.Nodes[i], st) {
			n.Platforms = append(n.Platforms, texts{}.line(platforms.FormatAll(p)))
		}
	})
	d.mu.Lock()
	defer d.mu.Unlock()
	w.probed = time.Now()
}

func (d *Daemons) count(ctx context.Context, w *watched, b *builder.Builder) {
	all, err := diskuse.List(ctx, b, diskuse.Filter{}, diskuse.Options{Schemes: d.o.Service.Schemes, Budget: nodeBudget})
	d.mu.Lock()
	defer d.mu.Unlock()
	for i, u := range all {
		w.nodes[i].Cache = -1
		if err == nil && u.Err == nil {
			w.nodes[i].Cache = 0
			for _, r := range u.Records {
				w.nodes[i].Cache += r.Size
			}
		}
	}
	w.counted = time.Now()
}

// known is what is known now. A build that several builders have, which share a daemon,
// is there once.
func (d *Daemons) known(all []*builder.Builder) *Overview {
	d.mu.Lock()
	defer d.mu.Unlock()
	o := &Overview{Builders: []Builder{}, Builds: []Row{}}
	order := slices.Clone(all)
	slices.SortStableFunc(order, func(a, b *builder.Builder) int { return rank(a) - rank(b) })
	seen := map[string]bool{}
	var records []*history.Record
	for _, b := range order {
		w := d.watched[b.Name]
		for _, r := range w.records {
			if !seen[r.Ref] {
				seen[r.Ref] = true
				records = append(records, r)
			}
		}
	}
	slices.SortStableFunc(records, func(a, b *history.Record) int { return b.Created().Compare(a.Created()) })
	o.More = max(0, len(records)-maxRows)
	now := time.Now()
	for _, r := range records[:len(records)-o.More] {
		o.Builds = append(o.Builds, row(r, now))
	}
	for _, b := range all {
		if b.Name == history.Imported {
			continue
		}
		o.Builders = append(o.Builders, shownBuilder(b, d.watched[b.Name]))
	}
	return o
}

// rank puts the chosen builder first and imported builds last.
func rank(b *builder.Builder) int {
	switch {
	case b.Current:
		return 0
	case b.Name == history.Imported:
		return 2
	}
	return 1
}

func shownBuilder(b *builder.Builder, w *watched) Builder {
	made := Builder{Name: texts{}.line(b.Name), Driver: texts{}.line(b.Driver), Current: b.Current, Nodes: slices.Clone(w.nodes)}
	if b.Err != nil {
		made.Error = text(b.Err)
	} else if len(w.failed) > 0 && len(w.nodes) == 0 {
		made.Error = text(errors.Join(w.failed...))
	}
	for i := range made.Nodes {
		n := &made.Nodes[i]
		if n.Health != string(builder.Running) {
			continue
		}
		n.Running = 0
		for _, r := range w.records {
			if r.Daemon() == w.b.Nodes[i].Name && r.Status() == history.Running {
				n.Running++
			}
		}
	}
	return made
}

func row(r *history.Record, now time.Time) Row {
	t := newTexts(r.GetFrontendAttrs())
	made := Row{
		Ref: t.line(r.Reference()), ID: t.line(r.Ref), Builder: t.line(r.Builder), Node: t.line(r.Node), Name: t.line(r.Name()),
		Status: statusOf(r), Started: r.Created().UTC().Format(time.RFC3339Nano), Duration: max(0, r.Duration(now).Milliseconds()),
		Done: int(r.NumCompletedSteps), Total: int(r.NumTotalSteps), Cached: int(r.NumCachedSteps),
	}
	if made.Name == "" {
		made.Name = made.ID
	}
	return made
}

func statusOf(r *history.Record) string {
	if s := r.Status(); s != history.Failed {
		return string(s)
	}
	return "failed"
}

// find opens the records of the builder that a reference is about, and finds the one.
// The history must be closed.
func (d *Daemons) find(ctx context.Context, ref history.Reference) (*history.History, *history.Record, error) {
	name := ref.Builder
	if name == "" {
		name = d.o.Only
	}
	b := d.imported()
	if name != history.Imported {
		var err error
		if b, err = d.o.Service.Find(ctx, name); err != nil {
			return nil, nil, err
		}
	}
	h, err := d.open(d.expand(ctx, b), d.o.Budget)
	if err != nil {
		return nil, nil, err
	}
	r, err := h.Find(ctx, ref)
	if err != nil {
		h.Close()
		return nil, nil, err
	}
	return h, r, nil
}

// Build implements Source.
func (d *Daemons) Build(ctx context.Context, ref history.Reference) (*Build, error) {
	d.mu.Lock()
	f := d.followed[ref.String()]
	d.mu.Unlock()
	if f != nil {
		if b := f.now(ctx); b != nil {
			return b, nil
		}
	}
	h, r, err := d.find(ctx, ref)
	if err != nil {
		return nil, err
	}
	if r.Status() != history.Running {
		defer h.Close()
		return Read(ctx, h, r, d.o.Dir)
	}
	if f, err = d.follow(ctx, ref.String(), h, r); err != nil {
		return nil, err
	}
	if b := f.now(ctx); b != nil {
		return b, nil
	}
	return d.ended(ctx, ref, f)
}

// ended reads a build that is followed no longer. Its record may say a moment later
// than its progress that it has ended.
func (d *Daemons) ended(ctx context.Context, ref history.Reference, f *followed) (*Build, error) {
	h, r, err := d.find(ctx, ref)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	if r.Status() == history.Running {
		return f.made(), f.err
	}
	return Read(ctx, h, r, d.o.Dir)
}

// Attachment implements Source.
func (d *Daemons) Attachment(ctx context.Context, ref history.Reference, digest string) (string, error) {
	h, r, err := d.find(ctx, ref)
	if err != nil {
		return "", err
	}
	defer h.Close()
	data, err := r.Content(ctx, digest)
	if err != nil {
		return "", err
	}
	return newTexts(r.GetFrontendAttrs()).document(data), nil
}

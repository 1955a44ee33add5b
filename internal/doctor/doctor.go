// Package doctor walks the way that a build takes, from the name of a builder
// to a trial build, and tells of each step: what was seen, how long it took,
// and for the first that fails why, and what to try.
//
// It is not for repairing, nor for waiting: what a build would wait for is
// reported as it is now. It prints nothing; how the steps look is the surface's
// affair.
//
// Rules: what it reports of a connection is what the connection that it made
// has told (dial.Tracer), not a second opinion. A step that fails stops only
// those that need it. Steps that need nothing of each other run side by side.
// Every step has a budget, and all end with the context. Nothing secret is in a
// report: every text goes through a scrubber, so that it can be handed on. On a
// daemon it leaves one small entry in the build cache, which the next run uses
// again.
package doctor

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"

	"github.com/berthbuild/berth/internal/builder"
	"github.com/berthbuild/berth/internal/dial"
	"github.com/berthbuild/berth/internal/remote"
)

// DefaultTimeout is how long Run may take when nothing else was said.
const DefaultTimeout = time.Minute

// Options are what Run needs from the surface.
type Options struct {
	// Find gives the builder, or the one that stands for an endpoint.
	Find  func(ctx context.Context) (*builder.Builder, error)
	State string // where builders are kept, for showing

	Schemes dial.Registry
	Timeout time.Duration // for all of it; 0 is DefaultTimeout
	Client  string        // the version of BuildKit that berth was built with; "" is unknown

	// Engine looks at the Docker engine that --load would use. nil leaves it out.
	Engine func(ctx context.Context) (Engine, error)

	// Push is a reference that a build would be pushed as; "" leaves it out.
	Push     string
	Keychain authn.Keychain

	// Secrets are texts that must not be printed, wherever they come from.
	Secrets []string

	// OnBuilder is told of the builder once it is found, OnNode of each node
	// and, with an empty name and endpoint, of what concerns no node, and OnStep
	// of each step, all in the order of the report and from one goroutine. Each
	// may be nil.
	OnBuilder func(name, driver string)
	OnNode    func(name, endpoint string)
	OnStep    func(Step)
	// OnWait is told, from the same goroutine, the name of a step that takes
	// long. It may be nil.
	OnWait func(name string)
}

// Engine is a Docker engine that answers.
type Engine struct {
	Context string // of docker
	Host    string // where it is
	Version string
	Store   string // how it keeps images
}

// Report is what was seen.
type Report struct {
	Builder string // "" where it was not found, or an endpoint was given
	Driver  string
	First   []Step // before any node: StepState
	Nodes   []NodeReport
	Last    []Step // what concerns no node: StepLoad, StepPush
	Took    time.Duration
}

// NodeReport is what was seen of one daemon.
type NodeReport struct {
	Name     string // "" where an endpoint was given
	Endpoint string // fit for showing
	Steps    []Step
}

// Broken is the first step that failed and the node that it is about, "" for
// none; ok is false where a build would work.
func (r *Report) Broken() (node string, s Step, ok bool) {
	for _, s := range r.First {
		if s.Status == Failed {
			return "", s, true
		}
	}
	for _, n := range r.Nodes {
		for _, s := range n.Steps {
			if s.Status == Failed {
				return n.Name, s, true
			}
		}
	}
	for _, s := range r.Last {
		if s.Status == Failed {
			return "", s, true
		}
	}
	return "", Step{}, false
}

// Run walks the way. The error is ctx's cause when the caller cancelled, and
// nil otherwise, whatever the report says.
func Run(ctx context.Context, o Options) (*Report, error) {
	began := time.Now()
	if o.Timeout <= 0 {
		o.Timeout = DefaultTimeout
	}
	budget, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	d := &doctor{o: o, scrub: newScrubber(o.Secrets)}
	r := &Report{}
	err := d.run(budget, r)
	r.Took = time.Since(began)
	if ctx.Err() != nil {
		return r, context.Cause(ctx)
	}
	return r, err
}

// doctor is one Run.
type doctor struct {
	o     Options
	scrub *scrubber
}

func (d *doctor) run(ctx context.Context, r *Report) error {
	push := newPlan(d.scrub, StepPush)
	var started sync.WaitGroup
	defer started.Wait()
	started.Go(func() { d.push(ctx, push) }) // whatever becomes of the builder
	b := d.find(ctx, r)
	load := newPlan(d.scrub, StepLoad)
	var walks []*walk
	if b != nil {
		for _, n := range b.Nodes {
			walks = append(walks, d.newWalk(n))
		}
	}
	started.Go(func() { d.load(ctx, b, walks, load) })
	for _, w := range walks {
		started.Go(func() { w.run(ctx) })
	}
	for _, w := range walks {
		node := NodeReport{Name: w.node.Name, Endpoint: d.scrub.clean(w.shown)}
		if b.Source == builder.OfURL { // whose node has a made-up name
			node.Name = ""
		}
		d.onNode(node.Name, node.Endpoint)
		node.Steps = d.collect(ctx, w.plan)
		r.Nodes = append(r.Nodes, node)
	}
	d.onNode("", "")
	r.Last = append(d.collect(ctx, load), d.collect(ctx, push)...)
	return nil
}

// collect waits for the steps of a plan and tells of each. Whoever fills the
// plan ends with the context, and sets what is left; when the caller has
// cancelled, nobody wants to hear of that.
func (d *doctor) collect(ctx context.Context, p *plan) []Step {
	steps := make([]Step, 0, len(p.names))
	for i := range p.names {
		s := p.wait(i, func(name string) {
			if d.o.OnWait != nil {
				d.o.OnWait(name)
			}
		})
		if d.o.OnStep != nil && !cancelled(ctx) {
			d.o.OnStep(s)
		}
		steps = append(steps, s)
	}
	return steps
}

// cancelled tells the caller's own end from that of the time for all steps.
func cancelled(ctx context.Context) bool {
	return ctx.Err() != nil && !errors.Is(context.Cause(ctx), context.DeadlineExceeded)
}

func (d *doctor) onNode(name, endpoint string) {
	if d.o.OnNode != nil {
		d.o.OnNode(name, endpoint)
	}
}

// find is StepState.
func (d *doctor) find(ctx context.Context, r *Report) *builder.Builder {
	p := newPlan(d.scrub, StepState)
	began := time.Now()
	b, err := d.o.Find(ctx)
	if err == nil {
		err = b.Usable()
	}
	s := Step{Name: StepState, Took: time.Since(began)}
	switch {
	case err != nil:
		s.fail(ClassState, err)
		b = nil
	case b.Source == builder.OfURL:
		s.Status, s.Text = Skipped, "an endpoint was given; no builder is looked for"
	default:
		s.Status, s.Text = OK, d.describeBuilder(b)
	}
	p.set(s)
	if b != nil && b.Source != builder.OfURL {
		r.Builder, r.Driver = b.Name, b.Driver
	}
	if d.o.OnBuilder != nil {
		d.o.OnBuilder(r.Builder, r.Driver)
	}
	r.First = d.collect(ctx, p)
	return b
}

// describeBuilder says what was found, and where.
func (d *doctor) describeBuilder(b *builder.Builder) string {
	text := fmt.Sprintf("builder %s in %s: %s", b.Name, d.o.State, count(len(b.Nodes), "node"))
	switch b.Source {
	case builder.OfDocker:
		text = fmt.Sprintf("the engine of docker context %s, which is not stored", b.Name)
	case builder.OfFile:
		text = fmt.Sprintf("builder %s in %s: %s", b.Name, b.File, count(len(b.Nodes), "node"))
	}
	if b.Current {
		text += ", the chosen one"
	}
	return text
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// classOf is the class of a failed connection, or otherwise.
func classOf(err error, otherwise remote.Class) remote.Class {
	var f *remote.Failure
	if errors.As(err, &f) {
		return f.Class
	}
	return otherwise
}

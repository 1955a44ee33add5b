package build

import (
	"context"
	"errors"
	"time"

	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/telemetry"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/identity"
	"github.com/opencontainers/go-digest"
	"go.opentelemetry.io/otel/attribute"
)

// cancelGrace is how long a daemon may take to confirm a cancelled build. A
// silent one would hold the client for seconds (BuildKit's status stream waits
// for it), so the connection is closed then. Ctrl-C must have ended all within 2 s.
const cancelGrace = time.Second

// solve runs one node's share.
func solve(ctx context.Context, p part, in *inputs, o Options) (_ Part, err error) {
	defer func() { p.ties.end(err) }()
	caps, err := capabilities(ctx, p)
	if err != nil {
		return Part{}, err
	}
	if p.req, err = p.req.ForEngine(caps); err != nil {
		return Part{}, hint.Wrap(err, "node "+p.Node.Name)
	}
	if err := p.prepareLoad(ctx, caps); err != nil {
		return Part{}, err
	}
	opt, err := p.resolve(ctx, in)
	if err != nil {
		return Part{}, err
	}
	defer o.settleTraces(ctx, p, opt.Ref)
	if err := p.outs.attach(p, &opt); err != nil {
		return Part{}, err
	}
	if err := p.outs.openCaches(&opt, o); err != nil {
		return Part{}, err
	}
	if o.Started != nil {
		o.Started(p.Node.Name, opt.Ref)
	}
	solving, end := telemetry.Span(ctx, "solve", append(p.attributes(), attribute.String("berth.ref", opt.Ref))...)
	resp, begun, err := p.watchSolve(solving, opt, in, o)
	var race *overtaken
	if errors.As(err, &race) {
		end(nil)
		return Part{}, err
	}
	if err == nil {
		err = in.failure() // what was built has an empty file in it
	}
	end(err)
	if err != nil {
		return Part{}, explain(ctx, p, in, err, begun, o)
	}
	if err := settle(ctx, p, caps, resp.ExporterResponse, o); err != nil {
		return Part{}, err
	}
	if o.Lapses != nil {
		o.Lapses.Built(ctx, p.Target.Endpoint.String())
	}
	made := Part{
		Node: p.Node.Name, Ref: opt.Ref, Platforms: p.req.Platforms,
		Response: resp.ExporterResponse,
	}
	made.addProvenance(ctx, p, caps, o)
	return made, interrupted(ctx)
}

func (p part) watchSolve(ctx context.Context, opt client.SolveOpt, in *inputs, o Options) (*client.SolveResponse, bool, error) {
	return watch(ctx, p, in, o, func(ctx context.Context, statuses chan *client.SolveStatus) (*client.SolveResponse, error) {
		return p.solve(ctx, opt, statuses)
	})
}

// resolve is what the part's daemon is asked for, with the inputs and what other
// targets give.
func (p part) resolve(ctx context.Context, in *inputs) (client.SolveOpt, error) {
	opt, err := p.req.Solve(p.caps)
	if err != nil {
		return opt, hint.Wrap(err, "node "+p.Node.Name)
	}
	opt.Ref = identity.NewID()
	if err := in.apply(&opt); err != nil {
		return opt, err
	}
	for folder, session := range p.sessions {
		opt.FrontendAttrs["local-sessionid:"+folder] = session.id
	}
	return opt, p.ties.apply(ctx, &opt)
}

// interrupted is why somebody ended ctx; nil while it lives.
func interrupted(ctx context.Context) error {
	if ctx.Err() == nil {
		return nil
	}
	return context.Cause(ctx)
}

// watch has run end soon after ctx does, or an input has failed, whatever the
// daemon does. begun tells whether the daemon had said anything of the build.
// BuildKit's client closes the channel of the progress in every case.
//
// A silent daemon's connection is closed, which ends the solve. One that other
// targets go on with is left to them, and the solve ends when they do: run may go
// on when watch has returned.
func watch(ctx context.Context, p part, in *inputs, o Options, run func(context.Context, chan *client.SolveStatus) (*client.SolveResponse, error)) (*client.SolveResponse, bool, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-in.broken:
			cancel(in.why)
		case <-ctx.Done():
		}
	}()
	type answer struct {
		resp *client.SolveResponse
		err  error
	}
	statuses, ended := watched(o.Progress.Source(p.prefix), (&syncTeller{p: p, in: in, waiting: map[digest.Digest]string{}}).add)
	solved := make(chan answer, 1)
	go func() {
		resp, err := run(ctx, statuses)
		solved <- answer{resp, err}
	}()
	select {
	case a := <-solved:
		return a.resp, <-ended, a.err
	case <-ctx.Done():
	}
	select {
	case a := <-solved:
		return a.resp, <-ended, a.err
	case <-time.After(cancelGrace):
	}
	if p.ties.othersGoOn() {
		return nil, true, context.Cause(ctx)
	}
	_ = p.conn.Close() // its error says so
	a := <-solved
	return a.resp, <-ended, a.err
}

// watched is a channel for a solve, whose statuses go on to out, with what add adds
// to them. When it has been closed, and all has been passed on, ended says whether
// there were any.
func watched(out chan<- *client.SolveStatus, add func(*client.SolveStatus)) (in chan *client.SolveStatus, ended <-chan bool) {
	in = make(chan *client.SolveStatus)
	told := make(chan bool, 1)
	go func() {
		begun := false
		for s := range in {
			begun = true
			add(s)
			out <- s
		}
		close(out)
		told <- begun
	}()
	return in, told
}

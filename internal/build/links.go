package build

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"github.com/berthbuild/berth/internal/hint"
	"github.com/containerd/platforms"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/solver/pb"
)

// promise is what one part of a target will be, for those who are built upon it
// on the same daemon. It is a definition and not a result: the daemon finds out
// itself which of the steps it shares.
type promise struct {
	ready  chan struct{} // closed when what follows is set
	states []promised
	err    error
	once   sync.Once

	users sync.WaitGroup // the builds upon it; its session must outlive them
}

// promised is one platform of it.
type promised struct {
	platform string // "" where there is only one
	// state makes the definition anew for each who builds upon it: a state is
	// not to be used by several goroutines.
	state  func() (llb.State, error)
	config []byte // of the image; may be empty
}

func newPromise() *promise { return &promise{ready: make(chan struct{})} }

func (p *promise) settle(states []promised, err error) {
	p.once.Do(func() {
		p.states, p.err = states, err
		close(p.ready)
	})
}

// ties are what a part has to do with other targets. A nil *ties is nothing.
type ties struct {
	uses  map[string]*promise // by the name of the context
	gives *promise            // nil where nobody is built upon it

	unbuilt bool // nothing is built of it: what it would be is all that is wanted

	output *barrier // that all wait at before their outputs; nil where they do not
	alone  bool     // what fails does not end the others
	idle   func()   // told when its steps have run, or it has ended; may be nil
	ended  sync.Once

	begin func(context.Context) error // asked before anything is built; nil where nobody minds

	whole <-chan struct{} // closed when all targets are to end; nil where there is one only
}

// othersGoOn tells whether the daemon may still build other targets.
func (t *ties) othersGoOn() bool {
	if t == nil || t.whole == nil {
		return false
	}
	select {
	case <-t.whole:
		return false
	default:
		return true
	}
}

// given tells whether others are built upon the part.
func (t *ties) given() bool { return t != nil && t.gives != nil }

// awaitBases waits until all that the part is built upon is known.
func (t *ties) awaitBases(ctx context.Context) error {
	if t == nil {
		return nil
	}
	for _, p := range t.uses {
		select {
		case <-p.ready:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		switch {
		case p.err == nil:
		case t.alone:
			return errNotBuilt
		default:
			<-ctx.Done() // that build's own failure ends this one, and is the one to tell
			return context.Cause(ctx)
		}
	}
	return nil
}

// tie finds out who is built upon whom.
func tie(jobs []*job) error { return tieTo(jobs, jobs) }

// tieTo finds out which jobs are built upon which bases.
func tieTo(jobs, bases []*job) error {
	byName := map[string]*job{}
	for _, j := range bases {
		byName[j.target.Name] = j
	}
	for _, j := range jobs {
		for i := range j.parts {
			own := j.parts[i].tied()
			for name, target := range j.target.Links {
				base, ok := byName[target]
				if !ok {
					return hint.New(fmt.Sprintf("target %s: context %q is target %s, which is not built", j.target.Name, name, target))
				}
				theirs := base.on(j.parts[i].member)
				if theirs == nil {
					return hint.New(fmt.Sprintf("target %s is built on node %s, and target %s, which it is built upon, is not", j.target.Name, j.parts[i].Node.Name, target),
						"give both the same platforms")
				}
				gives := theirs.tied()
				if gives.gives == nil {
					gives.gives = newPromise()
				}
				gives.gives.users.Add(1)
				own.uses[name] = gives.gives
			}
		}
	}
	return nil
}

// on is the job's part on a member, nil where there is none.
func (j *job) on(m *member) *part {
	for i := range j.parts {
		if j.parts[i].member == m {
			return &j.parts[i]
		}
	}
	return nil
}

func (p *part) tied() *ties {
	if p.ties == nil {
		p.ties = &ties{uses: map[string]*promise{}}
	}
	return p.ties
}

// end lets go of what the part was built upon and of its slot, and tells those who
// wait for it when there is nothing to wait for.
func (t *ties) end(err error) {
	if t == nil {
		return
	}
	t.ended.Do(func() {
		for _, p := range t.uses {
			p.users.Done()
		}
		if t.gives != nil {
			t.gives.settle(nil, err)
		}
		t.rest() // it may have had nobody to tell earlier
	})
}

// apply waits for what the part is built upon and puts it into the solve.
func (t *ties) apply(ctx context.Context, opt *client.SolveOpt) error {
	if t == nil {
		return nil
	}
	if err := t.awaitBases(ctx); err != nil {
		return err
	}
	for name, p := range t.uses {
		if opt.FrontendInputs == nil {
			opt.FrontendInputs = map[string]llb.State{}
		}
		for _, s := range p.states {
			key := name
			if s.platform != "" {
				key += "::" + s.platform
			}
			st, err := s.state()
			if err != nil {
				return err
			}
			opt.FrontendAttrs["context:"+key] = "input:" + key
			opt.FrontendInputs[key] = st
			if len(s.config) == 0 {
				continue
			}
			meta, err := json.Marshal(map[string][]byte{exptypes.ExporterImageConfigKey: s.config})
			if err != nil {
				return err
			}
			opt.FrontendAttrs["input-metadata:"+key] = string(meta)
		}
	}
	return nil
}

// solve is client.Solve, with others told of the result's definition where they
// are built upon it.
func (t *ties) solve(ctx context.Context, c *client.Client, opt client.SolveOpt, statuses chan *client.SolveStatus) (*client.SolveResponse, error) {
	if t == nil || t.gives == nil && t.output == nil && t.begin == nil {
		return c.Solve(ctx, nil, opt, statuses)
	}
	frontend, inputs := opt.Frontend, opt.FrontendInputs
	opt.FrontendInputs = nil
	var failed error
	resp, err := c.Build(ctx, opt, "", func(ctx context.Context, g gateway.Client) (_ *gateway.Result, err error) {
		defer func() { failed = err }()
		if t.begin != nil {
			if err := t.begin(ctx); err != nil {
				return nil, err
			}
		}
		defs, err := marshal(ctx, inputs)
		if err != nil {
			return nil, err
		}
		res, err := g.Solve(ctx, gateway.SolveRequest{Frontend: frontend, FrontendOpt: g.BuildOpts().Opts, FrontendInputs: defs, Evaluate: t.output != nil})
		if err != nil {
			return nil, err
		}
		if err := t.give(ctx, res); err != nil {
			return nil, err
		}
		if t.unbuilt {
			return gateway.NewResult(), nil
		}
		return res, t.output.wait(ctx)
	}, statuses)
	// The daemon's answer and the function's error race to be the client's; the
	// same failure must not read differently from one time to the next.
	if failed != nil && errors.Is(err, failed) {
		err = fmt.Errorf("failed to solve: %w", failed)
	}
	return resp, err
}

// give tells those who are built upon it what it is, and waits for them: the
// folders that the definition names are sent by this build's session.
func (t *ties) give(ctx context.Context, res *gateway.Result) error {
	if t.gives == nil {
		t.rest()
		t.output.arrive()
		return nil
	}
	states, err := statesOf(res)
	if err != nil {
		return err
	}
	t.gives.settle(states, nil)
	t.rest()
	t.output.arrive() // those that are built upon it wait for that
	over := make(chan struct{})
	go func() {
		t.gives.users.Wait()
		close(over)
	}()
	select {
	case <-over:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (t *ties) rest() {
	if t.idle != nil {
		t.idle()
	}
}

func marshal(ctx context.Context, states map[string]llb.State) (map[string]*pb.Definition, error) {
	defs := map[string]*pb.Definition{}
	for key, st := range states {
		def, err := st.Marshal(ctx)
		if err != nil {
			return nil, err
		}
		defs[key] = def.ToPB()
	}
	return defs, nil
}

// statesOf reads what a frontend has made: one image, or one for each platform.
func statesOf(res *gateway.Result) ([]promised, error) {
	if len(res.Refs) == 0 {
		return []promised{{state: stateOf(res.Ref), config: res.Metadata[exptypes.ExporterImageConfigKey]}}, nil
	}
	list, err := exptypes.ParsePlatforms(res.Metadata)
	if err != nil {
		return nil, err
	}
	var all []promised
	for _, p := range list.Platforms {
		all = append(all, promised{
			platform: platforms.FormatAll(platforms.Normalize(p.Platform)), state: stateOf(res.Refs[p.ID]),
			config: res.Metadata[exptypes.ExporterImageConfigKey+"/"+p.ID],
		})
	}
	return all, nil
}

// stateOf is the definition of a result; nothing at all is an empty image.
func stateOf(ref gateway.Reference) func() (llb.State, error) {
	if ref == nil {
		return func() (llb.State, error) { return llb.Scratch(), nil }
	}
	return ref.ToState
}

package build

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/berthbuild/berth/internal/builder"
	"github.com/berthbuild/berth/internal/buildflag"
	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/request"
)

// CallAll is Call of several targets at once; those that are builds are only
// there for others to be built upon. One that fails does not end the others: there
// may be reports beside an error, which is a *Failures then.
//
// For a target that is built upon others, the frontend is given what they will be.
// They are defined for that, and not built.
func CallAll(ctx context.Context, b *builder.Builder, targets []Target, o Options) (map[string]*Report, error) {
	asked, ground, err := openQuestions(targets, o)
	all := slices.Concat(ground, asked)
	defer func() {
		for _, j := range all {
			j.in.close()
		}
	}()
	if err != nil {
		return nil, err
	}
	placed, err := place(ctx, b, request.Request{}, o) // whatever they are about, one node can answer
	if err != nil {
		return nil, err
	}
	defer placed.close()
	caps, err := capabilities(ctx, part{member: placed.one()})
	if err != nil {
		return nil, err
	}
	for _, j := range all {
		j.parts = []part{{member: placed.one(), req: j.req, prefix: j.target.Name, caps: caps}}
		ties := j.parts[0].tied()
		ties.alone, ties.unbuilt, ties.whole = true, true, ctx.Done()
	}
	if err := tieTo(all, ground); err != nil {
		return nil, err
	}
	var running sync.WaitGroup
	for _, j := range ground {
		running.Go(func() { _ = j.parts[0].define(ctx, j.in, o) }) // those who wait for it are told
	}
	reports := map[string]*Report{}
	failed := map[*job]error{}
	var mu sync.Mutex
	for _, j := range asked {
		running.Go(func() {
			report, err := j.parts[0].question(ctx, j.in, o)
			mu.Lock()
			defer mu.Unlock()
			if reports[j.target.Name] = report; err != nil {
				delete(reports, j.target.Name)
				failed[j] = j.named(ctx, err)
			}
		})
	}
	running.Wait()
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case len(failed) > 0:
		return reports, failures(failed, len(asked))
	}
	return reports, nil
}

// openQuestions opens what the targets need from here: those that are asked, and
// those that have to be defined for them.
func openQuestions(targets []Target, o Options) (asked, ground []*job, err error) {
	byName := map[string]Target{}
	for _, t := range targets {
		byName[t.Name] = t
	}
	done := map[string]bool{}
	var define func(links map[string]string) error
	define = func(links map[string]string) error {
		for _, name := range links {
			t, ok := byName[name]
			if !ok || done[name] {
				continue // tieTo says that it is not there
			}
			done[name] = true
			// What only a result needs is left out, as of a call.
			t.Request = t.Request.WithCall(buildflag.Call{Method: describeMethod}).WithCall(buildflag.Call{})
			j, err := openQuestion(t, o)
			if err != nil {
				return err
			}
			ground = append(ground, j)
			if err := define(t.Links); err != nil {
				return err
			}
		}
		return nil
	}
	for _, t := range targets {
		if t.Request.Call.IsBuild() {
			continue
		}
		if t.Request.Call.ReadsAlone() {
			t.Links = nil
		}
		j, err := openQuestion(t, o)
		if err != nil {
			return asked, ground, err
		}
		asked = append(asked, j)
		if err := define(t.Links); err != nil {
			return asked, ground, err
		}
	}
	return asked, ground, nil
}

func openQuestion(t Target, o Options) (*job, error) {
	err := t.Request.Validate()
	var in *inputs
	if err == nil {
		in, err = openInputs(t.Request, o)
	}
	if err != nil {
		return nil, hint.Wrap(err, "target "+t.Name)
	}
	return &job{target: t, req: t.Request, in: in}, nil
}

// define has the part's frontend say what it would be built of, and tells those
// who are built upon it. No record of it is kept.
func (p part) define(ctx context.Context, in *inputs, o Options) (err error) {
	defer func() { p.ties.end(err) }()
	opt, err := p.resolve(ctx, in)
	if err != nil {
		return err
	}
	opt.Internal = true
	_, begun, err := p.watchSolve(ctx, opt, in, o)
	if err == nil {
		err = in.failure()
	}
	if err != nil {
		return explain(ctx, p, in, err, begun, o)
	}
	return nil
}

// question puts the part's call to its frontend.
func (p part) question(ctx context.Context, in *inputs, o Options) (_ *Report, err error) {
	defer func() { p.ties.end(err) }()
	if err := p.ties.baseFailure(ctx); err != nil {
		return nil, err
	}
	opt, err := p.resolve(ctx, in)
	if err != nil {
		return nil, err
	}
	return p.report(ctx, opt, in, o)
}

// baseFailure waits for what the part is built upon, and says which of it failed,
// and why.
func (t *ties) baseFailure(ctx context.Context) error {
	if t == nil {
		return nil
	}
	for name, p := range t.uses {
		select {
		case <-p.ready:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if p.err != nil {
			return hint.Wrap(p.err, fmt.Sprintf("its context %s is another target, which cannot be built", name))
		}
	}
	return nil
}

package build

import (
	"context"
	"slices"
	"sync"

	"github.com/berthbuild/berth/internal/builder"
	"github.com/berthbuild/berth/internal/buildflag"
	"github.com/berthbuild/berth/internal/load"
	"github.com/berthbuild/berth/internal/request"
)

// engines are the Docker engines that outputs are loaded into, by docker context.
// Each is asked once how it keeps images, beside the connecting to the nodes.
type engines struct {
	list    map[string]*intoEngine
	running sync.WaitGroup
}

// intoEngine is one of them. What stands here is known when asked is closed.
type intoEngine struct {
	asked  chan struct{}
	engine Engine
	asker  load.Asker // nil where it can only be loaded into
	facts  load.Facts
	err    error
}

// openEngines begins to ask. A builder that is an engine itself loads into none.
// The caller closes them.
func openEngines(ctx context.Context, b *builder.Builder, o Options, reqs ...request.Request) *engines {
	all := &engines{list: map[string]*intoEngine{}}
	if b.Driver == builder.DriverDocker {
		return all
	}
	for _, req := range reqs {
		for _, out := range req.Exported() {
			name := out.Attrs["context"]
			if !out.Loads() || all.list[name] != nil {
				continue
			}
			e := &intoEngine{asked: make(chan struct{})}
			all.list[name] = e
			all.running.Go(func() {
				defer close(e.asked)
				e.err = e.open(ctx, name, o)
			})
		}
	}
	return all
}

func (e *intoEngine) open(ctx context.Context, dockerContext string, o Options) (err error) {
	if e.engine, err = o.Engine(ctx, dockerContext); err != nil {
		return err
	}
	asker, ok := e.engine.(load.Asker)
	if !ok {
		return nil
	}
	e.asker = asker
	e.facts, err = load.Look(ctx, asker)
	return err
}

// get waits for the engine that an output is loaded into.
func (all *engines) get(out buildflag.Output) *intoEngine {
	e := all.list[out.Attrs["context"]]
	<-e.asked // bounded by the budgets of opening and asking
	return e
}

// fit is the request as the engines take it, and makes the parts so.
func (all *engines) fit(req request.Request, parts []part) (request.Request, error) {
	if len(all.list) == 0 {
		return req, nil
	}
	var failed error
	store := func(out buildflag.Output) request.LoadStore {
		e := all.get(out)
		if e.err != nil && failed == nil {
			failed = e.err
		}
		if e.err != nil {
			return request.LoadStore{Containerd: true} // it is refused for another reason
		}
		return request.LoadStore{Engine: load.Where(e.engine), Containerd: e.facts.Store == load.Containerd}
	}
	fitted, err := req.ForLoad(store)
	if failed != nil || err != nil {
		return req, firstOf(failed, err)
	}
	for i := range parts {
		if parts[i].req, err = parts[i].req.ForLoad(store); err != nil {
			return req, err
		}
	}
	return fitted, nil
}

func firstOf(errs ...error) error {
	if i := slices.IndexFunc(errs, func(err error) bool { return err != nil }); i >= 0 {
		return errs[i]
	}
	return nil
}

func (all *engines) close() {
	all.running.Wait()
	for _, e := range all.list {
		if e.engine != nil {
			_ = e.engine.Close() // an engine client holds nothing worth an error
		}
	}
}

// prepareLoad finds out whether the part's daemon gives layers one by one.
func (p *part) prepareLoad(ctx context.Context, caps request.Capabilities) error {
	p.caps = caps
	if !slices.ContainsFunc(p.req.Exported(), buildflag.Output.Loads) {
		return nil
	}
	p.readable = load.Readable(ctx, p.conn.Client().ContentClient())
	return interrupted(ctx)
}

// wholeReason is why an output goes to the engine as the daemon's own archive;
// "" when it goes without what the engine has.
func (e *intoEngine) wholeReason(p part, out buildflag.Output, crowded bool) string {
	_, named := p.req.LoadNames(out)
	switch {
	case e.asker == nil:
		return "the engine cannot be asked what it has"
	case !e.facts.Checks && e.facts.Store == load.Graph:
		return "the engine, or a proxy before it, does not tell how it keeps images"
	case !e.facts.Checks:
		return "an engine with the containerd image store and API " + e.asker.ClientVersion() + " does not tell whether an image is complete"
	case !p.readable:
		return "the build daemon (" + p.caps.Name() + "), or a proxy before it, gives no single layers"
	case !named:
		return "the image's name is known to the daemon only"
	case crowded:
		return "one output of a build can be taken apart, and that is another one"
	}
	return ""
}

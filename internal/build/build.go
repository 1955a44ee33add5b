// Package build runs a build request on a builder: it picks the daemons,
// opens what they will ask for, solves, and puts the results where the request
// wants them.
//
// It parses no flags and reads no environment; what it needs from outside
// comes as values in Options. Everything that it opens it closes before Run
// returns. See "How a build flows" in docs/architecture.md.
package build

import (
	"context"
	"io"
	"slices"
	"time"

	"github.com/berthbuild/berth/internal/builder"
	"github.com/berthbuild/berth/internal/buildflag"
	"github.com/berthbuild/berth/internal/dial"
	"github.com/berthbuild/berth/internal/load"
	"github.com/berthbuild/berth/internal/pool"
	"github.com/berthbuild/berth/internal/progress"
	"github.com/berthbuild/berth/internal/request"
	"github.com/berthbuild/berth/internal/telemetry"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/moby/buildkit/session/auth/authprovider"
	"golang.org/x/sync/errgroup"
)

// Options are what a build needs from the surface.
type Options struct {
	Schemes  dial.Registry
	Progress *progress.Printer
	Budget   time.Duration // for connecting to each node; 0 is the node's own

	// Stdin has the archive that is the context, when the request says so. A
	// read of it must end with the context of Run.
	Stdin io.Reader
	// Stdout takes what an output with the destination "-" writes.
	Stdout io.Writer
	// LookupEnv serves secrets that come from the environment.
	LookupEnv func(string) (string, bool)
	// Auth answers the daemon's questions for registry credentials.
	Auth authprovider.AuthConfigProvider
	// Keychain is the same for pushes that berth makes itself: the index of a
	// build that was split over several nodes.
	Keychain authn.Keychain
	// Engine opens the Docker engine of a docker context ("" is the current
	// one) for an output that is loaded. The build closes it.
	Engine func(ctx context.Context, dockerContext string) (Engine, error)
	// Loaded remembers what was loaded into engines; nil remembers nothing.
	Loaded *load.Memory
	// Machine identifies this machine, so that two machines never share a
	// daemon's copy of a context by accident.
	Machine string
	// Contexts is how local folders are sent.
	Contexts ContextSync
	// Debug has the progress say how that was decided.
	Debug bool
	// Traces takes what the daemons recorded of the build; nil where nothing is
	// traced.
	Traces *telemetry.Tracing
	// Started is told each node's build before it is sent; history finds the
	// sources of a build by it. It may be nil, and is called by several
	// goroutines when several nodes build.
	Started func(node, ref string)
	// Origin asks a version control system about the context, beside the
	// connecting to the nodes. A failure is told by Result.Missing. It may be nil.
	Origin func(context.Context) (request.VCS, error)
	// Jobs is how RunAll builds several targets together.
	Jobs buildflag.Jobs
	// Provenance is what the Result is to have of the daemons' records.
	Provenance ProvenanceDetail
	// Affinity is what a build is known by where one of several daemons is chosen:
	// the same is built where it was built before. "" is for Run to find out.
	Affinity string
	// Lapses remembers daemons that could not be reached; nil remembers nothing.
	Lapses Lapses

	prefer string          // the address of the member that is tried first
	avoid  map[string]bool // those of members that are tried last
	queue  *queue          // its waiting for room; nil where it does not outlast one choice
}

// Engine is a Docker engine that images can be loaded into.
type Engine interface {
	load.Engine
	io.Closer
}

// Run builds req on b. On failure nothing that it staged is left under a
// final name. A cancelled ctx cancels the build on the daemons and returns the
// context's cause.
func Run(ctx context.Context, b *builder.Builder, req request.Request, o Options) (*Result, error) {
	twice := repeatable(req)
	return withFailover(ctx, b, o, twice, func(o Options) (*Result, error) {
		return again(ctx, o, twice, func(o Options) (*Result, error) { return runOnce(ctx, b, req, o) })
	})
}

func runOnce(ctx context.Context, b *builder.Builder, req request.Request, o Options) (*Result, error) {
	req, err := prepare(b, req)
	if err != nil {
		return nil, err
	}
	asked := askOrigin(ctx, o)
	defer asked.end()
	_, end := telemetry.Span(ctx, "open inputs")
	in, err := openInputs(req, o)
	if end(err); err != nil {
		return nil, err
	}
	defer in.close()
	if err := checkOutputs(req); err != nil {
		return nil, err
	}
	snaps := newSnapshots(ctx, b, o)
	defer snaps.close()
	in.beginSnapshots(snaps)
	into := openEngines(ctx, b, o, req)
	defer into.close()
	if o.Affinity == "" && pool.Choosing(b.Nodes, o.Schemes) {
		origin, _ := asked.answer()
		o.Affinity = affinityKey(req, origin)
	}
	placed, err := place(ctx, b, req, o)
	if err != nil {
		return nil, err
	}
	defer placed.close()
	origin, unknown := asked.answer()
	if err := interrupted(ctx); err != nil {
		return nil, err
	}
	req = req.WithVCS(origin)
	parts, err := placed.split(req)
	if err != nil {
		return nil, err
	}
	if err := in.takeSnapshots(ctx, o); err != nil {
		return nil, err
	}
	one := &job{req: req, in: in, parts: parts}
	shared, err := shareFolders(ctx, []*job{one}, o)
	if err != nil {
		return nil, err
	}
	defer shared.close()
	return runParts(ctx, req, parts, in, into, &Result{Builder: b.Name, unknown: unknown}, o)
}

// prepare refuses what cannot be built, and finds what is named by tags here.
func prepare(b *builder.Builder, req request.Request) (request.Request, error) {
	if err := req.Validate(); err != nil {
		return req, err
	}
	engine := slices.ContainsFunc(b.Nodes, func(n builder.Node) bool { return n.Driver == builder.DriverDocker })
	if err := req.CheckDriver(b.Driver, engine); err != nil {
		return req, err
	}
	return findLayouts(req)
}

// runParts has each node build its part, and joins what they made: all of that
// becomes res.
func runParts(ctx context.Context, req request.Request, parts []part, in *inputs, into *engines, res *Result, o Options) (*Result, error) {
	req, err := into.fit(req, parts)
	if err != nil {
		return nil, err
	}
	if in.archive != nil && len(parts) > 1 {
		if err := in.archive.spool(ctx, o.Progress); err != nil {
			return nil, err
		}
	}
	res.Parts = make([]Part, len(parts))
	outs := openOutputs(ctx, req, parts, in, into, o)
	err = buildParts(ctx, req, parts, in, outs, res, o)
	// An output's own error came first: the daemon only says that a stream broke.
	_, end := telemetry.Span(ctx, "write outputs")
	own := outs.finish(err)
	end(own)
	if own != nil {
		err = own
	}
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case err != nil:
		return nil, err
	}
	return res, nil
}

// buildParts builds all parts at once, and makes one image of theirs where that is wanted.
func buildParts(ctx context.Context, req request.Request, parts []part, in *inputs, outs *outputs, res *Result, o Options) error {
	group, gctx := errgroup.WithContext(ctx)
	for i, p := range parts {
		group.Go(func() (err error) {
			res.Parts[i], err = solve(gctx, p, in, o)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	var err error
	if res.Index, res.Names, err = outs.settle(res.Parts); err != nil || len(parts) == 1 {
		return err
	}
	ctx, end := telemetry.Span(ctx, "join images")
	err = joinPushed(ctx, req, res, o)
	end(err)
	return err
}

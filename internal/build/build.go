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
	"time"

	"github.com/berthbuild/berth/internal/builder"
	"github.com/berthbuild/berth/internal/dial"
	"github.com/berthbuild/berth/internal/load"
	"github.com/berthbuild/berth/internal/progress"
	"github.com/berthbuild/berth/internal/request"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/moby/buildkit/session/auth/authprovider"
	"golang.org/x/sync/errgroup"
)

// Options are what a build needs from the surface.
type Options struct {
	Schemes  dial.Registry
	Progress *progress.Printer
	Budget   time.Duration // for connecting to each node; 0 is the node's own

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
	// Machine identifies this machine, so that two machines never share a
	// daemon's copy of a context by accident.
	Machine string
	// Started is told each node's build before it is sent; history finds the
	// sources of a build by it. It may be nil, and is called by several
	// goroutines when several nodes build.
	Started func(node, ref string)
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
	if err := req.Validate(); err != nil {
		return nil, err
	}
	in, err := openInputs(req, o)
	if err != nil {
		return nil, err
	}
	placed, err := place(ctx, b, req, o)
	if err != nil {
		return nil, err
	}
	defer placed.close()
	parts, err := placed.split(req)
	if err != nil {
		return nil, err
	}
	res := &Result{Builder: b.Name, Parts: make([]Part, len(parts))}
	group, gctx := errgroup.WithContext(ctx)
	for i, p := range parts {
		group.Go(func() (err error) {
			res.Parts[i], err = solve(gctx, p, in, o)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, err
	}
	if len(parts) > 1 {
		if err := joinPushed(ctx, req, res, o); err != nil {
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			return nil, err
		}
	}
	return res, nil
}

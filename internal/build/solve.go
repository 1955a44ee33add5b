package build

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/request"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/identity"
	"github.com/moby/buildkit/util/grpcerrors"
	"github.com/moby/buildkit/util/stack"
	"google.golang.org/grpc/codes"
)

// cancelGrace is how long a daemon may take to confirm a cancelled build. A
// silent one would hold the client for seconds (BuildKit's status stream waits
// for it), so the connection is closed then.
const cancelGrace = 2 * time.Second

// solve runs one node's share.
func solve(ctx context.Context, p part, in *inputs, o Options) (Part, error) {
	caps := request.CapabilitiesOf(p.conn.Version())
	opt, err := p.req.Solve(caps)
	if err != nil {
		return Part{}, hint.Wrap(err, "node "+p.node.Name)
	}
	opt.Ref = identity.NewID()
	in.apply(&opt)
	outs, err := openOutputs(ctx, p, &opt, o)
	if err != nil {
		return Part{}, err
	}
	if o.Started != nil {
		o.Started(p.node.Name, opt.Ref)
	}
	resp, err := runSolve(ctx, p, opt, o)
	if err != nil {
		err = explain(ctx, p, err)
		if own := outs.finish(err); own != nil && ctx.Err() == nil {
			err = own
		}
		return Part{}, err
	}
	if err := outs.finish(nil); err != nil {
		return Part{}, err
	}
	return Part{
		Node: p.node.Name, Ref: opt.Ref, Platforms: p.req.Platforms,
		Response: resp.ExporterResponse,
	}, nil
}

// runSolve ends soon after ctx does, whatever the daemon does.
func runSolve(ctx context.Context, p part, opt client.SolveOpt, o Options) (*client.SolveResponse, error) {
	solved := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		select {
		case <-solved:
		case <-time.After(cancelGrace):
			_ = p.conn.Close() // ends the solve; its error says so
		}
	})
	defer stop()
	defer close(solved)
	return p.conn.Client().Solve(ctx, nil, opt, o.Progress.Source(p.prefix))
}

// explain finds the real cause of a failed solve: that it was cancelled, the
// build's own failure, or a daemon that went away.
func explain(ctx context.Context, p part, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if !lost(err) {
		return err
	}
	return &Lost{Node: p.node.Name, Builder: p.node.Builder, Endpoint: p.node.Endpoint, Cause: err}
}

// lost tells a broken connection from a failed build. The codes alone mislead,
// since a daemon passes on those of registries; but what comes from a daemon
// carries its process id in the error's stack, and what the transport makes
// never does.
func lost(err error) bool {
	for _, s := range stack.Traces(err) {
		if s.Pid != 0 && int(s.Pid) != os.Getpid() {
			return false
		}
	}
	switch grpcerrors.Code(err) {
	case codes.Unavailable, codes.Canceled, codes.DeadlineExceeded:
		return true
	}
	return false
}

// Lost is a connection that broke in the middle of a build.
type Lost struct {
	Builder, Node, Endpoint string
	Cause                   error
}

// Error names the node first, since the build itself may be fine.
func (l *Lost) Error() string {
	return fmt.Sprintf("connection to node %s of builder %s at %s was lost during the build: %s",
		l.Node, l.Builder, l.Endpoint, transportText(l.Cause))
}

// Unwrap gives the transport's error.
func (l *Lost) Unwrap() error { return l.Cause }

// Hints implements hint.Hinter.
func (l *Lost) Hints() []string {
	return []string{
		"see whether the daemon still answers: berth inspect " + l.Builder,
		"its own log says whether it stopped or was killed (out of memory?); steps that had finished are in its cache",
	}
}

// transportText is the innermost message, without the layers of "failed to …".
func transportText(err error) string {
	if st, ok := grpcerrors.AsGRPCStatus(err); ok {
		return st.Message()
	}
	return err.Error()
}

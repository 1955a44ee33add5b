package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"syscall"
	"time"

	"github.com/berthbuild/berth/internal/hint"
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
	caps, err := capabilities(ctx, p)
	if err != nil {
		return Part{}, err
	}
	if p.req, err = p.req.ForEngine(caps); err != nil {
		return Part{}, hint.Wrap(err, "node "+p.node.Name)
	}
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
	resp, err := runSolve(ctx, p, opt, in, o)
	if err == nil {
		err = in.failure() // what was built has an empty file in it
	}
	if err != nil {
		err = explain(ctx, p, in, err)
		if own := outs.finish(err); own != nil && ctx.Err() == nil {
			err = own
		}
		return Part{}, err
	}
	if err := outs.finish(nil); err != nil {
		return Part{}, err
	}
	if err := settle(ctx, p, caps, resp.ExporterResponse, o); err != nil {
		return Part{}, err
	}
	return Part{
		Node: p.node.Name, Ref: opt.Ref, Platforms: p.req.Platforms,
		Response: resp.ExporterResponse,
	}, nil
}

// runSolve ends soon after ctx does, or an input has failed, whatever the daemon
// does. client.Solve closes the channel of the progress in every case.
func runSolve(ctx context.Context, p part, opt client.SolveOpt, in *inputs, o Options) (*client.SolveResponse, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-in.broken:
			cancel(in.why)
		case <-ctx.Done():
		}
	}()
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

// explain finds the real cause of a failed solve: that it was cancelled, an
// input that could not be sent, the build's own failure, or a daemon that went
// away.
func explain(ctx context.Context, p part, in *inputs, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if why := in.failure(); why != nil {
		return why
	}
	wire := p.conn.Lost()
	if lost(err, wire) {
		return &Lost{Node: p.node.Name, Builder: p.node.Builder, Endpoint: p.node.Endpoint, Cause: err, wire: wire}
	}
	if p.prefix == "" {
		return err
	}
	return hint.Wrap(err, fmt.Sprintf("%s on node %s", p.prefix, p.node.Name)) // which of several
}

// lost tells a broken connection from a failed build. The codes alone mislead,
// since a daemon passes on those of registries; but an error that a daemon
// made carries the daemon's own stack, and what the transport makes never does.
// wire is what ended the connection, where that was seen.
func lost(err, wire error) bool {
	var remote interface{ StackTrace() *stack.Stack }
	if errors.As(err, &remote) {
		return false
	}
	if wire != nil {
		return true
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
	Cause                   error // as the build saw it

	wire error // as the connection saw it; may be nil
}

// Error names the node first, since the build itself may be fine.
func (l *Lost) Error() string {
	return fmt.Sprintf("connection to node %s of builder %s at %s was lost during the build: %s",
		l.Node, l.Builder, l.Endpoint, l.text())
}

// Unwrap gives the transport's error.
func (l *Lost) Unwrap() error { return l.Cause }

// text is the cause without the layers of "failed to …" and without addresses,
// which are said already.
func (l *Lost) text() string {
	var errno syscall.Errno
	switch {
	case errors.As(l.wire, &errno):
		return errno.Error()
	case errors.Is(l.wire, io.EOF):
		return "the other side closed it"
	case l.wire != nil:
		return l.wire.Error()
	}
	if st, ok := grpcerrors.AsGRPCStatus(l.Cause); ok {
		return st.Message()
	}
	return l.Cause.Error()
}

// Hints implements hint.Hinter.
func (l *Lost) Hints() []string {
	return append(hint.Of(l.wire), // what the scheme knows of its other side
		"see whether the daemon still answers: berth inspect "+l.Builder,
		"its own log says whether it stopped or was killed (out of memory?); steps that had finished are in its cache",
	)
}

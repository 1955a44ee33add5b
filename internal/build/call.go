package build

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/berthbuild/berth/internal/builder"
	"github.com/berthbuild/berth/internal/buildflag"
	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/request"
	"github.com/moby/buildkit/client"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/util/grpcerrors"
	"google.golang.org/grpc/codes"
)

// The keys of a Report's answer that every method may have.
const (
	AnswerJSON    = "result.json"
	AnswerText    = "result.txt"
	AnswerStatus  = "result.statuscode" // a number; not 0 says that something was found
	AnswerVersion = "version"           // of the form of AnswerJSON
)

// Report is what a frontend answered to a call.
type Report struct {
	Node   string            // the node that was asked
	Answer map[string]string // as the frontend gave it
}

// ImageID is empty: a question makes no image.
func (r *Report) ImageID() string { return "" }

// Metadata is the content of a --metadata-file: the answer, decoded where it
// is JSON.
func (r *Report) Metadata() map[string]any {
	out := map[string]any{}
	for k, v := range r.Answer {
		out[k] = decoded(v)
	}
	return out
}

// Call asks the Dockerfile's frontend the question req.Call on the first node
// of b. Nothing is built, and no record of it is kept. A frontend that does not
// know the question is an *Unsupported.
func Call(ctx context.Context, b *builder.Builder, req request.Request, o Options) (*Report, error) {
	if err := req.Validate(); err != nil {
		return nil, err
	}
	in, err := openInputs(req, o)
	if err != nil {
		return nil, err
	}
	defer in.close()
	placed, err := place(ctx, b, req.WithPlatforms(nil), o) // whatever it is about, one node can answer
	if err != nil {
		return nil, err
	}
	defer placed.close()
	p := part{member: placed.one(), req: req}
	if p.caps, err = capabilities(ctx, p); err != nil {
		return nil, err
	}
	return p.question(ctx, in, o)
}

// report asks, and reads the answer.
func (p part) report(ctx context.Context, opt client.SolveOpt, in *inputs, o Options) (*Report, error) {
	answer, begun, err := ask(ctx, p, opt, in, o)
	if err != nil {
		return nil, unsupported(explain(ctx, p, in, err, begun, o), p, p.req.Call, p.caps)
	}
	if answer[AnswerJSON] == "" && answer[AnswerText] == "" {
		// A frontend from before there were calls overlooks that it is one.
		return nil, unsupported(&errdefs.UnsupportedSubrequestError{Subrequest: &errdefs.Subrequest{Name: p.req.Call.Method}}, p, p.req.Call, p.caps)
	}
	return &Report{Node: p.Node.Name, Answer: answer}, nil
}

// ask puts the question through a gateway: a build of our own making, whose one
// step is that the daemon's frontend answers.
func ask(ctx context.Context, p part, opt client.SolveOpt, in *inputs, o Options) (answer map[string]string, begun bool, err error) {
	frontend, states := opt.Frontend, opt.FrontendInputs
	opt.FrontendInputs = nil
	answer = map[string]string{}
	var refused error
	_, begun, err = watch(ctx, p, in, o, func(ctx context.Context, statuses chan *client.SolveStatus) (*client.SolveResponse, error) {
		return p.conn.Client().Build(ctx, opt, "", func(ctx context.Context, c gateway.Client) (*gateway.Result, error) {
			defs, err := marshal(ctx, states)
			if err != nil {
				return nil, err
			}
			res, err := c.Solve(ctx, gateway.SolveRequest{Frontend: frontend, FrontendOpt: c.BuildOpts().Opts, FrontendInputs: defs})
			if err != nil {
				refused = err
				return nil, err
			}
			for k, v := range res.Metadata {
				answer[k] = string(v)
			}
			return gateway.NewResult(), nil
		}, statuses)
	})
	if err == nil {
		err = in.failure()
	}
	if err != nil && refused != nil {
		err = hint.Wrap(refused, "failed to solve") // what follows from it says less
	}
	return answer, begun, err
}

// Unsupported is a call that the frontend, or the daemon, does not know.
type Unsupported struct {
	Call          buildflag.Call
	Builder, Node string
	Daemon        string // what it runs, for a sentence
	Cause         error
}

// Error names the daemon, since a newer one may know.
func (u *Unsupported) Error() string {
	what := "does not know it"
	var capability *errdefs.UnsupportedFrontendCapError
	if errors.As(u.Cause, &capability) {
		what = "takes no calls"
	}
	return fmt.Sprintf("--call=%s: the frontend of this Dockerfile %s (node %s of builder %s is %s)",
		u.Call.Method, what, u.Node, u.Builder, u.Daemon)
}

// Unwrap gives the frontend's refusal.
func (u *Unsupported) Unwrap() error { return u.Cause }

// Hints implements hint.Hinter.
func (u *Unsupported) Hints() []string {
	newer := "a newer frontend may: # syntax=docker/dockerfile:1 as the first line of the Dockerfile, or a newer daemon"
	var own *errdefs.UnsupportedSubrequestError
	if errors.As(u.Cause, &own) && u.Call.Method != describeMethod {
		return []string{"see what it knows: --call=" + describeMethod, newer}
	}
	return []string{newer}
}

// describeMethod lists what a frontend knows.
const describeMethod = "subrequests.describe"

// unsupported makes an *Unsupported of a refusal that says so by its type: the
// frontend's, or a daemon's that does not know of such clients at all. Daemons
// that do not tell their version send no types; their words are all there is.
func unsupported(err error, p part, c buildflag.Call, caps request.Capabilities) error {
	var subrequest *errdefs.UnsupportedSubrequestError
	var capability *errdefs.UnsupportedFrontendCapError
	typed := errors.As(err, &subrequest) || errors.As(err, &capability) || grpcerrors.Code(err) == codes.Unimplemented
	if !typed && (caps.Version != "" || !strings.Contains(err.Error(), "unsupported request ")) {
		return err
	}
	return &Unsupported{Call: c, Builder: p.Node.Builder, Node: p.Node.Name, Daemon: caps.Name(), Cause: err}
}

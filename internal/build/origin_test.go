package build

import (
	"context"
	"errors"
	"testing"

	"github.com/berthbuild/berth/internal/buildkittest"
	"github.com/berthbuild/berth/internal/dial/dialtest"
	"github.com/berthbuild/berth/internal/request"
)

// Git is asked while the nodes are being connected to, and its answer is in the
// request.
func TestOriginOverlapsConnecting(t *testing.T) {
	dialtest.NoLeaks(t)
	hold := make(chan struct{})
	s := buildkittest.New(t, buildkittest.Options{Hold: hold})
	o := options(t)
	o.Origin = func(context.Context) (request.VCS, error) {
		close(hold) // the daemon answers only when Git has been asked
		return request.VCS{Revision: "abc", Context: "."}, nil
	}
	res, err := Run(t.Context(), builderOf(node("n0", s.Endpoint())), req(t), o)
	if err != nil || len(res.Missing()) > 0 {
		t.Fatalf("%v, %v", err, res)
	}
	if attrs := s.Requests()[0].FrontendAttrs; attrs["vcs:revision"] != "abc" || attrs["vcs:localdir:context"] != "." {
		t.Errorf("%v", attrs)
	}
}

func TestOriginFailsWithoutHarm(t *testing.T) {
	s := buildkittest.New(t, buildkittest.Options{})
	o := options(t)
	why := errors.New("git is missing")
	o.Origin = func(context.Context) (request.VCS, error) { return request.VCS{}, why }
	res, err := Run(t.Context(), builderOf(node("n0", s.Endpoint())), req(t), o)
	if err != nil || len(res.Missing()) != 1 || !errors.Is(res.Missing()[0], why) {
		t.Errorf("%v, %v", err, res.Missing())
	}
	if v, ok := s.Requests()[0].FrontendAttrs["vcs:revision"]; ok {
		t.Errorf("a revision %q", v)
	}
}

// Nothing goes on asking when no node can be reached, nor after Ctrl-C.
func TestOriginEndsWithTheBuild(t *testing.T) {
	dialtest.NoLeaks(t)
	o := options(t)
	ended := make(chan struct{})
	o.Origin = func(ctx context.Context) (request.VCS, error) {
		defer close(ended)
		<-ctx.Done()
		return request.VCS{}, ctx.Err()
	}
	o.Budget = 1 // a nanosecond
	if _, err := Run(t.Context(), builderOf(node("n0", "tcp://"+buildkittest.FreeAddr(t))), req(t), o); err == nil {
		t.Error("built on nothing")
	}
	<-ended

	s := buildkittest.New(t, buildkittest.Options{})
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("interrupted")
	o = options(t)
	o.Origin = func(ctx context.Context) (request.VCS, error) {
		cancel(why)
		<-ctx.Done()
		return request.VCS{}, context.Cause(ctx)
	}
	if _, err := Run(ctx, builderOf(node("n0", s.Endpoint())), req(t), o); !errors.Is(err, why) || len(s.Requests()) > 0 {
		t.Errorf("%v, %d builds", err, len(s.Requests()))
	}
}

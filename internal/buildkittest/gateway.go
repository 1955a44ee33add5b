package buildkittest

import (
	"context"
	"errors"

	"github.com/moby/buildkit/client/buildid"
	gatewayapi "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/grpcerrors"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// CallFunc is what the daemon's frontend answers when a client with a gateway
// of its own asks it. attrs are what the frontend is asked; the map is the
// result's metadata. A typed error arrives at the client as that type.
type CallFunc func(ctx context.Context, b *Build, attrs map[string]string) (map[string][]byte, error)

// returned waits for what the client's gateway makes of its build. Such a build
// names no frontend, and ends when the gateway has.
func (j *job) returned(ctx context.Context) error {
	select {
	case err := <-j.result:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// bridge is the gRPC service for clients with a gateway.
type bridge struct {
	gatewayapi.UnimplementedLLBBridgeServer
	s *Server
}

// build is the one that a call of the service belongs to. A client may call
// before its Solve has arrived.
func (g *bridge) build(ctx context.Context) (*Build, error) {
	j := g.s.job(buildid.FromIncomingContext(ctx))
	ctx, cancel := context.WithTimeout(ctx, waitFor)
	defer cancel()
	select {
	case <-j.begun:
		return &Build{Request: j.request, server: g.s, job: j}, nil
	case <-ctx.Done():
		return nil, status.Error(codes.NotFound, "no such build")
	}
}

func (g *bridge) Ping(ctx context.Context, _ *gatewayapi.PingRequest) (*gatewayapi.PongResponse, error) {
	if _, err := g.build(ctx); err != nil {
		return nil, err
	}
	return &gatewayapi.PongResponse{FrontendAPICaps: gatewayapi.Caps.All(), LLBCaps: pb.Caps.All()}, nil
}

func (g *bridge) Solve(ctx context.Context, r *gatewayapi.SolveRequest) (*gatewayapi.SolveResponse, error) {
	b, err := g.build(ctx)
	if err != nil {
		return nil, err
	}
	if g.s.opt.Call == nil {
		return nil, status.Error(codes.Unimplemented, "this frontend answers nothing")
	}
	meta, err := g.s.opt.Call(ctx, b, r.FrontendOpt)
	if err != nil {
		return nil, grpcerrors.ToGRPC(ctx, err)
	}
	return &gatewayapi.SolveResponse{Result: &gatewayapi.Result{Metadata: meta}}, nil
}

func (g *bridge) Return(ctx context.Context, r *gatewayapi.ReturnRequest) (*gatewayapi.ReturnResponse, error) {
	b, err := g.build(ctx)
	if err != nil {
		return nil, err
	}
	var failed error
	if r.Error != nil {
		failed = status.FromProto(r.Error).Err()
	}
	select {
	case b.job.result <- failed:
		return &gatewayapi.ReturnResponse{}, nil
	default:
		return nil, errors.New("the gateway has returned already")
	}
}

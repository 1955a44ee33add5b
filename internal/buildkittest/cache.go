package buildkittest

import (
	"context"

	controlapi "github.com/moby/buildkit/api/services/control"
)

func (c *control) DiskUsage(_ context.Context, req *controlapi.DiskUsageRequest) (*controlapi.DiskUsageResponse, error) {
	if c.s.opt.Usage == nil {
		return &controlapi.DiskUsageResponse{}, nil
	}
	records, err := c.s.opt.Usage(req)
	if err != nil {
		return nil, err
	}
	return &controlapi.DiskUsageResponse{Record: records}, nil
}

func (c *control) Prune(req *controlapi.PruneRequest, stream controlapi.Control_PruneServer) error {
	if c.s.opt.Prune == nil {
		return nil
	}
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	go func() {
		select {
		case <-c.s.done:
			cancel()
		case <-ctx.Done():
		}
	}()
	return c.s.opt.Prune(ctx, req, stream.Send)
}

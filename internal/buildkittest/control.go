package buildkittest

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	controlapi "github.com/moby/buildkit/api/services/control"
	apitypes "github.com/moby/buildkit/api/types"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/grpchijack"
	"github.com/moby/buildkit/solver/pb"
	digest "github.com/opencontainers/go-digest"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// SolveFunc is what a build does. Its map is the exporter's answer. ctx ends
// when the client cancels or the server is closed.
type SolveFunc func(ctx context.Context, b *Build) (map[string]string, error)

// Build is one running Solve.
type Build struct {
	Request *controlapi.SolveRequest

	server *Server
	job    *job
}

// Send shows progress to whoever asks for the build's status.
func (b *Build) Send(r *controlapi.StatusResponse) { b.job.send(r) }

// Step shows a step called name from its start to its end.
func (b *Build) Step(name string) {
	now := timestamppb.New(time.Now())
	b.Send(&controlapi.StatusResponse{Vertexes: []*controlapi.Vertex{{
		Digest: string(digest.FromString(name)), Name: name, Started: now, Completed: now,
	}}})
}

// Session is the client's session, for asking it for files, secrets and so
// on. It waits for the session to arrive.
func (b *Build) Session(ctx context.Context) (session.Caller, error) {
	ctx, cancel := context.WithTimeout(ctx, waitFor)
	defer cancel()
	return b.server.sessions.Get(ctx, b.Request.Session, false)
}

// job is the progress of one build: kept whole, so that a client that asks
// late misses nothing.
type job struct {
	mu      sync.Mutex
	events  []*controlapi.StatusResponse
	over    bool
	changed chan struct{} // closed and replaced at each change

	first   sync.Once
	request *controlapi.SolveRequest // set once begun is closed
	begun   chan struct{}            // closed when the Solve has arrived
	result  chan error               // what a client's gateway returned
}

// begin tells who waits for the Solve; only the first of a ref counts.
func (j *job) begin(req *controlapi.SolveRequest) {
	j.first.Do(func() {
		j.request = req
		close(j.begun)
	})
}

func (j *job) send(r *controlapi.StatusResponse) { j.change(func() { j.events = append(j.events, r) }) }
func (j *job) end()                              { j.change(func() { j.over = true }) }

func (j *job) change(f func()) {
	j.mu.Lock()
	defer j.mu.Unlock()
	f()
	close(j.changed)
	j.changed = make(chan struct{})
}

// from gives the events after the first n, whether there will be more, and
// what to wait for.
func (j *job) from(n int) ([]*controlapi.StatusResponse, bool, <-chan struct{}) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.events[n:], j.over, j.changed
}

// job finds or makes the job of ref: Status may arrive before Solve.
func (s *Server) job(ref string) *job {
	s.mu.Lock()
	defer s.mu.Unlock()
	j := s.jobs[ref]
	if j == nil {
		j = &job{changed: make(chan struct{}), begun: make(chan struct{}), result: make(chan error, 1)}
		s.jobs[ref] = j
	}
	return j
}

// control is the gRPC service.
type control struct {
	controlapi.UnimplementedControlServer
	s *Server
}

func (c *control) version() *apitypes.BuildkitVersion {
	return &apitypes.BuildkitVersion{
		Package: "github.com/moby/buildkit", Version: c.s.opt.Version, Revision: "0123456789abcdef",
	}
}

func (c *control) Info(context.Context, *controlapi.InfoRequest) (*controlapi.InfoResponse, error) {
	if c.s.opt.NoInfo {
		return nil, status.Error(codes.Unimplemented, "unknown method Info")
	}
	if c.s.opt.Err != nil {
		return nil, c.s.opt.Err
	}
	return &controlapi.InfoResponse{BuildkitVersion: c.version()}, nil
}

func (c *control) ListWorkers(context.Context, *controlapi.ListWorkersRequest) (*controlapi.ListWorkersResponse, error) {
	if c.s.opt.Err != nil {
		return nil, c.s.opt.Err
	}
	var r controlapi.ListWorkersResponse
	for _, w := range c.s.opt.Workers {
		rec := &apitypes.WorkerRecord{ID: w.ID, Labels: w.Labels, BuildkitVersion: c.version()}
		for _, p := range w.Platforms {
			parts := strings.SplitN(p+"//", "/", 4)
			rec.Platforms = append(rec.Platforms, &pb.Platform{OS: parts[0], Architecture: parts[1], Variant: parts[2]})
		}
		r.Record = append(r.Record, rec)
	}
	return &r, nil
}

func (c *control) Solve(ctx context.Context, req *controlapi.SolveRequest) (*controlapi.SolveResponse, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-c.s.done:
			cancel()
		case <-ctx.Done():
		}
	}()
	c.s.mu.Lock()
	c.s.solves = append(c.s.solves, req)
	c.s.mu.Unlock()
	b := &Build{Request: req, server: c.s, job: c.s.job(req.Ref)}
	defer b.job.end()
	b.job.begin(req)
	if req.Frontend == "" && req.Definition == nil {
		return &controlapi.SolveResponse{}, b.job.returned(ctx)
	}
	if c.s.opt.Solve == nil {
		b.Step("[1/1] nothing")
		return &controlapi.SolveResponse{}, nil
	}
	res, err := c.s.opt.Solve(ctx, b)
	if err != nil {
		return nil, err
	}
	return &controlapi.SolveResponse{ExporterResponse: res}, nil
}

func (c *control) Status(req *controlapi.StatusRequest, stream controlapi.Control_StatusServer) error {
	if c.s.opt.Status != nil {
		return c.s.opt.Status(stream.Context(), req.Ref, stream.Send)
	}
	j := c.s.job(req.Ref)
	for n := 0; ; {
		events, over, changed := j.from(n)
		for _, e := range events {
			if err := stream.Send(e); err != nil {
				return err
			}
		}
		n += len(events)
		if over {
			return nil
		}
		select {
		case <-changed:
		case <-stream.Context().Done():
			return stream.Context().Err()
		case <-c.s.done:
			return fmt.Errorf("the server is closed")
		}
	}
}

func (c *control) Session(stream controlapi.Control_SessionServer) error {
	conn, closed, meta := grpchijack.Hijack(stream)
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	c.s.mu.Lock()
	dropped := c.s.drop
	c.s.mu.Unlock()
	go func() {
		select {
		case <-closed:
		case <-dropped:
		case <-c.s.done:
		case <-ctx.Done():
		}
		cancel()
	}()
	return c.s.sessions.HandleConn(ctx, conn, meta)
}

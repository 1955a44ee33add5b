package buildkittest

import (
	"context"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	controlapi "github.com/moby/buildkit/api/services/control"
	digest "github.com/opencontainers/go-digest"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// HistoryFunc finds the record of a build. A nil record is none: who asks for an
// early exit is told so, and who does not, waits. ctx ends with the question.
type HistoryFunc func(ctx context.Context, req *controlapi.BuildHistoryRequest) (*controlapi.BuildHistoryRecord, error)

// RecordsFunc lists what is remembered: running builds have no CompletedAt. It
// is asked again for each listener; one that stays is not told of changes.
type RecordsFunc func(req *controlapi.BuildHistoryRequest) ([]*controlapi.BuildHistoryRecord, error)

// StatusFunc sends the progress of a build. ctx ends with the client's call.
type StatusFunc func(ctx context.Context, ref string, send func(*controlapi.StatusResponse) error) error

// Forget drops data that Keep has stored.
func (s *Server) Forget(d *controlapi.Descriptor) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.blobs, d.GetDigest())
}

// Corrupt puts other data in the place of what Keep has stored.
func (s *Server) Corrupt(d *controlapi.Descriptor, data []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.blobs[d.GetDigest()] = data
}

// Keep stores data that a record can point to.
func (s *Server) Keep(data []byte) *controlapi.Descriptor {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := digest.FromBytes(data)
	s.blobs[d.String()] = data
	return &controlapi.Descriptor{Digest: d.String(), Size: int64(len(data))}
}

func (c *control) ListenBuildHistory(req *controlapi.BuildHistoryRequest, stream controlapi.Control_ListenBuildHistoryServer) error {
	if c.s.opt.History == nil && c.s.opt.Records != nil {
		return c.listRecords(req, stream)
	}
	if c.s.opt.History == nil {
		return status.Error(codes.Unimplemented, "unknown method ListenBuildHistory")
	}
	rec, err := c.s.opt.History(stream.Context(), req)
	if err != nil {
		return err
	}
	if rec != nil {
		err := stream.Send(&controlapi.BuildHistoryEvent{Type: controlapi.BuildHistoryEventType_COMPLETE, Record: rec})
		if err != nil {
			return err
		}
	}
	if req.EarlyExit {
		return nil
	}
	select {
	case <-stream.Context().Done():
		return stream.Context().Err()
	case <-c.s.done:
		return status.Error(codes.Unavailable, "the server is closed")
	}
}

// listRecords sends all records that were asked for, those of running builds as
// a daemon does.
func (c *control) listRecords(req *controlapi.BuildHistoryRequest, stream controlapi.Control_ListenBuildHistoryServer) error {
	all, err := c.s.opt.Records(req)
	if err != nil {
		return err
	}
	for _, rec := range all {
		kind := controlapi.BuildHistoryEventType_COMPLETE
		if rec.CompletedAt == nil {
			kind = controlapi.BuildHistoryEventType_STARTED
		}
		if req.Ref != "" && req.Ref != rec.Ref || req.ActiveOnly && rec.CompletedAt != nil {
			continue
		}
		if err := stream.Send(&controlapi.BuildHistoryEvent{Type: kind, Record: rec}); err != nil {
			return err
		}
	}
	if req.EarlyExit {
		return nil
	}
	select {
	case <-stream.Context().Done():
		return stream.Context().Err()
	case <-c.s.done:
		return status.Error(codes.Unavailable, "the server is closed")
	}
}

func (c *control) UpdateBuildHistory(_ context.Context, req *controlapi.UpdateBuildHistoryRequest) (*controlapi.UpdateBuildHistoryResponse, error) {
	if c.s.opt.Update == nil {
		return nil, status.Error(codes.Unimplemented, "unknown method UpdateBuildHistory")
	}
	return &controlapi.UpdateBuildHistoryResponse{}, c.s.opt.Update(req)
}

// blobs is the content store.
type blobs struct {
	contentapi.UnimplementedContentServer
	s *Server
}

func (b *blobs) find(name string) ([]byte, error) {
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	data, ok := b.s.blobs[name]
	if !ok {
		return nil, status.Errorf(codes.NotFound, "content %s not found", name)
	}
	return data, nil
}

func (b *blobs) Info(_ context.Context, req *contentapi.InfoRequest) (*contentapi.InfoResponse, error) {
	data, err := b.find(req.Digest)
	if err != nil {
		return nil, err
	}
	return &contentapi.InfoResponse{Info: &contentapi.Info{Digest: req.Digest, Size: int64(len(data))}}, nil
}

// ListStatuses finds nothing that is being written.
func (b *blobs) ListStatuses(context.Context, *contentapi.ListStatusesRequest) (*contentapi.ListStatusesResponse, error) {
	return &contentapi.ListStatusesResponse{}, nil
}

func (b *blobs) Read(req *contentapi.ReadContentRequest, stream contentapi.Content_ReadServer) error {
	data, err := b.find(req.Digest)
	if err != nil {
		return err
	}
	if req.Offset < 0 || req.Offset > int64(len(data)) {
		return status.Error(codes.OutOfRange, "offset")
	}
	data = data[req.Offset:]
	if req.Size > 0 && req.Size < int64(len(data)) {
		data = data[:req.Size]
	}
	for at := int64(0); ; { // in pieces that fit into a message
		n := min(len(data), 1<<20)
		if err := stream.Send(&contentapi.ReadContentResponse{Offset: req.Offset + at, Data: data[:n]}); err != nil {
			return err
		}
		if data, at = data[n:], at+int64(n); len(data) == 0 {
			return nil
		}
	}
}

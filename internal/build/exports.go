package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"

	"github.com/berthbuild/berth/internal/remote"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/session/filesync"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// exporterID is how a daemon says which of a solve's exports a stream is of. One
// that knows of one export only does not say it.
const exporterID = "buildkit-attachable-exporter-id"

// taker takes what a daemon sends for one export.
type taker interface {
	// take reads the stream to its end. It is called for each stream that the
	// daemon opens, at any time. Its error goes to the daemon.
	take(stream filesync.FileSend_DiffCopyServer) error
}

// exports is the session service that a daemon sends the results of one solve to,
// by the number of the export.
type exports map[int]taker

// attach has a solve's exports taken by e.
func (e exports) attach(opt *client.SolveOpt) {
	if len(e) == 0 {
		return
	}
	for i := range e {
		opt.Exports[i].Type = remote.OwnExport(opt.Exports[i].Type)
	}
	opt.Session = append(slices.Clip(opt.Session), e)
}

// Register implements session.Attachable.
func (e exports) Register(server *grpc.Server) { filesync.RegisterFileSendServer(server, e) }

// DiffCopy implements filesync.FileSendServer. What flows is fsutil's protocol for
// a folder, and a plain stream of bytes for anything else.
func (e exports) DiffCopy(stream filesync.FileSend_DiffCopyServer) error {
	id, err := exportOf(stream.Context())
	if err != nil {
		return err
	}
	t, ok := e[id]
	if !ok {
		return status.Errorf(codes.NotFound, "export %d takes nothing", id)
	}
	return t.take(stream)
}

func exportOf(ctx context.Context) (int, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	values := md.Get(exporterID)
	if len(values) == 0 {
		return 0, nil
	}
	id, err := strconv.Atoi(values[0])
	if err != nil {
		return 0, status.Errorf(codes.InvalidArgument, "%s is no number: %q", exporterID, values[0])
	}
	return id, nil
}

// bytesTaker takes a stream of bytes.
type bytesTaker func() (io.WriteCloser, error)

func (open bytesTaker) take(stream filesync.FileSend_DiffCopyServer) (err error) {
	w, err := open()
	if err != nil {
		return err
	}
	defer func() {
		if cerr := w.Close(); err == nil {
			err = cerr
		}
	}()
	var m filesync.BytesMessage
	for {
		m.Data = m.Data[:0]
		switch err := stream.RecvMsg(&m); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("receiving: %w", err)
		}
		if _, err := w.Write(m.Data); err != nil {
			return err
		}
	}
}

package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/progress"
	"github.com/moby/buildkit/session/upload"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// uploadChunk is how much of an archive is in memory at a time.
const uploadChunk = 256 << 10

// archive is a build context that comes as one stream, for the daemons that ask
// for it by its id. One daemon gets the stream itself; for several it is kept in
// a file that has no name, and is gone with the process.
type archive struct {
	id     string
	failed func(error)

	mu    sync.Mutex
	from  io.Reader // nil once somebody reads it
	file  *os.File  // the whole of it, after spool
	size  int64
	named bool // the file can be found by its name still: Windows keeps that of an open file
}

// Register implements session.Attachable.
func (a *archive) Register(s *grpc.Server) { upload.RegisterUploadServer(s, a) }

// Pull implements upload.UploadServer.
func (a *archive) Pull(stream upload.Upload_PullServer) error {
	md, _ := metadata.FromIncomingContext(stream.Context())
	if path := md.Get("urlpath"); len(path) != 1 || path[0] != "/"+a.id {
		return status.Errorf(codes.NotFound, "this build has no upload %q", path)
	}
	from, err := a.open()
	if err != nil {
		return err
	}
	buf := make([]byte, uploadChunk)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if err := stream.Send(&upload.BytesMessage{Data: buf[:n]}); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			err = hint.Wrap(err, "reading the build context from standard input")
			a.failed(err)
			return err
		}
	}
}

func (a *archive) open() (io.Reader, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.file != nil {
		return io.NewSectionReader(a.file, 0, a.size), nil
	}
	from := a.from
	a.from = nil
	if from == nil {
		return nil, status.Error(codes.FailedPrecondition, "the archive from standard input was sent already, and can be read once")
	}
	return from, nil
}

// spool reads all of the archive, so that several daemons can have it.
func (a *archive) spool(ctx context.Context, p *progress.Printer) (err error) {
	step := p.Step("[internal] keeping the build context for several nodes")
	defer func() { step.Done(err) }()
	from, err := a.open()
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.file, err = os.CreateTemp("", "berth-context-*"); err == nil {
		a.named = os.Remove(a.file.Name()) != nil
		a.size, err = io.Copy(a.file, from)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return hint.Wrap(err, "keeping the build context from standard input",
		fmt.Sprintf("it needs room in %s; another folder: TMPDIR=FOLDER", os.TempDir()))
}

func (a *archive) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.file == nil {
		return
	}
	_ = a.file.Close() // it was ours alone
	if a.named {
		_ = os.Remove(a.file.Name())
	}
}

package cli

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/moby/buildkit/identity"
	"github.com/moby/buildkit/util/archiveutil"

	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/request"
)

const (
	// archiveHead is how much of standard input is looked at to see what it
	// is: the first entry of a tar archive may come after long attributes.
	archiveHead = 32 << 10
	// daemonHead is how much BuildKit looks at.
	daemonHead = 1024
)

// setStdinContext tells an archive on standard input from a Dockerfile.
func (a *app) setStdinContext(r *request.Request, o buildOptions) error {
	if o.file == "-" {
		return hint.New("invalid argument: can't use stdin for both build context and dockerfile",
			"name the Dockerfile in the archive: -f NAME", "or the context: berth build -f - FOLDER")
	}
	in := bufio.NewReaderSize(a.io.In, archiveHead)
	head, err := in.Peek(archiveHead)
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("reading the build context from standard input: %w", err)
	}
	a.io.In = in // what was looked at is still to come
	switch {
	case len(head) == 0:
		return hint.New("the build context from standard input is empty", "berth build - < Dockerfile", "tar -c . | berth build -")
	case archiveutil.IsArchive(head[:min(len(head), daemonHead)]):
		r.Context.Upload = identity.NewID()
	case archiveutil.IsArchive(head):
		a.io.In = io.MultiReader(bytes.NewReader(globalHeader()), in)
		r.Context.Upload = identity.NewID()
	case len(bytes.Trim(head, "\x00")) == 0:
		return hint.New("the archive on standard input has no files")
	case bytes.IndexByte(head, 0) >= 0:
		return hint.New("standard input is neither a tar archive (plain, or packed by gzip, zstd, bzip2 or xz) nor a Dockerfile", "tar -c . | berth build -")
	case o.file != "":
		return hint.New("ambiguous Dockerfile source: both stdin and flag correspond to Dockerfiles",
			"berth build - < Dockerfile", fmt.Sprintf("or name a context: berth build -f %s FOLDER", o.file))
	default:
		r.Context.Empty = true
	}
	return nil
}

// globalHeader is an entry that says nothing. Before an archive whose first
// entry does not fit into what BuildKit looks at (it has times or attributes in
// headers of their own), it lets BuildKit see that this is an archive and no
// Dockerfile.
func globalHeader() []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	// Writing into memory does not fail. There is no Close: the archive goes on.
	_ = w.WriteHeader(&tar.Header{Typeflag: tar.TypeXGlobalHeader, PAXRecords: map[string]string{"comment": "berth"}})
	_ = w.Flush()
	return b.Bytes()
}

// interruptible makes reading standard input, for a build that does, end with
// ctx, too: one that waits for somebody to type, or for a program to write, is
// given up at once.
func (a *app) interruptible(ctx context.Context, o buildOptions) {
	if o.context == "-" || o.file == "-" {
		a.io.In = &ctxReader{ctx: ctx, in: a.io.In}
	}
}

type ctxReader struct {
	ctx context.Context
	in  io.Reader
	own []byte // what is read into, as a read that ctx ended cannot be stopped
}

// Read implements io.Reader.
func (r *ctxReader) Read(p []byte) (int, error) {
	type result struct {
		n   int
		err error
	}
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	if len(r.own) < len(p) {
		r.own = make([]byte, len(p))
	}
	done := make(chan result, 1)
	go func() {
		n, err := r.in.Read(r.own[:len(p)])
		done <- result{n, err}
	}()
	select {
	case got := <-done:
		copy(p, r.own[:got.n])
		return got.n, got.err
	case <-r.ctx.Done():
		return 0, context.Cause(r.ctx)
	}
}

package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"github.com/berthbuild/berth/internal/atomicdir"
	"github.com/containerd/containerd/v2/core/content"
	contentlocal "github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// maxDocument bounds the indexes, manifests and configurations that are read.
const maxDocument = 16 << 20

// sinkStore is the content store that one node writes its blobs to. They are
// staged; a blob that the folder has already is not sent again.
type sinkStore struct {
	sink *layoutSink
	node string

	mu    sync.RWMutex // held for reading by whoever writes
	store content.Store
	tree  atomicdir.Tree
	over  bool
	err   error // the first of our own
}

// begin makes the place where blobs are staged. For what a daemon sends (sent) only
// until the build is over: nobody would take that away, and settle, which begins where
// nothing was sent, has joined what there was.
func (s *sinkStore) begin(sent bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if sent && s.over {
		return errOver
	}
	if s.store != nil {
		return nil
	}
	tree, err := s.sink.stage(s.node)
	if err == nil {
		s.tree = tree
		s.store, err = contentlocal.NewStore(tree.Path)
	}
	return err
}

var errOver = fmt.Errorf("the build is over: %w", errdefs.ErrUnavailable)

// end ends the taking.
func (s *sinkStore) end() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.over && s.tree.Path != "" {
		_ = os.RemoveAll(filepath.Join(s.tree.Path, "ingest")) // what is not complete
	}
	s.over = true
	return s.err
}

// doing runs f while writing is allowed, and keeps its error when the disk is to
// blame.
func (s *sinkStore) doing(f func() error) error {
	s.mu.RLock()
	if s.over {
		s.mu.RUnlock()
		return errOver
	}
	err := f()
	s.mu.RUnlock()
	var pe *os.PathError
	var le *os.LinkError
	if errors.As(err, &pe) || errors.As(err, &le) {
		s.mu.Lock()
		s.err = errors.Join(s.err, withoutPath(err))
		s.mu.Unlock()
	}
	return err
}

// Writer implements content.Ingester.
func (s *sinkStore) Writer(ctx context.Context, opts ...content.WriterOpt) (content.Writer, error) {
	var o content.WriterOpts
	for _, opt := range opts {
		if err := opt(&o); err != nil {
			return nil, err
		}
	}
	if s.has(o.Desc) {
		return nil, fmt.Errorf("content %v: %w", o.Desc.Digest, errdefs.ErrAlreadyExists)
	}
	var w content.Writer
	if err := s.doing(func() error { return nil }); err != nil {
		return nil, err
	}
	if err := s.begin(true); err != nil {
		return nil, s.doing(func() error { return err })
	}
	err := s.doing(func() (err error) {
		w, err = s.store.Writer(ctx, opts...)
		return err
	})
	if err != nil {
		return nil, err
	}
	return layoutWriter{w, s}, nil
}

// layoutWriter writes until the build is over.
type layoutWriter struct {
	content.Writer
	store *sinkStore
}

func (w layoutWriter) Write(b []byte) (n int, err error) {
	err = w.store.doing(func() (err error) {
		n, err = w.Writer.Write(b)
		return err
	})
	return n, err
}

func (w layoutWriter) Truncate(size int64) error {
	return w.store.doing(func() error { return w.Writer.Truncate(size) })
}

func (w layoutWriter) Commit(ctx context.Context, size int64, expected digest.Digest, opts ...content.Opt) error {
	return w.store.doing(func() error { return w.Writer.Commit(ctx, size, expected, opts...) })
}

// has tells whether the folder has a blob.
func (s *sinkStore) has(d ocispecs.Descriptor) bool {
	if d.Digest.Validate() != nil {
		return false
	}
	fi, err := os.Stat(blobIn(s.sink.dest, d.Digest))
	return err == nil && fi.Mode().IsRegular() && fi.Size() == d.Size
}

func blobIn(dir string, d digest.Digest) string {
	return filepath.Join(dir, ocispecs.ImageBlobsDir, d.Algorithm().String(), d.Encoded())
}

// path is where a blob is, or would be, staged.
func (s *sinkStore) path(d digest.Digest) string { return blobIn(s.tree.Path, d) }

// blob reads a document, staged or in the folder.
func (s *sinkStore) blob(d digest.Digest) ([]byte, error) {
	if err := d.Validate(); err != nil {
		return nil, err
	}
	f, err := os.Open(s.path(d))
	if errors.Is(err, os.ErrNotExist) {
		f, err = os.Open(blobIn(s.sink.dest, d))
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d, withoutPath(err))
	}
	defer f.Close() //nolint:errcheck // it was only read
	data, err := io.ReadAll(io.LimitReader(f, maxDocument+1))
	switch {
	case err != nil:
		return nil, err
	case len(data) > maxDocument:
		return nil, fmt.Errorf("%s is larger than a document can be", d)
	case d.Algorithm().FromBytes(data) != d:
		return nil, fmt.Errorf("%s is not what its name says", d)
	}
	return data, nil
}

// Info implements content.Manager, for what has been staged.
func (s *sinkStore) Info(ctx context.Context, d digest.Digest) (content.Info, error) {
	return layoutAsk(s, func(store content.Store) (content.Info, error) { return store.Info(ctx, d) })
}

// ReaderAt implements content.Provider, for what has been staged.
func (s *sinkStore) ReaderAt(ctx context.Context, d ocispecs.Descriptor) (content.ReaderAt, error) {
	return layoutAsk(s, func(store content.Store) (content.ReaderAt, error) { return store.ReaderAt(ctx, d) })
}

// Status implements content.IngestManager.
func (s *sinkStore) Status(ctx context.Context, ref string) (content.Status, error) {
	return layoutAsk(s, func(store content.Store) (content.Status, error) { return store.Status(ctx, ref) })
}

// ListStatuses implements content.IngestManager.
func (s *sinkStore) ListStatuses(ctx context.Context, filters ...string) ([]content.Status, error) {
	return layoutAsk(s, func(store content.Store) ([]content.Status, error) { return store.ListStatuses(ctx, filters...) })
}

// Abort implements content.IngestManager.
func (s *sinkStore) Abort(ctx context.Context, ref string) error {
	_, err := layoutAsk(s, func(store content.Store) (struct{}, error) { return struct{}{}, store.Abort(ctx, ref) })
	return err
}

// layoutAsk asks for what is staged; before the first blob there is nothing.
func layoutAsk[T any](s *sinkStore, ask func(content.Store) (T, error)) (T, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.store == nil || s.over {
		var none T
		return none, errdefs.ErrNotFound
	}
	return ask(s.store)
}

// Update implements content.Manager; an export changes nothing that it has sent.
func (s *sinkStore) Update(context.Context, content.Info, ...string) (content.Info, error) {
	return content.Info{}, errdefs.ErrNotImplemented
}

// Walk implements content.Manager.
func (s *sinkStore) Walk(context.Context, content.WalkFunc, ...string) error {
	return errdefs.ErrNotImplemented
}

// Delete implements content.Manager.
func (s *sinkStore) Delete(context.Context, digest.Digest) error { return errdefs.ErrNotImplemented }

package load

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// maxSifted bounds what one build may have us keep in memory: configurations,
// manifests and attestations. The largest of them are SBOMs.
const maxSifted = 64 << 20

// layerRef begins the names under which a daemon writes layers. Their media
// type is not told to a content store, so that the name is all there is.
const layerRef = "layer-"

// Sift is the content store that a daemon exports an image to: it keeps the
// documents that describe the image and says of every layer that it has it
// already, so that the daemon makes them and sends none.
type Sift struct {
	// onManifest is told each manifest and index before it counts as written.
	// The daemon holds all that was built until then. It may be nil.
	onManifest func(ctx context.Context, d digest.Digest, raw []byte)

	mu   sync.Mutex
	docs map[digest.Digest][]byte
	last digest.Digest // the manifest or index that came last
	used int
	err  error // the first reason why the documents cannot be complete
}

func newSift(onManifest func(context.Context, digest.Digest, []byte)) *Sift {
	return &Sift{onManifest: onManifest, docs: map[digest.Digest][]byte{}}
}

// root is what was built: a daemon writes what is referred to before what refers
// to it.
func (s *Sift) root() (digest.Digest, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.err != nil:
		return "", &Unreadable{Cause: s.err}
	case s.last == "":
		return "", errors.New("the build daemon sent no image")
	}
	return s.last, nil
}

// Document is one that was kept.
func (s *Sift) Document(d digest.Digest) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	raw, ok := s.docs[d]
	if !ok {
		return nil, fmt.Errorf("the build daemon did not send %s", d)
	}
	return raw, nil
}

// Writer implements content.Ingester.
func (s *Sift) Writer(_ context.Context, opts ...content.WriterOpt) (content.Writer, error) {
	var o content.WriterOpts
	for _, opt := range opts {
		if err := opt(&o); err != nil {
			return nil, err
		}
	}
	if strings.HasPrefix(o.Ref, layerRef) {
		return nil, fmt.Errorf("layer %s: %w", o.Desc.Digest, errdefs.ErrAlreadyExists)
	}
	if _, err := s.Document(o.Desc.Digest); err == nil {
		return nil, fmt.Errorf("document %s: %w", o.Desc.Digest, errdefs.ErrAlreadyExists)
	}
	now := time.Now()
	return &siftWriter{sift: s, sum: digest.Canonical.Digester(), status: content.Status{Ref: o.Ref, Total: o.Desc.Size, Expected: o.Desc.Digest, StartedAt: now, UpdatedAt: now}}, nil
}

// room counts bytes, and tells whether they can be kept. When there have been too
// many, the daemon goes on as if nothing were: the image comes whole then.
func (s *Sift) room(n int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil && s.used+n > maxSifted {
		s.err = fmt.Errorf("the documents of the image are larger than %d MiB", maxSifted>>20)
		clear(s.docs)
	}
	s.used += n
	return s.err == nil
}

func (s *Sift) keep(ref string, d digest.Digest, raw []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return
	}
	s.docs[d] = raw
	if isManifestRef(ref) {
		s.last = d
	}
}

// isManifestRef tells a manifest or an index from what they refer to.
func isManifestRef(ref string) bool {
	return strings.HasPrefix(ref, "manifest-") || strings.HasPrefix(ref, "index-")
}

// siftWriter takes one document.
type siftWriter struct {
	sift   *Sift
	status content.Status
	sum    digest.Digester
	data   []byte
	lost   bool // there was no room for all of it
}

// Write implements content.Writer.
func (w *siftWriter) Write(b []byte) (int, error) {
	if w.lost = w.lost || !w.sift.room(len(b)); w.lost {
		w.data = nil
	} else {
		w.data = append(w.data, b...)
	}
	_, _ = w.sum.Hash().Write(b) // a hash does not fail
	w.status.Offset += int64(len(b))
	w.status.UpdatedAt = time.Now()
	return len(b), nil
}

// Close implements content.Writer.
func (w *siftWriter) Close() error { return nil }

// Digest implements content.Writer.
func (w *siftWriter) Digest() digest.Digest { return w.sum.Digest() }

// Status implements content.Writer.
func (w *siftWriter) Status() (content.Status, error) { return w.status, nil }

// Truncate implements content.Writer, for beginning again.
func (w *siftWriter) Truncate(size int64) error {
	if size != 0 {
		return fmt.Errorf("going back to %d bytes of %d: %w", size, w.status.Offset, errdefs.ErrInvalidArgument)
	}
	w.data, w.status.Offset, w.sum = nil, 0, digest.Canonical.Digester()
	return nil
}

// Commit implements content.Writer. What is not what its name says is refused:
// the engine would be told that it has layers which it has not.
func (w *siftWriter) Commit(ctx context.Context, size int64, expected digest.Digest, _ ...content.Opt) error {
	got := w.Digest()
	if size > 0 && size != w.status.Offset {
		return fmt.Errorf("%s has %d bytes and not %d: %w", w.status.Ref, w.status.Offset, size, errdefs.ErrFailedPrecondition)
	}
	if expected == "" {
		expected = w.status.Expected
	}
	if expected != "" && expected != got {
		return fmt.Errorf("%s is %s: %w", w.status.Ref, got, errdefs.ErrFailedPrecondition)
	}
	if w.lost {
		return nil
	}
	if w.sift.onManifest != nil && isManifestRef(w.status.Ref) {
		w.sift.onManifest(ctx, got, w.data)
	}
	w.sift.keep(w.status.Ref, got, w.data)
	return nil
}

// Info implements content.Manager.
func (s *Sift) Info(_ context.Context, d digest.Digest) (content.Info, error) {
	raw, err := s.Document(d)
	if err != nil {
		return content.Info{}, notFound(d.String())
	}
	return content.Info{Digest: d, Size: int64(len(raw))}, nil
}

// ReaderAt implements content.Provider: nothing is given back.
func (s *Sift) ReaderAt(_ context.Context, d ocispecs.Descriptor) (content.ReaderAt, error) {
	return nil, notFound(d.Digest.String())
}

// Status implements content.IngestManager.
func (s *Sift) Status(_ context.Context, ref string) (content.Status, error) {
	return content.Status{}, notFound(ref)
}

// ListStatuses implements content.IngestManager.
func (s *Sift) ListStatuses(context.Context, ...string) ([]content.Status, error) { return nil, nil }

// Abort implements content.IngestManager.
func (s *Sift) Abort(context.Context, string) error { return nil }

// Update implements content.Manager.
func (s *Sift) Update(_ context.Context, info content.Info, _ ...string) (content.Info, error) {
	return info, nil // labels keep content from being collected, and nothing is here
}

// Walk implements content.Manager.
func (s *Sift) Walk(context.Context, content.WalkFunc, ...string) error { return nil }

// Delete implements content.Manager.
func (s *Sift) Delete(_ context.Context, d digest.Digest) error { return notFound(d.String()) }

func notFound(what string) error { return fmt.Errorf("%s: %w", what, errdefs.ErrNotFound) }

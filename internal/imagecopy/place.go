package imagecopy

import (
	"bytes"
	"context"
	"io"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthbuild/berth/internal/ocilayout"
	"github.com/berthbuild/berth/internal/registry"
)

// Descriptor names content by its digest.
type Descriptor = ocispecs.Descriptor

// Place is where images are: a repository, or an OCI layout. What is read from it has
// been held against its digest.
type Place interface {
	// Manifest reads a manifest or an index.
	Manifest(ctx context.Context, d Descriptor) ([]byte, error)
	// Document reads a blob whole, of at most limit bytes.
	Document(ctx context.Context, d Descriptor, limit int64) ([]byte, error)
	// Referrers lists what is about an image.
	Referrers(ctx context.Context, subject digest.Digest) ([]Descriptor, error)

	open(ctx context.Context, d Descriptor) (io.ReadCloser, error)
	hasManifest(ctx context.Context, d digest.Digest) (bool, error)
	putManifest(ctx context.Context, d Descriptor, raw []byte) error
	// putBlob writes a blob with what open gives, if it is not there yet. from is
	// where it is.
	putBlob(ctx context.Context, d Descriptor, from Place, open func(context.Context) (io.ReadCloser, error)) error
	same(o Place) bool
}

// InRegistry is a repository.
func InRegistry(r *registry.Repository) Place { return repository{r} }

type repository struct{ *registry.Repository }

func (r repository) open(ctx context.Context, d Descriptor) (io.ReadCloser, error) {
	return r.Open(ctx, d)
}

func (r repository) hasManifest(ctx context.Context, d digest.Digest) (bool, error) {
	return r.HasManifest(ctx, d)
}

func (r repository) putManifest(ctx context.Context, d Descriptor, raw []byte) error {
	return r.PutManifest(ctx, d.Digest.String(), d, raw)
}

func (r repository) putBlob(ctx context.Context, d Descriptor, from Place, open func(context.Context) (io.ReadCloser, error)) error {
	var mount *registry.Repository
	if other, ok := from.(repository); ok {
		mount = other.Repository
	}
	_, err := r.PutBlob(ctx, d, mount, open)
	return err
}

func (r repository) same(o Place) bool {
	other, ok := o.(repository)
	return ok && r.Repository == other.Repository
}

// InLayout is a folder with an OCI layout.
func InLayout(l *ocilayout.Layout) Place { return &layout{Layout: l} }

type layout struct {
	*ocilayout.Layout
}

func (l *layout) Manifest(_ context.Context, d Descriptor) ([]byte, error) {
	return l.Layout.Document(d, ocilayout.MaxManifest)
}

func (l *layout) Document(_ context.Context, d Descriptor, limit int64) ([]byte, error) {
	return l.Layout.Document(d, limit)
}

func (l *layout) open(_ context.Context, d Descriptor) (io.ReadCloser, error) { return l.Reader(d) }

func (l *layout) hasManifest(_ context.Context, d digest.Digest) (bool, error) { return l.Has(d), nil }

func (l *layout) putManifest(_ context.Context, d Descriptor, raw []byte) error {
	if l.Has(d.Digest) {
		return nil
	}
	return l.Put(d, bytes.NewReader(raw))
}

func (l *layout) putBlob(ctx context.Context, d Descriptor, _ Place, open func(context.Context) (io.ReadCloser, error)) error {
	if l.Has(d.Digest) {
		return nil
	}
	body, err := open(ctx)
	if err != nil {
		return err
	}
	defer body.Close() //nolint:errcheck // only read
	return l.Put(d, body)
}

func (l *layout) same(o Place) bool {
	other, ok := o.(*layout)
	return ok && l.Dir() == other.Dir()
}

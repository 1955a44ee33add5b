package history

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/berthbuild/berth/internal/hint"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	controlapi "github.com/moby/buildkit/api/services/control"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// How large what records point to may be, in bytes.
const (
	maxDocument   = 8 << 20   // manifests, errors
	maxAttachment = 64 << 20  // attestations; they grow with the steps of a build
	maxTrace      = 256 << 20 // traces
	maxLog        = 1 << 30   // logs, which are read in pieces
)

// descriptor is the one of an image out of that of a record.
func descriptor(d *controlapi.Descriptor) (ocispecs.Descriptor, error) {
	dgst, err := digest.Parse(d.GetDigest())
	if err != nil {
		return ocispecs.Descriptor{}, fmt.Errorf("the record names a digest that is none: %w", err)
	}
	return ocispecs.Descriptor{MediaType: d.MediaType, Digest: dgst, Size: d.Size, Annotations: d.Annotations}, nil
}

// ReadBlob reads a blob and holds it against its digest. A size of 0 is not known.
func ReadBlob(ctx context.Context, from content.Provider, d ocispecs.Descriptor, limit int64) ([]byte, error) {
	if err := d.Digest.Validate(); err != nil {
		return nil, fmt.Errorf("invalid digest %q: %w", d.Digest, err)
	}
	if d.Size > limit || d.Size < 0 {
		return nil, tooLarge(d, d.Size, limit)
	}
	ra, err := from.ReaderAt(ctx, d)
	if err != nil {
		return nil, blobError(d, err)
	}
	defer ra.Close() //nolint:errcheck // only read
	size := ra.Size()
	if size > limit || size < 0 {
		return nil, tooLarge(d, size, limit)
	}
	data := make([]byte, size)
	if n, err := ra.ReadAt(data, 0); err != nil && (!errors.Is(err, io.EOF) || int64(n) != size) {
		return nil, blobError(d, err)
	}
	if d.Digest.Algorithm().FromBytes(data) != d.Digest {
		return nil, fmt.Errorf("%s has other content than its digest says", d.Digest)
	}
	return data, nil
}

func tooLarge(d ocispecs.Descriptor, size, limit int64) error {
	return fmt.Errorf("%s has %d bytes; at most %d are read", d.Digest, size, limit)
}

func blobError(d ocispecs.Descriptor, err error) error {
	if errdefs.IsNotFound(err) || isMissing(err) {
		return hint.Wrap(fmt.Errorf("%w%w", ErrGone, hint.Quietly(err)), d.Digest.String(), "daemons keep a limited number of records; see what is left: berth history ls")
	}
	return hint.Wrap(err, "reading "+d.Digest.String())
}

// blob reads what the record points to.
func (r *Record) blob(ctx context.Context, d ocispecs.Descriptor, limit int64) ([]byte, error) {
	var data []byte
	err := r.place.reading(ctx, r, func(ctx context.Context, from content.Provider) (err error) {
		data, err = ReadBlob(ctx, from, d, limit)
		return err
	})
	return data, err
}

// Package imagetools looks at images in registries and in folders with OCI layouts,
// and makes new ones out of them: other lists of the same manifests.
//
// It is not for building, nor for the index of a build on several nodes
// (internal/imageindex).
//
// Rules: what can be refused is refused before anybody is contacted. The same sources
// make the same bytes, and those are the bytes that docker buildx makes. No source is
// changed. Nothing is read from the environment or from docker's configuration, and no
// file but those of layouts.
package imagetools

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"sync"

	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthbuild/berth/internal/imagecopy"
	"github.com/berthbuild/berth/internal/ocilayout"
	"github.com/berthbuild/berth/internal/registry"
)

// Descriptor names content by its digest.
type Descriptor = ocispecs.Descriptor

const (
	// maxConfig bounds an image's configuration in bytes, and maxAttestation an
	// attestation: an SBOM lists every file.
	maxConfig      = 16 << 20
	maxAttestation = 256 << 20
	// maxDepth bounds indexes in indexes, and maxManifests what one image may have.
	maxDepth     = 8
	maxManifests = 10_000
	// parallel bounds what is asked for at a time.
	parallel = 8
)

// Tools are the way to images. They can be used by several goroutines.
type Tools struct {
	client *registry.Client
	dir    string // what folders are relative to

	mu      sync.Mutex
	layouts map[string]imagecopy.Place
}

// New makes tools that speak with registries through a client. Folders are relative to
// dir.
func New(client *registry.Client, dir string) *Tools {
	return &Tools{client: client, dir: dir, layouts: map[string]imagecopy.Place{}}
}

// place is where an image is.
func (t *Tools) place(l Location) imagecopy.Place {
	if !l.IsLayout() {
		return imagecopy.InRegistry(t.client.Repository(l.named))
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.layouts[l.layout.Folder]
	if p == nil {
		p = imagecopy.InLayout(t.layout(l))
		t.layouts[l.layout.Folder] = p
	}
	return p
}

// layout is the folder of a location.
func (t *Tools) layout(l Location) *ocilayout.Layout {
	folder := l.layout.Folder
	if !filepath.IsAbs(folder) {
		folder = filepath.Join(t.dir, folder)
	}
	return ocilayout.At(folder)
}

// Image is a manifest or an index, as it is where it is.
type Image struct {
	Ref   Location
	Desc  Descriptor
	Raw   []byte
	Index *ocispecs.Index // nil for a manifest

	place imagecopy.Place
}

// Get reads what a name stands for.
func (t *Tools) Get(ctx context.Context, ref Location) (*Image, error) {
	d, raw, err := t.resolve(ctx, ref)
	if err != nil {
		return nil, err
	}
	img := &Image{Ref: ref, Desc: d, Raw: raw, place: t.place(ref)}
	if types.MediaType(d.MediaType).IsIndex() {
		index, err := parseIndex(raw)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", ref, err)
		}
		img.Index = &index
	}
	return img, nil
}

// resolve gives the descriptor that a name stands for where it is, and its document.
func (t *Tools) resolve(ctx context.Context, ref Location) (Descriptor, []byte, error) {
	if !ref.IsLayout() {
		return t.client.Repository(ref.named).Get(ctx, ref.identifier())
	}
	place, d := t.place(ref), Descriptor{Digest: ref.digest()}
	if d.Digest == "" {
		found, err := t.layout(ref).Find(ref.layout.Tag)
		if err != nil {
			return found, nil, err
		}
		d = found
	}
	raw, err := place.Manifest(ctx, d)
	if errors.Is(err, ocilayout.ErrMissing) {
		return d, nil, fmt.Errorf("%s: not found: %w", ref, err)
	}
	if err != nil {
		return d, nil, err
	}
	if d.Size = int64(len(raw)); d.MediaType == "" {
		d.MediaType = registry.DetectMediaType(raw)
	}
	return d, raw, nil
}

// parseIndex reads an index, whose descriptors can be relied on.
func parseIndex(raw []byte) (ocispecs.Index, error) {
	var index ocispecs.Index
	if err := json.Unmarshal(raw, &index); err != nil {
		return index, fmt.Errorf("its index cannot be read: %w", err)
	}
	if len(index.Manifests) > maxManifests {
		return index, fmt.Errorf("its index lists more than %d manifests", maxManifests)
	}
	for _, d := range index.Manifests {
		if err := checkDescriptor(d); err != nil {
			return index, fmt.Errorf("its index lists %s: %w", quoted(d.Digest), err)
		}
	}
	return index, nil
}

func quoted(d digest.Digest) string { return fmt.Sprintf("%q", d.String()) }

func checkDescriptor(d Descriptor) error {
	if _, err := parseDigest(d.Digest.String()); err != nil {
		return err
	}
	if d.Size < 0 {
		return fmt.Errorf("its size is %d", d.Size)
	}
	return nil
}

// isImage tells a descriptor of one image.
func isImage(d Descriptor) bool { return types.MediaType(d.MediaType).IsImage() }

// isIndex tells a descriptor of an index.
func isIndex(d Descriptor) bool { return types.MediaType(d.MediaType).IsIndex() }

package build

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/berthbuild/berth/internal/beneath"
	"github.com/berthbuild/berth/internal/buildflag"
	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/ocilayout"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// maxImages bounds how many manifests one image of a layout may have.
const maxImages = 10_000

// layoutStore is one image of an OCI layout, as the daemon may read it through
// the session: its manifests and what they name, and nothing else that may be
// in the folder. It cannot be written to.
type layoutStore struct {
	readOnly
	root    *os.Root
	granted map[digest.Digest]bool
}

// openLayout opens the image of a context whose digest is known. The caller
// closes it.
func openLayout(c buildflag.NamedContext) (*layoutStore, error) {
	root, err := ocilayout.At(c.Value).Open()
	if err != nil {
		return nil, err
	}
	s := &layoutStore{root: root, granted: map[digest.Digest]bool{}}
	d := digest.Digest(c.Digest)
	if err := d.Validate(); err != nil {
		err = hint.Wrap(err, fmt.Sprintf("OCI layout %s: digest %q", c.Value, c.Digest))
		return nil, errors.Join(err, s.Close())
	}
	if err := s.grant(d); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = hint.New(fmt.Sprintf("OCI layout %s has no image %s", c.Value, d), "name one of its tags: oci-layout://FOLDER:TAG")
		} else {
			err = hint.Wrap(err, "OCI layout "+c.Value)
		}
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Close ends the access to the folder.
func (s *layoutStore) Close() error { return s.root.Close() }

// grant opens an image, and all that it is made of, to the daemon. What it is
// made of may be missing: a layout may hold the parts for one platform only.
func (s *layoutStore) grant(top digest.Digest) error {
	queue := []digest.Digest{top}
	for n := 0; n < len(queue); n++ {
		d := queue[n]
		if len(queue) > maxImages {
			return fmt.Errorf("%s has more than %d manifests", top, maxImages)
		}
		if s.granted[d] {
			continue
		}
		m, err := s.manifest(d)
		if d != top && errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		s.granted[d] = true
		for _, part := range append(m.Layers, m.Config) {
			if part.Digest.Validate() == nil {
				s.granted[part.Digest] = true
			}
		}
		for _, image := range m.Manifests {
			if image.Digest.Validate() == nil {
				queue = append(queue, image.Digest)
			}
		}
	}
	return nil
}

// manifest is what an index and a manifest have in common with each other, for
// finding out what an image is made of.
type manifest struct {
	Config    ocispecs.Descriptor
	Layers    []ocispecs.Descriptor
	Manifests []ocispecs.Descriptor
}

func (s *layoutStore) manifest(d digest.Digest) (manifest, error) {
	data, err := ocilayout.ReadSmall(s.root, ocilayout.BlobPath(d))
	if err != nil {
		return manifest{}, err
	}
	if d.Algorithm().FromBytes(data) != d {
		return manifest{}, fmt.Errorf("%s is damaged: its content has another digest", ocilayout.BlobPath(d))
	}
	var m manifest
	if err := json.Unmarshal(data, &m); err != nil || m.Config.Digest == "" && len(m.Manifests) == 0 {
		return manifest{}, fmt.Errorf("%s is neither an image's manifest nor an index", d)
	}
	return m, nil
}

// Info implements content.InfoProvider.
func (s *layoutStore) Info(_ context.Context, d digest.Digest) (content.Info, error) {
	if !s.granted[d] {
		return content.Info{}, notGranted(d)
	}
	fi, err := s.root.Stat(ocilayout.BlobPath(d))
	if errors.Is(err, fs.ErrNotExist) {
		err = notGranted(d)
	}
	if err != nil {
		return content.Info{}, err
	}
	return content.Info{Digest: d, Size: fi.Size(), CreatedAt: fi.ModTime(), UpdatedAt: fi.ModTime()}, nil
}

// ReaderAt implements content.Provider.
func (s *layoutStore) ReaderAt(_ context.Context, desc ocispecs.Descriptor) (content.ReaderAt, error) {
	if !s.granted[desc.Digest] {
		return nil, notGranted(desc.Digest)
	}
	f, err := s.root.OpenFile(ocilayout.BlobPath(desc.Digest), os.O_RDONLY|beneath.NonBlocking, 0)
	if errors.Is(err, fs.ErrNotExist) {
		err = notGranted(desc.Digest)
	}
	if err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return blob{f, fi.Size()}, nil
}

func notGranted(d digest.Digest) error {
	return fmt.Errorf("content %s is not in the image that this build was given: %w", d, errdefs.ErrNotFound)
}

// blob implements content.ReaderAt.
type blob struct {
	*os.File
	size int64
}

// Size implements content.ReaderAt.
func (b blob) Size() int64 { return b.size }

// readOnly is the rest of content.Store: the daemon has no business with it.
type readOnly struct{}

func (readOnly) refuse() error {
	return fmt.Errorf("the OCI layout of a build is for reading: %w", errdefs.ErrPermissionDenied)
}

// Update implements content.Manager.
func (r readOnly) Update(context.Context, content.Info, ...string) (content.Info, error) {
	return content.Info{}, r.refuse()
}

// Walk implements content.Manager.
func (r readOnly) Walk(context.Context, content.WalkFunc, ...string) error { return r.refuse() }

// Delete implements content.Manager.
func (r readOnly) Delete(context.Context, digest.Digest) error { return r.refuse() }

// Status implements content.IngestManager.
func (r readOnly) Status(context.Context, string) (content.Status, error) {
	return content.Status{}, r.refuse()
}

// ListStatuses implements content.IngestManager.
func (r readOnly) ListStatuses(context.Context, ...string) ([]content.Status, error) {
	return nil, r.refuse()
}

// Abort implements content.IngestManager.
func (r readOnly) Abort(context.Context, string) error { return r.refuse() }

// Writer implements content.Ingester.
func (r readOnly) Writer(context.Context, ...content.WriterOpt) (content.Writer, error) {
	return nil, r.refuse()
}

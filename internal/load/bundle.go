package load

import (
	"archive/tar"
	"encoding/json"
	"fmt"
	"io"
	"maps"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// bundle writes an archive that every engine reads: an OCI layout, and beside it
// the manifest.json of docker save where there is one image. The layers that
// the engine has are named in it and are not there.
type bundle struct {
	image *parcel
	names []string // full, with tags
	send  []layer
	open  func(layer) (io.ReadCloser, error)
	sent  func(n int64) // told the bytes of layers; may not be nil
}

// dockerManifest is an entry of manifest.json.
type dockerManifest struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// write writes all of the archive but its end when something fails.
func (b bundle) write(w io.Writer) error {
	t := tar.NewWriter(w)
	for _, dir := range []string{"blobs/", "blobs/sha256/"} {
		if err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755}); err != nil {
			return err
		}
	}
	if err := b.describe(t); err != nil {
		return err
	}
	for _, d := range b.image.docs {
		if err := file(t, blobPath(d.digest), d.raw); err != nil {
			return err
		}
	}
	for _, l := range b.send {
		if err := b.layer(t, l); err != nil {
			return err
		}
	}
	return t.Close()
}

// describe writes the files that say what is where.
func (b bundle) describe(t *tar.Writer) error {
	index := ocispecs.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispecs.MediaTypeImageIndex}
	for _, name := range b.names {
		ref, err := reference.ParseNormalizedNamed(name)
		if err != nil {
			return err
		}
		d := b.image.root
		d.Annotations = maps.Clone(d.Annotations)
		if d.Annotations == nil {
			d.Annotations = map[string]string{}
		}
		d.Annotations[images.AnnotationImageName] = ref.String()
		if tagged, ok := ref.(reference.Tagged); ok {
			d.Annotations[ocispecs.AnnotationRefName] = tagged.Tag()
		}
		index.Manifests = append(index.Manifests, d)
	}
	if len(b.names) == 0 {
		index.Manifests = []ocispecs.Descriptor{b.image.root}
	}
	if err := jsonFile(t, ocispecs.ImageLayoutFile, ocispecs.ImageLayout{Version: ocispecs.ImageLayoutVersion}); err != nil {
		return err
	}
	if err := jsonFile(t, ocispecs.ImageIndexFile, index); err != nil {
		return err
	}
	if len(b.image.manifests) != 1 {
		return nil
	}
	m := b.image.manifests[0]
	entry := dockerManifest{Config: blobPath(m.config), RepoTags: b.names, Layers: []string{}}
	for _, l := range m.layers {
		entry.Layers = append(entry.Layers, blobPath(l.digest))
	}
	return jsonFile(t, "manifest.json", []dockerManifest{entry})
}

func (b bundle) layer(t *tar.Writer, l layer) error {
	r, err := b.open(l)
	if err != nil {
		return err
	}
	defer r.Close() //nolint:errcheck // it was only read
	if err := t.WriteHeader(&tar.Header{Name: blobPath(l.digest), Mode: 0o444, Size: l.size}); err != nil {
		return err
	}
	_, err = io.Copy(counted{t, b.sent}, r)
	return err
}

// counted tells what passes.
type counted struct {
	io.Writer
	sent func(int64)
}

func (c counted) Write(p []byte) (int, error) {
	n, err := c.Writer.Write(p)
	c.sent(int64(n))
	return n, err
}

func blobPath(d digest.Digest) string {
	return fmt.Sprintf("blobs/%s/%s", d.Algorithm(), d.Encoded())
}

func jsonFile(t *tar.Writer, name string, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return file(t, name, raw)
}

func file(t *tar.Writer, name string, raw []byte) error {
	if err := t.WriteHeader(&tar.Header{Name: name, Mode: 0o444, Size: int64(len(raw))}); err != nil {
		return err
	}
	_, err := t.Write(raw)
	return err
}

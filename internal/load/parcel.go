package load

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// parcel is what was built: the documents, and the layers that they name.
type parcel struct {
	root      ocispecs.Descriptor
	docs      []document // each once, what is referred to first, the root last
	manifests []manifest // of images; attestations are documents only
	parts     []digest.Digest
}

// document is small and in memory.
type document struct {
	digest digest.Digest
	raw    []byte
}

// manifest is one platform's image.
type manifest struct {
	digest digest.Digest
	config digest.Digest
	layers []layer
}

// layer is one as it is sent, and as an engine names it.
type layer struct {
	digest  digest.Digest // of what is sent, compressed as the daemon has it
	diffID  digest.Digest // of the files
	chainID digest.Digest // of the files and of all layers below
	size    int64
	from    *Source
}

// attestationNote is on an index's entry that describes another one.
const (
	attestationNote = "vnd.docker.reference.type"
	attestationKind = "attestation-manifest"
)

// provider finds a document, and who has the layers that it names.
type provider func(d digest.Digest) ([]byte, *Source, error)

// imageParts reads an image, or an index of several with what is attested of them.
func imageParts(root digest.Digest, find provider) (*parcel, error) {
	r := &imageReader{find: find, image: &parcel{}, seen: map[digest.Digest]bool{}}
	raw, from, err := find(root)
	if err != nil {
		return nil, err
	}
	var top struct {
		MediaType string                `json:"mediaType"`
		Manifests []ocispecs.Descriptor `json:"manifests"`
	}
	if err := json.Unmarshal(raw, &top); err != nil {
		return nil, fmt.Errorf("the image's manifest: %w", err)
	}
	if top.Manifests == nil && !images.IsIndexType(top.MediaType) {
		if top.MediaType == "" {
			top.MediaType = ocispecs.MediaTypeImageManifest
		}
		err = r.manifest(root, raw, from)
		r.image.parts = []digest.Digest{root}
	} else {
		if top.MediaType == "" {
			top.MediaType = ocispecs.MediaTypeImageIndex
		}
		err = r.index(top.Manifests)
		r.add(root, raw)
	}
	if err != nil {
		return nil, err
	}
	r.image.root = ocispecs.Descriptor{MediaType: top.MediaType, Digest: root, Size: int64(len(raw))}
	return r.image, nil
}

type imageReader struct {
	find  provider
	image *parcel
	seen  map[digest.Digest]bool
}

func (r *imageReader) add(d digest.Digest, raw []byte) {
	if !r.seen[d] {
		r.seen[d] = true
		r.image.docs = append(r.image.docs, document{d, raw})
	}
}

func (r *imageReader) index(list []ocispecs.Descriptor) error {
	for _, d := range list {
		if images.IsIndexType(d.MediaType) {
			return errors.New("the image is an index of indexes")
		}
		raw, from, err := r.find(d.Digest)
		if err != nil {
			return err
		}
		if d.Annotations[attestationNote] == attestationKind {
			err = r.attestation(d.Digest, raw)
		} else {
			err = r.manifest(d.Digest, raw, from)
		}
		if err != nil {
			return err
		}
		r.image.parts = append(r.image.parts, d.Digest)
	}
	return nil
}

// manifest reads one platform's image.
func (r *imageReader) manifest(d digest.Digest, raw []byte, from *Source) error {
	m, config, err := readManifest(raw, r.find)
	if err != nil {
		return err
	}
	m.digest = d
	for i := range m.layers {
		m.layers[i].from = from
	}
	r.add(m.config, config)
	r.add(d, raw)
	r.image.manifests = append(r.image.manifests, m)
	return nil
}

// readManifest pairs the layers of a manifest with what its configuration says
// of them.
func readManifest(raw []byte, find provider) (manifest, []byte, error) {
	var top ocispecs.Manifest
	if err := json.Unmarshal(raw, &top); err != nil {
		return manifest{}, nil, fmt.Errorf("the image's manifest: %w", err)
	}
	config, _, err := find(top.Config.Digest)
	if err != nil {
		return manifest{}, nil, err
	}
	var c ocispecs.Image
	if err := json.Unmarshal(config, &c); err != nil {
		return manifest{}, nil, fmt.Errorf("the image's configuration: %w", err)
	}
	if len(c.RootFS.DiffIDs) != len(top.Layers) {
		return manifest{}, nil, fmt.Errorf("the image has %d layers, and its configuration names %d", len(top.Layers), len(c.RootFS.DiffIDs))
	}
	chains := identity.ChainIDs(slices.Clone(c.RootFS.DiffIDs)) // it writes over what it is given
	m := manifest{config: top.Config.Digest}
	for i, l := range top.Layers {
		if err := errors.Join(l.Digest.Validate(), c.RootFS.DiffIDs[i].Validate()); err != nil || l.Size < 0 {
			return manifest{}, nil, fmt.Errorf("layer %d of the image: %d bytes, %w", i, l.Size, err)
		}
		m.layers = append(m.layers, layer{digest: l.Digest, diffID: c.RootFS.DiffIDs[i], chainID: chains[i], size: l.Size})
	}
	return m, config, nil
}

// attestation adds what is said of an image. All of it is small.
func (r *imageReader) attestation(d digest.Digest, raw []byte) error {
	var m ocispecs.Manifest
	if err := json.Unmarshal(raw, &m); err != nil {
		return fmt.Errorf("the image's attestation: %w", err)
	}
	for _, b := range append([]ocispecs.Descriptor{m.Config}, m.Layers...) {
		doc, _, err := r.find(b.Digest)
		if err != nil {
			return err
		}
		r.add(b.Digest, doc)
	}
	r.add(d, raw)
	return nil
}

// id is what an engine calls the image.
func (i *parcel) id(s Store) digest.Digest {
	if s == Containerd || len(i.manifests) != 1 {
		return i.root.Digest
	}
	return i.manifests[0].config
}

// layers are all of them, each digest once.
func (i *parcel) layers() []layer {
	var all []layer
	seen := map[digest.Digest]bool{}
	for _, m := range i.manifests {
		for _, l := range m.layers {
			if !seen[l.digest] {
				seen[l.digest] = true
				all = append(all, l)
			}
		}
	}
	return all
}

// missing are the layers that have to be sent, each digest once: a layer is
// needed as soon as it is at one place where the engine has nothing like it.
func (i *parcel) missing(k known) []layer {
	var all []layer
	seen := map[digest.Digest]bool{}
	for _, m := range i.manifests {
		for _, l := range m.layers {
			if !k.has(l) && !seen[l.digest] {
				seen[l.digest] = true
				all = append(all, l)
			}
		}
	}
	return all
}

// sizeOf is how much is sent for layers.
func sizeOf(layers []layer) int64 {
	var n int64
	for _, l := range layers {
		n += l.size
	}
	return n
}

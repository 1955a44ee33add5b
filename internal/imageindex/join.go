package imageindex

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/containerd/platforms"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthbuild/berth/internal/hint"
)

// referenceType marks BuildKit's attestation manifests in an index, which have
// no platform that could clash.
const (
	referenceType       = "vnd.docker.reference.type"
	attestationManifest = "attestation-manifest"
)

// part is one node's contribution.
type part struct {
	node        string
	repo        name.Repository
	raw         []byte // as the registry gave it
	desc        Descriptor
	children    []Descriptor // what the joined index lists; all are images
	annotations map[string]string
}

// fetch reads what the nodes have pushed.
func (r registry) fetch(images []Image) ([]part, error) {
	parts := make([]part, 0, len(images))
	for _, image := range images {
		ref, err := name.NewDigest(image.Ref, r.names...)
		if err != nil {
			return nil, fmt.Errorf("the image of node %s: %w", image.Node, err)
		}
		p, err := r.fetchOne(image.Node, ref)
		if err != nil {
			return nil, explain(err, fmt.Sprintf("reading %s, pushed by node %s", ref, image.Node), ref)
		}
		parts = append(parts, p)
	}
	return parts, nil
}

func (r registry) fetchOne(node string, ref name.Digest) (part, error) {
	got, err := remote.Get(ref, r.opts...)
	if err != nil {
		return part{}, err
	}
	p := part{node: node, repo: ref.Context(), raw: got.Manifest, desc: Descriptor{
		MediaType: string(got.MediaType),
		Digest:    digest.Digest(got.Digest.String()),
		Size:      int64(len(got.Manifest)),
	}}
	switch {
	case got.MediaType.IsImage():
		child := p.desc
		if child.Platform, err = r.platformOf(ref); err != nil {
			return part{}, err
		}
		p.children = []Descriptor{child}
		return p, nil
	case got.MediaType.IsIndex():
		return p, r.fill(&p)
	}
	return part{}, fmt.Errorf("it is neither an image nor an index but %q", got.MediaType)
}

// fill reads the children out of an index.
func (r registry) fill(p *part) error {
	index, err := readIndex(p.raw)
	if err != nil {
		return err
	}
	p.annotations = index.Annotations
	for _, child := range index.Manifests {
		if child.Platform == nil && !isAttestation(child) {
			platform, err := r.platformOf(p.repo.Digest(child.Digest.String()))
			if err != nil {
				return err
			}
			child.Platform = platform
		}
		p.children = append(p.children, child)
	}
	return nil
}

// readIndex reads an index that lists images and nothing else.
func readIndex(raw []byte) (ocispecs.Index, error) {
	var index ocispecs.Index
	if err := json.Unmarshal(raw, &index); err != nil {
		return index, fmt.Errorf("its index cannot be read: %w", err)
	}
	if len(index.Manifests) == 0 {
		return index, errors.New("its index is empty")
	}
	for _, child := range index.Manifests {
		if err := child.Digest.Validate(); err != nil {
			return index, fmt.Errorf("its index lists a bad digest %q: %w", child.Digest, err)
		}
		if !types.MediaType(child.MediaType).IsImage() {
			return index, fmt.Errorf("its index lists %s, which is not an image but %q", child.Digest, child.MediaType)
		}
	}
	return index, nil
}

// platformOf reads the platform of an image out of its configuration.
func (r registry) platformOf(ref name.Digest) (*ocispecs.Platform, error) {
	img, err := remote.Image(ref, r.opts...)
	if err != nil {
		return nil, err
	}
	raw, err := img.RawConfigFile()
	if err != nil {
		return nil, err
	}
	var config ocispecs.Image
	if err := json.Unmarshal(raw, &config); err != nil {
		return nil, fmt.Errorf("its configuration cannot be read: %w", err)
	}
	if config.OS == "" || config.Architecture == "" {
		return nil, hint.New("its configuration does not say for which platform it is")
	}
	platform := platforms.Normalize(config.Platform)
	return &platform, nil
}

func isAttestation(d Descriptor) bool { return d.Annotations[referenceType] == attestationManifest }

// join makes the index: the platforms in the order of the parts, and then the
// attestations. One index alone stays what it is, byte for byte.
func join(parts []part) (joined, error) {
	if len(parts) == 1 && types.MediaType(parts[0].desc.MediaType).IsIndex() {
		return joined{raw: parts[0].raw, desc: parts[0].desc}, nil
	}
	var images, attestations []Descriptor
	builtBy := map[string]string{}
	docker := true
	for _, p := range parts {
		for _, child := range p.children {
			if child.MediaType != string(types.DockerManifestSchema2) {
				docker = false
			}
			if isAttestation(child) {
				attestations = append(attestations, child)
				continue
			}
			platform := platforms.FormatAll(platforms.Normalize(*child.Platform))
			if first, twice := builtBy[platform]; twice {
				return joined{}, fmt.Errorf("platform %s was built twice, by node %s and by node %s", platform, first, p.node)
			}
			builtBy[platform] = p.node
			images = append(images, child)
		}
	}
	index := ocispecs.Index{
		Versioned:   specs.Versioned{SchemaVersion: 2},
		MediaType:   string(types.OCIImageIndex),
		Manifests:   append(images, attestations...),
		Annotations: common(parts),
	}
	if docker {
		index.MediaType = string(types.DockerManifestList)
		index.Annotations = nil // the format has none
	}
	return finish(index)
}

func finish(index ocispecs.Index) (joined, error) {
	raw, err := json.MarshalIndent(index, "", "  ")
	if err != nil {
		return joined{}, err
	}
	return joined{raw: raw, desc: Descriptor{
		MediaType: index.MediaType,
		Digest:    digest.FromBytes(raw),
		Size:      int64(len(raw)),
	}}, nil
}

// common are the index annotations on which all nodes agree. Those of a build
// are the same everywhere; what differs is about one node's platforms only.
func common(parts []part) map[string]string {
	out := map[string]string{}
	for key, value := range parts[0].annotations {
		out[key] = value
	}
	for _, p := range parts[1:] {
		for key, value := range out {
			if other, ok := p.annotations[key]; !ok || other != value {
				delete(out, key)
			}
		}
	}
	if len(out) == 0 {
		return nil
	}
	return out
}

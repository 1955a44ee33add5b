package imageindex

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/imagecopy"
	"github.com/berthbuild/berth/internal/registry"
)

// referenceType marks BuildKit's attestation manifests in an index, which have
// no platform that could clash.
const (
	referenceType       = "vnd.docker.reference.type"
	referenceDigest     = "vnd.docker.reference.digest"
	attestationManifest = "attestation-manifest"
)

// part is one node's contribution.
type part struct {
	node        string
	place       imagecopy.Place // nil where it is not in a registry
	raw         []byte          // as the registry gave it
	desc        Descriptor
	children    []Descriptor // what the joined index lists; all are images
	annotations map[string]string
}

// fetch reads what the nodes have pushed.
func fetch(ctx context.Context, client *registry.Client, images []Image) ([]part, error) {
	parts := make([]part, 0, len(images))
	for _, image := range images {
		ref, err := reference.ParseNormalizedNamed(image.Ref)
		if err != nil {
			return nil, fmt.Errorf("the image of node %s: %w", image.Node, err)
		}
		byDigest, ok := ref.(reference.Canonical)
		if !ok {
			return nil, fmt.Errorf("the image of node %s: %q has no digest", image.Node, image.Ref)
		}
		p, err := fetchOne(ctx, client.Repository(ref), byDigest.Digest())
		if err != nil {
			return nil, hint.Wrap(insecureHint(err), fmt.Sprintf("reading %s, pushed by node %s", image.Ref, image.Node))
		}
		p.node = image.Node
		parts = append(parts, p)
	}
	return parts, nil
}

func fetchOne(ctx context.Context, repo *registry.Repository, image digest.Digest) (part, error) {
	desc, raw, err := repo.Get(ctx, image.String())
	if err != nil {
		return part{}, err
	}
	p := part{place: imagecopy.InRegistry(repo), raw: raw, desc: desc}
	switch kind := types.MediaType(desc.MediaType); {
	case kind.IsImage():
		child := p.desc
		if child.Platform, err = p.platformOf(ctx, child); err != nil {
			return part{}, err
		}
		p.children = []Descriptor{child}
		return p, nil
	case kind.IsIndex():
		return p, p.fill(func(child Descriptor) (*ocispecs.Platform, error) { return p.platformOf(ctx, child) })
	}
	return part{}, fmt.Errorf("it is neither an image nor an index but %q", desc.MediaType)
}

// fill reads the children out of an index. platformOf finds out what an image is
// for where the index does not say so.
func (p *part) fill(platformOf func(Descriptor) (*ocispecs.Platform, error)) error {
	index, err := readIndex(p.raw)
	if err != nil {
		return err
	}
	p.annotations = index.Annotations
	for _, child := range index.Manifests {
		if child.Platform == nil && !isAttestation(child) {
			if child.Platform, err = platformOf(child); err != nil {
				return err
			}
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

// maxConfig bounds an image's configuration in bytes.
const maxConfig = 16 << 20

// platformOf reads the platform of an image out of its configuration.
func (p *part) platformOf(ctx context.Context, image Descriptor) (*ocispecs.Platform, error) {
	raw, err := p.place.Manifest(ctx, image)
	if err != nil {
		return nil, err
	}
	var m ocispecs.Manifest
	if err := json.Unmarshal(raw, &m); err != nil {
		return nil, fmt.Errorf("its manifest cannot be read: %w", err)
	}
	if raw, err = p.place.Document(ctx, m.Config, maxConfig); err != nil {
		return nil, err
	}
	return readPlatform(raw)
}

func isAttestation(d Descriptor) bool { return d.Annotations[referenceType] == attestationManifest }

// join makes the index: the images in the order of wanted, as one daemon that
// builds all would list them, or else of the parts, and then the attestations. One
// index alone stays what it is, byte for byte.
func join(parts []part, wanted []ocispecs.Platform) (joined, error) {
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
	order(images, attestations, wanted)
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

// order sorts images by their platforms, and attestations by their images.
func order(images, attestations []Descriptor, wanted []ocispecs.Platform) {
	place := map[string]int{}
	for i, p := range wanted {
		place[platforms.FormatAll(platforms.Normalize(p))] = i - len(wanted) // what nobody wanted is 0, and so comes last
	}
	of := func(d Descriptor) int { return place[platforms.FormatAll(platforms.Normalize(*d.Platform))] }
	slices.SortStableFunc(images, func(a, b Descriptor) int { return of(a) - of(b) })
	image := map[string]int{}
	for i, d := range images {
		image[d.Digest.String()] = i
	}
	slices.SortStableFunc(attestations, func(a, b Descriptor) int {
		return image[a.Annotations[referenceDigest]] - image[b.Annotations[referenceDigest]]
	})
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

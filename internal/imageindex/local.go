package imageindex

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/containerd/platforms"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// Local is what one node made, where its blobs can be read without a registry:
// in an archive or a folder.
type Local struct {
	Node string     // who made it, for errors
	Top  Descriptor // an image, or an index with images and their attestations
	// Blob gives a manifest, an index or a configuration; what it gives has been
	// held against its digest.
	Blob func(digest.Digest) ([]byte, error)
}

// Join makes the index of all that the nodes made, in the order of wanted. The
// error names the node.
func Join(all []Local, wanted []ocispecs.Platform) ([]byte, Descriptor, error) {
	if len(all) == 0 {
		return nil, Descriptor{}, errors.New("there are no images to make an index of")
	}
	var parts []part
	for _, l := range all {
		p, err := l.part()
		if err != nil {
			return nil, Descriptor{}, fmt.Errorf("the image of node %s: %w", l.Node, err)
		}
		parts = append(parts, p)
	}
	index, err := join(parts, wanted)
	if err != nil {
		return nil, Descriptor{}, err
	}
	return index.raw, index.desc, nil
}

func (l Local) part() (part, error) {
	raw, err := l.Blob(l.Top.Digest)
	if err != nil {
		return part{}, err
	}
	p := part{node: l.Node, raw: raw, desc: Descriptor{MediaType: l.Top.MediaType, Digest: l.Top.Digest, Size: int64(len(raw))}}
	switch kind := types.MediaType(l.Top.MediaType); {
	case kind.IsImage():
		child := p.desc
		if child.Platform, err = l.platformOf(child.Digest); err != nil {
			return part{}, err
		}
		p.children = []Descriptor{child}
		return p, nil
	case kind.IsIndex():
		return p, p.fill(func(child Descriptor) (*ocispecs.Platform, error) { return l.platformOf(child.Digest) })
	}
	return part{}, fmt.Errorf("it is neither an image nor an index but %q", l.Top.MediaType)
}

// platformOf reads the platform of an image out of its configuration.
func (l Local) platformOf(manifest digest.Digest) (*ocispecs.Platform, error) {
	raw, err := l.Blob(manifest)
	if err != nil {
		return nil, err
	}
	var m ocispecs.Manifest
	if err := json.Unmarshal(raw, &m); err != nil {
		return nil, fmt.Errorf("its manifest cannot be read: %w", err)
	}
	if raw, err = l.Blob(m.Config.Digest); err != nil {
		return nil, err
	}
	return readPlatform(raw)
}

// readPlatform reads an image's configuration.
func readPlatform(raw []byte) (*ocispecs.Platform, error) {
	var config ocispecs.Image
	if err := json.Unmarshal(raw, &config); err != nil {
		return nil, fmt.Errorf("its configuration cannot be read: %w", err)
	}
	if config.OS == "" || config.Architecture == "" {
		return nil, errors.New("its configuration does not say for which platform it is")
	}
	platform := platforms.Normalize(config.Platform)
	return &platform, nil
}

// Package imageindex makes one image index out of the images that several
// nodes have pushed, and pushes it under the build's tags.
//
// It is not for building or pushing images, nor for editing indexes that users
// name; it only joins the results of one build.
//
// Rules: the same images make the same bytes. What a node pushed is taken as
// it is, attestations included. Nothing is read from the environment or from
// docker's configuration: credentials come as a Keychain.
package imageindex

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"

	"github.com/distribution/reference"
	"github.com/google/go-containerregistry/pkg/authn"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/imagecopy"
	"github.com/berthbuild/berth/internal/registry"
)

// Image is what one node has pushed: an image, or an index with images and
// their attestations.
type Image struct {
	Ref  string // repository@digest
	Node string // who pushed it, for errors
}

// Input is all that Push needs.
type Input struct {
	Images    []Image
	Platforms []ocispecs.Platform // the order in which the index lists them; none: that of Images
	Tags      []string            // full references; where an image is missing in a tag's repository, it is copied
	Keychain  authn.Keychain      // nil: nobody logs in
	Insecure  bool                // also HTTP, and certificates that nobody knows (loopback may speak HTTP anyway)
}

// Descriptor says what was pushed.
type Descriptor = ocispecs.Descriptor

// Push joins the images and pushes the index under every tag. How long it may
// take is ctx's affair. The error names the image or the tag; when one tag
// fails, the ones before it have been pushed.
func Push(ctx context.Context, in Input) (Descriptor, error) {
	if len(in.Images) == 0 {
		return Descriptor{}, errors.New("there are no images to make an index of")
	}
	if len(in.Tags) == 0 {
		return Descriptor{}, errors.New("there is no tag to push the index as")
	}
	tags, err := parseTags(in.Tags)
	if err != nil {
		return Descriptor{}, err
	}
	client := newClient(in)
	defer client.Close()
	parts, err := fetch(ctx, client, in.Images)
	if err != nil {
		return Descriptor{}, err
	}
	index, err := join(parts, in.Platforms)
	if err != nil {
		return Descriptor{}, err
	}
	for _, tag := range tags {
		if err := push(ctx, client.Repository(tag), tag.Tag(), index, parts); err != nil {
			return Descriptor{}, hint.Wrap(insecureHint(err), "pushing the index as "+tag.String())
		}
	}
	return index.desc, nil
}

// newClient makes the way to registries for one Push.
func newClient(in Input) *registry.Client {
	o := registry.Options{Keychain: in.Keychain, Default: registry.Host{Plain: registry.PlainPrivate}}
	if in.Insecure {
		o.Default = registry.Host{Plain: registry.PlainAlways, Insecure: true}
	}
	return registry.New(o)
}

func parseTags(tags []string) ([]reference.NamedTagged, error) {
	out := make([]reference.NamedTagged, 0, len(tags))
	for _, t := range tags {
		named, err := reference.ParseNormalizedNamed(t)
		if err != nil {
			return nil, fmt.Errorf("invalid tag %q: %w", t, err)
		}
		tag, ok := reference.TagNameOnly(named).(reference.NamedTagged)
		if !ok {
			return nil, fmt.Errorf("invalid tag %q: it is a digest", t)
		}
		out = append(out, tag)
	}
	return out, nil
}

// push puts the index under tag, after what the tag's repository lacks. What nodes push
// is all in their indexes: whatever else is about an image is not the build's, and a
// registry that does not tell of it fails no build.
func push(ctx context.Context, to *registry.Repository, tag string, index joined, parts []part) error {
	copier := imagecopy.To(imagecopy.InRegistry(to), nil)
	for _, p := range parts {
		for _, child := range p.children {
			if err := copier.CopyContent(ctx, p.place, child); err != nil {
				return err
			}
		}
	}
	return to.PutManifest(ctx, tag, index.desc, index.raw)
}

// insecureHint is what helps here with certificates and plain HTTP.
func insecureHint(err error) error {
	var plain tls.RecordHeaderError
	var unknown *tls.CertificateVerificationError
	var plaintext *registry.Plaintext
	if errors.As(err, &plain) || errors.As(err, &unknown) || errors.As(err, &plaintext) {
		return hint.Wrap(err, "", "for a registry without TLS, or with a certificate of its own: --output type=registry,registry.insecure=true")
	}
	return err
}

// joined is a finished index.
type joined struct {
	raw  []byte
	desc Descriptor
}

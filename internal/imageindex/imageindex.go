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
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/types"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthbuild/berth/internal/hint"
)

// Image is what one node has pushed: an image, or an index with images and
// their attestations.
type Image struct {
	Ref  string // repository@digest
	Node string // who pushed it, for errors
}

// Input is all that Push needs.
type Input struct {
	Images   []Image        // in the order in which the index lists them
	Tags     []string       // full references; where an image is missing in a tag's repository, it is copied
	Keychain authn.Keychain // nil: nobody logs in
	Insecure bool           // also HTTP, and certificates that nobody knows (loopback may speak HTTP anyway)
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
	r := newRegistry(ctx, in)
	tags, err := r.parseTags(in.Tags)
	if err != nil {
		return Descriptor{}, err
	}
	parts, err := r.fetch(in.Images)
	if err != nil {
		return Descriptor{}, err
	}
	index, err := join(parts)
	if err != nil {
		return Descriptor{}, err
	}
	for _, tag := range tags {
		if err := r.push(tag, index, parts); err != nil {
			return Descriptor{}, explain(err, "pushing the index as "+tag.Name(), tag)
		}
	}
	return index.desc, nil
}

// registry is the way to talk to registries for one Push.
type registry struct {
	opts  []remote.Option
	names []name.Option
}

func newRegistry(ctx context.Context, in Input) registry {
	keychain := in.Keychain
	if keychain == nil {
		keychain = authn.NewMultiKeychain() // anonymous
	}
	r := registry{opts: []remote.Option{remote.WithContext(ctx), remote.WithAuthFromKeychain(keychain)}}
	if in.Insecure {
		r.names = append(r.names, name.Insecure)
		if t, ok := remote.DefaultTransport.(*http.Transport); ok {
			t = t.Clone()
			t.TLSClientConfig = &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12} //nolint:gosec // the user asked for it
			r.opts = append(r.opts, remote.WithTransport(t))
		}
	}
	return r
}

func (r registry) parseTags(tags []string) ([]name.Tag, error) {
	out := make([]name.Tag, 0, len(tags))
	for _, t := range tags {
		tag, err := name.NewTag(t, r.names...)
		if err != nil {
			return nil, fmt.Errorf("invalid tag %q: %w", t, err)
		}
		out = append(out, tag)
	}
	return out, nil
}

// push puts the index under tag, after what the tag's repository lacks.
func (r registry) push(tag name.Tag, index joined, parts []part) error {
	for _, p := range parts {
		for _, child := range p.children {
			if err := r.provide(tag.Context(), p.repo, child.Digest.String()); err != nil {
				return err
			}
		}
	}
	return remote.Put(tag, index, r.opts...)
}

// provide copies the manifest called digest, with what it refers to, into a
// repository that does not have it.
func (r registry) provide(to, from name.Repository, digest string) error {
	target := to.Digest(digest)
	if to == from {
		return nil
	}
	_, err := remote.Head(target, r.opts...)
	var answer *transport.Error
	if err == nil || !errors.As(err, &answer) || answer.StatusCode != http.StatusNotFound {
		return err
	}
	img, err := remote.Image(from.Digest(digest), r.opts...)
	if err != nil {
		return err
	}
	return remote.Write(target, img, r.opts...)
}

// explain says what failed, and what helps where the type of the cause tells.
func explain(err error, doing string, ref name.Reference) error {
	if err == nil {
		return nil
	}
	host := ref.Context().RegistryStr()
	var tries []string
	var answer *transport.Error
	if errors.As(err, &answer) && (answer.StatusCode == http.StatusUnauthorized || answer.StatusCode == http.StatusForbidden) {
		tries = append(tries, "docker login "+host)
	}
	var plain tls.RecordHeaderError
	var unknown x509.UnknownAuthorityError
	if errors.As(err, &plain) || errors.As(err, &unknown) {
		tries = append(tries, "for a registry without TLS, or with a certificate of its own: --output type=registry,registry.insecure=true")
	}
	return hint.Wrap(err, doing, tries...)
}

// joined is a finished index, in the shape that remote.Put takes.
type joined struct {
	raw  []byte
	desc Descriptor
}

// RawManifest implements remote.Taggable.
func (j joined) RawManifest() ([]byte, error) { return j.raw, nil }

// MediaType tells remote.Put what it is.
func (j joined) MediaType() (types.MediaType, error) { return types.MediaType(j.desc.MediaType), nil }

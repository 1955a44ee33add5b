package imagetools

import (
	"errors"
	"fmt"
	"strings"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"

	"github.com/berthbuild/berth/internal/buildflag"
	"github.com/berthbuild/berth/internal/hint"
)

// layoutScheme stands before a folder with an OCI layout.
const layoutScheme = "oci-layout://"

// Location names an image: in a registry, or in a folder with an OCI layout.
type Location struct {
	named  reference.Named // with a tag, a digest or both; nil for a layout
	layout buildflag.Layout
}

// ParseLocation reads REGISTRY/REPOSITORY:TAG@DIGEST, as docker does, or
// oci-layout://FOLDER:TAG@DIGEST. Without tag and digest it is the latest.
func ParseLocation(s string) (Location, error) {
	if rest, ok := strings.CutPrefix(s, layoutScheme); ok {
		l, err := buildflag.ParseLayout(rest)
		return Location{layout: l}, err
	}
	named, err := reference.ParseNormalizedNamed(s)
	if err != nil {
		return Location{}, hint.Wrap(fmt.Errorf("%w: %q", err, s), "", "an image is [REGISTRY/]REPOSITORY[:TAG][@DIGEST], or oci-layout://FOLDER[:TAG][@DIGEST]")
	}
	return Location{named: reference.TagNameOnly(named)}, nil
}

// IsLayout tells that it is a folder.
func (l Location) IsLayout() bool { return l.named == nil }

// String is the whole name.
func (l Location) String() string {
	if !l.IsLayout() {
		return l.named.String()
	}
	s := layoutScheme + l.layout.Folder
	if l.layout.Tag != "" || l.layout.Digest == "" {
		s += ":" + l.tag()
	}
	if l.layout.Digest != "" {
		s += "@" + l.layout.Digest
	}
	return s
}

// Name is the repository, or the folder.
func (l Location) Name() string {
	if l.IsLayout() {
		return l.layout.Folder
	}
	return l.named.Name()
}

// tag is the tag to write; "" where it is named by a digest only.
func (l Location) tag() string {
	if !l.IsLayout() {
		if t, ok := l.named.(reference.Tagged); ok {
			return t.Tag()
		}
		return ""
	}
	if l.layout.Tag == "" && l.layout.Digest == "" {
		return "latest"
	}
	return l.layout.Tag
}

// digest is the digest that it is named by, if it is.
func (l Location) digest() digest.Digest {
	if l.IsLayout() {
		return digest.Digest(l.layout.Digest)
	}
	if d, ok := l.named.(reference.Digested); ok {
		return d.Digest()
	}
	return ""
}

// identifier is what a registry knows the image by: the digest, or else the tag.
func (l Location) identifier() string {
	if d := l.digest(); d != "" {
		return d.String()
	}
	return l.tag()
}

// WithDigest is another image of the same repository or folder. A repository's tag
// stays in its name.
func (l Location) WithDigest(d digest.Digest) Location {
	if l.IsLayout() {
		return Location{layout: buildflag.Layout{Folder: l.layout.Folder, Digest: d.String()}}
	}
	if named, err := reference.WithDigest(l.named, d); err == nil {
		return Location{named: named}
	}
	return l
}

// checkTarget refuses a target that wants another digest than what was made.
func (l Location) checkTarget(made digest.Digest) error {
	if want := l.digest(); want != "" && want != made {
		return fmt.Errorf("target %s requested digest %s but produced %s", l, want, made)
	}
	return nil
}

var errBadDigest = errors.New("it is no digest")

// parseDigest reads ALGORITHM:HEX.
func parseDigest(s string) (digest.Digest, error) {
	d, err := digest.Parse(s)
	if err != nil {
		return "", fmt.Errorf("%w: %w", errBadDigest, err)
	}
	return d, nil
}

package imagetools

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"

	"github.com/containerd/platforms"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthbuild/berth/internal/buildflag"
)

// The annotations by which an index says that a manifest is the attestation of
// another.
const (
	referenceType   = "vnd.docker.reference.type"
	referenceDigest = "vnd.docker.reference.digest"
	attestationType = "attestation-manifest"
)

// piece is a source that has been read.
type piece struct {
	ref  Location
	desc Descriptor
	raw  []byte
}

// made is an image in the making.
type made struct {
	raw   []byte
	desc  Descriptor
	from  map[digest.Digest]Location // where each manifest of the index is
	all   Location                   // where all others are
	alone bool                       // it is one manifest and no index
	notes []string                   // what was passed over
}

// where is the place of a manifest.
func (m *made) where(d digest.Digest) Location {
	if l, ok := m.from[d]; ok {
		return l
	}
	return m.all
}

// combine makes one index of the pieces, in their order. One piece alone stays what it
// is, byte for byte, if it is an index or if no index is wanted.
func combine(pieces []piece, annotations []buildflag.Annotation, preferIndex bool) (*made, error) {
	first := pieces[0]
	if len(pieces) == 1 && len(annotations) == 0 && (isIndex(first.desc) || !preferIndex) {
		return &made{raw: first.raw, desc: first.desc, all: first.ref, alone: !isIndex(first.desc)}, nil
	}
	m := &made{from: map[digest.Digest]Location{}, all: first.ref}
	l := list{at: map[digest.Digest]int{}}
	for _, p := range pieces {
		entries := []Descriptor{p.desc}
		if isIndex(p.desc) {
			index, err := parseIndex(p.raw)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", p.ref, err)
			}
			entries = index.Manifests
		}
		for _, d := range entries {
			l.add(d)
			m.from[d.Digest] = p.ref
		}
	}
	index := ocispecs.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: l.mediaType(), Manifests: l.entries}
	if index.MediaType == ocispecs.MediaTypeImageIndex {
		annotate(&index, annotations)
	} else if len(annotations) > 0 {
		m.notes = append(m.notes, "the annotations are left out: all images are Docker's, and a Docker manifest list has none")
	}
	return m, m.finish(index)
}

// list is the entries of an index, each digest once.
type list struct {
	entries []Descriptor
	at      map[digest.Digest]int
}

// add adds an entry. What a later one says of the same digest is added to the first
// one.
func (l *list) add(d Descriptor) {
	i, twice := l.at[d.Digest]
	if !twice {
		d.Annotations = maps.Clone(d.Annotations)
		l.at[d.Digest] = len(l.entries)
		l.entries = append(l.entries, d)
		return
	}
	old := &l.entries[i]
	if old.MediaType == "" {
		old.MediaType = d.MediaType
	}
	if d.Platform != nil {
		old.Platform = d.Platform
	}
	if old.Annotations == nil {
		old.Annotations = map[string]string{}
	}
	maps.Copy(old.Annotations, d.Annotations)
}

// mediaType is Docker's where all entries are, or else that of OCI.
func (l *list) mediaType() string {
	for _, d := range l.entries {
		if !strings.HasPrefix(d.MediaType, "application/vnd.docker.") {
			return ocispecs.MediaTypeImageIndex
		}
	}
	return string(types.DockerManifestList)
}

// annotate adds annotations to the index and its entries; the last one counts.
func annotate(index *ocispecs.Index, annotations []buildflag.Annotation) {
	for _, a := range annotations {
		switch a.Level {
		case buildflag.OnIndex:
			if index.Annotations == nil {
				index.Annotations = map[string]string{}
			}
			index.Annotations[a.Key] = a.Value
		case buildflag.OnManifestDescriptor:
			for i := range index.Manifests {
				d := &index.Manifests[i]
				if a.Platform != nil && (d.Platform == nil || platforms.Format(*a.Platform) != platforms.Format(*d.Platform)) {
					continue
				}
				if d.Annotations == nil {
					d.Annotations = map[string]string{}
				}
				d.Annotations[a.Key] = a.Value
			}
		}
	}
}

// finish settles the bytes of an index.
func (m *made) finish(index ocispecs.Index) error {
	raw, err := json.MarshalIndent(index, "", "  ")
	if err != nil {
		return err
	}
	m.raw = raw
	m.desc = Descriptor{MediaType: index.MediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw)), Annotations: m.desc.Annotations}
	return nil
}

// chosen are the entries of an index that a choice of platforms leaves.
type chosen struct {
	index ocispecs.Index
	keep  []Descriptor
	// bare are those without an attestation in the index; there may be one beside it.
	bare []Descriptor
	refs map[digest.Digest]bool // the attestations that are kept
}

// choose filters an index by platforms; none is all. An attestation stays with its
// image, and what is for no platform in particular stays.
func choose(index ocispecs.Index, wanted []ocispecs.Platform) chosen {
	match := matcher(wanted)
	c := chosen{index: index, refs: map[digest.Digest]bool{}}
	byDigest := map[digest.Digest]Descriptor{}
	for _, d := range index.Manifests {
		byDigest[d.Digest] = d
	}
	attested := map[digest.Digest]bool{}
	for _, d := range index.Manifests {
		if d.Annotations[referenceType] != attestationType {
			continue
		}
		subject, ok := byDigest[digest.Digest(d.Annotations[referenceDigest])]
		if ok && match(subject) {
			c.refs[d.Digest] = true
			attested[subject.Digest] = true
		}
	}
	looked := map[digest.Digest]bool{}
	for _, d := range index.Manifests {
		if !match(d) && !c.refs[d.Digest] {
			continue
		}
		c.keep = append(c.keep, d)
		if match(d) && !c.refs[d.Digest] && !attested[d.Digest] && !looked[d.Digest] {
			looked[d.Digest] = true
			c.bare = append(c.bare, d)
		}
	}
	return c
}

// matcher tells whether a descriptor is for one of the platforms.
func matcher(wanted []ocispecs.Platform) func(Descriptor) bool {
	if len(wanted) == 0 {
		return func(Descriptor) bool { return true }
	}
	either := platforms.Any(wanted...)
	return func(d Descriptor) bool { return d.Platform == nil || either.Match(*d.Platform) }
}

// checkAlone holds one manifest against the platforms.
func checkAlone(d Descriptor, wanted []ocispecs.Platform) error {
	if d.Platform == nil {
		return errors.New("cannot filter platforms from a manifest without platform information")
	}
	if !matcher(wanted)(d) {
		return fmt.Errorf("input platform %s does not match any of the provided platforms", platforms.Format(*d.Platform))
	}
	return nil
}

// attach lists an attestation that was found beside the index.
func (c *chosen) attach(to digest.Digest, d Descriptor) {
	d.Platform = &ocispecs.Platform{OS: "unknown", Architecture: "unknown"}
	d.Annotations = maps.Clone(d.Annotations)
	if d.Annotations == nil {
		d.Annotations = map[string]string{}
	}
	d.Annotations[referenceType], d.Annotations[referenceDigest] = attestationType, to.String()
	d.ArtifactType = ""
	c.keep = append(c.keep, d)
}

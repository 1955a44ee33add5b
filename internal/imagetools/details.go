package imagetools

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/platforms"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// Details are what an image has for each platform. They are read when they are asked
// for.
type Details struct {
	t     *Tools
	img   *Image
	all   map[string]platformImage // by platform
	order []string
}

// platformImage is the image for one platform, with its attestations.
type platformImage struct {
	desc     Descriptor
	manifest []byte // nil: not read yet
	about    []Descriptor
}

// SBOM is what lists the parts of an image.
type SBOM struct {
	SPDX            any   `json:",omitempty"`
	AdditionalSPDXs []any `json:",omitempty"`
}

// Provenance says how an image was made.
type Provenance struct {
	SLSA any `json:",omitempty"`
}

// Details finds out for which platforms an image is. Only what does not say so is
// read.
func (t *Tools) Details(ctx context.Context, img *Image) (*Details, error) {
	d := &Details{t: t, img: img, all: map[string]platformImage{}}
	f := finder{d: d, seen: map[string]bool{}}
	if err := f.find(ctx, img.Desc, img.Raw, 0); err != nil {
		return nil, fmt.Errorf("%s: %w", img.Ref, err)
	}
	for platform, one := range d.all {
		one.about = f.about[one.desc.Digest.String()]
		d.all[platform] = one
	}
	d.order = slices.Sorted(maps.Keys(d.all))
	return d, nil
}

// finder goes through an index.
type finder struct {
	d     *Details
	seen  map[string]bool
	about map[string][]Descriptor // attestations, by what they are about
}

func (f *finder) find(ctx context.Context, desc Descriptor, raw []byte, depth int) error {
	if f.seen[desc.Digest.String()] {
		return nil
	}
	f.seen[desc.Digest.String()] = true
	if depth > maxDepth || len(f.seen) > maxManifests {
		return fmt.Errorf("it has more indexes in each other than anybody needs")
	}
	switch {
	case isIndex(desc):
		return f.index(ctx, desc, raw, depth)
	case !isImage(desc):
		return nil
	}
	for _, key := range []string{"com.docker.reference.digest", referenceDigest} {
		if subject := desc.Annotations[key]; subject != "" {
			if f.about == nil {
				f.about = map[string][]Descriptor{}
			}
			f.about[subject] = append(f.about[subject], desc)
			return nil
		}
	}
	one := platformImage{desc: desc, manifest: raw}
	platform := desc.Platform
	if platform == nil {
		config, err := f.d.config(ctx, &one)
		if err != nil {
			return err
		}
		platform = &ocispecs.Platform{OS: config.OS, Architecture: config.Architecture, Variant: config.Variant}
	}
	f.d.all[platforms.Format(platforms.Normalize(*platform))] = one
	return nil
}

func (f *finder) index(ctx context.Context, desc Descriptor, raw []byte, depth int) error {
	if raw == nil {
		var err error
		if raw, err = f.d.img.place.Manifest(ctx, desc); err != nil {
			return err
		}
	}
	index, err := parseIndex(raw)
	if err != nil {
		return err
	}
	for _, child := range index.Manifests {
		if err := f.find(ctx, child, nil, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// manifest reads the manifest of a platform's image.
func (d *Details) manifest(ctx context.Context, desc Descriptor, raw []byte) (ocispecs.Manifest, error) {
	var m ocispecs.Manifest
	if raw == nil {
		var err error
		if raw, err = d.img.place.Manifest(ctx, desc); err != nil {
			return m, err
		}
	}
	if err := json.Unmarshal(raw, &m); err != nil {
		return m, fmt.Errorf("the manifest %s cannot be read: %w", desc.Digest, err)
	}
	return m, nil
}

// config reads the configuration of a platform's image.
func (d *Details) config(ctx context.Context, one *platformImage) (*ocispecs.Image, error) {
	m, err := d.manifest(ctx, one.desc, one.manifest)
	if err != nil {
		return nil, err
	}
	raw, err := d.img.place.Document(ctx, m.Config, maxConfig)
	if err != nil {
		return nil, err
	}
	var config *ocispecs.Image
	if err := json.Unmarshal(raw, &config); err != nil {
		return nil, fmt.Errorf("the configuration %s cannot be read: %w", m.Config.Digest, err)
	}
	if config == nil {
		config = &ocispecs.Image{}
	}
	return config, nil
}

// Platforms are those that the image is for, sorted.
func (d *Details) Platforms() []string { return d.order }

// Configs reads the configurations.
func (d *Details) Configs(ctx context.Context) (map[string]*ocispecs.Image, error) {
	return each(ctx, d, d.config)
}

// Provenance reads the provenance of each platform that has one.
func (d *Details) Provenance(ctx context.Context) (map[string]Provenance, error) {
	found, err := each(ctx, d, func(ctx context.Context, one *platformImage) (*Provenance, error) {
		var last *Provenance
		err := d.attestations(ctx, one, func(kind string) bool { return strings.HasPrefix(kind, "https://slsa.dev/provenance/") }, func(predicate any) bool {
			last = &Provenance{SLSA: predicate}
			return false
		})
		return last, err
	})
	return present(found), err
}

// SBOM reads the lists of parts of each platform that has any.
func (d *Details) SBOM(ctx context.Context) (map[string]SBOM, error) {
	found, err := each(ctx, d, func(ctx context.Context, one *platformImage) (*SBOM, error) {
		var all *SBOM
		err := d.attestations(ctx, one, func(kind string) bool { return kind == "https://spdx.dev/Document" }, func(predicate any) bool {
			if all == nil {
				all = &SBOM{SPDX: predicate}
			} else {
				all.AdditionalSPDXs = append(all.AdditionalSPDXs, predicate)
			}
			return true
		})
		return all, err
	})
	return present(found), err
}

// present leaves out platforms that have nothing.
func present[T any](all map[string]*T) map[string]T {
	out := map[string]T{}
	for platform, one := range all {
		if one != nil {
			out[platform] = *one
		}
	}
	return out
}

// each asks for all platforms, some at a time.
func each[T any](ctx context.Context, d *Details, get func(context.Context, *platformImage) (*T, error)) (map[string]*T, error) {
	out := map[string]*T{}
	var mu sync.Mutex
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	for platform, one := range d.all {
		group.Go(func() error {
			got, err := get(gctx, &one)
			if err != nil {
				return fmt.Errorf("%s: %w", platform, err)
			}
			mu.Lock()
			defer mu.Unlock()
			out[platform] = got
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return out, nil
}

const (
	predicateType = "in-toto.io/predicate-type"
	inToto        = "application/vnd.in-toto+json"
)

// attestations reads the predicates of some kinds. use tells whether to go on with the
// same manifest.
func (d *Details) attestations(ctx context.Context, one *platformImage, wanted func(kind string) bool, use func(predicate any) bool) error {
	for _, desc := range one.about {
		m, err := d.manifest(ctx, desc, nil)
		if err != nil {
			return err
		}
		for _, layer := range m.Layers {
			if layer.MediaType != inToto && !isEnvelope(layer.MediaType) || !wanted(layer.Annotations[predicateType]) {
				continue
			}
			raw, err := d.img.place.Document(ctx, layer, maxAttestation)
			if err != nil {
				return err
			}
			predicate, err := readPredicate(raw, layer.MediaType)
			if err != nil {
				return fmt.Errorf("the attestation %s cannot be read: %w", layer.Digest, err)
			}
			if !use(predicate) {
				break
			}
		}
	}
	return nil
}

// isEnvelope tells a signed attestation.
func isEnvelope(mediaType string) bool {
	return strings.HasPrefix(mediaType, "application/vnd.in-toto.") && strings.HasSuffix(mediaType, "+dsse")
}

// readPredicate takes the predicate out of a statement, and that out of its envelope.
func readPredicate(raw []byte, mediaType string) (any, error) {
	if isEnvelope(mediaType) {
		var envelope struct {
			Payload string `json:"payload"`
		}
		if err := json.Unmarshal(raw, &envelope); err != nil {
			return nil, err
		}
		payload, err := base64.StdEncoding.DecodeString(envelope.Payload)
		if err != nil {
			return nil, err
		}
		raw = payload
	}
	var statement struct {
		Predicate any `json:"predicate"`
	}
	err := json.Unmarshal(raw, &statement)
	return statement.Predicate, err
}

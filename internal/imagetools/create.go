package imagetools

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/containerd/platforms"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/imagecopy"
	"github.com/berthbuild/berth/internal/ocilayout"
)

// Result is the image that was made.
type Result struct {
	Raw   []byte
	Desc  Descriptor
	Notes []string // what was passed over

	parts []part
}

// part is a manifest that the image is made of, and where it is.
type part struct {
	desc Descriptor
	from Location
}

// Make reads the sources and makes the image. Nothing is written.
func (t *Tools) Make(ctx context.Context, p *Plan) (*Result, error) {
	pieces := make([]piece, len(p.sources))
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	for i, s := range p.sources {
		group.Go(func() (err error) {
			pieces[i], err = t.read(gctx, s)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	m, err := combine(pieces, p.req.Annotations, p.req.PreferIndex)
	if err != nil {
		return nil, err
	}
	return t.filter(ctx, m, p.req.Platforms)
}

// read reads a source, and completes what is said of it.
func (t *Tools) read(ctx context.Context, s source) (piece, error) {
	found, raw, err := t.resolve(ctx, s.ref)
	if err != nil {
		return piece{}, err
	}
	d, err := merge(found, s.desc)
	if err != nil {
		return piece{}, fmt.Errorf("%s: %w", s.ref, err)
	}
	switch kind := types.MediaType(d.MediaType); {
	case kind.IsSchema1():
		return piece{}, fmt.Errorf("%s: schema1 manifests are not allowed in manifest lists", s.ref)
	case kind.IsImage():
		if d.Platform, err = t.platform(ctx, s.ref, d.Platform, raw); err != nil {
			return piece{}, fmt.Errorf("%s: %w", s.ref, err)
		}
	}
	return piece{ref: s.ref, desc: d, raw: raw}, nil
}

// merge lays what the user says of an image over what was found. A descriptor with a
// media type is whole: it replaces it.
func merge(found, said Descriptor) (Descriptor, error) {
	if said.Digest == "" {
		return found, nil
	}
	if said.Size != 0 && said.Size != found.Size {
		return said, fmt.Errorf("invalid size mismatch for %s, %d != %d", said.Digest, said.Size, found.Size)
	}
	if said.MediaType != "" {
		said.Size = found.Size
		return said, nil
	}
	if len(said.Annotations) > 0 {
		found.Annotations = said.Annotations // not merged, so that some can be left out
	}
	if said.Platform != nil {
		found.Platform = said.Platform
	}
	return found, nil
}

// platform completes the platform of an image by its configuration.
func (t *Tools) platform(ctx context.Context, ref Location, said *ocispecs.Platform, raw []byte) (*ocispecs.Platform, error) {
	var p ocispecs.Platform
	if said != nil {
		p = *said
	}
	if p.OS != "" && p.Architecture != "" {
		return &p, nil
	}
	var m ocispecs.Manifest
	if err := json.Unmarshal(raw, &m); err != nil {
		return nil, fmt.Errorf("its manifest cannot be read: %w", err)
	}
	config, err := t.place(ref).Document(ctx, m.Config, maxConfig)
	if err != nil {
		return nil, err
	}
	var own ocispecs.Platform
	if err := json.Unmarshal(config, &own); err != nil {
		return nil, fmt.Errorf("its configuration cannot be read: %w", err)
	}
	own = platforms.Normalize(own)
	if p.Architecture == "" {
		p.Architecture = own.Architecture
		if p.Variant == "" {
			p.Variant = own.Variant
		}
	}
	if p.OS == "" {
		p.OS = own.OS
	}
	return &p, nil
}

// filter leaves the platforms that are wanted, and adds attestations that are beside
// the index.
func (t *Tools) filter(ctx context.Context, m *made, wanted []ocispecs.Platform) (*Result, error) {
	if m.alone {
		if err := checkAlone(m.desc, wanted); err != nil {
			return nil, err
		}
		return m.result([]part{{m.desc, m.all}}), nil
	}
	index, err := parseIndex(m.raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", m.all, err)
	}
	c := choose(index, wanted)
	if len(c.keep) == 0 {
		return nil, hint.New("none of the manifests match the provided platforms", "the image has "+platformsOf(index))
	}
	var parts []part
	for _, d := range c.keep {
		parts = append(parts, part{d, m.where(d.Digest)})
	}
	found, err := t.beside(ctx, m, c)
	if err != nil {
		return nil, err
	}
	for i, d := range c.bare {
		if found[i] != nil {
			c.attach(d.Digest, *found[i])
		}
	}
	if len(c.keep) == len(index.Manifests) && len(c.keep) == len(parts) {
		return m.result(parts), nil // as it was, byte for byte
	}
	index.Manifests = c.keep
	mediaType := m.desc.MediaType
	if err := m.finish(index); err != nil {
		return nil, err
	}
	m.desc.MediaType = mediaType
	return m.result(parts), nil
}

func (m *made) result(parts []part) *Result {
	return &Result{Raw: m.raw, Desc: m.desc, Notes: m.notes, parts: parts}
}

// platformsOf lists what an index is for, for an error.
func platformsOf(index ocispecs.Index) string {
	var all []string
	for _, d := range index.Manifests {
		if d.Platform != nil && d.Annotations[referenceType] == "" && !slices.Contains(all, platforms.Format(*d.Platform)) {
			all = append(all, platforms.Format(*d.Platform))
		}
	}
	if len(all) == 0 {
		return "none"
	}
	return fmt.Sprint(all)
}

// beside looks for the attestation of each bare image among what refers to it.
func (t *Tools) beside(ctx context.Context, m *made, c chosen) ([]*Descriptor, error) {
	found := make([]*Descriptor, len(c.bare))
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	for i, d := range c.bare {
		group.Go(func() error {
			all, err := t.place(m.where(d.Digest)).Referrers(gctx, d.Digest)
			if err != nil {
				return err
			}
			for _, r := range all {
				if r.ArtifactType == imagecopy.Attestation && !c.refs[r.Digest] {
					found[i] = &r
					return nil
				}
			}
			return nil
		})
	}
	return found, group.Wait()
}

// Step is told of what Push does in one repository or folder.
type Step interface {
	Log(text string)
	Progress(id string, current, total int64)
	Done(err error)
}

// Push writes the image under every tag, after what it is made of. begin is called for
// each repository and folder.
func (t *Tools) Push(ctx context.Context, p *Plan, r *Result, begin func(name string) Step) error {
	for _, target := range p.targets { // before anything is written
		if err := target.checkTarget(r.Desc.Digest); err != nil {
			return err
		}
	}
	byRepo := map[string][]Location{}
	for _, target := range p.targets {
		byRepo[target.Name()] = append(byRepo[target.Name()], target)
	}
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	for _, name := range slices.Sorted(maps.Keys(byRepo)) {
		group.Go(func() error {
			step := begin(name)
			err := t.pushTo(gctx, byRepo[name], r, step)
			step.Done(err)
			return err
		})
	}
	return group.Wait()
}

// pushTo writes the image to one repository or folder.
func (t *Tools) pushTo(ctx context.Context, targets []Location, r *Result, step Step) error {
	name := targets[0].Name()
	copier := imagecopy.To(t.place(targets[0]), func(at imagecopy.Transfer) {
		step.Progress(at.Digest.String(), at.Current, at.Total)
	})
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	for _, part := range r.parts {
		group.Go(func() error {
			step.Log(fmt.Sprintf("copying %s from %s to %s", part.desc.Digest, part.from, name))
			if err := copier.Copy(gctx, t.place(part.from), part.desc); err != nil {
				return hint.Wrap(err, fmt.Sprintf("copy %s from %s to %s", part.desc.Digest, part.from, name))
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for _, target := range targets {
		step.Log(fmt.Sprintf("pushing %s to %s", r.Desc.Digest, target))
		if err := t.publish(ctx, target, r, copier.Referrers); err != nil {
			return hint.Wrap(err, fmt.Sprintf("publish %s to %s", r.Desc.Digest, target))
		}
	}
	return nil
}

// publish writes the image's own document under a target's name.
func (t *Tools) publish(ctx context.Context, target Location, r *Result, referrers map[digest.Digest][]Descriptor) error {
	if !target.IsLayout() {
		return t.client.Repository(target.named).PutManifest(ctx, cmp.Or(target.tag(), r.Desc.Digest.String()), r.Desc, r.Raw)
	}
	layout := t.layout(target)
	if !layout.Has(r.Desc.Digest) {
		if err := layout.Put(r.Desc, bytes.NewReader(r.Raw)); err != nil {
			return err
		}
	}
	return layout.Add(ctx, ocilayout.Entry{Image: r.Desc, Tag: target.tag(), Referrers: referrers})
}

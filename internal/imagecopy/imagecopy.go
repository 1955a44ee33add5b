// Package imagecopy copies an image from one place to another: its manifests, their
// blobs, and what is about it, such as signatures and attestations.
//
// It is not for making images, nor for tags: what is copied is there by its digest.
//
// Rules: nothing is there before all that it names is. What is there already is not
// sent again; within one registry blobs are mounted. Not more than a few blobs travel
// at a time. Who says what is about an image is not trusted: rings and towers of such
// claims end.
package imagecopy

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"
)

const (
	// parallel bounds the blobs that travel at a time.
	parallel = 4
	// maxDepth bounds indexes in indexes, and signatures of signatures.
	maxDepth = 8
	// maxManifests bounds what one image may have.
	maxManifests = 10_000
)

// The artifact types of what travels with an image.
const (
	Attestation = "application/vnd.docker.attestation.manifest.v1+json"
	cosign      = "application/vnd.dev.cosign.artifact.sig.v1+json"
	sigstore    = "application/vnd.dev.sigstore.bundle.v0.3+json"
)

func travels(d Descriptor) bool {
	return slices.Contains([]string{Attestation, cosign, sigstore}, d.ArtifactType)
}

// Copier copies images to one place. It can be used by several goroutines.
type Copier struct {
	to     Place
	report func(Transfer)
	slots  chan struct{}

	mu        sync.Mutex
	done      map[digest.Digest]*once
	children  map[digest.Digest][]Descriptor // of indexes
	asked     map[digest.Digest]bool         // what is about it
	Referrers map[digest.Digest][]Descriptor // what was copied with it; to be read when all is done
}

// Transfer is how far a blob is.
type Transfer struct {
	Digest         digest.Digest
	Current, Total int64
}

// once is something that is done by whoever comes first.
type once struct {
	ready chan struct{}
	err   error
}

// To makes a Copier. report, which may be nil, is told of what is sent.
func To(to Place, report func(Transfer)) *Copier {
	if report == nil {
		report = func(Transfer) {}
	}
	return &Copier{
		to: to, report: report, slots: make(chan struct{}, parallel),
		done: map[digest.Digest]*once{}, children: map[digest.Digest][]Descriptor{},
		asked: map[digest.Digest]bool{}, Referrers: map[digest.Digest][]Descriptor{},
	}
}

// Copy copies what d names, and what is about it.
func (c *Copier) Copy(ctx context.Context, from Place, d Descriptor) error {
	if c.to.same(from) {
		return nil
	}
	return c.whole(ctx, from, d, 0)
}

// CopyContent copies what d names, and nothing that is about it: from is not asked what
// there is.
func (c *Copier) CopyContent(ctx context.Context, from Place, d Descriptor) error {
	if c.to.same(from) {
		return nil
	}
	return c.content(ctx, from, d, 0)
}

// whole copies d, and then what is about it and its parts.
func (c *Copier) whole(ctx context.Context, from Place, d Descriptor, depth int) error {
	if err := c.content(ctx, from, d, depth); err != nil {
		return err
	}
	for _, m := range c.manifests(d) {
		if !c.ask(m.Digest) {
			continue
		}
		all, err := from.Referrers(ctx, m.Digest)
		if err != nil {
			return err
		}
		for _, r := range all {
			if !travels(r) {
				continue
			}
			if err := c.whole(ctx, from, r, depth+1); err != nil {
				return fmt.Errorf("what is about %s: %w", m.Digest, err)
			}
			c.mu.Lock()
			c.Referrers[m.Digest] = append(c.Referrers[m.Digest], r)
			c.mu.Unlock()
		}
	}
	return nil
}

// ask tells whether nobody has asked yet what is about d.
func (c *Copier) ask(d digest.Digest) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	first := !c.asked[d]
	c.asked[d] = true
	return first
}

// manifests are d and all manifests below it, each once.
func (c *Copier) manifests(d Descriptor) []Descriptor {
	c.mu.Lock()
	defer c.mu.Unlock()
	all, seen := []Descriptor{d}, map[digest.Digest]bool{d.Digest: true}
	for i := 0; i < len(all); i++ {
		for _, child := range c.children[all[i].Digest] {
			if !seen[child.Digest] && isManifest(child) {
				seen[child.Digest] = true
				all = append(all, child)
			}
		}
	}
	return all
}

func isManifest(d Descriptor) bool {
	t := types.MediaType(d.MediaType)
	return t.IsImage() || t.IsIndex()
}

// content copies d and what it is made of. Since a digest cannot be in what it is the
// digest of, waiting for others that copy the same comes to an end.
func (c *Copier) content(ctx context.Context, from Place, d Descriptor, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("%s is %d levels deep in other manifests, which nobody needs", d.Digest, depth)
	}
	return c.once(ctx, d.Digest, func() error {
		switch t := types.MediaType(d.MediaType); {
		case t.IsIndex():
			return c.index(ctx, from, d, depth)
		case t.IsImage():
			return c.image(ctx, from, d)
		}
		return c.blob(ctx, from, d)
	})
}

// once does what is to be done for a digest, or waits for whoever does.
func (c *Copier) once(ctx context.Context, d digest.Digest, do func() error) error {
	c.mu.Lock()
	o := c.done[d]
	if o != nil {
		c.mu.Unlock()
		select {
		case <-o.ready:
			return o.err
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	o = &once{ready: make(chan struct{})}
	c.done[d] = o
	c.mu.Unlock()
	defer close(o.ready)
	o.err = do()
	return o.err
}

// index copies an index. Its parts are looked at even where it is there already: what
// is about them may be new.
func (c *Copier) index(ctx context.Context, from Place, d Descriptor, depth int) error {
	raw, err := from.Manifest(ctx, d)
	if err != nil {
		return err
	}
	var list struct {
		Manifests []Descriptor `json:"manifests"`
	}
	if err := json.Unmarshal(raw, &list); err != nil {
		return fmt.Errorf("the index %s cannot be read: %w", d.Digest, err)
	}
	c.mu.Lock()
	c.children[d.Digest] = list.Manifests
	n := len(c.done) + len(list.Manifests)
	c.mu.Unlock()
	if n > maxManifests {
		return fmt.Errorf("the image has more than %d manifests", maxManifests)
	}
	for _, child := range list.Manifests { // one after the other: they have blobs in common
		if err := c.content(ctx, from, child, depth+1); err != nil {
			return err
		}
	}
	return c.put(ctx, d, raw)
}

func (c *Copier) put(ctx context.Context, d Descriptor, raw []byte) error {
	has, err := c.to.hasManifest(ctx, d.Digest)
	if err != nil || has {
		return err
	}
	return c.to.putManifest(ctx, d, raw)
}

func (c *Copier) image(ctx context.Context, from Place, d Descriptor) error {
	has, err := c.to.hasManifest(ctx, d.Digest)
	if err != nil || has {
		return err
	}
	raw, err := from.Manifest(ctx, d)
	if err != nil {
		return err
	}
	var m struct {
		Config *Descriptor  `json:"config"`
		Layers []Descriptor `json:"layers"`
	}
	if err := json.Unmarshal(raw, &m); err != nil {
		return fmt.Errorf("the manifest %s cannot be read: %w", d.Digest, err)
	}
	parts := m.Layers
	if m.Config != nil && m.Config.Digest != "" {
		parts = append(parts, *m.Config)
	}
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	for _, part := range parts {
		if !types.MediaType(part.MediaType).IsDistributable() {
			continue // a layer that must be fetched from its owner
		}
		group.Go(func() error {
			return c.once(gctx, part.Digest, func() error { return c.blob(gctx, from, part) })
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return c.to.putManifest(ctx, d, raw)
}

func (c *Copier) blob(ctx context.Context, from Place, d Descriptor) error {
	select {
	case c.slots <- struct{}{}:
		defer func() { <-c.slots }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return c.to.putBlob(ctx, d, from, func(ctx context.Context) (io.ReadCloser, error) {
		body, err := from.open(ctx, d)
		if err != nil {
			return nil, err
		}
		return &counted{ReadCloser: body, report: c.report, at: Transfer{Digest: d.Digest, Total: d.Size}}, nil
	})
}

// counted reports what is read.
type counted struct {
	io.ReadCloser
	report func(Transfer)
	at     Transfer
}

// Read implements io.Reader.
func (c *counted) Read(buf []byte) (int, error) {
	n, err := c.ReadCloser.Read(buf)
	if n > 0 {
		c.at.Current += int64(n)
		c.report(c.at)
	}
	return n, err
}

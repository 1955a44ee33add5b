package history

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/state"
	"github.com/containerd/containerd/v2/core/images"
	controlapi "github.com/moby/buildkit/api/services/control"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// bounds are how much of a bundle is read.
type bounds struct {
	total   int64 // bytes, once unpacked
	blob    int64 // bytes of one blob
	entries int
	records int
}

func defaultBounds() bounds {
	return bounds{total: 4 << 30, blob: maxLog, entries: 100_000, records: 10_000}
}

// errNotBundle is a file that is none.
var errNotBundle = errors.New("this is no bundle of build records")

// unpacked is a bundle whose blobs lie in a folder, each what its digest says.
type unpacked struct {
	dir   string
	blobs map[digest.Digest]int64
	index []byte
	total int64 // bytes; archives can be sparse, and hold more than they have
}

// bundled is one record out of a bundle.
type bundled struct {
	bundledRecord
	config digest.Digest
	layers []ocispecs.Descriptor
}

// unpack reads a bundle into an empty folder. Nothing is written but there, under
// names that are digests.
func unpack(in io.Reader, dir string, limit bounds) (*unpacked, error) {
	plain, err := inflate(in)
	if err != nil {
		return nil, err
	}
	archive := tar.NewReader(&counted{from: plain, left: limit.total, limit: limit.total})
	u := &unpacked{dir: dir, blobs: map[digest.Digest]int64{}}
	for n := 0; ; n++ {
		h, err := archive.Next()
		switch {
		case errors.Is(err, io.EOF) && u.index == nil:
			return nil, fmt.Errorf("%w: it has no index.json", errNotBundle)
		case errors.Is(err, io.EOF):
			return u, nil
		case err != nil && n == 0:
			return nil, hint.Wrap(err, errNotBundle.Error(), "bundles are made with: berth history export -o FILE")
		case err != nil:
			return nil, hint.Wrap(err, "the bundle is damaged")
		case n == limit.entries:
			return nil, fmt.Errorf("the bundle has more than %d files", limit.entries)
		}
		if err := u.entry(h, archive, limit); err != nil {
			return nil, err
		}
	}
}

// inflate undoes the compression, where there is one.
func inflate(in io.Reader) (io.Reader, error) {
	buffered := bufio.NewReader(in)
	magic, err := buffered.Peek(2)
	switch {
	case err != nil && !errors.Is(err, io.EOF):
		return nil, err
	case len(magic) == 0:
		return nil, fmt.Errorf("%w: it is empty", errNotBundle)
	case bytes.Equal(magic, []byte{0x1f, 0x8b}):
		zip, err := gzip.NewReader(buffered)
		return zip, hint.Wrap(err, errNotBundle.Error())
	}
	return buffered, nil
}

// counted reads no more than what it may.
type counted struct {
	from        io.Reader
	left, limit int64
}

// Read implements io.Reader.
func (c *counted) Read(p []byte) (int, error) {
	if c.left <= 0 {
		return 0, fmt.Errorf("the bundle has more than %d bytes when unpacked", c.limit)
	}
	if int64(len(p)) > c.left {
		p = p[:c.left]
	}
	n, err := c.from.Read(p)
	c.left -= int64(n)
	return n, err
}

// entry reads one file of the archive.
func (u *unpacked) entry(h *tar.Header, from io.Reader, limit bounds) error {
	name := strings.TrimPrefix(h.Name, "./")
	if name != "" && !filepath.IsLocal(filepath.FromSlash(strings.TrimSuffix(name, "/"))) || strings.Contains(name, `\`) {
		return fmt.Errorf("the bundle has a file called %q, which lies outside of it", h.Name)
	}
	switch h.Typeflag {
	case tar.TypeDir:
		return nil
	case tar.TypeReg:
	default:
		return fmt.Errorf("the bundle has %q, which is no regular file", h.Name)
	}
	switch dir, base := path.Split(path.Clean(name)); {
	case dir == "blobs/sha256/":
		return u.blob(base, h.Size, from, limit)
	case name == ocispecs.ImageIndexFile:
		if h.Size > maxDocument {
			return fmt.Errorf("index.json has %d bytes; at most %d are read", h.Size, maxDocument)
		}
		data, err := io.ReadAll(io.LimitReader(from, maxDocument))
		u.index = data
		return err
	}
	return nil // of no interest, such as the version of the layout
}

func (u *unpacked) blob(name string, size int64, from io.Reader, limit bounds) (err error) {
	d := digest.NewDigestFromEncoded(digest.SHA256, name)
	if err := d.Validate(); err != nil {
		return fmt.Errorf("the bundle has a blob called %q: %w", name, err)
	}
	if size > limit.blob {
		return fmt.Errorf("blob %s has %d bytes; at most %d are read", d, size, limit.blob)
	}
	if u.total += size; u.total > limit.total {
		return fmt.Errorf("the bundle has more than %d bytes when unpacked", limit.total)
	}
	f, err := os.OpenFile(filepath.Join(u.dir, name), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	check := d.Verifier()
	n, err := io.Copy(io.MultiWriter(f, check), from)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	switch {
	case err != nil:
		return hint.Wrap(err, "blob "+d.String())
	case !check.Verified():
		return fmt.Errorf("blob %s has other content than its digest says", d)
	}
	u.blobs[d] = n
	return nil
}

// document reads a blob that is JSON.
func (u *unpacked) document(d ocispecs.Descriptor, into any) error {
	if err := u.check(d); err != nil {
		return err
	}
	if size := u.blobs[d.Digest]; size > maxDocument {
		return tooLarge(d, size, maxDocument)
	}
	data, err := os.ReadFile(filepath.Join(u.dir, d.Digest.Encoded()))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("blob %s: %w", d.Digest, err)
	}
	return nil
}

// check tells whether the bundle has what a descriptor names.
func (u *unpacked) check(d ocispecs.Descriptor) error {
	size, have := u.blobs[d.Digest]
	switch {
	case !have:
		return fmt.Errorf("the bundle lacks the blob %q, which it speaks of", d.Digest)
	case size != d.Size:
		return fmt.Errorf("blob %s has %d bytes; the bundle says %d", d.Digest, size, d.Size)
	}
	return nil
}

// records are those in the bundle, with all that hangs on them. What is listed more
// than once is read once.
func (u *unpacked) records(ctx context.Context, limit bounds) ([]bundled, error) {
	var top ocispecs.Index
	if err := json.Unmarshal(u.index, &top); err != nil {
		return nil, fmt.Errorf("index.json: %w", err)
	}
	manifests, err := u.manifests(ctx, top, limit)
	if err != nil {
		return nil, err
	}
	if len(manifests) == 0 {
		return nil, fmt.Errorf("%w: it has none", errNotBundle)
	}
	var all []bundled
	for _, d := range manifests {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		r, err := u.record(d)
		if err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	return all, nil
}

// manifests are those of the records, each once: what the bundle lists itself, or in
// an index.
func (u *unpacked) manifests(ctx context.Context, top ocispecs.Index, limit bounds) ([]ocispecs.Descriptor, error) {
	var all []ocispecs.Descriptor
	seen := map[digest.Digest]bool{}
	fresh := func(d ocispecs.Descriptor) bool {
		known := seen[d.Digest]
		seen[d.Digest] = true
		return !known
	}
	for _, d := range top.Manifests {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if !fresh(d) {
			continue
		}
		listed := []ocispecs.Descriptor{d}
		if images.IsIndexType(d.MediaType) {
			var inner ocispecs.Index
			if err := u.document(d, &inner); err != nil {
				return nil, err
			}
			listed = slices.DeleteFunc(inner.Manifests, func(d ocispecs.Descriptor) bool { return !fresh(d) })
		}
		if all = append(all, listed...); len(all) > limit.records {
			return nil, fmt.Errorf("the bundle has more than %d records", limit.records)
		}
	}
	return all, nil
}

func (u *unpacked) record(d ocispecs.Descriptor) (bundled, error) {
	var r bundled
	if !images.IsManifestType(d.MediaType) {
		return r, fmt.Errorf("%w: %s is of the type %q", errNotBundle, d.Digest, d.MediaType)
	}
	var m ocispecs.Manifest
	if err := u.document(d, &m); err != nil {
		return r, err
	}
	if m.Config.MediaType != recordType {
		return r, fmt.Errorf("%w: %s is of the type %q", errNotBundle, m.Config.Digest, m.Config.MediaType)
	}
	r.BuildHistoryRecord = &controlapi.BuildHistoryRecord{}
	if err := u.document(m.Config, &r.bundledRecord); err != nil {
		return r, err
	}
	if err := checkRecord(r.bundledRecord); err != nil {
		return r, err
	}
	for _, l := range m.Layers {
		if err := u.check(l); err != nil {
			return r, err
		}
	}
	r.config, r.layers = m.Config.Digest, m.Layers
	return r, nil
}

// checkRecord holds a record against what is relied on later.
func checkRecord(r bundledRecord) error {
	if r.BuildHistoryRecord == nil || r.CreatedAt == nil {
		return fmt.Errorf("%w: a record lacks its time", errNotBundle)
	}
	if _, err := state.ValidName(r.Ref); err != nil {
		return fmt.Errorf("the record's reference %q: %w", r.Ref, err)
	}
	if !r.CreatedAt.IsValid() || r.CompletedAt != nil && !r.CompletedAt.IsValid() {
		return fmt.Errorf("record %s has a time that is none", r.Ref)
	}
	return nil
}

package ocilayout

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/berthbuild/berth/internal/beneath"
	"github.com/google/go-containerregistry/pkg/v1/types"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// ErrMissing is the cause when a layout does not have what its index, or a manifest,
// names.
var ErrMissing = errors.New("it is not there")

func (l *Layout) wrong(d digest.Digest, err error) error {
	return fmt.Errorf("%s of the OCI layout %s: %w", d, l.dir, err)
}

// Document reads a manifest, an index or another document of at most limit bytes.
func (l *Layout) Document(d ocispecs.Descriptor, limit int64) ([]byte, error) {
	f, err := l.open(d.Digest)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // only read
	raw, err := io.ReadAll(io.LimitReader(f, limit+1))
	switch {
	case err != nil:
		return nil, l.wrong(d.Digest, err)
	case int64(len(raw)) > limit:
		return nil, l.wrong(d.Digest, fmt.Errorf("it has more than %d bytes, which is the limit for a document of its kind", limit))
	case d.Size > 0 && int64(len(raw)) != d.Size:
		return nil, l.wrong(d.Digest, fmt.Errorf("it has %d bytes where %d were announced", len(raw), d.Size))
	case d.Digest.Algorithm().FromBytes(raw) != d.Digest:
		return nil, l.wrong(d.Digest, errDamaged)
	}
	return raw, nil
}

var errDamaged = errors.New("it is damaged: its content has another digest")

func (l *Layout) open(d digest.Digest) (*os.File, error) {
	if err := d.Validate(); err != nil {
		return nil, fmt.Errorf("the OCI layout %s: the digest %q: %w", l.dir, d, err)
	}
	root, err := l.Open()
	if err != nil {
		return nil, err
	}
	defer root.Close() //nolint:errcheck // it was only read
	f, err := root.OpenFile(BlobPath(d), os.O_RDONLY|beneath.NonBlocking, 0)
	if errors.Is(err, fs.ErrNotExist) {
		err = ErrMissing
	}
	if err != nil {
		return nil, l.wrong(d, err)
	}
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		_ = f.Close()
		return nil, l.wrong(d, errors.Join(err, errors.New("it is no file")))
	}
	return f, nil
}

// Reader reads a blob. The last read fails when it was something else.
func (l *Layout) Reader(d ocispecs.Descriptor) (io.ReadCloser, error) {
	f, err := l.open(d.Digest)
	if err != nil {
		return nil, err
	}
	if fi, err := f.Stat(); err != nil || fi.Size() != d.Size {
		_ = f.Close()
		return nil, l.wrong(d.Digest, errors.Join(err, fmt.Errorf("it does not have the %d bytes that were announced", d.Size)))
	}
	return &checked{File: f, layout: l, digest: d.Digest, verifier: d.Digest.Verifier()}, nil
}

// checked is a file that is held against its digest.
type checked struct {
	*os.File
	layout   *Layout
	digest   digest.Digest
	verifier digest.Verifier
}

// Read implements io.Reader.
func (c *checked) Read(buf []byte) (int, error) {
	n, err := c.File.Read(buf)
	_, _ = c.verifier.Write(buf[:n]) // a hash takes everything
	if err == io.EOF && !c.verifier.Verified() {
		return 0, c.layout.wrong(c.digest, errDamaged)
	}
	return n, err
}

// WriteTo hides that of the file, which would pass the digest by.
func (c *checked) WriteTo(w io.Writer) (int64, error) {
	return io.Copy(w, struct{ io.Reader }{c})
}

const (
	// maxDepth bounds indexes in indexes, and maxVisited what one look takes in.
	maxDepth   = 8
	maxVisited = 10_000

	attestedDigest = "vnd.docker.reference.digest"
)

// Referrers lists what is about an image: what the index says so of, and what is
// reachable from it and says so itself.
func (l *Layout) Referrers(ctx context.Context, subject digest.Digest) ([]ocispecs.Descriptor, error) {
	index, err := l.Index()
	if errors.Is(err, fs.ErrNotExist) { // it is being written
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	w := walk{layout: l, seen: map[digest.Digest]bool{}}
	var found []ocispecs.Descriptor
	add := func(d ocispecs.Descriptor) {
		for _, f := range found {
			if f.Digest == d.Digest {
				return
			}
		}
		found = append(found, d)
	}
	for _, d := range index.Manifests {
		switch d.Annotations[subjectName] {
		case subject.String():
			add(d)
		case "":
			err := w.each(ctx, d, 0, func(d ocispecs.Descriptor, raw []byte) {
				if d.Annotations[attestedDigest] == subject.String() || about(raw) == subject {
					add(d)
				}
			})
			if err != nil {
				return nil, err
			}
		}
	}
	return found, nil
}

// about is the digest that a manifest says it is about.
func about(raw []byte) digest.Digest {
	var m struct {
		Subject *ocispecs.Descriptor `json:"subject"`
	}
	if !bytes.Contains(raw, []byte(`"subject"`)) || json.Unmarshal(raw, &m) != nil || m.Subject == nil {
		return ""
	}
	return m.Subject.Digest
}

// walk goes through indexes and manifests, each once.
type walk struct {
	layout *Layout
	seen   map[digest.Digest]bool
}

// each calls do for d and all below it, with its document. What is missing is passed
// over: a layout may hold some platforms only.
func (w *walk) each(ctx context.Context, d ocispecs.Descriptor, depth int, do func(ocispecs.Descriptor, []byte)) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if w.seen[d.Digest] {
		return nil
	}
	w.seen[d.Digest] = true
	if depth > maxDepth || len(w.seen) > maxVisited {
		return fmt.Errorf("the OCI layout %s has more indexes in each other than anybody needs", w.layout.dir)
	}
	kind := types.MediaType(d.MediaType)
	if !kind.IsImage() && !kind.IsIndex() {
		return nil
	}
	raw, err := w.layout.Document(d, MaxManifest)
	if errors.Is(err, ErrMissing) {
		return nil
	}
	if err != nil {
		return err
	}
	do(d, raw)
	if !kind.IsIndex() {
		return nil
	}
	var index ocispecs.Index
	if err := json.Unmarshal(raw, &index); err != nil {
		return w.layout.wrong(d.Digest, err)
	}
	for _, child := range index.Manifests {
		if err := w.each(ctx, child, depth+1, do); err != nil {
			return err
		}
	}
	return nil
}

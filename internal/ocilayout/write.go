package ocilayout

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	digest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthbuild/berth/internal/atomicfile"
)

// Has tells whether the layout has a blob.
func (l *Layout) Has(d digest.Digest) bool {
	if d.Validate() != nil {
		return false
	}
	fi, err := os.Stat(l.path(d))
	return err == nil && fi.Mode().IsRegular()
}

func (l *Layout) path(d digest.Digest) string {
	return filepath.Join(l.dir, filepath.FromSlash(BlobPath(d)))
}

// Put writes a blob, which appears whole or not at all. What is read must have its
// digest.
func (l *Layout) Put(d ocispecs.Descriptor, from io.Reader) error {
	if err := d.Digest.Validate(); err != nil {
		return err
	}
	path := l.path(d.Digest)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := atomicfile.Create(path, 0o444)
	if err != nil {
		return err
	}
	defer f.Abort() //nolint:errcheck // after Commit it does nothing
	verifier := d.Digest.Verifier()
	if _, err := io.Copy(f, io.TeeReader(from, verifier)); err != nil {
		return err
	}
	if !verifier.Verified() {
		return l.wrong(d.Digest, errors.New("what was to be written has another digest"))
	}
	return f.Commit()
}

// Entry is what Add puts into the index.
type Entry struct {
	Image ocispecs.Descriptor
	Tag   string // "" for none; whoever had it loses it
	// Referrers are what else has been written, by what it is about. Those that are
	// part of some image of the index need no entry.
	Referrers map[digest.Digest][]ocispecs.Descriptor
}

// Add puts an image whose blobs are there into the index. It waits for others that
// change the index.
func (l *Layout) Add(ctx context.Context, e Entry) error {
	unlock, err := Lock(ctx, l.dir, func(dir string) error { return os.MkdirAll(dir, 0o755) })
	if err != nil {
		return err
	}
	defer unlock()
	index, err := l.Index()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	index.SchemaVersion = 2
	if index.MediaType == "" {
		index.MediaType = ocispecs.MediaTypeImageIndex
	}
	index.Versioned = specs.Versioned{SchemaVersion: 2}
	place(&index, e.Image, e.Tag)
	if err := l.placeReferrers(ctx, &index, e.Referrers); err != nil {
		return err
	}
	return l.write(index)
}

// place adds an image under a tag.
func place(index *ocispecs.Index, d ocispecs.Descriptor, tag string) {
	d.Annotations = maps.Clone(d.Annotations)
	delete(d.Annotations, ocispecs.AnnotationRefName) // those of where it was
	delete(d.Annotations, ContainerdName)
	same := func(m ocispecs.Descriptor) bool {
		return m.Annotations[ocispecs.AnnotationRefName] == tag && m.Annotations[ContainerdName] == "" && m.Annotations[subjectName] == ""
	}
	if tag == "" {
		same = func(m ocispecs.Descriptor) bool { return m.Digest == d.Digest && len(tagsOf(m)) == 0 }
	} else {
		if d.Annotations == nil {
			d.Annotations = map[string]string{}
		}
		d.Annotations[ocispecs.AnnotationRefName] = tag
	}
	index.Manifests = append(slices.DeleteFunc(index.Manifests, same), d)
}

func (l *Layout) placeReferrers(ctx context.Context, index *ocispecs.Index, all map[digest.Digest][]ocispecs.Descriptor) error {
	if len(all) == 0 {
		return nil
	}
	reachable := map[digest.Digest]bool{}
	w := walk{layout: l, seen: reachable}
	for _, d := range index.Manifests {
		if d.Annotations[subjectName] != "" {
			continue
		}
		if err := w.each(ctx, d, 0, func(ocispecs.Descriptor, []byte) {}); err != nil {
			return err
		}
	}
	for _, subject := range slices.Sorted(maps.Keys(all)) {
		for _, d := range all[subject] {
			known := slices.ContainsFunc(index.Manifests, func(m ocispecs.Descriptor) bool {
				return m.Digest == d.Digest && m.Annotations[subjectName] == subject.String()
			})
			if reachable[d.Digest] || known {
				continue
			}
			d.Annotations = maps.Clone(d.Annotations)
			if d.Annotations == nil {
				d.Annotations = map[string]string{}
			}
			d.Annotations[subjectName] = subject.String()
			index.Manifests = append(index.Manifests, d)
		}
	}
	return nil
}

// write writes index.json, and the file that says what the folder is.
func (l *Layout) write(index ocispecs.Index) error {
	about, err := json.Marshal(ocispecs.ImageLayout{Version: ocispecs.ImageLayoutVersion})
	if err != nil {
		return err
	}
	raw, err := json.Marshal(index)
	if err != nil {
		return err
	}
	for _, file := range []struct {
		name string
		data []byte
	}{{ocispecs.ImageLayoutFile, about}, {ocispecs.ImageIndexFile, raw}} {
		f, err := atomicfile.Create(filepath.Join(l.dir, file.name), 0o644)
		if err != nil {
			return err
		}
		if _, err := f.Write(file.data); err != nil {
			return errors.Join(err, f.Abort())
		}
		if err := f.Commit(); err != nil {
			return err
		}
	}
	return nil
}

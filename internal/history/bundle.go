package history

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/berthbuild/berth/internal/state"
	"github.com/containerd/containerd/v2/core/content"
	controlapi "github.com/moby/buildkit/api/services/control"
	digest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/protobuf/proto"
)

// A bundle is a gzipped tar archive of an OCI layout. Each record is a manifest,
// whose config is the record in JSON and whose layers are what the record points
// to. One record is the layout's only entry; several are in an index that is.
const (
	recordType = "application/vnd.buildkit.historyrecord.v0"
	statusType = "application/vnd.buildkit.status.v0"
	traceType  = "application/vnd.buildkit.otlp.json.v0"
	errorType  = "application/vnd.googleapis.google.rpc.status+proto"

	jsonType      = "application/json" // a result, whose own type is beside it:
	annotatedType = "vnd.export-build.descriptor.mediatype"
	annotatedRef  = "vnd.buildkit.history.reference"
)

// bundledRecord is a record as a bundle has it.
type bundledRecord struct {
	*controlapi.BuildHistoryRecord
	DefaultPlatform string          `json:"DefaultPlatform,omitempty"`
	LocalState      *state.Ref      `json:"localState,omitempty"`
	StateGroup      *state.GroupRef `json:"stateGroup,omitempty"`
}

// Bundle collects records to be written as a bundle. What they point to is read
// when they are added, into a temporary folder. It must be closed.
type Bundle struct {
	dir       string
	blobs     map[digest.Digest]int64
	manifests []ocispecs.Descriptor
}

// NewBundle begins an empty one.
func NewBundle() (*Bundle, error) {
	dir, err := os.MkdirTemp("", "berth-bundle-")
	if err != nil {
		return nil, err
	}
	return &Bundle{dir: dir, blobs: map[digest.Digest]int64{}}, nil
}

// Close removes what was collected.
func (b *Bundle) Close() error { return os.RemoveAll(b.dir) }

// Len is how many records are in it.
func (b *Bundle) Len() int { return len(b.manifests) }

// Add reads all that a record points to. After an error the bundle is as before,
// but for blobs that nothing points to.
func (h *History) Add(ctx context.Context, b *Bundle, r *Record) error {
	r.Group = h.group(r)
	return r.explain(r.place.reading(ctx, r, func(ctx context.Context, from content.Provider) error { return b.add(ctx, from, r) }))
}

func (b *Bundle) add(ctx context.Context, from content.Provider, r *Record) error {
	manifest := ocispecs.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispecs.MediaTypeImageManifest, Layers: []ocispecs.Descriptor{}}
	layers, err := r.layers()
	if err != nil {
		return err
	}
	record := r.BuildHistoryRecord
	if r.GetTrace() != nil {
		if layers[0], err = b.trace(ctx, from, layers[0]); err != nil {
			return err
		}
		record = proto.CloneOf(record)
		record.Trace.Digest, record.Trace.Size = layers[0].Digest.String(), layers[0].Size
	}
	for _, l := range layers {
		if slices.ContainsFunc(manifest.Layers, func(o ocispecs.Descriptor) bool { return o.Digest == l.Digest }) {
			continue
		}
		if err := b.fetch(ctx, from, l); err != nil {
			return err
		}
		manifest.Layers = append(manifest.Layers, l)
	}
	platform := r.defaultPlatform
	if platform == "" {
		if platform, err = r.place.platform(ctx); err != nil {
			return err
		}
	}
	if manifest.Config, err = b.document(recordType, bundledRecord{record, platform, r.Local, r.Group}); err != nil {
		return err
	}
	desc, err := b.document(ocispecs.MediaTypeImageManifest, manifest)
	if err != nil {
		return err
	}
	desc.Annotations = map[string]string{annotatedRef: r.Ref}
	b.manifests = append(b.manifests, desc)
	return nil
}

// layers are what the record points to, as the layers of its manifest.
func (r *Record) layers() ([]ocispecs.Descriptor, error) {
	var all []ocispecs.Descriptor
	var failed error
	add := func(d *controlapi.Descriptor, change func(*ocispecs.Descriptor)) {
		if d == nil {
			return
		}
		desc, err := descriptor(d)
		if err != nil {
			failed = errors.Join(failed, err)
			return
		}
		if desc.Digest.Algorithm() != digest.SHA256 {
			failed = errors.Join(failed, fmt.Errorf("%s is no sha256", desc.Digest))
			return
		}
		if change != nil {
			change(&desc)
		}
		all = append(all, desc)
	}
	result := func(d *ocispecs.Descriptor) {
		d.Annotations = maps.Clone(d.Annotations)
		if d.Annotations == nil {
			d.Annotations = map[string]string{}
		}
		d.Annotations[annotatedType], d.MediaType = d.MediaType, jsonType
	}
	info := func(i *controlapi.BuildResultInfo) {
		for _, d := range i.GetAttestations() {
			add(d, nil)
		}
		for _, d := range results(i) {
			add(d, result)
		}
	}
	add(r.GetTrace(), nil)
	add(r.Logs, nil)
	add(r.ExternalError, nil)
	info(r.Result)
	for _, platform := range slices.Sorted(maps.Keys(r.Results)) {
		info(r.Results[platform])
	}
	return all, failed
}

// sizeLimit bounds a blob of a record by what it is.
func sizeLimit(mediaType string) int64 {
	switch mediaType {
	case statusType:
		return maxLog
	case traceType:
		return maxTrace
	}
	return maxAttachment
}

// fetch reads a blob into the folder.
func (b *Bundle) fetch(ctx context.Context, from content.Provider, d ocispecs.Descriptor) error {
	if _, have := b.blobs[d.Digest]; have {
		return nil
	}
	limit := sizeLimit(d.MediaType)
	if d.Size > limit || d.Size < 0 {
		return tooLarge(d, d.Size, limit)
	}
	ra, err := from.ReaderAt(ctx, ocispecs.Descriptor{Digest: d.Digest, Size: d.Size})
	if err != nil {
		return blobError(d, err)
	}
	defer ra.Close() //nolint:errcheck // only read
	if ra.Size() != d.Size {
		return fmt.Errorf("%s has %d bytes; its record says %d", d.Digest, ra.Size(), d.Size)
	}
	f, err := os.Create(b.path(d.Digest))
	if err != nil {
		return err
	}
	check := d.Digest.Verifier()
	_, err = io.Copy(io.MultiWriter(f, check), io.NewSectionReader(ra, 0, d.Size))
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	switch {
	case err != nil:
		return blobError(d, err)
	case !check.Verified():
		return fmt.Errorf("%s has other content than its digest says", d.Digest)
	}
	b.blobs[d.Digest] = d.Size
	return nil
}

// trace adds the trace in the form that bundles have, which lacks what a span says
// twice.
func (b *Bundle) trace(ctx context.Context, from content.Provider, d ocispecs.Descriptor) (ocispecs.Descriptor, error) {
	data, err := ReadBlob(ctx, from, ocispecs.Descriptor{Digest: d.Digest, Size: d.Size}, maxTrace)
	if err != nil {
		return d, err
	}
	if data, err = bundledTrace(data); err != nil {
		return d, err
	}
	d.Digest, d.Size = digest.FromBytes(data), int64(len(data))
	b.blobs[d.Digest] = d.Size
	return d, os.WriteFile(b.path(d.Digest), data, 0o600)
}

func (b *Bundle) path(d digest.Digest) string { return filepath.Join(b.dir, d.Encoded()) }

// document adds a value as a blob in JSON.
func (b *Bundle) document(mediaType string, v any) (ocispecs.Descriptor, error) {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return ocispecs.Descriptor{}, err
	}
	d := ocispecs.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	b.blobs[d.Digest] = d.Size
	return d, os.WriteFile(b.path(d.Digest), data, 0o600)
}

// Write writes the bundle. Its bytes depend on nothing but the records.
func (b *Bundle) Write(out io.Writer) error {
	if len(b.manifests) == 0 {
		return errors.New("there is no record to be written")
	}
	root := b.manifests[0]
	root.Annotations = nil
	if len(b.manifests) > 1 {
		var err error
		root, err = b.document(ocispecs.MediaTypeImageIndex, index(b.manifests...))
		if err != nil {
			return err
		}
	}
	zip := gzip.NewWriter(out)
	archive := tar.NewWriter(zip)
	if err := b.writeTo(archive, root); err != nil {
		return err
	}
	if err := archive.Close(); err != nil {
		return err
	}
	return zip.Close()
}

func index(manifests ...ocispecs.Descriptor) ocispecs.Index {
	return ocispecs.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispecs.MediaTypeImageIndex, Manifests: manifests}
}

func (b *Bundle) writeTo(archive *tar.Writer, root ocispecs.Descriptor) error {
	epoch := time.Unix(0, 0)
	for _, dir := range []string{"blobs/", "blobs/sha256/"} {
		if err := archive.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755, ModTime: epoch}); err != nil {
			return err
		}
	}
	for _, d := range slices.Sorted(maps.Keys(b.blobs)) {
		if err := b.writeBlob(archive, d, epoch); err != nil {
			return err
		}
	}
	for _, doc := range []struct {
		name string
		mode int64
		v    any
	}{
		{ocispecs.ImageIndexFile, 0o644, index(root)},
		{ocispecs.ImageLayoutFile, 0o444, ocispecs.ImageLayout{Version: ocispecs.ImageLayoutVersion}},
	} {
		data, err := json.Marshal(doc.v)
		if err != nil {
			return err
		}
		if err := archive.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: doc.name, Mode: doc.mode, Size: int64(len(data)), ModTime: epoch}); err != nil {
			return err
		}
		if _, err := archive.Write(data); err != nil {
			return err
		}
	}
	return nil
}

func (b *Bundle) writeBlob(archive *tar.Writer, d digest.Digest, at time.Time) error {
	f, err := os.Open(b.path(d))
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // only read
	if err := archive.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "blobs/sha256/" + d.Encoded(), Mode: 0o444, Size: b.blobs[d], ModTime: at}); err != nil {
		return err
	}
	_, err = io.Copy(archive, f)
	return err
}

package archives

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthbuild/berth/internal/imageindex"
)

const (
	// maxJSON bounds what is read whole: indexes, manifests, configurations.
	maxJSON = 16 << 20
	// maxEntries bounds how much is remembered of one archive.
	maxEntries = 1 << 20
	// imageName is the annotation with the whole name of an image.
	imageName = "io.containerd.image.name"
)

// OCI is several archives with OCI layouts: the same image for other platforms.
type OCI struct {
	Index ocispecs.Descriptor // of the joined image, with its annotations but without a name
	Names []string            // of the image

	blobs map[string]blob // by their names in the archive
	top   []byte          // the joined index
	list  []byte          // index.json
}

// blob is a file in a part.
type blob struct {
	part Part
	at   int64
	size int64
}

func (b blob) open() *io.SectionReader { return io.NewSectionReader(b.part.Data, b.at, b.size) }

func (b blob) read() ([]byte, error) {
	if b.size > maxJSON {
		return nil, fmt.Errorf("it has %d bytes where a document of at most %d was expected", b.size, maxJSON)
	}
	data := make([]byte, b.size)
	_, err := io.ReadFull(b.open(), data)
	return data, err
}

// OpenOCI reads the parts, holds every blob against its digest, and makes the index
// of the images in the order of the platforms.
func OpenOCI(parts []Part, platforms []ocispecs.Platform) (*OCI, error) {
	o := &OCI{blobs: map[string]blob{}}
	var nodes []imageindex.Local
	var lists []ocispecs.Index
	for _, p := range parts {
		files, err := p.files()
		if err != nil {
			return nil, p.wrong(err)
		}
		list, err := p.list(files)
		if err != nil {
			return nil, p.wrong(err)
		}
		top := list.Manifests[0]
		nodes = append(nodes, imageindex.Local{Node: p.Node, Top: top, Blob: func(d digest.Digest) ([]byte, error) {
			b, ok := files[blobName(d)]
			if !ok {
				return nil, fmt.Errorf("%s is missing", d)
			}
			return b.read()
		}})
		lists = append(lists, list)
		for name, b := range files {
			replaced := name == blobName(top.Digest) && types.MediaType(top.MediaType).IsIndex()
			if strings.HasPrefix(name, ocispecs.ImageBlobsDir+"/") && !replaced {
				o.blobs[name] = b
			}
		}
	}
	return o, o.join(nodes, lists, platforms)
}

func (o *OCI) join(nodes []imageindex.Local, lists []ocispecs.Index, platforms []ocispecs.Platform) error {
	raw, desc, err := imageindex.Join(nodes, platforms)
	if err != nil {
		return err
	}
	o.top, o.Index = raw, desc
	list := ocispecs.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispecs.MediaTypeImageIndex}
	for _, m := range lists[0].Manifests {
		d := desc
		d.Annotations = annotations(m.Annotations[imageName], lists)
		list.Manifests = append(list.Manifests, d)
		if name := d.Annotations[imageName]; name != "" {
			o.Names = append(o.Names, name)
		}
	}
	o.Index.Annotations = maps.Clone(list.Manifests[0].Annotations)
	maps.DeleteFunc(o.Index.Annotations, func(k, _ string) bool { return k == imageName || k == ocispecs.AnnotationRefName })
	o.list, err = json.Marshal(list)
	return err
}

// annotations are those on which the nodes agree for an image name. It was made when
// the last of them made it.
func annotations(name string, lists []ocispecs.Index) map[string]string {
	var out map[string]string
	created := ""
	for i, list := range lists {
		var own map[string]string
		for _, m := range list.Manifests {
			if m.Annotations[imageName] == name {
				own = m.Annotations
			}
		}
		created = max(created, own[ocispecs.AnnotationCreated]) // RFC 3339 in UTC
		if i == 0 {
			out = maps.Clone(own)
		}
		maps.DeleteFunc(out, func(k, v string) bool { return own[k] != v })
	}
	if created != "" && out != nil {
		out[ocispecs.AnnotationCreated] = created
	}
	return out
}

// list reads index.json: one image, once for each of its names.
func (p Part) list(files map[string]blob) (ocispecs.Index, error) {
	var list ocispecs.Index
	b, ok := files[ocispecs.ImageIndexFile]
	if !ok {
		return list, errors.New("it has no " + ocispecs.ImageIndexFile)
	}
	raw, err := b.read()
	if err != nil {
		return list, err
	}
	if err := json.Unmarshal(raw, &list); err != nil {
		return list, fmt.Errorf("its %s cannot be read: %w", ocispecs.ImageIndexFile, err)
	}
	if len(list.Manifests) == 0 {
		return list, errors.New("it has no image")
	}
	for _, m := range list.Manifests {
		if m.Digest != list.Manifests[0].Digest {
			return list, errors.New("it has several images")
		}
	}
	return list, list.Manifests[0].Digest.Validate()
}

// files finds what is in an archive, and nothing that is no part of a layout. What
// is called a blob has the digest that it is called by.
func (p Part) files() (map[string]blob, error) {
	files := map[string]blob{}
	r, at := p.reader()
	for {
		h, err := r.Next()
		if err == io.EOF {
			return files, nil
		}
		if err != nil {
			return nil, err
		}
		name := path.Clean(h.Name)
		switch {
		case h.Typeflag == tar.TypeDir:
			continue
		case h.Typeflag != tar.TypeReg || isSparse(h):
			return nil, fmt.Errorf("%q is no plain file", h.Name)
		case len(files) == maxEntries:
			return nil, fmt.Errorf("it has more than %d files", maxEntries)
		}
		if _, twice := files[name]; twice {
			return nil, fmt.Errorf("it has %q twice", h.Name)
		}
		files[name] = blob{part: p, at: at(), size: h.Size}
		if err := checkEntry(name, r); err != nil {
			return nil, err
		}
	}
}

// isSparse says that the data in the archive are not those of the file.
func isSparse(h *tar.Header) bool {
	if h.Typeflag == tar.TypeGNUSparse {
		return true
	}
	for k := range h.PAXRecords {
		if strings.HasPrefix(k, "GNU.sparse.") {
			return true
		}
	}
	return false
}

// checkEntry refuses what has no place in a layout, and a blob that is another.
func checkEntry(name string, r io.Reader) error {
	switch name {
	case ocispecs.ImageLayoutFile, ocispecs.ImageIndexFile, "manifest.json":
		return nil
	}
	rest, ok := strings.CutPrefix(name, ocispecs.ImageBlobsDir+"/")
	algorithm, hex, two := strings.Cut(rest, "/")
	want := digest.NewDigestFromEncoded(digest.Algorithm(algorithm), hex)
	if !ok || !two || want.Validate() != nil {
		return fmt.Errorf("%q is no part of an OCI layout", name)
	}
	verifier := want.Verifier()
	if _, err := io.Copy(verifier, r); err != nil {
		return err
	}
	if !verifier.Verified() {
		return fmt.Errorf("%s is not what its name says", name)
	}
	return nil
}

func blobName(d digest.Digest) string {
	return path.Join(ocispecs.ImageBlobsDir, d.Algorithm().String(), d.Encoded())
}

// Write writes the one archive.
func (o *OCI) Write(w io.Writer) error {
	layout, err := json.Marshal(ocispecs.ImageLayout{Version: ocispecs.ImageLayoutVersion})
	if err != nil {
		return err
	}
	type entry struct {
		mode int64
		size int64
		data io.Reader // nil for a folder
	}
	text := func(mode int64, b []byte) entry { return entry{mode, int64(len(b)), bytes.NewReader(b)} }
	all := map[string]entry{
		ocispecs.ImageLayoutFile:                 text(0o444, layout),
		ocispecs.ImageIndexFile:                  text(0o644, o.list),
		blobName(o.Index.Digest):                 text(0o444, o.top),
		ocispecs.ImageBlobsDir + "/":             {mode: 0o755},
		path.Dir(blobName(o.Index.Digest)) + "/": {mode: 0o755},
	}
	for name, b := range o.blobs {
		all[name] = entry{0o444, b.size, b.open()}
		all[path.Dir(name)+"/"] = entry{mode: 0o755}
	}
	out := tar.NewWriter(w)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		e := all[name]
		h := &tar.Header{Name: name, Mode: e.mode, Size: e.size, Typeflag: tar.TypeReg}
		if e.data == nil {
			h.Typeflag = tar.TypeDir
		}
		if err := out.WriteHeader(h); err != nil {
			return err
		}
		if e.data != nil {
			if _, err := io.Copy(out, e.data); err != nil {
				return err
			}
		}
	}
	return out.Close()
}

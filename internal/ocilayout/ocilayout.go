// Package ocilayout reads and writes folders with an OCI image layout: blobs by
// their digests, and an index.json with the images and their tags.
//
// It is not for archives of layouts (internal/archives), nor for what is in an
// image.
//
// Rules: nothing is written into a folder that is only read, not even a lock. What is
// read is bounded and held against its digest. Blobs and the index appear whole or
// not at all, the index last and under the lock that BuildKit's own tools use.
package ocilayout

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/berthbuild/berth/internal/beneath"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthbuild/berth/internal/hint"
)

// MaxManifest bounds an index and a manifest, as BuildKit does.
const MaxManifest = 4 << 20

// ContainerdName is where BuildKit and containerd write an image's full name.
const ContainerdName = "io.containerd.image.name"

// subjectName is where containerd writes what an entry of the index is about.
const subjectName = "io.containerd.manifest.subject"

// Layout is one folder. It holds no open files, and can be used by several
// goroutines.
type Layout struct{ dir string }

// At is the layout in a folder. Nothing is touched before it is used.
func At(dir string) *Layout { return &Layout{dir: dir} }

// Dir is the folder.
func (l *Layout) Dir() string { return l.dir }

// Open opens the folder. The caller closes it.
func (l *Layout) Open() (*os.Root, error) {
	switch fi, err := os.Stat(l.dir); {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("OCI layout: no such folder: %s%w", l.dir, hint.Quietly(err))
	case err != nil:
		return nil, hint.Wrap(err, "OCI layout")
	case !fi.IsDir():
		return nil, hint.New(fmt.Sprintf("OCI layout: %s is not a directory", l.dir), "unpack it: tar -x -f FILE -C FOLDER")
	}
	return os.OpenRoot(l.dir)
}

// Index reads index.json.
func (l *Layout) Index() (ocispecs.Index, error) {
	var index ocispecs.Index
	root, err := l.Open()
	if err != nil {
		return index, err
	}
	defer root.Close() //nolint:errcheck // it was only read
	data, err := ReadSmall(root, ocispecs.ImageIndexFile)
	if errors.Is(err, fs.ErrNotExist) {
		return index, hint.Wrap(fmt.Errorf("%s is no OCI layout: it has no %s%w", l.dir, ocispecs.ImageIndexFile, hint.Quietly(err)), "",
			"make one: berth build -o type=oci,tar=false,dest=FOLDER …")
	}
	if err == nil {
		err = json.Unmarshal(data, &index)
	}
	return index, hint.Wrap(err, fmt.Sprintf("%s of the OCI layout %s", ocispecs.ImageIndexFile, l.dir))
}

// Find looks up the image that has a tag. Without a tag it is the latest, or the only
// one.
func (l *Layout) Find(tag string) (ocispecs.Descriptor, error) {
	index, err := l.Index()
	if err != nil {
		return ocispecs.Descriptor{}, err
	}
	d, err := pickImage(index.Manifests, tag)
	if err == nil {
		err = d.Digest.Validate()
	}
	return d, hint.Wrap(err, "OCI layout "+l.dir, "name one: oci-layout://FOLDER:TAG or oci-layout://FOLDER@DIGEST")
}

func pickImage(all []ocispecs.Descriptor, tag string) (ocispecs.Descriptor, error) {
	var found []ocispecs.Descriptor
	var names []string
	for _, m := range all {
		if m.Annotations[subjectName] != "" { // it is there for the sake of another
			continue
		}
		tags := tagsOf(m)
		names = append(names, tags...)
		if slices.Contains(tags, cmp.Or(tag, "latest")) && !slices.ContainsFunc(found, func(f ocispecs.Descriptor) bool { return f.Digest == m.Digest }) {
			found = append(found, m)
		}
	}
	if len(found) == 0 && len(all) == 1 && (tag == "" || tag == "latest" && len(names) == 0) {
		found = append(found, all[0])
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return ocispecs.Descriptor{}, fmt.Errorf("several images have the tag %q: %s", cmp.Or(tag, "latest"), strings.Join(digestsOf(found), ", "))
	case len(all) == 0:
		return ocispecs.Descriptor{}, errors.New("it has no images")
	case len(names) == 0:
		names = digestsOf(all)
	}
	return ocispecs.Descriptor{}, fmt.Errorf("no image has the tag %q; there are %s", cmp.Or(tag, "latest"), strings.Join(names, ", "))
}

func digestsOf(all []ocispecs.Descriptor) []string {
	var out []string
	for _, d := range all {
		out = append(out, d.Digest.String())
	}
	return out
}

// tagsOf are the tags that the index gives an image, by itself or as the end of
// a full name.
func tagsOf(m ocispecs.Descriptor) []string {
	var tags []string
	for _, key := range []string{ocispecs.AnnotationRefName, ContainerdName} {
		name := m.Annotations[key]
		if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
			name = name[i+1:]
		} else if key == ContainerdName {
			continue // a name without a tag
		}
		if name != "" && !slices.Contains(tags, name) {
			tags = append(tags, name)
		}
	}
	return tags
}

// ReadSmall reads a document in an opened layout.
func ReadSmall(root *os.Root, name string) ([]byte, error) {
	f, err := root.OpenFile(name, os.O_RDONLY|beneath.NonBlocking, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // it was only read
	data, err := io.ReadAll(io.LimitReader(f, MaxManifest+1))
	if err == nil && len(data) > MaxManifest {
		err = fmt.Errorf("%s is larger than %d MiB", name, MaxManifest>>20)
	}
	return data, err
}

// BlobPath is where a layout keeps content; the digest has been validated.
func BlobPath(d digest.Digest) string {
	return path.Join(ocispecs.ImageBlobsDir, d.Algorithm().String(), d.Encoded())
}

package build

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/berthbuild/berth/internal/buildflag"
	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/ocilayout"
	"github.com/berthbuild/berth/internal/request"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// layoutFolder is an OCI layout in the making.
type layoutFolder struct {
	t   *testing.T
	dir string
}

func newLayout(t *testing.T) *layoutFolder {
	t.Helper()
	l := &layoutFolder{t, tree(t, nil)}
	put(t, filepath.Join(l.dir, "oci-layout"), `{"imageLayoutVersion":"1.0.0"}`)
	return l
}

func (l *layoutFolder) blob(content string) ocispecs.Descriptor {
	l.t.Helper()
	d := digest.FromString(content)
	put(l.t, l.path(d), content)
	return ocispecs.Descriptor{Digest: d, Size: int64(len(content))}
}

func (l *layoutFolder) path(d digest.Digest) string {
	return filepath.Join(l.dir, filepath.FromSlash(ocilayout.BlobPath(d)))
}

func (l *layoutFolder) json(v any) ocispecs.Descriptor {
	l.t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		l.t.Fatal(err)
	}
	return l.blob(string(data))
}

// image is a manifest with a config and one layer, which is named by its text.
func (l *layoutFolder) image(layer string) ocispecs.Descriptor {
	l.t.Helper()
	return l.json(ocispecs.Manifest{MediaType: ocispecs.MediaTypeImageManifest,
		Config: l.json(map[string]string{"of": layer}), Layers: []ocispecs.Descriptor{l.blob(layer)}})
}

// index writes index.json; each image has the annotations that stand after it.
func (l *layoutFolder) index(all ...ocispecs.Descriptor) {
	l.t.Helper()
	data, err := json.Marshal(ocispecs.Index{Manifests: all})
	if err != nil {
		l.t.Fatal(err)
	}
	put(l.t, filepath.Join(l.dir, "index.json"), string(data))
}

func named(d ocispecs.Descriptor, annotations ...string) ocispecs.Descriptor {
	d.Annotations = map[string]string{}
	for i := 0; i < len(annotations); i += 2 {
		d.Annotations[annotations[i]] = annotations[i+1]
	}
	return d
}

const refName = ocispecs.AnnotationRefName

func TestFindInLayout(t *testing.T) {
	l := newLayout(t)
	a, b := l.image("a"), l.image("b")
	for _, c := range []struct {
		name  string
		index []ocispecs.Descriptor
		tag   string
		want  ocispecs.Descriptor
		err   string
	}{
		{"the only one", []ocispecs.Descriptor{a}, "", a, ""},
		{"the only one, with a tag", []ocispecs.Descriptor{named(a, refName, "v1")}, "", a, ""},
		{"the only one has no tag", []ocispecs.Descriptor{a}, "latest", a, ""},
		{"the only one is another", []ocispecs.Descriptor{named(a, refName, "v1")}, "v2", a, `no image has the tag "v2"; there are v1`},
		{"the only one is not the latest", []ocispecs.Descriptor{named(a, refName, "v1")}, "latest", a, `no image has the tag "latest"; there are v1`},
		{"by tag", []ocispecs.Descriptor{named(a, refName, "v1"), named(b, refName, "v2")}, "v2", b, ""},
		{"latest", []ocispecs.Descriptor{named(a, refName, "v1"), named(b, refName, "latest")}, "", b, ""},
		{"no latest", []ocispecs.Descriptor{named(a, refName, "v1"), named(b, refName, "v2")}, "", b, "there are v1, v2"},
		{"full name", []ocispecs.Descriptor{named(a, refName, "h:5000/x:v1"), b}, "v1", a, ""},
		{"full name without a tag", []ocispecs.Descriptor{named(a, ocilayout.ContainerdName, "h:5000/x"), b}, "x", a, "there are "},
		{"containerd's name", []ocispecs.Descriptor{named(a, ocilayout.ContainerdName, "docker.io/x:v1"), b}, "v1", a, ""},
		{"both", []ocispecs.Descriptor{named(a, refName, "v1", ocilayout.ContainerdName, "docker.io/x:v1"), b}, "v1", a, ""},
		{"twice the same", []ocispecs.Descriptor{named(a, refName, "v1"), named(a, refName, "v1")}, "v1", a, ""},
		{"ambiguous", []ocispecs.Descriptor{named(a, refName, "v1"), named(b, refName, "v1")}, "v1", a, "several images have the tag"},
		{"untagged", []ocispecs.Descriptor{a, b}, "", a, a.Digest.String() + ", " + b.Digest.String()},
		{"none", nil, "", a, "it has no images"},
		{"bad digest", []ocispecs.Descriptor{{Digest: "sha256:../../x"}}, "", a, "invalid checksum digest"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l.index(c.index...)
			got, err := findInLayout(buildflag.NamedContext{Value: l.dir, Tag: c.tag})
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("%v, wanted %q", err, c.err)
				}
				return
			}
			if err != nil || got != c.want.Digest {
				t.Errorf("%s, %v", got, err)
			}
		})
	}
	for what, content := range map[string]string{"no JSON": "{", "too large": strings.Repeat(" ", ocilayout.MaxManifest+1)} {
		put(t, filepath.Join(l.dir, "index.json"), content)
		if _, err := findInLayout(buildflag.NamedContext{Value: l.dir}); err == nil || !strings.Contains(err.Error(), "index.json of the OCI layout "+l.dir) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if entries := names(t, l.dir); len(entries) != 3 {
		t.Errorf("something was written: %q", entries)
	}
}

func TestOpenLayout(t *testing.T) {
	l := newLayout(t)
	amd, arm, other := l.image("amd"), l.image("arm"), l.image("other")
	absent := ocispecs.Descriptor{Digest: digest.FromString("absent")}
	index := l.json(ocispecs.Index{Manifests: []ocispecs.Descriptor{amd, arm, absent, {Digest: "sha256:/etc/passwd"}}})
	store, err := openLayout(buildflag.NamedContext{Value: l.dir, Digest: index.Digest.String()})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	for _, d := range []digest.Digest{index.Digest, amd.Digest, digest.FromString("amd"), digest.FromString("arm")} {
		if info, err := store.Info(t.Context(), d); err != nil || info.Digest != d || info.Size == 0 {
			t.Errorf("%s: %+v, %v", d, info, err)
		}
	}
	r, err := store.ReaderAt(t.Context(), ocispecs.Descriptor{Digest: digest.FromString("arm")})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	text := make([]byte, r.Size())
	if _, err := r.ReadAt(text, 0); err != nil || string(text) != "arm" {
		t.Errorf("%q, %v", text, err)
	}
	for _, d := range []digest.Digest{other.Digest, digest.FromString("other"), absent.Digest, "", "sha256:/etc/passwd", "../index.json"} {
		if _, err := store.Info(t.Context(), d); err == nil {
			t.Errorf("%q is told of", d)
		}
		if _, err := store.ReaderAt(t.Context(), ocispecs.Descriptor{Digest: d}); err == nil {
			t.Errorf("%q is given", d)
		}
	}

	damaged := l.image("damaged")
	put(t, l.path(damaged.Digest), "{}")
	text2 := l.blob("text")
	for want, dgst := range map[string]string{
		"has no image " + absent.Digest.String():      absent.Digest.String(),
		"is damaged":                                  damaged.Digest.String(),
		"is neither an image's manifest nor an index": text2.Digest.String(),
		"digest \"sha256:..\"":                        "sha256:..",
	} {
		_, err := openLayout(buildflag.NamedContext{Value: l.dir, Digest: dgst})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", want, err)
		}
	}
	if _, err := openLayout(buildflag.NamedContext{Value: filepath.Join(l.dir, "nosuch"), Digest: index.Digest.String()}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no folder: %v", err)
	}
	if _, err := openLayout(buildflag.NamedContext{Value: filepath.Join(l.dir, "oci-layout"), Digest: index.Digest.String()}); err == nil || len(hint.Of(err)) == 0 {
		t.Errorf("a file: %v", err)
	}
}

// An index that goes round in circles cannot be made, since each names the
// digest of the next; one that is very large can.
func TestLayoutIsBounded(t *testing.T) {
	l := newLayout(t)
	var many []ocispecs.Descriptor
	for range maxImages + 1 {
		many = append(many, ocispecs.Descriptor{Digest: digest.FromString("x")})
	}
	index := l.json(ocispecs.Index{Manifests: many})
	if _, err := openLayout(buildflag.NamedContext{Value: l.dir, Digest: index.Digest.String()}); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Error(err)
	}
}

// A blob that is a link out of the layout is not followed.
func TestLayoutLinks(t *testing.T) {
	l := newLayout(t)
	secret := filepath.Join(tree(t, map[string]string{"secret": "secret"}), "secret")
	image := l.image("layer")
	layer := l.path(digest.FromString("layer"))
	if err := os.Remove(layer); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(secret, layer); err != nil {
		t.Skip(err)
	}
	store, err := openLayout(buildflag.NamedContext{Value: l.dir, Digest: image.Digest.String()})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	if info, err := store.Info(t.Context(), digest.FromString("layer")); err == nil {
		t.Errorf("%+v", info)
	}
	if _, err := store.ReaderAt(t.Context(), ocispecs.Descriptor{Digest: digest.FromString("layer")}); err == nil {
		t.Error("it was opened")
	}
}

func TestFindLayouts(t *testing.T) {
	l := newLayout(t)
	a := l.image("a")
	l.index(named(a, refName, "v1"))
	r := request.Request{Contexts: []buildflag.NamedContext{
		{Name: "folder", Value: "/x"},
		{Name: "tagged", Kind: buildflag.ContextLayout, Value: l.dir, Tag: "v1"},
		{Name: "fixed", Kind: buildflag.ContextLayout, Value: "/nosuch", Digest: "sha256:x"},
	}}
	got, err := findLayouts(r)
	if err != nil || got.Contexts[1].Digest != a.Digest.String() || got.Contexts[2].Digest != "sha256:x" || r.Contexts[1].Digest != "" {
		t.Errorf("%+v, %v", got.Contexts, err)
	}
	r.Contexts[1].Tag = "v2"
	if _, err := findLayouts(r); err == nil || !strings.Contains(err.Error(), `build context "tagged": OCI layout `+l.dir) {
		t.Error(err)
	}
}

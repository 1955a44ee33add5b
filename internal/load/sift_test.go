package load

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

func writer(t *testing.T, s *Sift, ref string, d digest.Digest, size int64) content.Writer {
	t.Helper()
	w, err := s.Writer(t.Context(), content.WithRef(ref), content.WithDescriptor(ocispecs.Descriptor{Digest: d, Size: size}))
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func TestSift(t *testing.T) {
	var told []digest.Digest
	s := newSift(func(_ context.Context, d digest.Digest, _ []byte) { told = append(told, d) })
	if _, err := s.root(); err == nil || !strings.Contains(err.Error(), "sent no image") {
		t.Errorf("error = %v", err)
	}
	d := &fakeDaemon{}
	m := d.make1("a")
	if err := m.export(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	if got, err := s.root(); err != nil || got != m.root || len(told) != 1 || told[0] != m.root {
		t.Errorf("root %s, %v; told %v", got, err, told)
	}
	if _, err := s.Writer(t.Context(), content.WithRef("config-x"), content.WithDescriptor(ocispecs.Descriptor{Digest: m.config})); !errdefs.IsAlreadyExists(err) {
		t.Errorf("a second time: %v", err)
	}
	if info, err := s.Info(t.Context(), m.config); err != nil || info.Size == 0 {
		t.Errorf("info %+v, %v", info, err)
	}
}

// A daemon is not trusted: what is not what it is called is refused, and so is
// more than fits.
func TestSiftRefuses(t *testing.T) {
	s := newSift(nil)
	w := writer(t, s, "config-x", digest.FromString("x"), 1)
	if _, err := w.Write([]byte("y")); err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(t.Context(), 1, digest.FromString("x")); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("another digest: %v", err)
	}
	if err := w.Commit(t.Context(), 2, digest.FromString("y")); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("another size: %v", err)
	}
	if err := w.Truncate(5); err == nil {
		t.Error("it was made longer")
	}
	if err := w.Truncate(0); err != nil || w.Digest() != digest.FromString("") {
		t.Error(err)
	}
	if err := w.Truncate(1); err == nil {
		t.Error("half of it was taken back")
	}
}

// Documents that are too many do not fail the build: the image comes whole then.
func TestSiftOverflows(t *testing.T) {
	s := newSift(func(context.Context, digest.Digest, []byte) { t.Error("a manifest is of use") })
	d := &fakeDaemon{}
	m := d.make1("a")
	big := writer(t, s, "unknown-x", "", 0)
	for range maxSifted>>20 + 1 {
		if _, err := big.Write(make([]byte, 1<<20)); err != nil {
			t.Fatal(err)
		}
	}
	if err := big.Commit(t.Context(), maxSifted+1<<20, big.Digest()); err != nil {
		t.Error(err)
	}
	if err := m.export(t.Context(), s); err != nil {
		t.Error(err)
	}
	var unreadable *Unreadable
	if _, err := s.root(); !errors.As(err, &unreadable) || unreadable.Gone() || !strings.Contains(err.Error(), "64 MiB") || len(s.docs) > 0 {
		t.Errorf("error = %v, %d documents are kept", err, len(s.docs))
	}
}

func TestParcelRefuses(t *testing.T) {
	docs := map[digest.Digest][]byte{}
	put := func(v any) digest.Digest {
		raw, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		d := digest.FromBytes(raw)
		docs[d] = raw
		return d
	}
	find := func(d digest.Digest) ([]byte, *Source, error) {
		raw, ok := docs[d]
		if !ok {
			return nil, nil, notFound(d.String())
		}
		return raw, nil, nil
	}
	desc := func(kind string, d digest.Digest) ocispecs.Descriptor {
		return ocispecs.Descriptor{MediaType: kind, Digest: d, Size: 1}
	}
	config := put(ocispecs.Image{RootFS: ocispecs.RootFS{DiffIDs: []digest.Digest{"bad"}}})
	for name, root := range map[string]digest.Digest{
		"nothing":   digest.FromString("nothing"),
		"no JSON":   put("text"),
		"no config": put(ocispecs.Manifest{Config: desc("", digest.FromString("none"))}),
		"layers":    put(ocispecs.Manifest{Config: desc("", config)}),
		"digests":   put(ocispecs.Manifest{Config: desc("", config), Layers: []ocispecs.Descriptor{desc("", "worse")}}),
		"nested":    put(ocispecs.Index{MediaType: ocispecs.MediaTypeImageIndex, Manifests: []ocispecs.Descriptor{desc(ocispecs.MediaTypeImageIndex, config)}}),
		"a child":   put(ocispecs.Index{MediaType: ocispecs.MediaTypeImageIndex, Manifests: []ocispecs.Descriptor{desc(ocispecs.MediaTypeImageManifest, digest.FromString("none"))}}),
	} {
		if i, err := imageParts(root, find); err == nil {
			t.Errorf("%s: %+v", name, i)
		}
	}
}

func FuzzMemory(f *testing.F) {
	good, _ := json.Marshal(memoryFile{memoryVersion, []remembered{{digest.FromString("a"), []digest.Digest{digest.FromString("b")}}}})
	for _, s := range []string{"", "{}", "null", `{"version":1}`, `{"version":1,"images":[{"root":"x"}]}`, string(good), `{"version":1,"images":null}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		images := parseMemory(bytes.NewReader(b))
		if len(images) > maxRemembered {
			t.Error("too many")
		}
		for _, i := range images {
			if i.Root.Validate() != nil || len(i.Layers) > maxLayersOf {
				t.Errorf("%+v", i)
			}
		}
	})
}

package ocilayout

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func put(t *testing.T, l *Layout, mediaType, text string) ocispecs.Descriptor {
	t.Helper()
	d := ocispecs.Descriptor{MediaType: mediaType, Digest: digest.FromString(text), Size: int64(len(text))}
	check(t, l.Put(d, strings.NewReader(text)))
	return d
}

func TestPutAndRead(t *testing.T) {
	l := At(filepath.Join(t.TempDir(), "new", "layout"))
	for _, text := range []string{"hello", ""} {
		d := put(t, l, "x", text)
		r, err := l.Reader(d)
		check(t, err)
		var b bytes.Buffer
		_, err = io.Copy(&b, r)
		if err != nil || b.String() != text || !l.Has(d.Digest) {
			t.Errorf("%q, %v", b.String(), err)
		}
		check(t, r.Close())
		if raw, err := l.Document(d, 10); err != nil || string(raw) != text {
			t.Errorf("%q, %v", raw, err)
		}
	}
	wrong := ocispecs.Descriptor{Digest: digest.FromString("a"), Size: 1}
	if err := l.Put(wrong, strings.NewReader("b")); err == nil || l.Has(wrong.Digest) {
		t.Errorf("other content was written: %v", err)
	}
	broken := errors.New("broken")
	if err := l.Put(wrong, io.MultiReader(strings.NewReader("a"), failing{broken})); !errors.Is(err, broken) || l.Has(wrong.Digest) {
		t.Errorf("half of it was written: %v", err)
	}
	entries, err := os.ReadDir(filepath.Join(l.Dir(), "blobs", "sha256"))
	if err != nil || len(entries) != 2 {
		t.Errorf("%v, %v", entries, err)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// What is damaged, missing, too long or no file is an error that names the layout.
func TestDamaged(t *testing.T) {
	l := At(t.TempDir())
	d := put(t, l, "x", "hello")
	path := l.path(d.Digest)
	set := func(text string) {
		t.Helper()
		check(t, os.Remove(path))
		check(t, os.WriteFile(path, []byte(text), 0o600))
	}
	wrong := func(what, says string, limit int64) {
		t.Helper()
		if _, err := l.Document(d, limit); err == nil || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), l.Dir()) {
			t.Errorf("%s: %v", what, err)
		}
	}
	wrong("too long", "more than 4 bytes", 4)
	set("hellO")
	wrong("damaged", "another digest", 10)
	if r, err := l.Reader(d); err != nil {
		t.Error(err)
	} else {
		if _, err := io.Copy(io.Discard, r); !errors.Is(err, errDamaged) {
			t.Errorf("damaged: %v", err)
		}
		check(t, r.Close())
	}
	set("hell")
	wrong("short", "4 bytes where 5 were announced", 10)
	if _, err := l.Reader(d); err == nil {
		t.Error("short: it was opened")
	}
	check(t, os.Remove(path))
	wrong("missing", "it is not there", 10)
	check(t, os.Mkdir(path, 0o700))
	wrong("a folder", "it is no file", 10)
	d.Digest = "sha256:../../../../etc/passwd"
	wrong("no digest", "invalid checksum digest", 10)
	if _, err := At(filepath.Join(t.TempDir(), "nosuch")).Index(); err == nil || !strings.Contains(err.Error(), "no such folder") {
		t.Error(err)
	}
	if _, err := At(t.TempDir()).Index(); err == nil || !strings.Contains(err.Error(), "is no OCI layout") {
		t.Error(err)
	}
}

// A tag moves, other images stay, and what is about an image is found again.
func TestAdd(t *testing.T) {
	l := At(t.TempDir())
	a := put(t, l, ocispecs.MediaTypeImageManifest, `{"a":1}`)
	b := put(t, l, ocispecs.MediaTypeImageManifest, `{"b":1}`)
	s := put(t, l, ocispecs.MediaTypeImageManifest, `{"subject":{"digest":"`+a.Digest.String()+`"}}`)
	s.ArtifactType = "a/b"
	index := put(t, l, ocispecs.MediaTypeImageIndex, `{"manifests":[{"mediaType":"`+ocispecs.MediaTypeImageManifest+`","digest":"`+s.Digest.String()+`"}]}`)
	named := a
	named.Annotations = map[string]string{ocispecs.AnnotationRefName: "elsewhere", ContainerdName: "docker.io/x:elsewhere", "kept": "1"}
	refs := map[digest.Digest][]ocispecs.Descriptor{a.Digest: {s}}
	for range 2 {
		check(t, l.Add(t.Context(), Entry{Image: named, Tag: "1", Referrers: refs}))
	}
	check(t, l.Add(t.Context(), Entry{Image: b, Tag: "2"}))
	for range 2 {
		check(t, l.Add(t.Context(), Entry{Image: b}))
	}
	got, err := l.Index()
	check(t, err)
	var shape []string
	for _, m := range got.Manifests {
		shape = append(shape, fmt.Sprint(m.Digest == a.Digest, m.Annotations))
	}
	want := []string{
		"false map[" + subjectName + ":" + a.Digest.String() + "]", "true map[kept:1 " + ocispecs.AnnotationRefName + ":1]",
		"false map[" + ocispecs.AnnotationRefName + ":2]", "false map[]",
	}
	slices.Sort(shape)
	slices.Sort(want)
	if !slices.Equal(shape, want) {
		t.Errorf("%q\nwanted\n%q", shape, want)
	}
	if named.Annotations[ContainerdName] == "" {
		t.Error("the caller's descriptor was changed")
	}
	found, err := l.Referrers(t.Context(), a.Digest)
	if err != nil || len(found) != 1 || found[0].Digest != s.Digest || found[0].ArtifactType != "a/b" {
		t.Errorf("%v, %v", found, err)
	}
	// One that is part of an image of the index needs no entry, and is found too.
	other := At(t.TempDir())
	check(t, os.CopyFS(other.Dir(), os.DirFS(filepath.Join(l.Dir()))))
	check(t, os.Remove(filepath.Join(other.Dir(), "index.json")))
	check(t, other.Add(t.Context(), Entry{Image: index, Tag: "1", Referrers: refs}))
	if got, err := other.Index(); err != nil || len(got.Manifests) != 1 {
		t.Errorf("%v, %v", got.Manifests, err)
	}
	if found, err := other.Referrers(t.Context(), a.Digest); err != nil || len(found) != 1 {
		t.Errorf("%v, %v", found, err)
	}
	if d, err := l.Find("1"); err != nil || d.Digest != a.Digest {
		t.Errorf("%v, %v", d, err)
	}
	if d, err := l.Find("2"); err != nil || d.Digest != b.Digest {
		t.Errorf("%v, %v", d, err)
	}
}

// Many at once lose none of what the others write; and a wait ends.
func TestAddTogether(t *testing.T) {
	l := At(t.TempDir())
	var wait sync.WaitGroup
	for i := range 20 {
		d := put(t, l, ocispecs.MediaTypeImageManifest, fmt.Sprintf(`{"n":%d}`, i))
		wait.Go(func() {
			if err := l.Add(t.Context(), Entry{Image: d, Tag: fmt.Sprint("t", i)}); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	index, err := l.Index()
	if err != nil || len(index.Manifests) != 20 {
		t.Errorf("%d, %v", len(index.Manifests), err)
	}
	unlock, err := Lock(t.Context(), l.Dir(), func(string) error { return nil })
	check(t, err)
	defer unlock()
	why := errors.New("interrupted")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	if err := l.Add(ctx, Entry{Tag: "x"}); !errors.Is(err, why) {
		t.Error(err)
	}
}

func FuzzIndex(f *testing.F) {
	for _, s := range []string{"", "{}", `{"manifests":[{"digest":"sha256:x"}]}`, `{"manifests":[{"mediaType":"application/vnd.oci.image.index.v1+json","digest":"sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","annotations":{"org.opencontainers.image.ref.name":"a:1"}}]}`} {
		f.Add([]byte(s), "latest")
	}
	f.Fuzz(func(t *testing.T, raw []byte, tag string) {
		var index ocispecs.Index
		if json.Unmarshal(raw, &index) != nil {
			return
		}
		if d, err := pickImage(index.Manifests, tag); err == nil && !slices.ContainsFunc(index.Manifests, func(m ocispecs.Descriptor) bool { return m.Digest == d.Digest }) {
			t.Fatalf("%v was found", d)
		}
		place(&index, ocispecs.Descriptor{Digest: "new"}, "fuzz")
		if d, err := pickImage(index.Manifests, "fuzz"); err == nil && d.Digest != "new" {
			t.Fatalf("the tag is %v", d)
		}
	})
}

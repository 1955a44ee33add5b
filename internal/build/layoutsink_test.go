package build

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"path/filepath"
	"sync"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/gofrs/flock"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// layoutBuild is a build of one node into a layout folder, up to where its daemon has
// sent all.
func layoutBuild(ctx context.Context, t *testing.T, dest, arch, name string) (*outputs, []Part) {
	t.Helper()
	outs := &outputs{ctx: ctx, parts: 1, dests: map[string]shared{}}
	s := &layoutSink{outs: outs, dest: dest}
	store := &sinkStore{sink: s, node: "n0"}
	s.stores, outs.sinks = []*sinkStore{store}, []sink{s}
	m := makeImage(arch)
	for d, raw := range m.blobs {
		desc := ocispecs.Descriptor{Digest: d, Size: int64(len(raw))}
		if err := content.WriteBlob(t.Context(), store, "export-"+d.String(), bytes.NewReader(raw), desc); err != nil {
			t.Fatal(err)
		}
	}
	response := m.response()
	response["image.name"] = name
	return outs, []Part{{Node: "n0", Response: response}}
}

// imagesIn are the names in a layout's index, with the images that they have.
func imagesIn(t *testing.T, dest string) map[string]string {
	t.Helper()
	var list ocispecs.Index
	if err := json.Unmarshal([]byte(read(t, filepath.Join(dest, "index.json"))), &list); err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, m := range list.Manifests {
		all[m.Annotations["io.containerd.image.name"]] = m.Digest.String()
	}
	return all
}

// Builds that write into one layout at once lose none of each other's images, whether
// the folder was there before or not.
func TestLayoutShared(t *testing.T) {
	archs := []string{"amd64", "arm64", "s390x", "riscv64"}
	for _, before := range []bool{false, true} {
		dest := filepath.Join(t.TempDir(), "new", "layout")
		if before {
			put(t, filepath.Join(dest, "index.json"), `{"schemaVersion":2,"manifests":[]}`)
		}
		var builds []*outputs
		for _, arch := range archs { // all have settled before the first one is finished
			outs, done := layoutBuild(t.Context(), t, dest, arch, "docker.io/library/x:"+arch)
			if _, _, err := outs.settle(done); err != nil {
				t.Fatal(err)
			}
			builds = append(builds, outs)
		}
		var running sync.WaitGroup
		for _, outs := range builds {
			running.Go(func() {
				if err := outs.finish(nil); err != nil {
					t.Error(err)
				}
			})
		}
		running.Wait()
		got := imagesIn(t, dest)
		for _, arch := range archs {
			m := makeImage(arch)
			if got["docker.io/library/x:"+arch] != m.top.Digest.String() {
				t.Errorf("before=%v: %s is lost; there are %v", before, arch, got)
			}
			for d, raw := range m.blobs {
				if read(t, filepath.Join(dest, "blobs", "sha256", d.Encoded())) != string(raw) {
					t.Errorf("%s of %s", d, arch)
				}
			}
		}
		equal(t, "layout", names(t, dest), []string{"blobs", "index.json", "oci-layout"})
		equal(t, "beside it", names(t, filepath.Dir(dest)), []string{"layout"})
	}
}

// The index that settle has made is not the one that is written: what has gone from
// the folder since does not come back.
func TestLayoutIsReadLast(t *testing.T) {
	dest := filepath.Join(t.TempDir(), "layout")
	put(t, filepath.Join(dest, "index.json"), `{"schemaVersion":2,"manifests":[{"digest":"sha256:x","annotations":{"io.containerd.image.name":"old"}}]}`)
	outs, done := layoutBuild(t.Context(), t, dest, "amd64", "new")
	if _, _, err := outs.settle(done); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(dest, "index.json"), `{"schemaVersion":2,"manifests":[]}`)
	if err := outs.finish(nil); err != nil {
		t.Fatal(err)
	}
	if got := imagesIn(t, dest); len(got) != 1 || got["new"] == "" {
		t.Errorf("%v", got)
	}
}

// Somebody else's lock is waited for, until the build is interrupted. The folder is as
// it was then.
func TestLayoutLocked(t *testing.T) {
	dest := filepath.Join(t.TempDir(), "layout")
	put(t, filepath.Join(dest, "index.json"), `{"manifests":[]}`)
	lock := flock.New(filepath.Join(dest, "index.json.lock"))
	if ok, err := lock.TryLock(); !ok || err != nil {
		t.Fatal(ok, err)
	}
	defer lock.Close()
	ctx, cancel := context.WithCancelCause(t.Context())
	outs, done := layoutBuild(ctx, t, dest, "amd64", "new")
	if _, _, err := outs.settle(done); err != nil {
		t.Fatal(err)
	}
	why := errors.New("interrupted")
	cancel(why)
	if err := outs.finish(nil); !errors.Is(err, why) {
		t.Error(err)
	}
	equal(t, "layout", names(t, dest), []string{"index.json", "index.json.lock"})
	if read(t, filepath.Join(dest, "index.json")) != `{"manifests":[]}` {
		t.Error("the index was changed")
	}
}

// Once the build is over nothing is staged any more, for it would stay.
func TestLayoutTooLate(t *testing.T) {
	above := t.TempDir()
	late := func(when string, s *sinkStore) {
		t.Helper()
		if _, err := s.Writer(t.Context(), content.WithRef("late")); !errdefs.IsUnavailable(err) {
			t.Errorf("%s: %v", when, err)
		}
		if err := s.begin(true); !errdefs.IsUnavailable(err) { // as of a Writer that was called before
			t.Errorf("%s: %v", when, err)
		}
	}
	outs := &outputs{ctx: t.Context()}
	s := &layoutSink{outs: outs, dest: filepath.Join(above, "failed")}
	s.stores = []*sinkStore{{sink: s, node: "n0"}}
	if err := s.finish(errors.New("boom")); err != nil {
		t.Fatal(err)
	}
	late("after a failure", s.stores[0])
	equal(t, "left", names(t, above), nil)

	outs, done := layoutBuild(t.Context(), t, filepath.Join(above, "layout"), "amd64", "x")
	s = outs.sinks[0].(*layoutSink)
	other := &sinkStore{sink: s, node: "n1"} // which has sent nothing yet
	s.stores = append(s.stores, other)
	if _, _, err := outs.settle(done); err != nil {
		t.Fatal(err)
	}
	late("after settle", other)
	if err := outs.finish(nil); err != nil {
		t.Fatal(err)
	}
	late("after a success", other)
	equal(t, "made", names(t, above), []string{"layout"})
	equal(t, "layout", names(t, filepath.Join(above, "layout")), []string{"blobs", "index.json", "oci-layout"})
}

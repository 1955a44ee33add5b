package imagecopy

import (
	"bytes"
	"encoding/json"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/distribution/reference"
	"github.com/google/go-containerregistry/pkg/name"
	fake "github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sync/errgroup"

	"github.com/berthbuild/berth/internal/ocilayout"
	"github.com/berthbuild/berth/internal/registry"
)

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// careful is a registry that takes a manifest only when all that it names is there, as
// real ones do, and counts what it is sent.
type careful struct {
	next http.Handler
	mu   sync.Mutex
	sent map[string]int // by the path, without the upload's number
	bad  []string
}

func (c *careful) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPut {
		c.next.ServeHTTP(w, r)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if repo, _, ok := strings.Cut(r.URL.Path, "/manifests/"); ok {
		raw, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(raw))
		var m struct {
			Manifests, Layers []Descriptor
			Config            *Descriptor
		}
		_ = json.Unmarshal(raw, &m)
		if m.Config != nil {
			m.Layers = append(m.Layers, *m.Config)
		}
		for _, d := range m.Manifests {
			c.wants(repo + "/manifests/" + d.Digest.String())
		}
		for _, d := range m.Layers {
			c.wants(repo + "/blobs/" + d.Digest.String())
		}
		c.sent[r.URL.Path]++
	} else {
		c.sent[r.URL.Query().Get("digest")]++
	}
	c.next.ServeHTTP(w, r)
}

func (c *careful) wants(path string) {
	w := httptest.NewRecorder()
	c.next.ServeHTTP(w, httptest.NewRequest(http.MethodHead, path, nil))
	if w.Code != http.StatusOK {
		c.bad = append(c.bad, path)
	}
}

// An index in an index, whose images have layers in common, by many at once: everything
// is sent once, and nothing ahead of what it names.
func TestOrder(t *testing.T) {
	quiet := fake.Logger(log.New(io.Discard, "", 0))
	target := &careful{next: fake.New(quiet), sent: map[string]int{}}
	from, to := httptest.NewServer(fake.New(quiet)), httptest.NewServer(target)
	t.Cleanup(from.Close)
	t.Cleanup(to.Close)
	base, err := random.Image(1000, 3)
	check(t, err)
	inner := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for range 3 {
		layer, err := random.Layer(500, types.OCILayer)
		check(t, err)
		img, err := mutate.AppendLayers(base, layer)
		check(t, err)
		inner = mutate.AppendManifests(inner, mutate.IndexAddendum{Add: img})
	}
	outer := mutate.AppendManifests(mutate.IndexMediaType(empty.Index, types.OCIImageIndex), mutate.IndexAddendum{Add: inner}, mutate.IndexAddendum{Add: base})
	host := strings.TrimPrefix(from.URL, "http://")
	tag, err := name.ParseReference(host + "/a:1")
	check(t, err)
	check(t, remote.Push(tag, outer))

	client := registry.New(registry.Options{})
	t.Cleanup(client.Close)
	repo := func(name string) *registry.Repository {
		named, err := reference.ParseNormalizedNamed(name)
		check(t, err)
		return client.Repository(named)
	}
	top, _, err := repo(host+"/a").Get(t.Context(), "1")
	check(t, err)
	layout := InLayout(ocilayout.At(t.TempDir()))
	back := repo(host + "/back")
	for _, way := range []struct{ from, to Place }{
		{InRegistry(repo(host + "/a")), InRegistry(repo(strings.TrimPrefix(to.URL, "http://") + "/b"))},
		{InRegistry(repo(host + "/a")), layout},
		{layout, InRegistry(back)},
		{layout, layout},
	} {
		copier := To(way.to, nil)
		var many errgroup.Group
		for range 4 {
			many.Go(func() error { return copier.Copy(t.Context(), way.from, top) })
		}
		check(t, many.Wait())
		if has, err := way.to.hasManifest(t.Context(), top.Digest); !has || err != nil {
			t.Errorf("%v, %v", has, err)
		}
	}
	if len(target.bad) > 0 {
		t.Errorf("named before they were there: %q", target.bad)
	}
	if len(target.sent) < 10 {
		t.Errorf("sent: %v", target.sent)
	}
	for what, n := range target.sent {
		if n != 1 {
			t.Errorf("%s was sent %d times", what, n)
		}
	}
}

package load

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"

	imageapi "github.com/moby/moby/api/types/image"
	"github.com/opencontainers/go-digest"
)

// world is an engine, a daemon and a memory.
type world struct {
	t      *testing.T
	engine *fakeEngine
	daemon *fakeDaemon
	memory *Memory
	show   *shown
	names  []string
}

func newWorld(t *testing.T, s Store) *world {
	t.Helper()
	return &world{
		t: t, engine: newFakeEngine(s), daemon: &fakeDaemon{}, show: &shown{},
		memory: Remember(filepath.Join(t.TempDir(), "cache", "loaded.json")), names: []string{"docker.io/library/app:latest"},
	}
}

// load builds and loads; between runs when the build is done.
func (w *world) load(m made, between func()) error {
	w.t.Helper()
	facts, err := Look(w.t.Context(), w.engine)
	if err != nil {
		w.t.Fatal(err)
	}
	p := NewPartial(w.t.Context(), w.engine, facts, w.names, w.memory, w.show)
	s := p.Source(w.daemon.client(w.t))
	if err := m.export(w.t.Context(), s); err != nil {
		w.t.Fatal(err)
	}
	if between != nil {
		between()
	}
	return p.Finish(nil, nil)
}

func (w *world) ok(m made, says string) {
	w.t.Helper()
	err := w.load(m, nil)
	if got := w.show.all(); err != nil || got != says {
		w.t.Errorf("%q, %v; want %q", got, err, says)
	}
	for _, n := range w.names {
		res, err := w.engine.ImageInspect(w.t.Context(), n)
		if err != nil || res.ID != m.root.String() && res.ID != m.config.String() {
			w.t.Errorf("%s is %s, %v", n, res.ID, err)
		}
		if len(res.Manifests) > 0 && !res.Manifests[0].Available {
			w.t.Errorf("%s is half an image", n)
		}
	}
}

func onStores(t *testing.T, f func(t *testing.T, w *world)) {
	for _, s := range []Store{Graph, Containerd} {
		t.Run(string(s), func(t *testing.T) { f(t, newWorld(t, s)) })
	}
}

func TestPartial(t *testing.T) {
	onStores(t, func(t *testing.T, w *world) {
		one := w.daemon.make1("a", "b", "c")
		w.ok(one, "loading 3 of 3 layers, 24 B of 24 B")
		w.ok(one, "unchanged: the engine has the image, 0 of 3 layers, 0 B of 24 B sent")
		w.ok(w.daemon.make1("a", "b", "new"), "loading 1 of 3 layers, 10 B of 26 B")
		w.names = append(w.names, "docker.io/library/other:1")
		w.ok(one, map[Store]string{
			Graph: "the engine has the image under another name, 0 of 3 layers, 0 B of 24 B sent", Containerd: "the engine has the image under another name, 0 of 3 layers, 0 B of 24 B sent",
		}[w.engine.store])
		w.ok(w.daemon.make1("x", "b", "c"), map[Store]string{Graph: "loading 3 of 3 layers, 24 B of 24 B", Containerd: "loading 1 of 3 layers, 8 B of 24 B"}[w.engine.store])
		w.ok(w.daemon.make1("x", "x"), map[Store]string{Graph: "loading 1 of 1 layer, 8 B of 8 B", Containerd: "loading 0 of 1 layer, 0 B of 8 B"}[w.engine.store])
	})
}

// An engine that is changed by others between the build and the load.
func TestPartialRemoved(t *testing.T) {
	onStores(t, func(t *testing.T, w *world) {
		one := w.daemon.make1("a", "b")
		w.ok(one, "loading 2 of 2 layers, 16 B of 16 B")
		if err := w.load(one, w.engine.remove); err != nil {
			t.Error(err)
		}
		if got := w.show.all(); got != "loading 2 of 2 layers, 16 B of 16 B" {
			t.Error(got)
		}
		w.names = append(w.names, "docker.io/library/b:1")
		w.engine.onTag = func(e *fakeEngine) { e.onTag = nil; e.remove() }
		w.ok(one, "the engine has the image under another name, 0 of 2 layers, 0 B of 16 B sent | loading 0 of 2 layers, 0 B of 16 B | the engine did not put the image together ("+
			map[Store]string{
				Graph:      "loading the image into the Docker engine: open " + one.layers[0].String() + ": no such file or directory",
				Containerd: "loading the image into the Docker engine: " + ErrIncomplete.Error(),
			}[w.engine.store]+"): sending all of it | loading 2 of 2 layers, 16 B of 16 B")
	})
}

// Half an image under our ID is not taken for ours.
func TestPartialHalfImage(t *testing.T) {
	w := newWorld(t, Containerd)
	one := w.daemon.make1("a", "b")
	w.ok(one, "loading 2 of 2 layers, 16 B of 16 B")
	delete(w.engine.blobs, one.layers[1])
	w.ok(one, "loading 2 of 2 layers, 16 B of 16 B")

	// A memory that lies.
	tiny := w.daemon.make1("t")
	w.ok(tiny, "loading 1 of 1 layer, 8 B of 8 B")
	two := w.daemon.make1("c", "d")
	if err := w.memory.Put(tiny.root, two.layers); err != nil {
		t.Fatal(err)
	}
	err := w.load(two, nil)
	if got := w.show.all(); err != nil || !strings.HasPrefix(got, "loading 0 of 2 layers") || !strings.HasSuffix(got, "loading 2 of 2 layers, 16 B of 16 B") {
		t.Errorf("%q, %v", got, err)
	}
}

// What the daemon has no more leads to another solve; what it had pinned does not.
func TestPartialUnreadable(t *testing.T) {
	onStores(t, func(t *testing.T, w *world) {
		gone := func() {
			w.daemon.mu.Lock()
			defer w.daemon.mu.Unlock()
			clear(w.daemon.blobs)
		}
		one := w.daemon.make1("a", strings.Repeat("long", 100_000))
		if err := w.load(one, gone); err != nil {
			t.Errorf("pinned: %v", err)
		}
		one = w.daemon.make1("a", strings.Repeat("long", 100_000))
		err := w.load(one, func() { gone(); w.engine.remove() })
		var unreadable *Unreadable
		if !errors.As(err, &unreadable) || !unreadable.Gone() || unreadable.Digest == "" {
			t.Errorf("error = %v", err)
		}
		if len(w.engine.images) > 0 {
			t.Error("the engine has something of it")
		}
		w.daemon.make1("short")
		short := w.daemon.make1("short")
		w.daemon.blobs[short.layers[0]] = []byte("x")
		if err := w.load(short, nil); !errors.As(err, &unreadable) || unreadable.Gone() {
			t.Errorf("a layer that is too short: %v", err)
		}
		w.daemon.blobs[short.layers[0]] = make([]byte, 100_000)
		if err := w.load(short, nil); !errors.As(err, &unreadable) {
			t.Errorf("a layer that is too long: %v", err)
		}
	})
}

func TestReadable(t *testing.T) {
	if d := (&fakeDaemon{}); !Readable(t.Context(), d.client(t)) {
		t.Error("a daemon with content cannot be read")
	}
	if d := (&fakeDaemon{none: true}); Readable(t.Context(), d.client(t)) {
		t.Error("a daemon that does not know the question can be read")
	}
}

// An engine that fails is told, and asked again only when it may help.
func TestPartialEngineFails(t *testing.T) {
	onStores(t, func(t *testing.T, w *world) {
		one := w.daemon.make1("a", "b")
		full := &engineError{"no space left on device"}
		w.engine.break1 = func(int) error { return full }
		if err := w.load(one, nil); !errors.Is(err, ErrEngine) || len(w.engine.loads) != 1 {
			t.Errorf("%v after %d loads", err, len(w.engine.loads))
		}
		w.engine.break1 = nil
		w.show.all()
		w.ok(one, "loading 2 of 2 layers, 16 B of 16 B")
		w.engine.loads = nil
		w.engine.break1 = func(n int) error {
			if n == 1 {
				return full
			}
			return nil
		}
		if err := w.load(w.daemon.make1("a", "c"), nil); err != nil || len(w.engine.loads) != 2 {
			t.Errorf("%v after %d loads", err, len(w.engine.loads))
		}
		w.engine.deaf = errors.New("plugins say no")
		p := NewPartial(t.Context(), w.engine, Facts{Store: w.engine.store, Checks: true}, w.names, nil, w.show)
		s := p.Source(w.daemon.client(t))
		if err := one.export(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		if err := p.Finish(nil, nil); err == nil || !strings.Contains(err.Error(), "asking the Docker engine what it has: plugins say no") {
			t.Errorf("error = %v", err)
		}
		if f, err := Look(t.Context(), w.engine); err != nil || f.Checks || f.Store != Graph {
			t.Errorf("an engine that does not say: %+v, %v", f, err)
		}
		w.engine.deaf = io.ErrUnexpectedEOF
		if _, err := Look(t.Context(), w.engine); err == nil || !strings.Contains(err.Error(), "asking the Docker engine what it has: unexpected EOF") {
			t.Errorf("error = %v", err)
		}
	})
}

// Whatever an engine holds, it is asked little, and what has layers in common
// is found all the same.
func TestPartialAsksLittle(t *testing.T) {
	onStores(t, func(t *testing.T, w *world) {
		big := strings.Repeat("big", 1<<20)
		w.names = []string{"docker.io/library/base:1"}
		w.ok(w.daemon.make1(big), "loading 1 of 1 layer, 3.1 MB of 3.1 MB")
		for i := range 500 {
			w.engine.images[digest.FromString(fmt.Sprint(i)).String()] = &fakeImage{}
		}
		w.engine.asked = 0
		w.names = []string{"docker.io/library/app:1", "docker.io/library/app:2"}
		err := w.load(w.daemon.make1(big, "small"), nil)
		got := w.show.all()
		if w.engine.store == Containerd && got != "loading 1 of 2 layers, 12 B of 3.1 MB" || err != nil {
			t.Errorf("%q, %v", got, err)
		}
		if w.engine.asked > mostLooks+12 {
			t.Errorf("the engine was asked %d times", w.engine.asked)
		}
	})
}

func TestLikely(t *testing.T) {
	items := []imageapi.Summary{
		{ID: "old", Created: 1, Size: 9}, {ID: "own", Created: 1, Size: 1, RepoTags: []string{"app:7"}},
		{ID: "new", Created: 5, Size: 2}, {ID: "newer", Created: 6, Size: 1}, {ID: "like", Created: 4, Size: 1, RepoTags: []string{"apple:1"}},
	}
	if got := strings.Join(likely(items, []string{"app"}, 4), " "); got != "own newer old new" {
		t.Error(got)
	}
	if got := likely(items, nil, 100); len(got) != len(items) {
		t.Error(got)
	}
}

func TestLook(t *testing.T) {
	for _, c := range []struct {
		store   Store
		version string
		want    Facts
	}{
		{Graph, "1.41", Facts{Graph, true}}, {Containerd, "1.47", Facts{Containerd, false}},
		{Containerd, "1.48", Facts{Containerd, true}}, {Containerd, "2.0", Facts{Containerd, true}}, {Containerd, "", Facts{Containerd, false}},
	} {
		e := newFakeEngine(c.store)
		e.version = c.version
		if got, err := Look(t.Context(), e); err != nil || got != c.want {
			t.Errorf("%s %s: %+v, %v", c.store, c.version, got, err)
		}
	}
}

// A cancelled load ends at once and leaves nothing.
func TestPartialCancelled(t *testing.T) {
	w := newWorld(t, Graph)
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("interrupted")
	w.engine.break1 = func(int) error { cancel(why); return context.Canceled }
	p := NewPartial(ctx, w.engine, Facts{Graph, true}, w.names, nil, w.show)
	s := p.Source(w.daemon.client(t))
	if err := w.daemon.make1("a").export(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	if err := p.Finish(nil, nil); !errors.Is(err, why) {
		t.Errorf("error = %v", err)
	}
}

func TestBytesText(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 999: "999 B", 1000: "1.0 kB", 9_940: "9.9 kB", 9_960: "10 kB", 999_400: "999 kB", 999_600: "1.0 MB", 536_870_912: "537 MB", 5e15: "5000 TB"} {
		if got := bytesText(n); got != want {
			t.Errorf("%d is %q, want %q", n, got, want)
		}
	}
}

//go:build e2e && linux

package test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/buildkit/client"

	"github.com/berthbuild/berth/test/lab"
)

// What an engine is asked by a load.
const (
	loadCall   = "POST /images/load"
	inspectApp = "GET /images/docker.io/library/app:latest/json"
)

// strikes is a world with a builder and an engine, where something happens when
// the engine is asked for something the first time after arm.
type strikes struct {
	t      *testing.T
	berth  *lab.CLI
	bk     *lab.BuildKitd
	engine *lab.Dockerd
	watch  *lab.EngineWatch

	mu   sync.Mutex
	call string
	do   func(*http.Request)
}

func newStrikes(t *testing.T, kind string, bk *lab.BuildKitd) *strikes {
	t.Helper()
	s := &strikes{t: t, bk: bk, engine: loadEngine(t, kind)}
	s.watch = s.engine.Watch(t, func(call string, r *http.Request) {
		s.mu.Lock()
		do := s.do
		if do == nil || !strings.HasPrefix(call, s.call) {
			do = func(*http.Request) {}
		} else {
			s.do = nil
		}
		s.mu.Unlock()
		do(r)
	})
	s.berth = lab.Berth(t).With("DOCKER_HOST=" + s.watch.Host())
	s.berth.OK("create", "--use", "--name", "own", bk.UnixAddr())
	return s
}

func (s *strikes) arm(call string, do func(*http.Request)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.call, s.do = call, do
}

// load builds and loads, and fails the test unless the engine has all of it then.
func (s *strikes) load(dir, tag string) lab.Result {
	s.t.Helper()
	r := build(s.t, s.berth, dir, "--load", "-t", tag)
	s.whole(dir, tag)
	return r
}

// whole fails the test unless the files of the image are those of the context.
func (s *strikes) whole(dir, tag string) {
	s.t.Helper()
	files := exported(s.t, s.engine, tag)
	for i := range layersIn {
		name := fmt.Sprintf("l%d", i)
		want := fmt.Sprintf("%x", sum(read(s.t, join(dir, name))))
		if !strings.HasSuffix(files[name], want) {
			s.t.Errorf("%s has %q for %s, want %s", tag, files[name], name, want)
		}
	}
	if len(saved(s.t, s.engine, tag)) < layersIn+2 {
		s.t.Errorf("%s cannot be saved whole", tag)
	}
}

// onBothStores runs a test for each kind of store.
func onBothStores(t *testing.T, f func(t *testing.T, s *strikes)) {
	for _, kind := range []string{"20.10", "containerd"} {
		t.Run(kind, func(t *testing.T) { f(t, newStrikes(t, kind, lab.Shared(t))) })
	}
}

// What the daemon removes between the build and the reading of it, is pinned, or
// made again.
func TestLoadAfterPrune(t *testing.T) {
	for _, kind := range []string{"20.10", "containerd"} {
		t.Run(kind, func(t *testing.T) {
			s := newStrikes(t, kind, lab.BuildKit(t, lab.BuildKitOpts{}))
			prune := func(*http.Request) {
				if err := s.bk.Client(t).Prune(context.Background(), nil, client.PruneAll); err != nil {
					t.Error(err)
				}
			}
			dir := layered(t)
			s.load(dir, "app")
			// Nothing is pinned of an image that the engine has; and then it has not.
			s.arm(inspectApp, func(*http.Request) { // while it was built
				s.arm(inspectApp, func(r *http.Request) {
					prune(r)
					forget(t, s.engine)
				})
			})
			r := s.load(dir, "app")
			has(t, "progress", r.Stderr, "sending the whole image: the build daemon does not give layer")

			change(t, dir, 2)
			forget(t, s.engine)
			s.arm(loadCall, prune)
			if r := s.load(dir, "app"); sentLayers(t, r) != layersIn {
				t.Errorf("not all layers were sent: %s", r.Stderr)
			}
		})
	}
}

// Images that go while they are loaded upon, and names that others take.
func TestLoadWhileOthersChangeTheEngine(t *testing.T) {
	onBothStores(t, func(t *testing.T, s *strikes) {
		dir := layered(t)
		s.load(dir, "app")
		change(t, dir, layersIn-1)
		s.arm(loadCall, func(*http.Request) { forget(t, s.engine) })
		r := s.load(dir, "app")
		has(t, "removed", r.Stderr, "loading 1 of 6 layers", "sending all of it", "loading 6 of 6 layers")

		other := layered(t)
		s.load(other, "other")
		s.arm(inspectApp, func(*http.Request) { // when the build has begun
			s.arm(inspectApp, func(*http.Request) { s.engine.CLI(t, "tag", "other", "app") })
		})
		r = s.load(dir, "app")
		hasNot(t, "moved", r.Stderr, "unchanged: ")
		s.whole(other, "other")

		s.engine.CLI(t, "rmi", "app")
		r = s.load(dir, "app")
		s.engine.CLI(t, "tag", "other", "app")
		s.load(dir, "app")
	})
}

// An engine that was left in the middle has what it had before.
func TestLoadBreaks(t *testing.T) {
	onBothStores(t, func(t *testing.T, s *strikes) {
		dir := layered(t)
		s.load(dir, "app")
		before := imageID(t, s.engine, "app")
		held := func(strike func(p *lab.Process)) lab.Result {
			t.Helper()
			change(t, dir, 0)
			reached, release := make(chan struct{}), make(chan struct{})
			s.arm(loadCall, func(r *http.Request) { lab.HoldBody(r, 1_000_000, reached, release) })
			p := s.berth.Cmd("build", "--load", "-t", "app", ".").Dir(dir).Start()
			select {
			case <-reached:
			case <-p.Done():
				t.Fatal(p.Wait())
			}
			strike(p)
			close(release)
			return p.Wait()
		}
		held(func(p *lab.Process) { p.Kill(); <-p.Done() })
		if got := imageID(t, s.engine, "app"); got != before {
			t.Errorf("killed: app is %s and was %s", got, before)
		}
		s.load(dir, "app")

		before = imageID(t, s.engine, "app")
		if r := held(func(p *lab.Process) { p.Interrupt(); <-p.Done() }); r.Code != 130 || lastLine(r.Stderr) != "ERROR: canceled" {
			t.Errorf("interrupted: %s", r)
		}
		if got := imageID(t, s.engine, "app"); got != before {
			t.Errorf("interrupted: app is %s and was %s", got, before)
		}

		r := held(func(*lab.Process) { s.engine.Kill() })
		if r.Code != 1 {
			t.Errorf("the engine was killed: %s", r)
		}
		has(t, "killed", lastLine(r.Stderr), "loading the image into the Docker engine at ")
		s.engine.Start(t)
		if got := imageID(t, s.engine, "app"); got != before {
			t.Errorf("restarted: app is %s and was %s", got, before)
		}
		s.load(dir, "app")
	})
}

// An engine may take its time: the daemon does not hang up on a client that only
// waits for it.
func TestLoadIntoASlowEngine(t *testing.T) {
	t.Parallel()
	s := newStrikes(t, "20.10", lab.BuildKit(t, lab.BuildKitOpts{TCP: true, Unix: true}))
	dir := layered(t)
	const slow = 45 * time.Second // more than it takes until a silent peer is given up
	put(t, dir, map[string]string{"l0": strings.Repeat(read(t, join(dir, "l0")), 10)})
	s.arm(loadCall, func(r *http.Request) {
		reached, release := make(chan struct{}), make(chan struct{})
		lab.HoldBody(r, 1_000_000, reached, release)
		time.AfterFunc(slow, func() { close(release) })
	})
	s.load(dir, "app")
}

// Several at once, into one name and into several.
func TestLoadsAtOnce(t *testing.T) {
	onBothStores(t, func(t *testing.T, s *strikes) {
		var dirs []string
		var all []*lab.Process
		for i := range 5 {
			dir := layered(t)
			for l := range layersIn - 2 { // they share what is below
				if i > 0 {
					put(t, dir, map[string]string{fmt.Sprintf("l%d", l): read(t, join(dirs[0], fmt.Sprintf("l%d", l)))})
				}
			}
			dirs = append(dirs, dir)
			all = append(all, s.berth.Cmd("build", "--load", "-t", fmt.Sprintf("app%d", i), "-t", "common", ".").Dir(dir).Start())
		}
		ids := map[string]bool{}
		for i, p := range all {
			if r := p.Wait(); r.Code != 0 {
				t.Errorf("load %d: %s", i, r)
			}
			s.whole(dirs[i], fmt.Sprintf("app%d", i))
			ids[imageID(t, s.engine, fmt.Sprintf("app%d", i))] = true
		}
		if len(ids) != 5 || !ids[imageID(t, s.engine, "common")] {
			t.Errorf("the images are %v, and common is %s", ids, imageID(t, s.engine, "common"))
		}
	})
}

// A full disk in the engine is told, and when there is room the next load is right.
func TestLoadIntoAFullEngine(t *testing.T) {
	for _, store := range lab.Stores() {
		t.Run(string(store), func(t *testing.T) {
			engine := lab.ModernEngine(t, lab.ModernOpts{Store: store, Space: "24m"})
			berth := lab.Berth(t).WithDocker(engine)
			berth.OK("create", "--use", "--name", "own", lab.Shared(t).UnixAddr())
			s := &strikes{t: t, berth: berth, engine: engine}
			dir := layered(t)
			s.load(dir, "app")
			before := imageID(t, engine, "app")
			small := read(t, join(dir, "l3"))
			put(t, dir, map[string]string{"l3": strings.Repeat(read(t, join(dir, "l0")), 10)})
			r := berth.Cmd("build", "--load", "-t", "app", ".").Dir(dir).Run()
			if r.Code != 1 {
				t.Fatalf("30 MB into 24: %s", r)
			}
			has(t, "last line", lastLine(r.Stderr), "no space left on device", "loading the image into the Docker engine at ")
			if got := imageID(t, engine, "app"); got != before {
				t.Errorf("app is %s and was %s", got, before)
			}
			put(t, dir, map[string]string{"l3": small + "x"})
			s.load(dir, "app")
		})
	}
}

// A memory that lies costs a second send, not half an image; one that is damaged
// costs a whole one.
func TestLoadMemoryLies(t *testing.T) {
	s := newStrikes(t, "containerd", lab.Shared(t))
	dir := layered(t)
	s.load(dir, "app")
	memory := join(s.berth.Home, ".cache", "berth", "loaded.json")
	truth := read(t, memory)
	root := imageID(t, s.engine, "app")
	tiny := lab.Context(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY f /\n", "f": "f"})
	build(t, s.berth, tiny, "--load", "-t", "tiny")
	forgotten := func() { s.engine.CLI(t, "rmi", "app") }

	forgotten()
	lie := strings.ReplaceAll(truth, root, imageID(t, s.engine, "tiny"))
	if err := os.WriteFile(memory, []byte(lie), 0o600); err != nil {
		t.Fatal(err)
	}
	s.engine.CLI(t, "tag", "tiny", "app") // which has it all, it says
	r := build(t, s.berth, dir, "--load", "-t", "app")
	if !strings.Contains(lie, imageID(t, s.engine, "tiny")) {
		t.Fatal("the lie was not told")
	}
	has(t, "a lie", r.Stderr, "sending all of it", "loading 6 of 6 layers")
	s.whole(dir, "app")

	for _, text := range []string{"", "{", `{"version":1,"images":[{"root":"x","layers":["y"]}]}`, strings.Repeat("x", 3<<20)} {
		if err := os.WriteFile(memory, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		change(t, dir, 0)
		s.load(dir, "app")
	}
}

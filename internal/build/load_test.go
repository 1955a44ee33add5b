package build

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/berthbuild/berth/internal/buildkittest"
	"github.com/berthbuild/berth/internal/dial/dialtest"
	"github.com/moby/moby/client"
)

// engine is a Docker engine: what it has read, and what it answers.
type engine struct {
	answer string
	refuse error // before anything is read

	mu     sync.Mutex
	got    []byte
	whole  bool
	closed int
}

// ImageLoad implements load.Engine.
func (e *engine) ImageLoad(_ context.Context, input io.Reader, _ ...client.ImageLoadOption) (client.ImageLoadResult, error) {
	if e.refuse != nil {
		return nil, e.refuse
	}
	data, err := io.ReadAll(input)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.got, e.whole = data, err == nil
	if err != nil {
		return nil, err
	}
	return io.NopCloser(strings.NewReader(e.answer)), nil
}

func (e *engine) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed++
	return nil
}

func TestLoad(t *testing.T) {
	dialtest.NoLeaks(t)
	image := bytes.Repeat([]byte("image"), 1000)
	boom := errors.New("boom")
	for _, c := range []struct {
		name   string
		engine *engine
		solve  func(ctx context.Context, b *buildkittest.Build) error
		want   string // in the error
		loaded bool
	}{
		{"loaded", &engine{answer: `{"status":"Loading layer","progressDetail":{"current":1,"total":2},"id":"abc"}`},
			func(ctx context.Context, b *buildkittest.Build) error { return b.SendFile(ctx, 0, image) }, "", true},
		{"the engine refuses", &engine{refuse: errors.New("no room")},
			func(ctx context.Context, b *buildkittest.Build) error { return b.SendFile(ctx, 0, image) }, "no room", false},
		{"the engine fails at the end", &engine{answer: `{"errorDetail":{"message":"bad layer"}}`},
			func(ctx context.Context, b *buildkittest.Build) error { return b.SendFile(ctx, 0, image) }, "bad layer", true},
		{"the build fails after half", &engine{}, func(ctx context.Context, b *buildkittest.Build) error {
			_, err := sending(ctx, b, 0, image)
			return errors.Join(err, boom)
		}, "boom", false},
		{"the build fails after all", &engine{}, func(ctx context.Context, b *buildkittest.Build) error {
			return errors.Join(b.SendFile(ctx, 0, image), boom)
		}, "boom", false},
		{"the build sends nothing", &engine{}, func(context.Context, *buildkittest.Build) error { return nil }, "the build daemon sent no image", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := daemon(t, func(ctx context.Context, b *buildkittest.Build) (map[string]string, error) {
				return nil, c.solve(ctx, b)
			})
			var out buffer
			o := optionsShowing(t, &out)
			var asked string
			o.Engine = func(_ context.Context, name string) (Engine, error) {
				asked = name
				return c.engine, nil
			}
			_, err := Run(t.Context(), builderOf(node("n0", s.Endpoint())), req(t, output("docker", "", "context", "ctx")), o)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%v", err)
			}
			if c.engine.closed != 1 || asked != "ctx" {
				t.Errorf("closed %d times, asked for %q", c.engine.closed, asked)
			}
			if c.engine.whole != c.loaded || c.loaded && !bytes.Equal(c.engine.got, image) {
				t.Errorf("the engine has the whole image: %v; %d bytes", c.engine.whole, len(c.engine.got))
			}
			if _, ok := s.Requests()[0].Exporters[0].Attrs["context"]; ok {
				t.Error("the daemon is told of docker's contexts")
			}
			if _, err := o.Progress.Close(); err != nil || c.name == "loaded" && !strings.Contains(out.String(), "importing to docker") {
				t.Errorf("%s, %v", out.String(), err)
			}
		})
	}
}

// Without an engine nothing is built, and what was opened before is closed.
func TestLoadWithoutEngine(t *testing.T) {
	dialtest.NoLeaks(t)
	s := daemon(t, nil)
	dir := t.TempDir()
	why := errors.New("no engine")
	first := &engine{}
	o := options(t)
	o.Engine = func(_ context.Context, name string) (Engine, error) {
		if name == "first" {
			return first, nil
		}
		return nil, why
	}
	r := req(t, output("tar", dir+"/new/x.tar"), output("docker", "", "context", "first"), output("docker", "", "context", "second"))
	if _, err := Run(t.Context(), builderOf(node("n0", s.Endpoint())), r, o); !errors.Is(err, why) {
		t.Errorf("%v", err)
	}
	if len(s.Requests()) > 0 || first.closed != 1 {
		t.Errorf("%d builds, closed %d times", len(s.Requests()), first.closed)
	}
	if left := names(t, dir); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

// Ctrl-C while the engine loads.
func TestLoadCancelled(t *testing.T) {
	dialtest.NoLeaks(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("interrupted")
	s := daemon(t, func(ctx context.Context, b *buildkittest.Build) (map[string]string, error) {
		_, err := sending(ctx, b, 0, bytes.Repeat([]byte("x"), 10_000))
		cancel(why)
		<-ctx.Done()
		return nil, err
	})
	e := &engine{}
	o := options(t)
	o.Engine = func(context.Context, string) (Engine, error) { return e, nil }
	if _, err := Run(ctx, builderOf(node("n0", s.Endpoint())), req(t, output("docker", "")), o); !errors.Is(err, why) || err.Error() != why.Error() {
		t.Errorf("%v", err)
	}
	if e.whole || e.closed != 1 {
		t.Errorf("whole %v, closed %d times", e.whole, e.closed)
	}
}

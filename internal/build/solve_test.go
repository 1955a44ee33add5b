package build

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/berthbuild/berth/internal/builder"
	"github.com/berthbuild/berth/internal/buildkittest"
	"github.com/berthbuild/berth/internal/dial/dialtest"
	"github.com/berthbuild/berth/internal/remote"
	"github.com/berthbuild/berth/internal/request"
)

func TestRun(t *testing.T) {
	dialtest.NoLeaks(t)
	s := daemon(t, func(_ context.Context, b *buildkittest.Build) (map[string]string, error) {
		b.Step("[1/1] FROM scratch")
		return map[string]string{"containerimage.digest": "sha256:1", "containerimage.config.digest": "sha256:2"}, nil
	})
	var out buffer
	o := optionsShowing(t, &out)
	var started []string
	o.Started = func(node, ref string) { started = append(started, node+"/"+ref) }
	r := req(t, output("image", "", "name", "x"))
	r.Target = "stage"
	res, err := Run(t.Context(), builderOf(node("n0", s.Endpoint()), node("n1", "unix:///nobody/asks")), r, o)
	if err != nil {
		t.Fatal(err)
	}
	if len(res.Parts) != 1 || res.Builder != "b" || res.ImageID() != "sha256:2" {
		t.Errorf("%+v", res)
	}
	equal(t, "started", started, []string{"n0/" + res.Parts[0].Ref})
	got := s.Requests()[0]
	if got.Ref != res.Parts[0].Ref || got.FrontendAttrs["target"] != "stage" || got.Exporters[0].Attrs["name"] != "x" {
		t.Errorf("%v", got)
	}
	if _, err := o.Progress.Close(); err != nil || !strings.Contains(out.String(), "FROM scratch") {
		t.Errorf("progress: %q, %v", out.String(), err)
	}
}

func TestRunRefuses(t *testing.T) {
	damage := errors.New("damaged")
	for want, b := range map[string]*builder.Builder{
		"damaged":                                {Name: "b", Err: damage},
		"builder b has no nodes":                 builderOf(),
		"node n0 of builder b: ":                 builderOf(node("n0", "tcp://")),
		"the docker driver is not supported":     builderOf(builder.Node{Builder: "b", Name: "n0", Driver: "docker"}),
		"node n0 of builder b at unix:///nosuch": builderOf(node("n0", "unix:///nosuch/x.sock")),
	} {
		o := options(t)
		o.Budget = 1
		if _, err := Run(t.Context(), b, req(t), o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", want, err)
		}
	}
	if _, err := Run(t.Context(), builderOf(), request.Request{}, options(t)); err == nil {
		t.Error("a request of nothing was built")
	}
	old := buildkittest.New(t, buildkittest.Options{Version: "v0.12.0"})
	_, err := Run(t.Context(), builderOf(node("n0", old.Endpoint())), req(t, output("image", ""), output("cacheonly", ""), output("image", "")), options(t))
	if err == nil || !strings.HasPrefix(err.Error(), "node n0: several outputs") || len(old.Requests()) > 0 {
		t.Errorf("an old daemon: %v", err)
	}
}

// A cancelled build ends with the cause, and on the daemon.
func TestCancel(t *testing.T) {
	dialtest.NoLeaks(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("interrupted")
	ended := make(chan struct{})
	s := daemon(t, func(ctx context.Context, b *buildkittest.Build) (map[string]string, error) {
		defer close(ended)
		_, err := sending(ctx, b, 0, []byte("half"))
		cancel(why)
		<-ctx.Done()
		return nil, err
	})
	dir := t.TempDir()
	_, err := Run(ctx, builderOf(node("n0", s.Endpoint())), req(t, output("tar", filepath.Join(dir, "x.tar"))), options(t))
	if !errors.Is(err, why) || err.Error() != why.Error() {
		t.Errorf("%v", err)
	}
	<-ended
	if left := names(t, dir); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

// A daemon that does not care about being cancelled, and goes on telling of its
// progress, does not hold the client. Were that not so, this test would wait
// for the daemon for ever.
func TestCancelHangs(t *testing.T) {
	dialtest.NoLeaks(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("interrupted")
	release := make(chan struct{})
	s := daemon(t, func(_ context.Context, b *buildkittest.Build) (map[string]string, error) {
		cancel(why)
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			b.Step("still here")
			select {
			case <-tick.C:
			case <-release:
				return nil, nil
			}
		}
	})
	_, err := Run(ctx, builderOf(node("n0", s.Endpoint())), req(t), options(t))
	close(release)
	if !errors.Is(err, why) {
		t.Errorf("%v", err)
	}
}

// Cancelled before, or while connecting.
func TestCancelEarly(t *testing.T) {
	dialtest.NoLeaks(t)
	why := errors.New("interrupted")
	ctx, cancel := context.WithCancelCause(t.Context())
	deaf := buildkittest.Raw(t, func(c net.Conn) { cancel(why); buildkittest.Silence(c) })
	for _, b := range []*builder.Builder{builderOf(node("n0", deaf)), builderOf(node("n0", deaf), node("n1", deaf))} {
		r := req(t)
		r.Platforms = plats("linux/amd64")
		if _, err := Run(ctx, b, r, options(t)); !errors.Is(err, why) || err.Error() != why.Error() {
			t.Errorf("%v", err)
		}
	}
}

// Several builds over one set of inputs do not get in each other's way.
func TestParallelRuns(t *testing.T) {
	dialtest.NoLeaks(t)
	s := daemon(t, func(ctx context.Context, b *buildkittest.Build) (map[string]string, error) {
		return nil, b.SendFile(ctx, 0, []byte(b.Request.Ref))
	})
	dir := t.TempDir()
	o := options(t)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			dest := filepath.Join(dir, fmt.Sprint(i))
			res, err := Run(t.Context(), builderOf(node("n0", s.Endpoint())), req(t, output("tar", dest)), o)
			if err != nil || read(t, dest) != res.Parts[0].Ref {
				t.Errorf("%v", err)
			}
		})
	}
	wg.Wait()
	if all := names(t, dir); len(all) != 8 || slices.ContainsFunc(all, func(n string) bool { return strings.HasPrefix(n, ".") }) {
		t.Errorf("%q", all)
	}
}

// A slow connect is a step of the build, and is said again now and then.
func TestWaitStep(t *testing.T) {
	var out buffer
	o := optionsShowing(t, &out)
	w := &waitStep{printer: o.Progress, node: "n0"}
	w.done(nil)
	refused := errors.New("connection refused")
	for _, now := range []remote.Waiting{{Cause: refused, Left: 20e9}, {Cause: refused, Left: 19e9}, {Cause: errors.New("silent"), Left: 18e9}, {Cause: refused, Left: 17e9}, {Cause: refused, Left: 12e9}} {
		w.show(now)
	}
	w.done(refused)
	if _, err := o.Progress.Close(); err != nil {
		t.Fatal(err)
	}
	said := 0
	for line := range strings.Lines(out.String()) {
		if strings.HasPrefix(line, "#1 ") && strings.Contains(line, "connection refused, ") {
			said++
		}
	}
	if said != 3 {
		t.Errorf("said %d times: %s", said, out.String())
	}
	if !strings.Contains(out.String(), "[internal] connecting to n0") || !strings.Contains(out.String(), "silent, 18s left") {
		t.Errorf("%s", out.String())
	}
}

package build

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/berthbuild/berth/internal/buildflag"
	"github.com/berthbuild/berth/internal/buildkittest"
	"github.com/berthbuild/berth/internal/dial/dialtest"
	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/request"
	"github.com/moby/buildkit/solver/errdefs"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func frontend(t *testing.T, version string, f buildkittest.CallFunc) *buildkittest.Server {
	t.Helper()
	return buildkittest.New(t, buildkittest.Options{Version: version, Call: f})
}

func questionOf(t *testing.T, method string) request.Request {
	t.Helper()
	r := req(t, output("local", filepath.Join(t.TempDir(), "out")))
	r.Platforms = plats("linux/arm64", "linux/amd64")
	return r.WithCall(buildflag.Call{Method: method})
}

// The first node is asked, with the files that a build would have; nothing is
// written down and no other node is woken.
func TestCall(t *testing.T) {
	dialtest.NoLeaks(t)
	dir := t.TempDir()
	s := frontend(t, "", func(ctx context.Context, b *buildkittest.Build, attrs map[string]string) (map[string][]byte, error) {
		if err := b.FetchDir(ctx, request.LocalDockerfile, dir); err != nil {
			return nil, err
		}
		text, err := os.ReadFile(filepath.Join(dir, "Dockerfile"))
		return map[string][]byte{AnswerJSON: []byte(`{"a":1}`), "asked": []byte(attrs["requestid"] + " " + attrs["platform"]), "file": text}, err
	})
	other := frontend(t, "", nil)
	o := options(t)
	o.Started = func(node, ref string) { t.Errorf("a record of %s/%s is kept", node, ref) }
	r, err := Call(t.Context(), builderOf(node("b0", s.Endpoint()), node("b1", other.Endpoint(), "linux/arm64")), questionOf(t, "check"), o)
	if err != nil {
		t.Fatal(err)
	}
	if r.Node != "b0" || r.Answer["asked"] != "frontend.lint linux/arm64,linux/amd64" || r.Answer["file"] != "FROM scratch\n" {
		t.Errorf("%+v", r)
	}
	if m := r.Metadata(); len(m) != 3 || m["file"] != "FROM scratch\n" || r.ImageID() != "" {
		t.Errorf("metadata %v", m)
	}
	if n := other.Connections(); n != 0 {
		t.Errorf("the second node was connected to %d times", n)
	}
	for _, sent := range s.Requests() {
		if sent.Frontend != "" || len(sent.Exporters) != 0 {
			t.Errorf("it was asked to build: %+v", sent)
		}
	}
}

func TestCallThatIsNotKnown(t *testing.T) {
	dialtest.NoLeaks(t)
	for name, c := range map[string]struct {
		method string
		answer map[string][]byte
		err    error
		hint   string
	}{
		"the frontend does not know it": {"nosuch", nil, errdefs.NewUnsupportedSubrequestError("frontend.nosuch"), "--call=subrequests.describe"},
		"nor what it knows":             {"subrequests.describe", nil, errdefs.NewUnsupportedSubrequestError("x"), "# syntax=docker/dockerfile:1"},
		"it takes no calls":             {"check", nil, errdefs.NewUnsupportedFrontendCapError("moby.buildkit.frontend.subrequests"), "# syntax=docker/dockerfile:1"},
		"the daemon takes no gateways":  {"check", nil, status.Error(codes.Unimplemented, "unknown service"), "a newer daemon"},
		"it builds instead":             {"outline", map[string][]byte{"containerimage.config": []byte("{}")}, nil, "--call=subrequests.describe"},
	} {
		s := frontend(t, "v0.9.1", func(context.Context, *buildkittest.Build, map[string]string) (map[string][]byte, error) {
			return c.answer, c.err
		})
		_, err := Call(t.Context(), builderOf(node("b0", s.Endpoint())), questionOf(t, c.method), options(t))
		var u *Unsupported
		if !errors.As(err, &u) || u.Node != "b0" {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, want := range []string{"--call=" + c.method, "b0", "BuildKit v0.9.1"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %q is not in %q", name, want, err)
			}
		}
		if !strings.Contains(strings.Join(hint.Of(err), "\n"), c.hint) {
			t.Errorf("%s: hints %q", name, hint.Of(err))
		}
	}
}

func TestCallFails(t *testing.T) {
	dialtest.NoLeaks(t)
	s := frontend(t, "", func(context.Context, *buildkittest.Build, map[string]string) (map[string][]byte, error) {
		return nil, errors.New("dockerfile parse error on line 2")
	})
	_, err := Call(t.Context(), builderOf(node("b0", s.Endpoint())), questionOf(t, "outline"), options(t))
	if err == nil || err.Error() != "failed to solve: dockerfile parse error on line 2" {
		t.Errorf("%v", err)
	}
	bad := questionOf(t, "check")
	bad.Context.Dir = ""
	if _, err := Call(t.Context(), builderOf(node("b0", "tcp://127.0.0.1:1")), bad, options(t)); err == nil {
		t.Error("a request without a context was sent")
	}
}

// Ctrl-C, and the daemon's death, end a call as they end a build.
func TestCallIsEnded(t *testing.T) {
	dialtest.NoLeaks(t)
	asked := make(chan struct{}, 2)
	hang := func(ctx context.Context, _ *buildkittest.Build, _ map[string]string) (map[string][]byte, error) {
		asked <- struct{}{}
		<-ctx.Done()
		return nil, ctx.Err()
	}
	s := frontend(t, "", hang)
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("interrupted")
	go func() {
		<-asked
		cancel(why)
	}()
	if _, err := Call(ctx, builderOf(node("b0", s.Endpoint())), questionOf(t, "check"), options(t)); !errors.Is(err, why) {
		t.Errorf("%v", err)
	}
	dies := frontend(t, "", hang)
	go func() {
		<-asked
		dies.Kill()
	}()
	_, err := Call(t.Context(), builderOf(node("b0", dies.Endpoint())), questionOf(t, "check"), options(t))
	var gone *Lost
	if !errors.As(err, &gone) {
		t.Errorf("%v", err)
	}
}

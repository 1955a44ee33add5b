package build

import (
	"context"
	"encoding/base64"
	"errors"
	"io"
	"iter"
	"maps"
	"strings"
	"testing"

	"github.com/berthbuild/berth/internal/builder"
	"github.com/berthbuild/berth/internal/buildflag"
	"github.com/berthbuild/berth/internal/pool"
	"github.com/berthbuild/berth/internal/progress"
	"github.com/berthbuild/berth/internal/registry"
	"github.com/berthbuild/berth/internal/request"
	"github.com/moby/buildkit/client"
	"github.com/moby/moby/api/types/jsonstream"
	mobyclient "github.com/moby/moby/client"
)

// pushEngine is a Docker engine that notes what it is to push.
type pushEngine struct {
	answer string // lines of JSON
	names  []string
	auth   string
	closed bool
}

func (e *pushEngine) ImageLoad(context.Context, io.Reader, ...mobyclient.ImageLoadOption) (mobyclient.ImageLoadResult, error) {
	return nil, errors.New("nothing is to be loaded")
}

func (e *pushEngine) ImagePush(_ context.Context, name string, o mobyclient.ImagePushOptions) (mobyclient.ImagePushResponse, error) {
	e.names = append(e.names, name)
	raw, err := base64.URLEncoding.DecodeString(o.RegistryAuth)
	e.auth = string(raw)
	return pushAnswer{io.NopCloser(strings.NewReader(e.answer))}, err
}

func (e *pushEngine) Close() error { e.closed = true; return nil }

// pushAnswer is read as a stream; its other methods are not used.
type pushAnswer struct{ io.ReadCloser }

func (pushAnswer) JSONMessages(context.Context) iter.Seq2[jsonstream.Message, error] { return nil }
func (pushAnswer) Wait(context.Context) error                                        { return nil }

func engineOptions(t *testing.T, e *pushEngine, opened *string) Options {
	t.Helper()
	p, err := progress.New(io.Discard, progress.Quiet, progress.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = p.Close() })
	return Options{
		Progress: p,
		Keychain: registry.Keychain(func(host string) (user, pass, identity, registry string, err error) {
			return "user-of-" + host, "p", "", "", nil
		}),
		Engine: func(_ context.Context, name string) (Engine, error) {
			*opened = name
			return e, nil
		},
	}
}

// engineCaps are those of an engine, with or without the containerd store.
func engineCaps(containerd bool) request.Capabilities {
	w := &client.WorkerInfo{}
	if containerd {
		w.Labels = map[string]string{"org.mobyproject.buildkit.worker.snapshotter": "overlayfs"}
	}
	return request.EngineCapabilities(client.BuildkitVersion{}, []*client.WorkerInfo{w}, "Docker/20.10.24 (linux)")
}

func TestSettle(t *testing.T) {
	const id, digest, pushed = "containerimage.config.digest", "containerimage.digest", `{"aux":{"Digest":"sha256:pushed"}}`
	for _, c := range []struct {
		name   string
		caps   request.Capabilities
		output string
		answer map[string]string
		want   map[string]string
		pushes string
	}{
		{"another daemon", request.CapabilitiesOf(client.BuildkitVersion{Version: "v0.34.2"}), "registry", map[string]string{digest: "d"}, map[string]string{digest: "d"}, ""},
		{"before 23", engineCaps(false), "image", map[string]string{digest: "i"}, map[string]string{digest: "i", id: "i"}, ""},
		{"with an id", engineCaps(false), "image", map[string]string{digest: "i", id: "c"}, map[string]string{digest: "i", id: "c"}, ""},
		{"push", engineCaps(false), "registry", map[string]string{digest: "i"}, map[string]string{digest: "sha256:pushed", id: "i"}, "r.example/a:1 r.example/b:2"},
		{"containerd store", engineCaps(true), "registry", map[string]string{digest: "d", id: "c"}, map[string]string{digest: "d"}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := request.Request{
				Tags: []string{"r.example/a:1", "r.example/b:2"}, Outputs: []buildflag.Output{{Type: c.output, Attrs: map[string]string{}}},
			}.ForEngine(c.caps)
			if err != nil {
				t.Fatal(err)
			}
			e, opened := &pushEngine{answer: pushed + "\n"}, ""
			p := part{member: &member{Member: pool.Member{Node: builder.Node{Name: "ctx", Endpoint: "ctx", Driver: builder.DriverDocker}}}, req: r}
			if err := settle(t.Context(), p, c.caps, c.answer, engineOptions(t, e, &opened)); err != nil {
				t.Fatal(err)
			}
			if !maps.Equal(c.answer, c.want) {
				t.Errorf("answer %v, want %v", c.answer, c.want)
			}
			if got := strings.Join(e.names, " "); got != c.pushes {
				t.Errorf("pushed %q, want %q", got, c.pushes)
			}
			if c.pushes == "" {
				return
			}
			if opened != "ctx" || !e.closed {
				t.Errorf("engine %q was opened, closed: %v", opened, e.closed)
			}
			if !strings.Contains(e.auth, "user-of-r.example") {
				t.Errorf("credentials %s", e.auth)
			}
		})
	}
}

func TestSettleFails(t *testing.T) {
	r := request.Request{Tags: []string{"r.example/a:1"}, Outputs: []buildflag.Output{{Type: buildflag.OutputRegistry, Attrs: map[string]string{}}}}
	r, err := r.ForEngine(engineCaps(false))
	if err != nil {
		t.Fatal(err)
	}
	e, opened := &pushEngine{answer: `{"errorDetail":{"message":"denied"},"error":"denied"}`}, ""
	p := part{member: &member{Member: pool.Member{Node: builder.Node{Endpoint: "ctx"}}}, req: r}
	o := engineOptions(t, e, &opened)
	if err := settle(t.Context(), p, engineCaps(false), map[string]string{}, o); err == nil || !strings.Contains(err.Error(), "pushing r.example/a:1: denied") || !e.closed {
		t.Errorf("error = %v, closed: %v", err, e.closed)
	}
	o.Engine = func(context.Context, string) (Engine, error) { return nil, errors.New("gone") }
	if err := settle(t.Context(), p, engineCaps(false), map[string]string{}, o); err == nil || err.Error() != "gone" {
		t.Errorf("error = %v", err)
	}
}

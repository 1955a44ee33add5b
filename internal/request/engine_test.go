package request

import (
	"reflect"
	"strings"
	"testing"

	"github.com/moby/buildkit/client"

	"github.com/berthbuild/berth/internal/hint"
)

func engineOf(version string, labels map[string]string) Capabilities {
	return EngineCapabilities(client.BuildkitVersion{Version: version}, []*client.WorkerInfo{{Labels: labels}}, "Docker/20.10.24 (linux)")
}

func oldEngine() Capabilities { return engineOf("", nil) }
func newEngine() Capabilities {
	return engineOf("v0.25.0", map[string]string{"org.mobyproject.buildkit.worker.snapshotter": "overlayfs"})
}

func TestEngineCapabilities(t *testing.T) {
	for _, c := range []struct {
		got  Capabilities
		want Capabilities
	}{
		{oldEngine(), Capabilities{Engine: "Docker/20.10.24 (linux)"}},
		{
			engineOf("v0.11.6", nil), // Docker 24 with a graph driver
			Capabilities{Version: "v0.11.6", History: true, Engine: "Docker/20.10.24 (linux)"},
		},
		{newEngine(), Capabilities{
			Version: "v0.25.0", Attestations: true, History: true, MultipleOutputs: true, GitQuery: true,
			Engine: "Docker/20.10.24 (linux)", ContainerdStore: true,
		}},
		{EngineCapabilities(client.BuildkitVersion{}, nil, ""), Capabilities{Engine: "a Docker engine"}},
	} {
		if c.got != c.want {
			t.Errorf("got  %+v\nwant %+v", c.got, c.want)
		}
	}
}

func TestEngineSolve(t *testing.T) {
	type export struct {
		kind  string
		attrs map[string]string
	}
	for _, c := range []struct {
		name    string
		caps    Capabilities
		change  func(*Request)
		exports []export
		pushes  []string
	}{
		{"load", oldEngine(), func(r *Request) { r.Outputs = outputs(t, "type=docker") }, []export{{"moby", map[string]string{"name": "docker.io/library/a:1"}}}, nil},
		{"image", oldEngine(), func(r *Request) { r.Tags, r.Outputs = nil, outputs(t, "type=image,name=own") }, []export{{"moby", map[string]string{"name": "own"}}}, nil},
		{"push", oldEngine(), func(r *Request) { r.Outputs = outputs(t, "type=registry") }, []export{{"moby", map[string]string{"name": "docker.io/library/a:1"}}}, []string{"docker.io/library/a:1"}},
		{
			"load and push", oldEngine(), func(r *Request) { r.Outputs = outputs(t, "type=docker", "type=registry") },
			[]export{{"moby", map[string]string{"name": "docker.io/library/a:1"}}},
			[]string{"docker.io/library/a:1"},
		},
		{"files", oldEngine(), func(r *Request) { r.Outputs = outputs(t, "out") }, []export{{"local", map[string]string{}}}, nil},
		{"nothing", oldEngine(), func(r *Request) { r.Outputs = outputs(t, "type=cacheonly") }, nil, nil},
		{
			"push, containerd store", newEngine(), func(r *Request) { r.Outputs = outputs(t, "type=registry") },
			[]export{{"moby", map[string]string{"name": "docker.io/library/a:1", "push": "true"}}}, nil,
		},
		{
			"archive and load, containerd store", newEngine(), func(r *Request) { r.Outputs = outputs(t, "type=oci,dest=x", "type=docker") },
			[]export{{"oci", map[string]string{"name": "docker.io/library/a:1"}}, {"moby", map[string]string{"name": "docker.io/library/a:1"}}}, nil,
		},
		{
			"different images", newEngine(), func(r *Request) { r.Tags, r.Outputs = nil, outputs(t, "type=image,name=x", "type=image,name=y") },
			[]export{{"moby", map[string]string{"name": "x"}}, {"moby", map[string]string{"name": "y"}}}, nil,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := local()
			r.Tags = []string{"docker.io/library/a:1"}
			c.change(&r)
			before := r.clone()
			r2, err := r.ForEngine(c.caps)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(r.clone(), before) {
				t.Error("the request was changed")
			}
			opt, err := r2.Solve(c.caps)
			if err != nil {
				t.Fatal(err)
			}
			var got []export
			for _, ex := range opt.Exports {
				got = append(got, export{ex.Type, ex.Attrs})
			}
			if !reflect.DeepEqual(got, c.exports) {
				t.Errorf("exports %v, want %v", got, c.exports)
			}
			if len(opt.Exports) != len(r2.Exported()) {
				t.Errorf("%d exports for %d outputs", len(opt.Exports), len(r2.Exported()))
			}
			if pushes := r2.EnginePushes(c.caps); !reflect.DeepEqual(pushes, c.pushes) {
				t.Errorf("the engine is to push %q, want %q", pushes, c.pushes)
			}
			if opt.FrontendAttrs["image-resolve-mode"] != "local" {
				t.Error("the engine's own images do not come first")
			}
			if _, attests := opt.FrontendAttrs["attest:provenance"]; attests != c.caps.ContainerdStore {
				t.Errorf("attests: %v", attests)
			}
		})
	}
}

func TestEnginePull(t *testing.T) {
	r := local()
	r.Pull = true
	opt, err := r.Solve(oldEngine())
	if err != nil || opt.FrontendAttrs["image-resolve-mode"] != "pull" {
		t.Errorf("%v, %v", opt.FrontendAttrs, err)
	}
	if opt, err = local().Solve(newest()); err != nil || opt.FrontendAttrs["image-resolve-mode"] != "" {
		t.Errorf("on another daemon: %v, %v", opt.FrontendAttrs, err)
	}
}

func TestEngineRefuses(t *testing.T) {
	for _, c := range []struct {
		want   string
		change func(*Request)
		both   bool // with the containerd store, too
	}{
		{"several platforms (linux/amd64,linux/arm64)", func(r *Request) { r.Platforms = plats("linux/amd64", "linux/arm64") }, false},
		{"--provenance", func(r *Request) { r.Attests = attests(t, "type=provenance,mode=max") }, false},
		{"--sbom", func(r *Request) { r.Attests = attests(t, "type=provenance,disabled=true", "type=sbom") }, false},
		{"type=oci", func(r *Request) { r.Outputs = outputs(t, "type=oci,dest=x") }, false},
		{"type=docker", func(r *Request) { r.Outputs = outputs(t, "type=docker,dest=x") }, false},
		{"cannot push by digest", func(r *Request) { r.Outputs = outputs(t, "type=image,name=x/y,push=true,push-by-digest=true") }, true},
		{"loads into itself", func(r *Request) { r.Outputs = outputs(t, "type=docker,context=other") }, true},
	} {
		r := local()
		c.change(&r)
		_, err := r.ForEngine(oldEngine())
		if err == nil || !strings.Contains(err.Error(), c.want) || len(hint.Of(err)) == 0 {
			t.Errorf("%s: %v", c.want, err)
		}
		if err != nil && !c.both && !strings.Contains(err.Error(), "containerd image store, and Docker/20.10.24") {
			t.Errorf("%s: no reason in %v", c.want, err)
		}
		if _, err := r.ForEngine(newEngine()); (err != nil) != c.both {
			t.Errorf("%s, with the containerd store: %v", c.want, err)
		}
		if same, err := r.ForEngine(newest()); err != nil || !reflect.DeepEqual(same, r) {
			t.Errorf("%s, on another daemon: %v", c.want, err)
		}
	}
	r := local()
	r.Outputs = outputs(t, "type=docker", "out")
	two, err := r.ForEngine(oldEngine())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := two.Solve(oldEngine()); err == nil || !strings.Contains(err.Error(), "the BuildKit of Docker/20.10.24") {
		t.Errorf("two outputs: %v", err)
	}
}

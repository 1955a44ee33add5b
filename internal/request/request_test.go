package request

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/client"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthbuild/berth/internal/buildflag"
	"github.com/berthbuild/berth/internal/hint"
)

var update = flag.Bool("update", false, "write the golden files")

func newest() Capabilities { return CapabilitiesOf(client.BuildkitVersion{Version: "v0.34.2"}) }

func local() Request {
	return Request{Context: Context{Dir: "/src"}, Dockerfile: Dockerfile{Dir: "/src", Name: "Dockerfile"}}
}

func outputs(t *testing.T, vals ...string) []buildflag.Output {
	t.Helper()
	out, err := buildflag.ParseOutputs(vals)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func attests(t *testing.T, vals ...string) []buildflag.Attest {
	t.Helper()
	out, err := buildflag.ParseAttests(vals, "", "")
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func plats(specs ...string) []ocispecs.Platform {
	var out []ocispecs.Platform
	for _, s := range specs {
		out = append(out, platforms.Normalize(platforms.MustParse(s)))
	}
	return out
}

// everything is a request with every field in use.
func everything(t *testing.T) Request {
	r := local()
	r.Dockerfile.Name = "prod.Dockerfile"
	r.Tags = []string{"docker.io/library/a:1", "localhost:5000/b:2"}
	r.Target = "final"
	r.BuildArgs = []buildflag.KV{{Key: "A", Value: "1", HasValue: true}, {Key: "UNSET"}, {Key: "A", Value: "2", HasValue: true}, {Key: "EMPTY", HasValue: true}}
	r.Labels = []buildflag.KV{{Key: "l", Value: "x=y", HasValue: true}, {Key: "bare"}}
	r.Platforms = plats("linux/amd64", "linux/arm/v7", "windows(10.0.17763)/amd64")
	r.NoCache, r.Pull = true, true
	r.Secrets = []buildflag.Secret{{ID: "s", Env: "TOKEN"}}
	r.SSH = []buildflag.SSH{{ID: "default", Paths: []string{"/agent"}}}
	r.Outputs = outputs(t, "type=registry,registry.insecure=true", "type=local,dest=out", "type=cacheonly", "type=oci,dest=x.tar,name=not-used", "type=image,annotation.k=v", "type=tar,dest=-")
	return r
}

// TestSolveGolden compares what BuildKit is asked with files that a person can
// read: testdata/NAME.json.
func TestSolveGolden(t *testing.T) {
	split, err := everything(t).WithOutputs(outputs(t, "type=registry", "type=local,dest=out", "type=cacheonly", "type=image")).ForNode(plats("linux/arm64"), true)
	if err != nil {
		t.Fatal(err)
	}
	remote := Request{Context: Context{URL: "https://example.com/a.git#main:sub"}}
	remoteFile := remote
	remoteFile.Dockerfile = Dockerfile{Inline: []byte("FROM scratch\n")}
	load := local()
	load.Tags = []string{"docker.io/library/test:latest"}
	load.Outputs = outputs(t, "type=docker,context=other")
	noProvenance, maxProvenance, noDefault, sbom := local(), local(), local(), local()
	noProvenance.Attests = attests(t, "type=provenance,disabled=true")
	maxProvenance.Attests = attests(t, "type=provenance,mode=max")
	noDefault.NoProvenance = true
	noDefault.NoArtifacts = true
	noDefault.Outputs = outputs(t, "type=registry,name=x", "type=oci,dest=x", "type=docker,dest=y", "type=image,name=y,oci-artifact=true", "type=local,dest=z")
	sbom.Attests = attests(t, `type=sbom,generator=localhost:5000/scan,"extra=a,b"`, "type=provenance,builder-id=https://ci.example/1")
	git := local().WithVCS(VCS{
		Source: "https://example.com/o/r.git", Revision: "abc-dirty", Context: ".", Dockerfile: "sub",
		Labels: []buildflag.KV{{Key: "revision", Value: "abc", HasValue: true}, {Key: "entrypoint", Value: "sub/Dockerfile", HasValue: true}},
	})
	git.Labels = []buildflag.KV{{Key: "revision", Value: "my own", HasValue: true}}
	for name, tc := range map[string]struct {
		r Request
		c Capabilities
	}{
		"minimal":         {local(), newest()},
		"everything":      {everything(t), newest()},
		"node":            {split, newest()},
		"remote":          {remote, newest()},
		"remote-inline":   {remoteFile, newest()},
		"load":            {load, newest()},
		"old-daemon":      {load, CapabilitiesOf(client.BuildkitVersion{})},
		"provenance-off":  {noProvenance, newest()},
		"provenance-more": {maxProvenance, newest()},
		"attest-defaults": {noDefault, newest()},
		"attest-sbom":     {sbom, newest()},
		"git":             {git, newest()},
	} {
		t.Run(name, func(t *testing.T) {
			opt, err := tc.r.Solve(tc.c)
			if err != nil {
				t.Fatal(err)
			}
			got := goldenText(t, opt)
			file := filepath.Join("testdata", name+".json")
			if *update {
				if err := os.WriteFile(file, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != string(want) {
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
			}
			if len(opt.Exports) != len(tc.r.Exported()) {
				t.Errorf("%d exports for %d outputs", len(opt.Exports), len(tc.r.Exported()))
			}
		})
	}
}

func goldenText(t *testing.T, opt client.SolveOpt) []byte {
	t.Helper()
	type export struct {
		Type  string
		Attrs map[string]string
	}
	view := struct {
		Frontend string
		Attrs    map[string]string
		Exports  []export
	}{opt.Frontend, opt.FrontendAttrs, nil}
	for _, e := range opt.Exports {
		view.Exports = append(view.Exports, export{e.Type, e.Attrs})
	}
	text, err := json.MarshalIndent(view, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return append(text, '\n')
}

func TestValidateRefuses(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*Request)
		want   string
	}{
		{"no context", func(r *Request) { r.Context = Context{} }, "no context"},
		{"two contexts", func(r *Request) { r.Context.URL = "https://example.com/x.git" }, "two contexts"},
		{"no Dockerfile", func(r *Request) { r.Dockerfile = Dockerfile{} }, "no Dockerfile"},
		{"a name without a folder", func(r *Request) { r.Dockerfile = Dockerfile{Name: "x"} }, "no Dockerfile"},
		{"no name", func(r *Request) { r.Dockerfile.Name = "" }, "name of the Dockerfile is empty"},
		{"two Dockerfiles", func(r *Request) { r.Dockerfile.Inline = []byte("FROM x") }, "from standard input and from /src"},
		{"empty stdin", func(r *Request) { r.Dockerfile = Dockerfile{Inline: []byte{}} }, "standard input is empty"},
		{"build arg", func(r *Request) { r.BuildArgs = []buildflag.KV{{Value: "hunter2", HasValue: true}} }, "build argument has an empty name"},
		{"label", func(r *Request) { r.Labels = []buildflag.KV{{}} }, "label has an empty name"},
		{"push without tag", func(r *Request) { r.Outputs = outputs(t, "type=registry") }, "tag is needed when pushing to registry"},
		{"push=true without tag", func(r *Request) { r.Outputs = outputs(t, "type=image,push=true") }, "tag is needed when pushing to registry"},
		{"push with an empty name", func(r *Request) { r.Outputs = outputs(t, "type=registry,name=") }, "tag is needed when pushing to registry"},
		{"docker on two platforms", func(r *Request) {
			r.Outputs, r.Platforms = outputs(t, "type=docker,dest=x"), plats("linux/amd64", "linux/arm64")
		}, "linux/amd64,linux/arm64"},
		{"twice to stdout", func(r *Request) { r.Outputs = outputs(t, "-", "type=oci,dest=-") }, "type=oci,dest=-"},
		{"twice to a file", func(r *Request) { r.Outputs = outputs(t, "type=tar,dest=a", "type=oci,dest=./a") }, "two outputs go to ./a"},
		{"twice to stdout, unsaid", func(r *Request) { r.Outputs = outputs(t, "type=tar", "type=oci") }, "two outputs go to the standard output"},
		{"a layout nowhere", func(r *Request) { r.Outputs = outputs(t, "type=docker,tar=false") }, "type=docker,tar=false writes a folder and needs"},
		{"a file that goes", func(r *Request) { r.Outputs = outputs(t, "type=local,dest=a,mode=delete", "type=tar,dest=a/b/c") }, "would delete what type=tar,dest=a/b/c writes"},
		{"two layouts", func(r *Request) { r.Outputs = outputs(t, "type=oci,tar=false,dest=a", "type=docker,tar=false,dest=b") }, "one output can be a layout"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := local()
			tc.change(&r)
			err := r.Validate()
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("error = %v, want %q in it", err, tc.want)
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Error("the error repeats a value")
			}
			if _, err := r.Solve(newest()); err == nil {
				t.Error("Solve takes what Validate refuses")
			}
		})
	}
}

func TestValidateAccepts(t *testing.T) {
	push := local()
	push.Outputs = outputs(t, "type=image,push=true,name=localhost:5000/x")
	inline := local()
	inline.Dockerfile = Dockerfile{Inline: []byte("FROM scratch")}
	several := local()
	several.Platforms = plats("linux/amd64", "linux/arm64")
	several.Outputs = outputs(t, "a", "type=oci,dest=-")
	for _, r := range []Request{local(), everything(t), push, inline, several, {Context: Context{URL: "https://example.com/x.git"}, Dockerfile: Dockerfile{Name: "deep/Dockerfile"}}} {
		if err := r.Validate(); err != nil {
			t.Errorf("%+v: %v", r, err)
		}
	}
}

func TestSolveNamesWhatTheDaemonLacks(t *testing.T) {
	r := local()
	r.Outputs = outputs(t, "a", "type=tar,dest=b")
	_, err := r.Solve(CapabilitiesOf(client.BuildkitVersion{Version: "v0.12.5"}))
	if err == nil || !strings.Contains(err.Error(), "BuildKit v0.12.5") || len(hint.Of(err)) == 0 {
		t.Errorf("several outputs: %v", err)
	}
	r.Outputs = outputs(t, "a", "type=cacheonly")
	if _, err := r.Solve(CapabilitiesOf(client.BuildkitVersion{})); err != nil {
		t.Errorf("cacheonly is no export: %v", err)
	}
	for flag, attest := range map[string]string{"--provenance": "type=provenance,mode=max", "--sbom": "type=sbom"} {
		r.Attests = attests(t, attest)
		_, err = r.Solve(CapabilitiesOf(client.BuildkitVersion{}))
		if err == nil || !strings.Contains(err.Error(), "older than v0.11") || !strings.Contains(err.Error(), flag) || len(hint.Of(err)) == 0 {
			t.Errorf("%s: %v", attest, err)
		}
		r.Attests = attests(t, attest+",disabled=true")
		if _, err := r.Solve(CapabilitiesOf(client.BuildkitVersion{})); err != nil {
			t.Errorf("%s, switched off: %v", attest, err)
		}
	}
}

func TestCapabilitiesOf(t *testing.T) {
	for _, tc := range []struct {
		version            string
		attest, many, hist bool
	}{
		{"", false, false, false},
		{"v0.10.6", false, false, false},
		{"v0.11.0", true, false, true},
		{"0.12.5", true, false, true},
		{"v0.13.0-rc1", true, true, true},
		{"v0.34.2", true, true, true},
		{"v1.0.0", true, true, true},
		{"v0.0.0+unknown", true, true, true},
		{"3f5c1d2.m", true, true, true},
		{"v0.x.1", true, true, true},
		{"garbage", true, true, true},
	} {
		want := Capabilities{Version: tc.version, Attestations: tc.attest, MultipleOutputs: tc.many, History: tc.hist}
		got := CapabilitiesOf(client.BuildkitVersion{Version: tc.version})
		want.GitQuery = got.GitQuery // has a test of its own
		if got != want {
			t.Errorf("%q: %+v, want %+v", tc.version, got, want)
		}
	}
}

// scribble writes over everything that a value could share with another.
func scribble(r Request) {
	for _, b := range [][]byte{r.Dockerfile.Inline} {
		clear(b)
	}
	clear(r.Tags)
	clear(r.BuildArgs)
	clear(r.Labels)
	for i := range r.Platforms {
		clear(r.Platforms[i].OSFeatures)
	}
	clear(r.Platforms)
	clear(r.Secrets)
	for i := range r.SSH {
		clear(r.SSH[i].Paths)
	}
	clear(r.SSH)
	for i := range r.Outputs {
		r.Outputs[i].Attrs["scribble"] = "x"
	}
	clear(r.Outputs)
	for i := range r.Attests {
		r.Attests[i].Attrs["scribble"] = "x"
	}
	clear(r.Attests)
	clear(r.VCS.Labels)
}

func TestNothingIsShared(t *testing.T) {
	fresh := func() Request {
		r := everything(t)
		r.Outputs = outputs(t, "type=registry", "type=local,dest=out", "type=image")
		r.Platforms = []ocispecs.Platform{{OS: "windows", Architecture: "amd64", OSFeatures: []string{"win32k"}}}
		r.Dockerfile = Dockerfile{Inline: []byte("FROM scratch")}
		r.Attests = attests(t, "type=sbom,generator=x")
		r.VCS = VCS{Labels: []buildflag.KV{{Key: "a"}}}
		return r
	}
	for name, derive := range map[string]func(Request){
		"WithPlatforms": func(r Request) { scribble(r.WithPlatforms(r.Platforms)) },
		"WithOutputs":   func(r Request) { scribble(r.WithOutputs(r.Outputs)) },
		"WithVCS":       func(r Request) { scribble(r.WithVCS(r.VCS)) },
		"ForNode whole": func(r Request) {
			n, err := r.ForNode(r.Platforms, false)
			if err != nil {
				t.Fatal(err)
			}
			scribble(n)
		},
		"ForNode split": func(r Request) {
			n, err := r.ForNode(r.Platforms, true)
			if err != nil {
				t.Fatal(err)
			}
			scribble(n)
		},
		"Exported": func(r Request) {
			for _, o := range r.Exported() {
				o.Attrs["scribble"] = "x"
			}
		},
		"PushTags": func(r Request) { clear(r.PushTags()) },
		"Solve": func(r Request) {
			opt, err := r.Solve(newest())
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range opt.Exports {
				clear(e.Attrs)
			}
		},
	} {
		r := fresh()
		derive(r)
		if want := fresh(); !reflect.DeepEqual(r, want) {
			t.Errorf("%s changed the request:\n%+v\nwant\n%+v", name, r, want)
		}
	}
}

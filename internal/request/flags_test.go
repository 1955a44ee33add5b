package request

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/moby/buildkit/client"

	"github.com/berthbuild/berth/internal/buildflag"
	"github.com/berthbuild/berth/internal/hint"
)

// must gives what a parser of flags gives.
func must[T any](t *testing.T, parse func([]string) (T, error), vals ...string) T {
	t.Helper()
	out, err := parse(vals)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func cachesFrom(v []string) ([]buildflag.Cache, error) {
	return buildflag.ParseCaches("--cache-from", v)
}
func cachesTo(v []string) ([]buildflag.Cache, error) { return buildflag.ParseCaches("--cache-to", v) }

// flagged is a request with everything in it that is about caches, containers,
// annotations and rights.
func flagged(t *testing.T) Request {
	r := local()
	r.Tags = []string{"docker.io/library/a:1"}
	r.Platforms = plats("linux/amd64", "linux/arm64")
	r.Outputs = outputs(t, "type=image,annotation.a=old,annotation-manifest.a=old,annotation.own=1", "type=oci,dest=x", "out", "type=cacheonly")
	r.CacheFrom = must(t, cachesFrom, "user/app:cache", "type=local,src=/c,tag=x", "type=gha,token=t,url=u")
	r.CacheTo = must(t, cachesTo, "type=local,dest=/c,mode=max", "type=inline", "type=s3,bucket=b,secret_access_key=s")
	r.NoCacheFilter = []string{"one", "two"}
	r.Hosts = must(t, buildflag.ParseHosts, "db=10.0.0.5", "v6=[::1]", "db=10.0.0.6")
	r.Network = "host"
	r.ShmSize = 64 << 20
	r.Ulimits = must(t, buildflag.ParseUlimits, "nofile=1024:4096", "core=-1")
	r.CgroupParent = "/builds"
	r.Resources = must(t, buildflag.ParseResources, "memory=1g", "memory-swap=-1", "cpu-shares=2", "cpu-period=3", "cpu-quota=4", "cpuset-cpus=0-1,3", "cpuset-mems=0")
	r.Entitlements = must(t, buildflag.ParseAllow, "security.insecure", "device=a/b=c,alias=d").Daemon
	r.Annotations = must(t, buildflag.ParseAnnotations, "a=1", "a=2", "index,index-descriptor:i=x=y", "manifest-descriptor:d=1",
		"manifest[linux/arm64/v8]:only=arm", "manifest-descriptor[linux/amd64]:only=amd")
	return r
}

// TestFlagsGolden compares what BuildKit is asked with files that a person can
// read: testdata/flags-NAME.json.
func TestFlagsGolden(t *testing.T) {
	node, err := flagged(t).WithOutputs(outputs(t, "type=registry", "out")).ForNode(plats("linux/arm64"), true)
	if err != nil {
		t.Fatal(err)
	}
	inline := local()
	inline.BuildArgs = []buildflag.KV{{Key: "BUILDKIT_INLINE_CACHE", Value: "1", HasValue: true}}
	inline.Network = "none"
	engine := local()
	engine.Hosts = must(t, buildflag.ParseHosts, "host.docker.internal=host-gateway")
	engine.CacheTo = must(t, cachesTo, "type=inline")
	modern := engine.WithOutputs(outputs(t, "type=docker"))
	modern.Annotations = must(t, buildflag.ParseAnnotations, "index,manifest:a=1")
	if modern, err = modern.ForEngine(gatewayEngine()); err != nil {
		t.Fatal(err)
	}
	old := gatewayEngine()
	old.ContainerdStore, old.Attestations = false, false
	for name, tc := range map[string]struct {
		r Request
		c Capabilities
	}{
		"all":           {flagged(t), newest()},
		"node":          {node, newest()},
		"inline":        {inline, newest()},
		"engine":        {modern, gatewayEngine()},
		"engine-driver": {engine, old},
	} {
		t.Run(name, func(t *testing.T) {
			opt, err := tc.r.Solve(tc.c)
			if err != nil {
				t.Fatal(err)
			}
			got, err := json.MarshalIndent(map[string]any{
				"Attrs": opt.FrontendAttrs, "Exports": exportView(opt.Exports), "CacheImports": opt.CacheImports,
				"CacheExports": opt.CacheExports, "Entitlements": opt.AllowedEntitlements,
			}, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, '\n')
			file := filepath.Join("testdata", "flags-"+name+".json")
			if *update {
				if err := os.WriteFile(file, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if want, err := os.ReadFile(file); err != nil || string(got) != string(want) {
				t.Errorf("%v; got:\n%s\nwant:\n%s", err, got, want)
			}
		})
	}
}

// exportView is what of an export can be written as JSON.
func exportView(list []client.ExportEntry) []map[string]any {
	var out []map[string]any
	for _, ex := range list {
		out = append(out, map[string]any{"Type": ex.Type, "Attrs": ex.Attrs})
	}
	return out
}

func gatewayEngine() Capabilities {
	return engineOf("v0.31.0", map[string]string{
		"org.mobyproject.buildkit.worker.snapshotter":          "overlayfs",
		"org.mobyproject.buildkit.worker.moby.host-gateway-ip": "172.17.0.1",
	})
}

func TestFlagsValidate(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*Request)
		want   string // "" is no error
	}{
		{"two caches in one folder", func(r *Request) {
			r.CacheTo = must(t, cachesTo, "type=local,dest=/a/b", "type=local,dest=/a/./b,tag=x")
		}, "two caches go to /a/b"},
		{"two folders", func(r *Request) { r.CacheTo = must(t, cachesTo, "type=local,dest=/a/b", "type=local,dest=/a/c") }, ""},
		{"no cache, twice", func(r *Request) { r.NoCache, r.NoCacheFilter = true, []string{"a"} }, "--no-cache and --no-cache-filter"},
		{"index of one image", func(r *Request) {
			r.Annotations, r.NoProvenance = must(t, buildflag.ParseAnnotations, "index:a=1"), true
			r.Outputs = outputs(t, "type=image,name=x")
		}, "index annotations not supported for single platform export"},
		{"index descriptor of one image", func(r *Request) {
			r.Annotations, r.Outputs = must(t, buildflag.ParseAnnotations, "index-descriptor:a=1"), outputs(t, "type=oci,dest=x")
		}, "--annotation index-descriptor:a"},
		{"index in docker's format", func(r *Request) {
			r.Annotations, r.Outputs = must(t, buildflag.ParseAnnotations, "index:a=1"), outputs(t, "type=docker,dest=x")
		}, "type=docker makes one image here"},
		{"index of an image that is loaded", func(r *Request) {
			r.Annotations, r.Outputs = must(t, buildflag.ParseAnnotations, "index:a=1"), outputs(t, "type=docker")
		}, ""},
		{"index of an image and its provenance", func(r *Request) {
			r.Annotations, r.Outputs = must(t, buildflag.ParseAnnotations, "index:a=1"), outputs(t, "type=image,name=x")
		}, ""},
		{"index of an archive with provenance", func(r *Request) {
			r.Annotations, r.Outputs = must(t, buildflag.ParseAnnotations, "index:a=1"), outputs(t, "type=oci,dest=x")
			r.Attests = []buildflag.Attest{{Type: "provenance", Attrs: map[string]string{"mode": "max"}}}
		}, ""},
		{"index of an archive with an SBOM", func(r *Request) {
			r.Annotations, r.Outputs = must(t, buildflag.ParseAnnotations, "index:a=1"), outputs(t, "type=oci,dest=x")
			r.Attests = []buildflag.Attest{{Type: "sbom"}}
		}, ""},
		{"index of an archive without an SBOM", func(r *Request) {
			r.Annotations, r.Outputs = must(t, buildflag.ParseAnnotations, "index:a=1"), outputs(t, "type=oci,dest=x")
			r.Attests = []buildflag.Attest{{Type: "sbom", Disabled: true}}
		}, "--annotation index:a"},
		{"index by a build argument", func(r *Request) {
			r.Annotations, r.Outputs = must(t, buildflag.ParseAnnotations, "index:a=1"), outputs(t, "type=oci,dest=x")
			r.BuildArgs = []buildflag.KV{{Key: "BUILDKIT_MULTI_PLATFORM", Value: "1", HasValue: true}}
		}, ""},
		{"index of two platforms", func(r *Request) {
			r.Annotations, r.Outputs, r.Platforms = must(t, buildflag.ParseAnnotations, "index:a=1"), outputs(t, "type=oci,dest=x"), plats("linux/amd64", "linux/arm64")
		}, ""},
		{"index of files", func(r *Request) {
			r.Annotations, r.Outputs = must(t, buildflag.ParseAnnotations, "index:a=1"), outputs(t, "out")
		}, ""},
		{"another platform", func(r *Request) {
			r.Annotations, r.Platforms = must(t, buildflag.ParseAnnotations, "manifest[linux/arm/v7]:a=hunter2"), plats("linux/amd64")
		}, "--annotation manifest[linux/arm/v7]:a: the build is not for linux/arm/v7 but for linux/amd64"},
		{"the daemon's own platform", func(r *Request) {
			r.Annotations = must(t, buildflag.ParseAnnotations, "manifest[linux/arm/v7]:a=1")
		}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := local()
			tc.change(&r)
			err := r.Validate()
			switch {
			case tc.want == "" && err != nil:
				t.Fatal(err)
			case tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)):
				t.Fatalf("error = %v, want %q in it", err, tc.want)
			case err != nil && strings.Contains(err.Error(), "hunter2"):
				t.Errorf("the error repeats a value: %v", err)
			}
		})
	}
}

// What a daemon is too old for is refused with its version; what it is not, is
// not.
func TestFlagsNameWhatTheDaemonLacks(t *testing.T) {
	v := func(version string) Capabilities { return CapabilitiesOf(client.BuildkitVersion{Version: version}) }
	for _, tc := range []struct {
		name     string
		change   func(*Request)
		old, new Capabilities
		want     []string
	}{
		{"limits", func(r *Request) { r.Resources = must(t, buildflag.ParseResources, "memory=1g") }, v("v0.30.9"), v("v0.31.0"), []string{"--resource needs BuildKit v0.31", "v0.30.9"}},
		{"limits", func(r *Request) { r.Resources = must(t, buildflag.ParseResources, "memory=1g") }, v(""), newest(), []string{"--resource", "older than v0.11"}},
		{"annotations", func(r *Request) {
			r.Annotations, r.Outputs = must(t, buildflag.ParseAnnotations, "a=1"), outputs(t, "type=image,name=x")
		}, v(""), v("v0.11.0"), []string{"--annotation needs BuildKit v0.11", "older than v0.11"}},
		{"index annotations", func(r *Request) {
			r.Annotations, r.Outputs = must(t, buildflag.ParseAnnotations, "index:a=1"), outputs(t, "type=docker")
		}, newest(), gatewayEngine(), []string{"index annotations not supported"}},
		{"devices", func(r *Request) { r.Entitlements = []string{"network.host", "device=a/b=c"} }, v("v0.19.0"), v("v0.20.0"), []string{"--allow device=a/b=c needs BuildKit v0.20", "v0.19.0"}},
		{"S3", func(r *Request) { r.CacheTo = must(t, cachesTo, "type=s3,bucket=b") }, v(""), v("v0.11.6"), []string{"--cache-to type=s3 needs BuildKit v0.11"}},
		{"Azure", func(r *Request) { r.CacheFrom = must(t, cachesFrom, "type=azblob,name=b") }, v(""), v("v0.11.6"), []string{"--cache-from type=azblob needs"}},
		{"two caches", func(r *Request) { r.CacheTo = must(t, cachesTo, "type=local,dest=/x", "type=inline") }, v(""), v("v0.11.6"), []string{"more than one --cache-to needs BuildKit v0.11"}},
		{"gateway", func(r *Request) { r.Hosts = must(t, buildflag.ParseHosts, "h=host-gateway") }, newest(), gatewayEngine(), []string{"--add-host h=host-gateway: host-gateway is not supported by this daemon"}},
		{"gateway", func(r *Request) { r.Hosts = must(t, buildflag.ParseHosts, "h=host-gateway") }, oldEngine(), gatewayEngine(), []string{"host-gateway is not supported by Docker/20.10.24 (linux)"}},
		{"cache of an engine", func(r *Request) { r.CacheTo = must(t, cachesTo, "type=local,dest=/x") }, oldEngine(), newEngine(), []string{"--cache-to type=local", "Cache export is not supported for the docker driver", "containerd image store", "Docker/20.10.24"}},
		{"annotation in an engine", func(r *Request) {
			r.Annotations, r.Outputs = must(t, buildflag.ParseAnnotations, "a=1"), outputs(t, "type=image,name=x")
		}, oldEngine(), newEngine(), []string{"an annotation needs an engine with the containerd image store"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := local()
			tc.change(&r)
			solve := func(c Capabilities) error {
				node, err := r.ForEngine(c)
				if err == nil {
					_, err = node.Solve(c)
				}
				return err
			}
			err := solve(tc.old)
			for _, want := range tc.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("error = %v, want %q in it", err, want)
				}
			}
			if err := solve(tc.new); err != nil {
				t.Errorf("on %+v: %v", tc.new, err)
			}
		})
	}
	r := local()
	r.CacheTo = must(t, cachesTo, "type=inline")
	if _, err := r.Solve(oldEngine()); err != nil {
		t.Errorf("the inline cache of an engine: %v", err)
	}
	if _, err := flagged(t).Solve(CapabilitiesOf(client.BuildkitVersion{Version: "v0.0.0+unknown"})); err != nil {
		t.Errorf("a development build: %v", err)
	}
}

func TestCheckDriver(t *testing.T) {
	r := local()
	if err := r.CheckDriver("remote", false); err != nil {
		t.Error(err)
	}
	r.Hosts = must(t, buildflag.ParseHosts, "a=::1", "h=host-gateway")
	if err := r.CheckDriver("docker", true); err != nil {
		t.Error(err)
	}
	err := r.CheckDriver("remote", false)
	if err == nil || !strings.Contains(err.Error(), "host-gateway is not supported by the remote driver") || len(hint.Of(err)) == 0 {
		t.Error(err)
	}
}

// Nothing of the flags is shared between a request and what is made of it.
func TestFlagsShareNothing(t *testing.T) {
	spoil := func(r Request) {
		for _, list := range [][]buildflag.Cache{r.CacheFrom, r.CacheTo} {
			for _, c := range list {
				c.Attrs["spoilt"] = "x"
			}
			clear(list)
		}
		for _, a := range r.Annotations {
			if a.Platform != nil {
				a.Platform.OS = "spoilt"
			}
		}
		clear(r.Annotations)
		clear(r.Hosts)
		clear(r.Ulimits)
		clear(r.Resources)
		clear(r.Entitlements)
		clear(r.NoCacheFilter)
	}
	r := flagged(t)
	spoil(r.clone())
	node, err := r.WithOutputs(outputs(t, "type=registry")).ForNode(plats("linux/arm64"), true)
	if err != nil {
		t.Fatal(err)
	}
	spoil(node)
	opt, err := r.Solve(newest())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range append(opt.CacheImports, opt.CacheExports...) {
		c.Attrs["digest"] = "spoilt" // as BuildKit's client does
	}
	clear(opt.AllowedEntitlements)
	if want := flagged(t); !reflect.DeepEqual(r, want) {
		t.Errorf("the request was changed:\n%+v\nwant\n%+v", r, want)
	}
}

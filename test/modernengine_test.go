//go:build e2e && linux

package test

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/berthbuild/berth/test/lab"
)

// kept is what a modern engine says of an image.
type kept struct {
	ID        string `json:"Id"`
	RepoTags  []string
	Manifests []struct { // with the containerd image store
		Kind      string
		Available bool
		ImageData struct {
			Platform struct{ OS, Architecture string }
		}
	}
}

func keptImage(t *testing.T, engine *lab.Dockerd, name string) kept {
	t.Helper()
	var k kept
	engine.Get(t, "/v1.48/images/"+name+"/json?manifests=1", &k)
	return k
}

// parts lists what an image consists of, as "image linux/amd64".
func (k kept) parts(t *testing.T) []string {
	t.Helper()
	var all []string
	for _, m := range k.Manifests {
		if !m.Available {
			t.Errorf("%v lacks content of %v", k.RepoTags, m.ImageData.Platform)
		}
		part := m.Kind
		if m.Kind == "image" {
			part += " " + m.ImageData.Platform.OS + "/" + m.ImageData.Platform.Architecture
		}
		all = append(all, part)
	}
	slices.Sort(all)
	return all
}

// anyPlatform is a context that builds for each platform without running
// anything on it.
func anyPlatform(t *testing.T) string {
	t.Helper()
	return lab.Context(t, map[string]string{
		"Dockerfile": "FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /arch\n", "amd64": "amd64", "arm64": "arm64",
	})
}

// With either image store the engine's own BuildKit builds, and the engine has
// the image then, by the id that berth tells.
func TestModernEngine(t *testing.T) {
	for _, store := range lab.Stores() {
		t.Run(string(store), func(t *testing.T) {
			engine := lab.ModernEngine(t, lab.ModernOpts{Store: store, Network: true})
			berth := lab.Berth(t).WithDocker(engine)
			row := strings.Join(strings.Fields(berth.OK("ls").Stdout), " ")
			has(t, "ls", row, `default* docker \_ default \_ default running v0.`, "linux/amd64")
			has(t, "inspect", berth.OK("inspect").Stdout, "Name:   default\n", "Driver: docker\n", "BuildKit version: v0.")

			dir := lab.HelloContext(t)
			iid, md := join(t.TempDir(), "iid"), join(t.TempDir(), "md")
			r := build(t, berth, dir, "-t", "hello", "-t", "hello:v2", "--iidfile", iid, "--metadata-file", md)
			has(t, "progress", r.Stderr, `#0 building with "default" instance using docker driver`, "naming to docker.io/library/hello:v2")
			hasNot(t, "progress", r.Stderr, "WARNING")
			has(t, "run", engine.CLI(t, "run", "--rm", "--network", "none", "hello:v2"), "Hello from")
			id := imageID(t, engine, "hello")
			if got := read(t, iid); got != id {
				t.Errorf("--iidfile holds %q, the engine has %q", got, id)
			}
			has(t, "metadata", read(t, md), id, `"buildx.build.ref": "default/default/`)
			if r := build(t, berth, dir, "-q", "--load", "-t", "loaded"); r.Stdout != imageID(t, engine, "loaded")+"\n" {
				t.Errorf("-q prints %q, the engine has %q", r.Stdout, imageID(t, engine, "loaded"))
			}

			out := t.TempDir()
			build(t, berth, dir, "-o", out, "--load", "-t", "both")
			if r, err := exec.Command(join(out, "hello")).CombinedOutput(); err != nil || !strings.Contains(string(r), "Hello from") {
				t.Errorf("the exported program: %v: %s", err, r)
			}
			imageID(t, engine, "both")

			// An image of the engine's own is a base without a registry.
			build(t, berth, lab.Context(t, map[string]string{"Dockerfile": "FROM loaded\nLABEL child=1\n"}), "-t", "child")
			has(t, "run", engine.CLI(t, "run", "--rm", "--network", "none", "child"), "Hello from")
		})
	}
}

// With the containerd image store the engine can what any BuildKit can.
func TestModernEngineContainerdStore(t *testing.T) {
	engine := lab.ModernEngine(t, lab.ModernOpts{Store: lab.StoreContainerd})
	registry := lab.Registry(t)
	berth := lab.Berth(t).WithDocker(engine)
	dir := anyPlatform(t)
	both := []string{"--platform", "linux/amd64,linux/arm64"}

	t.Run("platforms", func(t *testing.T) {
		iid := join(t.TempDir(), "iid")
		build(t, berth, dir, append(both, "-t", "multi", "--iidfile", iid)...)
		k := keptImage(t, engine, "multi")
		want := []string{"attestation", "attestation", "image linux/amd64", "image linux/arm64"}
		if got := k.parts(t); !slices.Equal(got, want) {
			t.Errorf("the image has %q, want %q", got, want)
		}
		if got := read(t, iid); got != k.ID {
			t.Errorf("--iidfile holds %q, the engine has %q", got, k.ID)
		}
	})
	t.Run("attestations", func(t *testing.T) {
		build(t, berth, dir, "-t", "attested")
		if got := keptImage(t, engine, "attested").parts(t); !slices.Equal(got, []string{"attestation", "image linux/amd64"}) {
			t.Errorf("the image has %q", got)
		}
		build(t, berth.With("BUILDX_NO_DEFAULT_ATTESTATIONS=1"), dir, "-t", "plain")
		if got := keptImage(t, engine, "plain").parts(t); !slices.Equal(got, []string{"image linux/amd64"}) {
			t.Errorf("without attestations the image has %q", got)
		}
	})
	t.Run("archives", func(t *testing.T) {
		for kind, file := range map[string]string{"oci": "index.json", "docker": "manifest.json"} {
			dest := join(t.TempDir(), kind+".tar")
			build(t, berth, dir, "-t", "archived", "-o", "type="+kind+",dest="+dest)
			if got := tarNames(t, []byte(read(t, dest))); !slices.Contains(got, file) {
				t.Errorf("%s: the archive has %q", kind, got)
			}
		}
		dest := join(t.TempDir(), "multi.tar")
		build(t, berth, dir, append(both, "-o", "type=oci,dest="+dest)...)
		if fi, err := os.Stat(dest); err != nil || fi.Size() == 0 {
			t.Errorf("several platforms: %v", err)
		}
	})
	t.Run("push", func(t *testing.T) {
		md := join(t.TempDir(), "md")
		ref := registry.Addr() + "/app:v1"
		r := build(t, berth, dir, append(both, "-t", ref, "-t", registry.Addr()+"/app:v2", "--push", "--metadata-file", md)...)
		hasNot(t, "progress", r.Stderr, "with docker") // its BuildKit pushes by itself
		for _, tag := range []string{"v1", "v2"} {
			status, header, _ := registry.Get(t, "/v2/app/manifests/"+tag)
			if digest := header.Get("Docker-Content-Digest"); status != 200 || digest != keptImage(t, engine, ref).ID {
				t.Errorf("%s: the registry answers %d and has %s, the engine %s", tag, status, digest, keptImage(t, engine, ref).ID)
			}
			has(t, "metadata", read(t, md), header.Get("Docker-Content-Digest"))
		}
		r = berth.Cmd("build", "-o", "type=image,push=true,push-by-digest=true,name="+registry.Addr()+"/digest", ".").Dir(dir).Run()
		if r.Code != 1 {
			t.Errorf("pushed by digest: %s", r)
		}
		has(t, "pushed by digest", lastLine(r.Stderr), "cannot push by digest: it gives every image a name with a tag")
		hasNot(t, "pushed by digest", r.Stderr, "#1 ")
	})
	t.Run("push with credentials", func(t *testing.T) {
		registry := lab.Registry(t, lab.RegistryOpts{User: "u", Password: "registry-password"})
		ref := registry.Addr() + "/app:v1"
		r := berth.Cmd("build", "-t", ref, "--push", ".").Dir(dir).Run()
		if r.Code != 1 {
			t.Fatalf("pushed without credentials: %s", r)
		}
		login(t, berth, registry.Addr(), "u", "registry-password")
		r = build(t, berth, dir, "-t", ref, "--push")
		hasNot(t, "output", r.Stdout+r.Stderr, "registry-password")
		if status, _, _ := registry.Get(t, "/v2/app/manifests/v1"); status != 200 {
			t.Errorf("the registry answers %d", status)
		}
	})
}

// With a graph driver a modern engine cannot do more than an old one: what it
// cannot is refused before anything runs, and it pushes by itself.
func TestModernEngineGraphDriver(t *testing.T) {
	engine := lab.ModernEngine(t, lab.ModernOpts{Store: lab.StoreGraph})
	registry := lab.Registry(t)
	berth := lab.Berth(t).WithDocker(engine)
	dir, out := anyPlatform(t), t.TempDir()
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--platform", "linux/amd64,linux/arm64"}, "several platforms (linux/amd64,linux/arm64)"},
		{[]string{"-o", "type=oci,dest=" + join(out, "x")}, "type=oci"},
		{[]string{"-o", "type=docker,dest=" + join(out, "x")}, "type=docker"},
	} {
		what := strings.Join(c.args, " ")
		r := berth.Cmd(append(append([]string{"build"}, c.args...), ".")...).Dir(dir).Run()
		if r.Code != 1 {
			t.Errorf("%s: %s", what, r)
		}
		has(t, what, lastLine(r.Stderr), c.want, "needs an engine with the containerd image store")
		has(t, what, r.Stderr, "hint: ", "containerd-snapshotter")
		hasNot(t, what, r.Stderr, "#1 ")
	}
	if left := names(t, out); len(left) != 0 {
		t.Errorf("left at the destination: %q", left)
	}
	ref := registry.Addr() + "/app:v1"
	r := build(t, berth, dir, "-t", ref, "--push")
	has(t, "progress", r.Stderr, "pushing "+ref+" with docker")
	if status, _, _ := registry.Get(t, "/v2/app/manifests/v1"); status != 200 {
		t.Errorf("the registry answers %d", status)
	}
}

// A daemon of one's own loads into a modern engine, whatever it keeps images in.
func TestModernEngineLoad(t *testing.T) {
	bk := lab.Shared(t)
	for _, store := range lab.Stores() {
		t.Run(string(store), func(t *testing.T) {
			engine := lab.ModernEngine(t, lab.ModernOpts{Store: store})
			berth := lab.Berth(t).WithDocker(engine)
			berth.OK("create", "--use", "--name", "own", bk.UnixAddr())
			dir := lab.HelloContext(t)
			for i := range 2 { // the second time it is there already
				build(t, berth, dir, "--load", "-t", "hello", "-t", fmt.Sprintf("hello:v%d", i))
				has(t, "run", engine.CLI(t, "run", "--rm", "--network", "none", fmt.Sprintf("hello:v%d", i)), "Hello from")
			}
			k := keptImage(t, engine, "hello")
			if want := []string{"hello:latest", "hello:v0", "hello:v1"}; !slices.Equal(k.RepoTags, want) {
				t.Errorf("the image is called %q, want %q", k.RepoTags, want)
			}
			if store == lab.StoreContainerd {
				if got := k.parts(t); !slices.Equal(got, []string{"image linux/amd64"}) {
					t.Errorf("the image has %q", got)
				}
			}
		})
	}
}

// A daemon in a container of a modern engine.
func TestModernEngineContainer(t *testing.T) {
	engine := lab.ModernEngine(t, lab.ModernOpts{})
	engine.Images(t)
	engine.BuildKit(t, "buildkitd")
	berth := lab.Berth(t).WithDocker(engine)
	berth.OK("create", "--name", "bk", "--bootstrap", "docker-container://buildkitd")
	buildsHello(t, berth, "bk")
	nobodyIn(t, func() string { return engine.CLI(t, "top", "buildkitd") })
	berth.OK("build", "--builder", "bk", "--load", "-t", "loaded", lab.HelloContext(t))
	has(t, "run", engine.CLI(t, "run", "--rm", "--network", "none", "loaded"), "Hello from")
	engine.CLI(t, "kill", "buildkitd")
	if class, text := failed(t, berth, "bk"); class != "container-not-running" || !strings.Contains(text, "137") {
		t.Errorf("killed: %s: %s", class, text)
	}
}

// docker build and docker run of another age than the engine's.
func TestDockerBuildOnAModernEngine(t *testing.T) {
	engine := lab.ModernEngine(t, lab.ModernOpts{Network: true})
	berth := lab.Berth(t)
	dir := lab.HelloContext(t)
	out, errs, code := docker(t, berth, engine, dir, "build", "-t", "by-docker", ".")
	if code != 0 {
		t.Fatalf("exit %d\n%s%s", code, out, errs)
	}
	has(t, "docker build", errs, "using docker driver")
	has(t, "run", engine.CLI(t, "run", "--rm", "--network", "none", "by-docker"), "Hello from")
}

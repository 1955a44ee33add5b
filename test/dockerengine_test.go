//go:build e2e && linux

package test

import (
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/berthbuild/berth/test/lab"
)

// Without a choice the Docker engine's own BuildKit builds, and the engine has
// the image then; its id is the one that the engine knows.
func TestDockerEngine(t *testing.T) {
	engine := lab.DockerWithNetwork(t)
	bk := lab.Shared(t)
	berth := lab.Berth(t).WithDocker(engine)
	dir := lab.HelloContext(t)

	iid, md := join(t.TempDir(), "iid"), join(t.TempDir(), "md")
	r := build(t, berth, dir, "-t", "hello", "-t", "hello:v2", "--iidfile", iid, "--metadata-file", md)
	has(t, "progress", r.Stderr, `#0 building with "default" instance using docker driver`, "writing image")
	hasNot(t, "progress", r.Stderr, "WARNING")
	has(t, "run", engine.CLI(t, "run", "--rm", "hello:v2"), "Hello from")
	id := imageID(t, engine, "hello")
	if got := read(t, iid); got != id {
		t.Errorf("--iidfile holds %q, the engine has %q", got, id)
	}
	has(t, "metadata", read(t, md), `"containerimage.config.digest": "`+id+`"`, `"buildx.build.ref": "default/default/`)
	if r := build(t, berth, dir, "-q", "--load", "-t", "loaded"); r.Stdout != id+"\n" || imageID(t, engine, "loaded") != id {
		t.Errorf("-q prints %q, the engine has %q", r.Stdout, id)
	}
	out := t.TempDir()
	build(t, berth, dir, "-o", out)
	if r, err := exec.Command(join(out, "hello")).CombinedOutput(); err != nil || !strings.Contains(string(r), "Hello from") {
		t.Errorf("the exported program: %v: %s", err, r)
	}
	if got := tarNames(t, []byte(build(t, berth, dir, "-o", "-").Stdout)); len(got) == 0 {
		t.Error("the exported archive is empty")
	}

	// An image of the engine's own is a base without a registry.
	child := lab.Context(t, map[string]string{"Dockerfile": "FROM loaded\nLABEL child=1\n"})
	build(t, berth, child, "-t", "child")
	has(t, "run", engine.CLI(t, "run", "--rm", "child"), "Hello from")

	// It is chosen again after another builder was.
	berth.OK("create", "--use", "--name", "own", bk.UnixAddr())
	has(t, "inspect", berth.OK("inspect").Stdout, " own\n", "remote")
	has(t, "ls", berth.OK("ls").Stdout, "own*", "\ndefault ")
	berth.OK("use", "default")
	has(t, "inspect", berth.OK("inspect").Stdout, "Name:   default\n", "Driver: docker\n", "BuildKit version: v0.8+unknown")
	r = berth.OK("ls")
	has(t, "ls", strings.Join(strings.Fields(r.Stdout), " "), `default* docker \_ default \_ default running v0.8+unknown linux/amd64`)
	if r.Stderr != "" {
		t.Errorf("ls complains: %s", r.Stderr)
	}
	var v struct {
		Name, Driver string
		Current      bool
		Nodes        []struct {
			Name, Endpoint, Status, Version string
			IDs, Platforms                  []string
		}
	}
	for line := range strings.Lines(berth.OK("ls", "--format", "json").Stdout) {
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Fatal(err)
		}
	}
	if v.Name != "default" || v.Driver != "docker" || !v.Current || len(v.Nodes) != 1 || v.Nodes[0].Endpoint != "default" ||
		v.Nodes[0].Status != "running" || len(v.Nodes[0].IDs) != 1 || len(v.Nodes[0].Platforms) == 0 {
		t.Errorf("the last row in JSON is %+v", v)
	}
	berth.Fail("rm", "default")
	has(t, "stop", berth.OK("stop").Stderr, "a part of the Docker engine")
}

// What this engine cannot do is refused with the reason, before anything runs.
func TestDockerEngineRefuses(t *testing.T) {
	engine := lab.Docker(t)
	berth := lab.Berth(t).WithDocker(engine)
	dir := lab.Context(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"})
	out := t.TempDir()
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--platform", "linux/amd64,linux/arm64"}, "several platforms (linux/amd64,linux/arm64)"},
		{[]string{"-o", "type=oci,dest=" + join(out, "x")}, "type=oci"},
		{[]string{"-o", "type=docker,dest=" + join(out, "x")}, "type=docker"},
		{[]string{"-t", "r.example/a", "-o", "type=image,push=true,push-by-digest=true"}, "cannot push by digest"},
		{[]string{"--load", "-o", out}, "several outputs"},
		{[]string{"-o", "type=docker,context=other"}, "loads into itself"},
	} {
		r := berth.Cmd(append(append([]string{"build"}, c.args...), ".")...).Dir(dir).Run()
		if r.Code != 1 {
			t.Errorf("%q: %s", c.args, r)
		}
		has(t, strings.Join(c.args, " "), lastLine(r.Stderr), c.want)
		has(t, strings.Join(c.args, " "), r.Stderr, "hint: ", "Docker")
		hasNot(t, strings.Join(c.args, " "), r.Stderr, "load build definition")
	}
	if left := names(t, out); len(left) != 0 {
		t.Errorf("left at the destination: %q", left)
	}
	r := build(t, berth, dir, "-o", "type=cacheonly")
	hasNot(t, "stderr", r.Stderr, "WARNING")
	if images := engine.CLI(t, "images", "-q"); images != "" {
		t.Errorf("the engine has images: %s", images)
	}
}

// On an engine whose BuildKit cannot push, the engine itself does, with the
// user's credentials.
func TestDockerEnginePush(t *testing.T) {
	engine := lab.Docker(t)
	registry := lab.Registry(t, lab.RegistryOpts{User: "u", Password: "registry-password"})
	berth := lab.Berth(t).WithDocker(engine)
	dir := lab.Context(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"})
	ref := registry.Addr() + "/app:v1"
	r := berth.Cmd("build", "-t", ref, "--push", ".").Dir(dir).Run()
	if r.Code != 1 {
		t.Fatalf("pushed without credentials: %s", r)
	}
	has(t, "last line", lastLine(r.Stderr), "pushing "+ref)
	login(t, berth, registry.Addr(), "u", "registry-password")
	md, iid := join(t.TempDir(), "md"), join(t.TempDir(), "iid")
	r = build(t, berth, dir, "-t", ref, "-t", registry.Addr()+"/app:v2", "--push", "--load", "--metadata-file", md, "--iidfile", iid)
	hasNot(t, "output", r.Stdout+r.Stderr, "registry-password")
	has(t, "progress", r.Stderr, "pushing "+ref+" with docker")
	for _, tag := range []string{"v1", "v2"} {
		status, header, _ := registry.Get(t, "/v2/app/manifests/"+tag)
		if status != 200 {
			t.Errorf("%s: registry answers %d", tag, status)
		}
		has(t, "metadata", read(t, md), header.Get("Docker-Content-Digest"))
	}
	if got := read(t, iid); got != imageID(t, engine, ref) {
		t.Errorf("--iidfile holds %q, the engine has %q", got, imageID(t, engine, ref))
	}
}

// Every docker context is a builder; the one in force is the default.
func TestDockerContexts(t *testing.T) {
	one, two := lab.Docker(t), lab.Docker(t)
	berth := lab.Berth(t).With("DOCKER_HOST")
	dir := lab.Context(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"})
	cli := func(args ...string) {
		t.Helper()
		if out, errs, code := docker(t, berth, one, dir, append([]string{"context"}, args...)...); code != 0 {
			t.Fatalf("docker context %q: exit %d\n%s%s", args, code, out, errs)
		}
	}
	cli("create", "first", "--docker", "host="+one.Host())
	cli("create", "second", "--docker", "host="+two.Host())
	cli("create", "gone", "--docker", "host=unix:///nowhere/docker.sock")
	berth.OK("create", "--name", "own", "unix:///nowhere.sock")

	first := berth.With("DOCKER_CONTEXT=first")
	r := first.OK("ls")
	has(t, "ls", r.Stdout, "first*", "\nsecond ", "\ngone ", "\ndefault ", "\nown ")
	if strings.Index(r.Stdout, "\nown") > strings.Index(r.Stdout, "\ndefault") {
		t.Errorf("docker's contexts stand before the builders:\n%s", r.Stdout)
	}
	has(t, "ls, below", r.Stderr, "gone (gone): no Docker engine is running at unix:///nowhere/docker.sock: no such socket")
	has(t, "completion", first.OK("__complete", "use", "s").Stdout, "second\tdocker")

	build(t, first, dir, "-t", "by-default")
	build(t, first, dir, "--builder", "second", "-t", "by-name")
	has(t, "first", one.CLI(t, "images"), "by-default")
	hasNot(t, "first", one.CLI(t, "images"), "by-name")
	has(t, "second", two.CLI(t, "images"), "by-name")
	has(t, "--context", first.As("docker-buildx").OK("--context", "second", "buildx", "inspect").Stdout, "Name:   second")

	r = first.Fail("use", "second")
	has(t, "use second", r.Stderr, "hint: choose the context: docker context use second")
	first.OK("use", "own")
	has(t, "inspect", first.OK("inspect").Stdout, " own\n")
	has(t, "inspect elsewhere", berth.With("DOCKER_CONTEXT=second").OK("inspect").Stdout, "Name:   second")
	first.OK("use", "first")
	has(t, "inspect", first.OK("inspect").Stdout, "Name:   first")

	has(t, "inspect gone", first.OK("inspect", "gone").Stdout, "inactive", "docker-unreachable", "Hint: ")
	r = first.Fail("build", "--builder", "gone", "--timeout", "1s", dir)
	has(t, "last line", lastLine(r.Stderr), "docker context gone", "no such socket")
	has(t, "no such context", berth.With("DOCKER_CONTEXT=nosuch").OK("inspect").Stdout, "docker-context", "there is no such context")
	r = first.Fail("rm", "second")
	has(t, "rm", r.Stderr, "docker context rm second")
	r = first.Fail("create", "--name", "second", "unix:///x.sock")
	has(t, "create", r.Stderr, `instance name "second" already exists as context builder`)
	has(t, "--builder nosuch", first.Fail("--builder", "nosuch", "inspect").Stderr, `no builder "nosuch" found`)
}

// docker build, with berth as docker's buildx, builds on the engine.
func TestDockerBuildOnTheEngine(t *testing.T) {
	engine := lab.DockerWithNetwork(t)
	berth := lab.Berth(t)
	dir := lab.HelloContext(t)
	ok := func(args ...string) string {
		t.Helper()
		out, errs, code := docker(t, berth, engine, dir, args...)
		if code != 0 {
			t.Fatalf("docker %q: exit %d\n%s%s", args, code, out, errs)
		}
		return out + errs
	}
	has(t, "docker build", ok("build", "-t", "by-docker", "."), "using docker driver")
	has(t, "run", ok("run", "--rm", "by-docker"), "Hello from")
	has(t, "docker buildx build", ok("buildx", "build", "-t", "by-buildx", "."), "using docker driver")
	has(t, "docker buildx ls", ok("buildx", "ls"), "default*", "v0.8+unknown")
	has(t, "run", ok("run", "--rm", "by-buildx"), "Hello from")
}

// Ctrl-C ends the build in the engine; an engine that is killed is one clear
// error.
func TestDockerEngineEnds(t *testing.T) {
	engine := lab.DockerWithNetwork(t)
	berth := lab.Berth(t).WithDocker(engine)
	dir := lab.ShellContext(t, "RUN echo started; sleep 601\n", nil)
	p := berth.Cmd("build", "--progress", "plain", ".").Dir(dir).Start()
	p.WaitFor(" started")
	p.Interrupt()
	if r := p.Wait(); r.Code != 130 || lastLine(r.Stderr) != "ERROR: canceled" {
		t.Errorf("interrupt: %s", r)
	}
	p = berth.Cmd("build", "--progress", "plain", ".").Dir(dir).Start()
	p.WaitFor(" started")
	engine.Kill()
	r := p.Wait()
	if r.Code != 1 {
		t.Errorf("exit %d", r.Code)
	}
	has(t, "last line", lastLine(r.Stderr), "ERROR: ", "default", "lost")
	has(t, "stderr", r.Stderr, "hint: ")
	has(t, "ls", berth.OK("ls").Stdout, "inactive")
}

// A builder may mix schemes, and have two nodes on one host.
func TestMixedSchemes(t *testing.T) {
	certs := lab.NewCerts(t, "localhost", "127.0.0.1")
	amd := lab.BuildKit(t, lab.BuildKitOpts{Unix: true, TCP: true, TLS: certs, Platforms: []string{"linux/amd64"}})
	arm := lab.BuildKit(t, lab.BuildKitOpts{TCP: true, Platforms: []string{"linux/arm64"}})
	berth := lab.Berth(t)
	berth.OK("create", "--use", "--name", "mixed", amd.UnixAddr())
	berth.OK("create", "--name", "mixed", "--append", "--driver-opt", certs.DriverOpt("localhost"), amd.TCPAddr())
	berth.OK("create", "--name", "mixed", "--append", arm.TCPAddr())
	has(t, "ls", berth.OK("ls").Stdout, `\_ mixed0`, `\_ mixed1`, `\_ mixed2`, amd.UnixAddr(), amd.TCPAddr(), arm.TCPAddr())
	dir := lab.Context(t, map[string]string{"Dockerfile": "FROM scratch\nARG TARGETARCH\nCOPY f-$TARGETARCH /f\n", "f-amd64": "1", "f-arm64": "2"})
	out := t.TempDir()
	build(t, berth, dir, "--platform", "linux/amd64,linux/arm64", "-o", out)
	if read(t, join(out, "linux_amd64", "f"))+read(t, join(out, "linux_arm64", "f")) != "12" {
		t.Error("the two platforms have the wrong files")
	}
	r := berth.Fail("create", "--name", "mixed", "--append", arm.TCPAddr())
	has(t, "the same node twice", r.Stderr, "already is at")
}

// A builder that buildx made with its docker-container driver is used through
// its container, which berth neither starts nor ends.
func TestBuildxContainerBuilder(t *testing.T) {
	engine := lab.Docker(t)
	engine.Images(t)
	engine.BuildKit(t, "buildx_buildkit_bx0")
	berth := lab.Berth(t).WithDocker(engine)
	stored := `{"Name":"bx","Driver":"docker-container","Nodes":[{"Name":"bx0","Endpoint":"` + engine.Host() +
		`","Platforms":null,"DriverOpts":{"network":"host","image":"any"},"Flags":["--debug"],"Files":null}],"Dynamic":false}`
	instances := join(berth.BuildxConfig, "instances")
	if err := os.MkdirAll(instances, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(join(instances, "bx"), []byte(stored), 0o600); err != nil {
		t.Fatal(err)
	}
	r := berth.OK("ls")
	has(t, "ls", strings.Join(strings.Fields(r.Stdout), " "), `bx docker-container \_ bx0 \_ `+engine.Host()+` running v0.34.2 linux/amd64`)
	has(t, "inspect", berth.OK("inspect", "bx").Stdout, "docker-container", engine.Host(), `network="host"`, "--debug", "running")
	berth.OK("use", "bx")
	r = build(t, berth, lab.HelloContext(t), "-t", "from-bx", "--load")
	has(t, "progress", r.Stderr, `#0 building with "bx" instance using docker-container driver`)
	has(t, "run", engine.CLI(t, "run", "--rm", "--network", "none", "from-bx"), "Hello from")
	has(t, "stop", berth.OK("stop").Stderr, "go on")

	engine.CLI(t, "stop", "--time", "1", "buildx_buildkit_bx0")
	has(t, "inspect", berth.OK("inspect", "bx").Stdout, "container-not-running", "docker start buildx_buildkit_bx0")
	r = berth.Fail("build", "--timeout", "1s", lab.HelloContext(t))
	has(t, "stderr", r.Stderr, "docker start buildx_buildkit_bx0")
	engine.CLI(t, "start", "buildx_buildkit_bx0")
	engine.WaitBuildKit(t, "buildx_buildkit_bx0")
	berth.OK("inspect", "--bootstrap", "bx")

	r = berth.OK("rm", "bx")
	has(t, "rm", r.Stderr, "bx removed", "goes on", "docker rm -f -v buildx_buildkit_bx0")
	has(t, "the container", engine.CLI(t, "ps", "--format", "{{.Names}}"), "buildx_buildkit_bx0")
	r = berth.Fail("create", "--driver", "docker-container")
	has(t, "create", r.Stderr, "hint: ")
}

// The session of an engine's build has a connection of its own, so that the
// build's is pinged while a step is silent. An engine bears that; and one that
// freezes is noticed by it. A BuildKit would hang up after half of that time, were
// the session not on the same connection.
func TestSilentStep(t *testing.T) {
	t.Parallel()
	const silent = 65 // seconds
	engine := lab.DockerWithNetwork(t)
	defer engine.Resume()
	bk := lab.BuildKit(t, lab.BuildKitOpts{TCP: true})
	berth := lab.Berth(t).WithDocker(engine)
	berth.OK("create", "--name", "own", bk.TCPAddr())
	start := func(builder, name string, d int) *lab.Process {
		dir := sleeper(t, name, d, "RUN --mount=type=secret,id=s cat /run/secrets/s\n")
		p := berth.Cmd("build", "--builder", builder, "--progress", "plain", "--secret", "id=s,src="+join(dir, "Dockerfile"), ".").Dir(dir).Start()
		p.WaitFor("started " + name)
		return p
	}
	patient, own := start("default", "patient", silent), start("own", "own", silent)
	frozen, interrupted := start("default", "frozen", 603), start("default", "interrupted", 604)
	for text, dockerfile := range map[string]string{"exit code: 7": "RUN exit 7\n", "127.0.0.1:1/v2/nosuch": "FROM 127.0.0.1:1/nosuch\n"} {
		r := berth.Fail("build", lab.ShellContext(t, dockerfile, nil))
		has(t, "a build that fails", lastLine(r.Stderr), "ERROR: failed to build: failed to solve: ", text)
	}
	for _, p := range []*lab.Process{patient, own} {
		if r := p.Wait(); r.Code != 0 {
			t.Errorf("a silent step: %s", r)
		}
	}
	engine.Pause()
	interrupted.Interrupt()
	if r := within(t, "interrupted", interrupted, time.Now().Add(atOnce)); r.Code != 130 || lastLine(r.Stderr) != "ERROR: canceled" {
		t.Errorf("interrupted while frozen: %s", r)
	}
	r := within(t, "frozen", frozen, time.Now().Add(noHang))
	if r.Code != 1 {
		t.Errorf("a frozen engine: %s", r)
	}
	has(t, "last line", lastLine(r.Stderr), "node default of builder default at docker context default was lost during the build: nothing was heard of it for ")
}

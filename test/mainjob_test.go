//go:build e2e && linux

package test

import (
	"strings"
	"testing"

	"github.com/berthbuild/berth/test/lab"
)

// The main job, as it is typed in the README: a unix socket and TCP with
// mutual TLS, listed, used, built on, inspected, stopped, removed.
func TestMainJob(t *testing.T) {
	engine := lab.Docker(t)
	certs := lab.NewCerts(t, "buildkitd.example", "localhost", "127.0.0.1")
	bk := lab.BuildKit(t, lab.BuildKitOpts{Unix: true, TCP: true, TLS: certs})
	berth := lab.Berth(t).WithDocker(engine)
	context := lab.HelloContext(t)

	r := berth.OK("create", "--name", "remote-unix", "--driver", "remote", bk.UnixAddr())
	if r.Stdout != "remote-unix\n" {
		t.Errorf("create prints %q, wanted just the name", r.Stdout)
	}
	r = berth.OK("ls")
	has(t, "ls", r.Stdout, "NAME/NODE", "DRIVER/ENDPOINT", "STATUS", "BUILDKIT", "PLATFORMS",
		`\_ remote-unix0`, bk.UnixAddr(), "running", "v0.34.2", "linux/amd64")
	berth.OK("use", "remote-unix")
	has(t, "ls", berth.OK("ls").Stdout, "remote-unix*")

	r = berth.Cmd("build", "--builder=remote-unix", "-t", "test", "--load", ".").Dir(context).Run()
	if r.Code != 0 {
		t.Fatal(r)
	}
	has(t, "progress", r.Stderr, `#0 building with "remote-unix" instance using remote driver`)
	has(t, "the loaded image's output", engine.CLI(t, "run", "--rm", "--network", "none", "test"), "Hello from")

	r = berth.OK("create", "--name", "remote", "--driver", "remote",
		"--driver-opt", certs.DriverOpt("buildkitd.example"), bk.LocalhostAddr())
	if r.Stdout != "remote\n" {
		t.Errorf("create prints %q", r.Stdout)
	}
	r = berth.OK("inspect", "remote", "--bootstrap")
	has(t, "inspect", r.Stdout, "Name:", "Driver:", "Nodes:", "remote0", bk.LocalhostAddr(),
		"Status:", "running", "BuildKit version:", "v0.34.2", "Platforms:", "Labels:", "GC Policy rule#0:")
	r = berth.Cmd("build", "--builder", "remote", "-t", "test2", "--load", ".").Dir(context).Run()
	if r.Code != 0 {
		t.Fatal(r)
	}
	if a, b := imageID(t, engine, "test"), imageID(t, engine, "test2"); a != b {
		t.Errorf("one context, one daemon, two images: %s and %s", a, b)
	}
	berth.OK("stop")
	r = berth.OK("rm", "remote")
	if r.Stderr != "remote removed\n" || r.Stdout != "" {
		t.Errorf("rm: %s", r)
	}
	hasNot(t, "ls after rm", berth.OK("ls").Stdout, "remote0")
}

func imageID(t *testing.T, engine *lab.Dockerd, ref string) string {
	t.Helper()
	return strings.TrimSpace(engine.CLI(t, "image", "inspect", "--format", "{{.Id}}", ref))
}

// --builder stands before or after the command; the environment comes after it.
func TestChoiceOfBuilder(t *testing.T) {
	berth, bk := shared(t)
	berth.OK("create", "--name", "other", "--driver", "remote", bk.UnixAddr())
	for _, c := range []struct {
		args []string
		env  string
		want string
	}{
		{[]string{"inspect"}, "", "b"},
		{[]string{"inspect", "other"}, "", "other"},
		{[]string{"--builder", "other", "inspect"}, "", "other"},
		{[]string{"inspect", "--builder=other"}, "", "other"},
		{[]string{"inspect"}, "other", "other"},
		{[]string{"--builder", "b", "inspect"}, "other", "b"},
		{[]string{"inspect", "OTHER"}, "", "other"},
	} {
		r := berth.With("BUILDX_BUILDER=" + c.env).OK(c.args...)
		if got := strings.Fields(r.Stdout)[1]; got != c.want {
			t.Errorf("%v with BUILDX_BUILDER=%q inspects %q, wanted %q", c.args, c.env, got, c.want)
		}
	}
	r := berth.Fail("--builder", "nosuch", "build", ".")
	if got := lastLine(r.Stderr); got != `ERROR: no builder "nosuch" found` {
		t.Errorf("last line: %q", got)
	}
}

// A choice belongs to the docker engine that is current, unless it is global.
func TestUseBelongsToTheEngine(t *testing.T) {
	berth, bk := shared(t)
	elsewhere := berth.With("DOCKER_HOST=unix:///nowhere/else.sock")
	has(t, "inspect", elsewhere.OK("inspect").Stdout, "default", "docker-unreachable", "Hint: no builder is chosen")
	berth.OK("use", "--global", "b")
	has(t, "inspect", elsewhere.OK("inspect").Stdout, bk.UnixAddr())
	berth.OK("use", "--default", "b")
	has(t, "inspect", berth.OK("inspect").Stdout, bk.UnixAddr())
}

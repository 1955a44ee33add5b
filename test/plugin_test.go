//go:build e2e && linux

package test

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/berthbuild/berth/test/lab"
)

// docker runs the machine's docker command with berth as its buildx plugin.
func docker(t *testing.T, berth *lab.CLI, engine *lab.Dockerd, dir string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	lab.Need(t, "docker")
	plugins := join(berth.DockerConfig, "cli-plugins")
	if err := os.MkdirAll(plugins, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(berth.Bin, join(plugins, "docker-buildx")); err != nil && !os.IsExist(err) {
		t.Fatal(err)
	}
	cmd := exec.Command("docker", args...)
	cmd.Dir = dir
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + berth.Home, "DOCKER_CONFIG=" + berth.DockerConfig,
		"DOCKER_HOST=" + engine.Host(), "BUILDX_CONFIG=" + berth.BuildxConfig, "BUILDX_BUILDER=" + os.Getenv("BUILDX_BUILDER"),
	}
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// The real docker command finds berth and passes its commands, flags and
// context on.
func TestDockerPlugin(t *testing.T) {
	engine := lab.Docker(t)
	bk := lab.Shared(t)
	berth := lab.Berth(t)
	dir := lab.HelloContext(t)
	ok := func(args ...string) string {
		t.Helper()
		out, errs, code := docker(t, berth, engine, dir, args...)
		if code != 0 {
			t.Fatalf("docker %q: exit %d\n%s%s", args, code, out, errs)
		}
		return out
	}
	has(t, "docker buildx version", ok("buildx", "version"), "github.com/berthbuild/berth v1")
	has(t, "docker buildx create", ok("buildx", "create", "--name", "p", "--driver", "remote", bk.UnixAddr()), "p\n")
	ok("buildx", "use", "p")
	has(t, "docker buildx ls", ok("buildx", "ls"), "p*", "running")
	ok("buildx", "build", "-t", "by-plugin", "--load", ".")
	has(t, "run", ok("run", "--rm", "--network", "none", "by-plugin"), "Hello from")
	has(t, "docker --host", ok("--host", engine.Host(), "buildx", "--builder", "p", "inspect"), bk.UnixAddr())
	has(t, "docker -D", ok("-D", "buildx", "inspect", "p"), bk.UnixAddr())
	has(t, "help", ok("buildx", "create", "--help"), "docker buildx create")
	t.Setenv("BUILDX_BUILDER", "p") // docker build takes its own BuildKit otherwise
	ok("build", "-t", "by-docker-build", "--load", ".")
	has(t, "run", ok("run", "--rm", "--network", "none", "by-docker-build"), "Hello from")
	out, errs, code := docker(t, berth, engine, dir, "buildx", "rm", "nosuch")
	if code != 1 || !strings.Contains(errs, `no builder "nosuch" found`) {
		t.Errorf("docker buildx rm nosuch: exit %d\n%s%s", code, out, errs)
	}
}

// Plugin calls as docker and Compose make them.
func TestPluginCalls(t *testing.T) {
	berth, bk := shared(t)
	plugin := berth.As("docker-buildx")
	r := plugin.OK("docker-cli-plugin-metadata")
	has(t, "metadata", r.Stdout, `"SchemaVersion": "0.1.0"`, `"Version": "v1.`, `"Vendor"`, `"ShortDescription"`)
	for _, args := range [][]string{
		{"inspect", "b"},
		{"buildx", "inspect", "b"},
		{"--config", berth.DockerConfig, "buildx", "inspect", "b"},
		{"buildx", "--builder", "b", "inspect"},
		{"-H", "unix:///nowhere.sock", "buildx", "inspect", "b"},
	} {
		has(t, strings.Join(args, " "), plugin.OK(args...).Stdout, bk.UnixAddr())
	}
	has(t, "as buildx", berth.As("buildx").OK("inspect", "b").Stdout, bk.UnixAddr())
}

// Shell completion offers builders.
func TestCompletion(t *testing.T) {
	berth, _ := shared(t)
	berth.OK("create", "--name", "bravo", "unix:///x.sock")
	r := berth.OK("__complete", "use", "b")
	has(t, "completion", r.Stdout, "b\t", "bravo\t")
	r = berth.OK("__complete", "build", "--builder", "br")
	has(t, "completion of --builder", r.Stdout, "bravo")
	has(t, "plugin", berth.As("docker-buildx").OK("__complete", "buildx", "rm", "br").Stdout, "bravo")
	has(t, "script", berth.OK("completion", "bash").Stdout, "berth")
}

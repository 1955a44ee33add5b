//go:build e2e && linux

package test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/berthbuild/berth/test/lab"
)

// buildsHello builds the example and runs the result.
func buildsHello(t *testing.T, berth *lab.CLI, builder string) {
	t.Helper()
	out := t.TempDir()
	berth.OK("build", "--builder", builder, "-o", out, lab.HelloContext(t))
	got, err := exec.Command(join(out, "hello")).CombinedOutput()
	if err != nil || !strings.HasPrefix(string(got), "Hello from an image that berth built") {
		t.Errorf("the result says %q, %v", got, err)
	}
}

// failed is what inspect's JSON says of a builder that does not answer.
func failed(t *testing.T, berth *lab.CLI, builder string) (class, text string) {
	t.Helper()
	var v struct {
		Nodes []struct{ Err, ErrClass string }
	}
	r := berth.OK("inspect", "--format", "json", builder)
	if err := json.Unmarshal([]byte(r.Stdout), &v); err != nil || len(v.Nodes) != 1 {
		t.Fatalf("%v: %s", err, r)
	}
	return v.Nodes[0].ErrClass, v.Nodes[0].Err
}

// nobodyIn waits, within a bound, until no buildctl runs in a container.
func nobodyIn(t *testing.T, top func() string) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); strings.Contains(top(), "buildctl"); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("left in the container:\n%s", top())
		}
	}
}

// A daemon in a container of a real Docker engine, and every way to be wrong
// about it.
func TestDockerContainer(t *testing.T) {
	engine := lab.Docker(t)
	engine.Images(t)
	engine.BuildKit(t, "buildkitd")
	run := func(name string, args ...string) { // a sleep as a container's first process heeds no other signal
		engine.CLI(t, append([]string{"run", "-d", "--stop-signal", "KILL", "--network", "none", "--name", name}, args...)...)
	}
	run("plain", lab.PlainImage)
	run("no-daemon", "--entrypoint", "sleep", lab.BuildKitImage, "100000")
	run("paused", lab.PlainImage)
	engine.CLI(t, "pause", "paused")
	engine.CLI(t, "create", "--name", "created", "--network", "none", lab.PlainImage)
	berth := lab.Berth(t).WithDocker(engine)

	t.Run("builds", func(t *testing.T) {
		berth.OK("create", "--name", "bk", "--bootstrap", "docker-container://buildkitd")
		has(t, "ls", berth.OK("ls").Stdout, "docker-container://buildkitd", "running", "linux/amd64")
		buildsHello(t, berth, "bk")
		nobodyIn(t, func() string { return engine.CLI(t, "top", "buildkitd") })
	})
	t.Run("context", func(t *testing.T) {
		docker := exec.Command("docker", "context", "create", "far", "--docker", "host="+engine.Host())
		docker.Env = append(os.Environ(), "DOCKER_CONFIG="+berth.DockerConfig)
		if out, err := docker.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		nowhere := berth.With("DOCKER_HOST=unix:///nowhere/docker.sock")
		nowhere.OK("create", "--name", "elsewhere", "docker-container://buildkitd?context=far")
		buildsHello(t, nowhere, "elsewhere")
		class, text := failed(t, nowhere, "bk")
		if class != "docker-unreachable" || !strings.Contains(text, "unix:///nowhere/docker.sock") {
			t.Errorf("without an engine: %s: %s", class, text)
		}
	})
	t.Run("engine over ssh", func(t *testing.T) {
		// The ssh is a stand-in that runs docker's helper here: what is real is
		// the engine behind the helper.
		dir := t.TempDir()
		script := "#!/bin/sh\nwhile [ \"$1\" != -- ]; do shift; done\nshift 2\nexport DOCKER_HOST='" + engine.Host() + "'\nexec sh -c \"$*\"\n"
		if err := os.WriteFile(join(dir, "ssh"), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
		buildsHello(t, berth.With("DOCKER_HOST=ssh://somewhere", "PATH="+dir+":"+os.Getenv("PATH")), "bk")
	})
	for _, c := range []struct{ container, class, text string }{
		{"plain", "no-buildctl", "OCI runtime exec failed"},
		{"no-daemon", "helper-failed", "buildctl says: error: dial unix /run/buildkit/buildkitd.sock: connect: no such file or directory"},
		{"nobody", "no-container", "no such container in the Docker engine at " + engine.Host()},
		{"paused", "container-not-running", "the container is paused"},
		{"created", "container-not-running", "the container has not been started"},
		{"buildkitd?context=missing", "docker-context", `docker context "missing"`},
	} {
		t.Run(c.container, func(t *testing.T) {
			name := "x" + strings.NewReplacer("?", "-", "=", "-").Replace(c.container)
			berth.OK("create", "--name", name, "docker-container://"+c.container)
			class, text := failed(t, berth, name)
			if class != c.class || !strings.Contains(text, c.text) {
				t.Errorf("%s: %s; want %s: %s", class, text, c.class, c.text)
			}
			r := berth.Fail("inspect", "--bootstrap", "--timeout", "1s", name)
			has(t, "stderr", r.Stderr, c.text, "hint: ")
			hasNot(t, "stderr", r.Stderr, "context deadline exceeded")
		})
	}
	t.Run("stopped in a build", func(t *testing.T) {
		p := berth.Cmd("build", "--builder", "bk", "--progress", "plain", ".").Dir(slow(t)).Start()
		p.WaitFor(" started")
		engine.CLI(t, "kill", "buildkitd")
		r := p.Wait()
		if r.Code != 1 {
			t.Errorf("exit %d", r.Code)
		}
		has(t, "last line", lastLine(r.Stderr), "ERROR: ", "docker-container://buildkitd", "the container is not running: it ended with code 137")
	})
	t.Run("waits for a start", func(t *testing.T) {
		p := berth.Start("inspect", "--bootstrap", "--timeout", "2m", "bk")
		p.WaitFor("the container is not running: it ended with code 137")
		engine.CLI(t, "start", "buildkitd")
		r := p.Wait()
		if r.Code != 0 {
			t.Errorf("%s", r)
		}
		has(t, "inspect", r.Stdout, "running")
	})
	t.Run("interrupted", func(t *testing.T) {
		p := berth.Cmd("build", "--builder", "bk", "--no-cache", "--progress", "plain", ".").Dir(slow(t)).Start()
		p.WaitFor(" started")
		p.Interrupt()
		if r := p.Wait(); r.Code != 130 || lastLine(r.Stderr) != "ERROR: canceled" {
			t.Errorf("%s", r)
		}
		nobodyIn(t, func() string { return engine.CLI(t, "top", "buildkitd") })
	})
}

// Debian's podman, with a daemon in one of its containers.
func TestPodmanContainer(t *testing.T) {
	podman := lab.NewPodman(t)
	podman.Images(t)
	podman.BuildKit(t, "buildkitd")
	podman.Run(t, "plain", "--network", "none", lab.PlainImage)
	berth := lab.Berth(t).With(podman.Env()...)
	berth.OK("create", "--name", "p", "--bootstrap", "podman-container://buildkitd")
	has(t, "ls", berth.OK("ls").Stdout, "podman-container://buildkitd", "running")
	buildsHello(t, berth, "p")
	nobodyIn(t, func() string { return podman.CLI(t, "top", "buildkitd", "args") })
	for _, c := range []struct{ container, class, text string }{
		{"plain", "no-buildctl", "executable file not found"},
		{"nobody", "helper-failed", "podman says: Error: no container with name or ID \"nobody\" found"},
	} {
		berth.OK("create", "--name", "x"+c.container, "podman-container://"+c.container)
		if class, text := failed(t, berth, "x"+c.container); class != c.class || !strings.Contains(text, c.text) {
			t.Errorf("%s: %s; want %s: %s", class, text, c.class, c.text)
		}
	}
	podman.CLI(t, "stop", "--time", "0", "buildkitd")
	if class, text := failed(t, berth, "p"); class != "helper-failed" || !strings.Contains(text, "running containers") {
		t.Errorf("stopped: %s: %s", class, text)
	}
}

// nerdctl is played by a script that runs the command here.
func TestNerdctlContainer(t *testing.T) {
	bk := lab.Shared(t)
	dir := t.TempDir()
	script := "#!/bin/sh\n[ \"$1 $2 $3 $4\" = 'exec -i bk buildctl' ] || { echo \"no container $3\" >&2; exit 1; }\nshift 4\nexec '" +
		lab.Tool(t, "buildctl") + "' --addr '" + bk.UnixAddr() + "' \"$@\"\n"
	if err := os.WriteFile(join(dir, "nerdctl"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	berth := lab.Berth(t).With("PATH=" + dir + ":" + os.Getenv("PATH"))
	berth.OK("create", "--name", "n", "--bootstrap", "nerdctl-container://bk")
	buildsHello(t, berth, "n")
	berth.OK("create", "--name", "x", "nerdctl-container://other")
	if class, text := failed(t, berth, "x"); class != "helper-failed" || !strings.Contains(text, "nerdctl says: no container other") {
		t.Errorf("%s: %s", class, text)
	}
}

// A command of the user's own, with the real helper of BuildKit.
func TestExec(t *testing.T) {
	bk := lab.Shared(t)
	buildctl := lab.Tool(t, "buildctl")
	berth := lab.Berth(t)
	line := "exec://?cmd=" + buildctl + " --addr " + bk.UnixAddr() + " dial-stdio"
	berth.OK("create", "--name", "e", "--bootstrap", line)
	has(t, "inspect", berth.OK("inspect", "e").Stdout, "exec://?cmd="+strings.ReplaceAll(buildctl, " ", "+")+"+--addr+unix:///", "running")
	buildsHello(t, berth, "e")
	for _, c := range []struct{ name, line, class, text string }{
		{"no-daemon", buildctl + " --addr unix:///nowhere/b.sock dial-stdio", "helper-failed", "buildctl says: error: dial unix /nowhere/b.sock: connect: no such file or directory"},
		{"no-program", "berth-has-no-such-program a b", "no-helper", "there is no program berth-has-no-such-program on PATH"},
		{"mute", "true", "helper-failed", "true ended without a word"},
		{"chatter", "sh -c 'echo this is a banner; sleep 1000'", "not-http2", "this is a banner"},
		{"noise", "sh -c 'while :; do echo noise; done >&2'", "silent", "nothing answers"},
		{"stubborn", `sh -c 'trap "" TERM HUP PIPE; while :; do sleep 1000; done'`, "silent", "nothing answers"},
	} {
		berth.OK("create", "--name", c.name, "--driver-opt", "connect-timeout=3s", "exec://?cmd="+strings.NewReplacer("&", "%26", ";", "%3B", "+", "%2B").Replace(c.line))
		if class, text := failed(t, berth, c.name); class != c.class || !strings.Contains(text, c.text) {
			t.Errorf("%s: %s: %s; want %s: %s", c.name, class, text, c.class, c.text)
		}
	}
	for _, bad := range []string{"exec://", "exec://?cmd=", "exec://?cmd='a", "exec://?cmd=a%00", "exec://?cmd=a | b", "npipe:////./pipe/a/b", "docker-container://a;b"} {
		r := berth.Fail("create", "--name", "bad", bad)
		has(t, bad, lastLine(r.Stderr), "ERROR: ")
	}
	berth.OK("create", "--name", "pipe", "npipe:////./pipe/buildkitd")
	if class, _ := failed(t, berth, "pipe"); class != "only-windows" {
		t.Errorf("npipe: %s", class)
	}
	// Nothing that was started is left. (The lab's end looks for it as well.)
	if left, _ := filepath.Glob("/proc/[0-9]*/cmdline"); len(left) > 0 {
		for _, path := range left {
			if b, err := os.ReadFile(path); err == nil && strings.Contains(string(b), "sleep\x001000\x00") {
				t.Errorf("left: %q", b)
			}
		}
	}
}

//go:build e2e && linux

package lab

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// CLI runs the berth binary in a world of its own: an empty home, builder
// state, docker configuration and temporary folder, no Docker engine, and
// nothing of the caller's environment but PATH.
type CLI struct {
	Bin          string // the binary, or a link to it
	Home         string // HOME
	BuildxConfig string // BUILDX_CONFIG
	DockerConfig string // DOCKER_CONFIG
	Work         string // the working directory unless Cmd.Dir says otherwise

	t   testing.TB
	dir string
	env map[string]string
}

// GoRace sets the race detector of the processes under test. Without more said it
// has each of them sleep for a second before it ends, which thousands of calls make
// an hour of.
const GoRace = "halt_on_error=0 exitcode=66 atexit_sleep_ms=20"

// Berth builds cmd/berth with the race detector, once for all tests of the
// package, and gives a fresh world to run it in. A data race that it reports
// fails the test.
func Berth(t testing.TB) *CLI {
	t.Helper()
	dir := Dir(t)
	bin, err := theRun.berth()
	if err != nil {
		t.Fatal("lab: ", err)
	}
	c := &CLI{
		Bin: bin, t: t, dir: dir,
		Home:         filepath.Join(dir, "home"),
		BuildxConfig: filepath.Join(dir, "buildx"),
		DockerConfig: filepath.Join(dir, "docker"),
		Work:         filepath.Join(dir, "work"),
	}
	tmp := filepath.Join(dir, "tmp")
	for _, d := range []string{c.Home, c.BuildxConfig, c.DockerConfig, c.Work, tmp} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal("lab: ", err)
		}
	}
	c.env = map[string]string{
		"HOME": c.Home, "BUILDX_CONFIG": c.BuildxConfig, "DOCKER_CONFIG": c.DockerConfig, "TMPDIR": tmp,
		"DOCKER_HOST": "unix://" + filepath.Join(dir, "no-docker.sock"),
		"GORACE":      GoRace,
	}
	return c
}

// With is a copy of c with more environment, each "KEY=value"; "KEY" alone
// takes the variable away. State and home are the same ones.
func (c *CLI) With(env ...string) *CLI {
	n := *c
	n.env = maps.Clone(c.env)
	setEnv(n.env, env)
	return &n
}

// WithDocker is a copy of c whose DOCKER_HOST is the engine.
func (c *CLI) WithDocker(e *Dockerd) *CLI { return c.With("DOCKER_HOST=" + e.Host()) }

// As is a copy of c that calls the binary by another name, through a link.
func (c *CLI) As(name string) *CLI {
	c.t.Helper()
	link := filepath.Join(c.dir, "bin", name)
	if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
		c.t.Fatal("lab: ", err)
	}
	if err := os.Symlink(c.Bin, link); err != nil && !os.IsExist(err) {
		c.t.Fatal("lab: ", err)
	}
	n := *c
	n.Bin = link
	return &n
}

// Run runs `berth args…` to its end, whatever that is.
func (c *CLI) Run(args ...string) Result {
	c.t.Helper()
	return c.Cmd(args...).Run()
}

// OK runs `berth args…` and fails the test unless it exits with 0.
func (c *CLI) OK(args ...string) Result {
	c.t.Helper()
	r := c.Run(args...)
	if r.Code != 0 {
		c.t.Fatalf("berth %s: exit %d\n%s", strings.Join(args, " "), r.Code, r)
	}
	return r
}

// Fail runs `berth args…` and fails the test unless it exits with 1.
func (c *CLI) Fail(args ...string) Result {
	c.t.Helper()
	r := c.Run(args...)
	if r.Code != 1 {
		c.t.Fatalf("berth %s: exit %d, wanted 1\n%s", strings.Join(args, " "), r.Code, r)
	}
	return r
}

// Start runs `berth args…` in the background; it is killed with the test.
func (c *CLI) Start(args ...string) *Process {
	c.t.Helper()
	return c.Cmd(args...).Start()
}

// Cmd is a call of berth that can be given more before it is run or started.
func (c *CLI) Cmd(args ...string) *Cmd {
	return &Cmd{c: c, args: args, dir: c.Work, env: maps.Clone(c.env), limit: DefaultLimit}
}

// TempFiles lists what is in the temporary folder that berth was given.
func (c *CLI) TempFiles() []string {
	c.t.Helper()
	entries, err := os.ReadDir(c.env["TMPDIR"])
	if err != nil {
		c.t.Fatal("lab: ", err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func setEnv(env map[string]string, kvs []string) {
	for _, kv := range kvs {
		if k, v, ok := strings.Cut(kv, "="); ok {
			env[k] = v
		} else {
			delete(env, kv)
		}
	}
}

func environ(dir string, env map[string]string) []string {
	list := baseEnv(dir)
	for _, k := range slices.Sorted(maps.Keys(env)) {
		list = append(list, k+"="+env[k])
	}
	return list
}

// buildBerth is called once; see theRun.
func buildBerth() (string, error) {
	root, err := moduleRoot()
	if err != nil {
		return "", err
	}
	bin := filepath.Join(theRun.dir, "bin", "berth")
	cmd := exec.Command("go", "build", "-race", "-o", bin,
		"-ldflags", "-X github.com/berthbuild/berth/internal/cli.version=v1.0.0-e2e", "./cmd/berth")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building berth: %w\n%s", err, out)
	}
	return bin, nil
}

// moduleRoot is the folder of berth's go.mod. Tests run in their package's
// folder.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
	}
	return "", fmt.Errorf("no go.mod above the working directory")
}

// ModuleRoot is the folder of berth's own go.mod.
func ModuleRoot(t testing.TB) string {
	t.Helper()
	dir, err := moduleRoot()
	if err != nil {
		t.Fatal("lab: ", err)
	}
	return dir
}

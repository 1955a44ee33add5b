//go:build e2e && linux

package hack

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/berthbuild/berth/test/lab"
)

func TestMain(m *testing.M) { lab.Main(m) }

// quickstart runs make's target with a home of its own, and the caches of this
// machine, which hold no state of berth's.
type quickstart struct {
	t   *testing.T
	env []string
}

func newQuickstart(t *testing.T, dockerHost string) *quickstart {
	t.Helper()
	lab.Need(t, "root", "runc", "openssl", "make")
	dir := lab.Dir(t)
	q := &quickstart{t: t, env: []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "LANG=C.UTF-8", "DOCKER_HOST=" + dockerHost,
		"BERTH_CACHE=" + filepath.Dir(filepath.Dir(lab.Tool(t, "buildkitd"))),
		lab.Mark(dir), // so that the lab finds the daemon if it is left over
	}}
	out, err := exec.Command("go", "env", "GOCACHE", "GOMODCACHE", "GOFLAGS", "GOPROXY", "GOSUMDB").Output()
	if err != nil {
		t.Fatal(err)
	}
	values := strings.Split(string(out), "\n")
	for i, name := range []string{"GOCACHE", "GOMODCACHE", "GOFLAGS", "GOPROXY", "GOSUMDB"} {
		q.env = append(q.env, name+"="+values[i])
	}
	t.Cleanup(func() { q.make("quickstart-clean") })
	return q
}

func (q *quickstart) make(target string) string {
	q.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "make", "-C", "..", target)
	cmd.Env = q.env
	// A file, not a pipe: the daemon that stays behind must not keep us waiting.
	file, err := os.CreateTemp(q.t.TempDir(), "")
	if err != nil {
		q.t.Fatal(err)
	}
	defer file.Close()
	cmd.Stdout, cmd.Stderr = file, file
	runErr := cmd.Run()
	out, err := os.ReadFile(file.Name())
	if err != nil {
		q.t.Fatal(err)
	}
	if runErr != nil {
		q.t.Fatalf("make %s: %v\n%s", target, runErr, out)
	}
	return string(bytes.TrimSpace(out))
}

func (q *quickstart) says(out string, wants ...string) {
	q.t.Helper()
	for _, want := range wants {
		if !strings.Contains(out, want) {
			q.t.Errorf("no %q in:\n%s", want, out)
		}
	}
}

func TestQuickstart(t *testing.T) {
	q := newQuickstart(t, "unix:///nonexistent/docker.sock")
	q.says(q.make("quickstart"), "started buildkitd", "berth-quickstart0", "running",
		"Hello from an image", "a RUN step wrote this", "quickstart-clean")
	q.says(q.make("quickstart"), "runs already", "is there already", "CACHED", "Hello from an image")
	q.says(q.make("quickstart-clean"), "ended the daemon", "berth-quickstart removed")
	if out := q.make("quickstart-clean"); strings.Contains(out, "removed") {
		t.Errorf("cleaned twice: %s", out)
	}
}

func TestQuickstartWithDocker(t *testing.T) {
	lab.Need(t, "docker")
	engine := lab.Docker(t)
	q := newQuickstart(t, engine.Host())
	q.says(q.make("quickstart"), "loaded into it", "Hello from an image", "a RUN step wrote this")
	q.says(engine.CLI(t, "image", "ls"), "berth-quickstart/hello")
	q.make("quickstart-clean")
	if out := engine.CLI(t, "image", "ls"); strings.Contains(out, "berth-quickstart/hello") {
		t.Errorf("the image is still there: %s", out)
	}
}

//go:build e2e && linux

package test

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/berthbuild/berth/test/lab"
)

// nobody runs berth as a user who owns nothing, in a folder that all may read.
type nobody struct {
	t        *testing.T
	dir, bin string
}

func newNobody(t *testing.T) *nobody {
	t.Helper()
	lab.Need(t, "root")
	dir, err := os.MkdirTemp("", "berth-nobody-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	n := &nobody{t: t, dir: dir, bin: join(dir, "berth")}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(n.bin, []byte(read(t, lab.Berth(t).Bin)), 0o755); err != nil {
		t.Fatal(err)
	}
	return n
}

// file makes a file that only root may read.
func (n *nobody) file(name, text string) string {
	n.t.Helper()
	path := join(n.dir, name)
	if err := os.MkdirAll(join(path, ".."), 0o755); err != nil {
		n.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		n.t.Fatal(err)
	}
	return path
}

// run gives berth's standard error and exit code. State and docker's
// configuration are folders of the user's own unless env says otherwise.
func (n *nobody) run(env []string, args ...string) (string, int) {
	n.t.Helper()
	home := join(n.dir, "home")
	if err := os.MkdirAll(home, 0o755); err != nil {
		n.t.Fatal(err)
	}
	if err := os.Chown(home, 65534, 65534); err != nil {
		n.t.Fatal(err)
	}
	cmd := exec.Command(n.bin, args...)
	cmd.Dir = n.dir
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "DOCKER_HOST=unix:///no/docker.sock"}, env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	var errs strings.Builder
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	limit := time.AfterFunc(lab.DefaultLimit, func() { _ = cmd.Process.Kill() }) // a hang is a failure, and shows as exit -1
	defer limit.Stop()
	if err := cmd.Wait(); cmd.ProcessState == nil {
		n.t.Fatal(err)
	}
	return errs.String(), cmd.ProcessState.ExitCode()
}

// Files and sockets that the user may not open are named, with the reason.
func TestNoPermission(t *testing.T) {
	certs := lab.NewCerts(t, "localhost")
	n := newNobody(t)
	ca := n.file("ca.pem", read(t, certs.CA))
	socket := n.file("private/socket-folder-marker", "")
	if err := os.Chmod(join(socket, ".."), 0o700); err != nil {
		t.Fatal(err)
	}
	n.file("context/Dockerfile", "FROM scratch\nCOPY x /\n")
	n.file("state/instances/x", "{}")
	n.file("config/config.json", "{}")
	for _, c := range []struct {
		env  []string
		args []string
		want string
	}{
		{nil, []string{"create", "--name", "c", "--driver-opt", "cacert=" + ca, "tcp://localhost:1"}, ca + ": permission denied"},
		{nil, []string{"create", "--name", "s", "--bootstrap", "unix://" + join(n.dir, "private", "bk.sock")}, "permission denied in the folder " + join(n.dir, "private")},
		{[]string{"BUILDX_CONFIG=" + join(n.dir, "state")}, []string{"inspect", "x"}, join(n.dir, "state", "instances", "x") + ": permission denied"},
		{[]string{"BUILDX_CONFIG=" + join(n.dir, "state")}, []string{"create", "--name", "y", "unix:///x.sock"}, join(n.dir, "state")},
		{[]string{"DOCKER_CONFIG=" + join(n.dir, "config"), "BUILDX_CONFIG=" + join(n.dir, "home", "b")}, []string{"ls"}, join(n.dir, "config", "config.json")},
	} {
		stderr, code := n.run(c.env, c.args...)
		if code != 1 || !strings.Contains(lastLine(stderr), c.want) {
			t.Errorf("%q: exit %d, wanted 1 and %q\n%s", c.args, code, c.want, stderr)
		}
	}
	// A Dockerfile that cannot be read fails the build, and is named.
	bk := lab.BuildKit(t, lab.BuildKitOpts{TCP: true})
	if stderr, code := n.run(nil, "create", "--name", "b", "--use", bk.TCPAddr()); code != 0 {
		t.Fatal(stderr)
	}
	stderr, code := n.run(nil, "build", "context")
	if code != 1 || !strings.Contains(lastLine(stderr), "Dockerfile: permission denied") {
		t.Errorf("build: exit %d\n%s", code, stderr)
	}
	// So does a file of the context: it must not arrive as an empty one.
	n.file("other/secret.txt", "text")
	if err := os.WriteFile(join(n.dir, "other", "Dockerfile"), []byte("FROM scratch\nCOPY . /\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	stderr, code = n.run(nil, "build", "other")
	if code != 1 || !strings.Contains(lastLine(stderr), "secret.txt") || !strings.Contains(lastLine(stderr), "permission denied") {
		t.Errorf("build of an unreadable file: exit %d\n%s", code, stderr)
	}
}

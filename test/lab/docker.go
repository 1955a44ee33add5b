//go:build e2e && linux

package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// Dockerd is a Docker engine of the lab's own: no bridge, no firewall rules,
// its own containerd. Containers run with `--network none` or `host`.
type Dockerd struct {
	d, containerd *daemon
	client        *http.Client
	modern        bool // see ModernEngine
}

// Docker starts an engine and ends it, and its containers, with the test.
func Docker(t testing.TB) *Dockerd {
	t.Helper()
	return startDocker(t, "--bridge=none")
}

// DockerWithNetwork starts an engine that has its default network, which its
// own BuildKit wants for every RUN. It lives in a network namespace of its own:
// nothing of it is seen in this one, and it reaches nothing here.
func DockerWithNetwork(t testing.TB) *Dockerd {
	t.Helper()
	Need(t, "unshare")
	return startDocker(t, "")
}

func startDocker(t testing.TB, bridge string) *Dockerd {
	t.Helper()
	Need(t, "root", "dockerd", "containerd", "runc")
	return upDocker(t, engineParts{dockerd: "dockerd", containerd: "containerd", args: bridgeArgs(bridge), config: "{}"}, bridge == "")
}

// engineParts says what an engine is made of.
type engineParts struct {
	dockerd, containerd string   // programs
	args                []string // of dockerd, besides its folders
	config              string   // daemon.json
	env                 []string // of both, besides the lab's
	space               string   // of a file system of its own for its images; "" for none
}

func bridgeArgs(bridge string) []string {
	args := []string{"--iptables=false", "--ip-forward=false"}
	if bridge != "" {
		args = append(args, bridge)
	}
	return args
}

// upDocker starts an engine; apart, in a network namespace of its own.
func upDocker(t testing.TB, parts engineParts, apart bool) *Dockerd {
	t.Helper()
	dir := newDir(t)
	t.Cleanup(func() { removeDir(t, dir) })
	if parts.space != "" {
		if err := small(dir, parts.space); err != nil {
			t.Fatal("lab: ", err)
		}
	}
	e, err := newDockerd(dir, parts, apart)
	if err != nil {
		t.Fatal("lab: ", err)
	}
	e.d.logOnFailure(t)
	t.Cleanup(e.Stop)
	if err := e.containerd.start(e.containerdAnswers); err != nil {
		t.Fatal("lab: ", err)
	}
	if err := e.d.start(e.ping); err != nil {
		t.Fatal("lab: ", err)
	}
	return e
}

// small makes the folders of an engine's images ones that can be full.
func small(dir, space string) error {
	for _, name := range []string{"data", "cd-root"} {
		path := filepath.Join(dir, name)
		if err := os.Mkdir(path, 0o711); err != nil {
			return err
		}
		if err := syscall.Mount("tmpfs", path, "tmpfs", 0, "size="+space); err != nil {
			return fmt.Errorf("mounting %s: %w", path, err)
		}
	}
	return nil
}

// notForDocker are containerd's parts for Kubernetes, by the names that 1.6 and 2
// have for them, and the one that makes /opt/containerd.
const notForDocker = `["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime", "io.containerd.nri.v1.nri", "io.containerd.internal.v1.opt"]`

func newDockerd(dir string, parts engineParts, apart bool) (*Dockerd, error) {
	at := func(name string) string { return filepath.Join(dir, name) }
	// A containerd of its own: dockerd would use the machine's where one runs.
	toml := fmt.Sprintf("version = 2\nroot = %q\nstate = %q\ndisabled_plugins = %s\n[grpc]\naddress = %q\n[ttrpc]\naddress = %q\n",
		at("cd-root"), at("cd"), notForDocker, at("cd.sock"), at("cd.sock.ttrpc"))
	for name, text := range map[string]string{"containerd.toml": toml, "daemon.json": parts.config} {
		if err := os.WriteFile(at(name), []byte(text), 0o644); err != nil {
			return nil, err
		}
	}
	args := append([]string{
		parts.dockerd, "--config-file", at("daemon.json"),
		"--containerd", at("cd.sock"), "--data-root", at("data"), "--exec-root", at("exec"),
		"-p", at("docker.pid"), "-H", "unix://" + at("docker.sock"),
	}, parts.args...)
	if apart {
		args = append([]string{"unshare", "--net", "--"}, args...)
	}
	e := &Dockerd{
		containerd: newDaemon("containerd", dir, parts.containerd, "--config", at("containerd.toml")),
		d:          newDaemon("dockerd", dir, args...),
	}
	e.containerd.env, e.d.env = parts.env, parts.env
	e.client = &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", at("docker.sock"))
		},
		DisableKeepAlives: true,
	}}
	return e, nil
}

func (e *Dockerd) containerdAnswers(ctx context.Context) error {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", filepath.Join(e.d.dir, "cd.sock"))
	if err != nil {
		return err
	}
	return conn.Close()
}

func (e *Dockerd) ping(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://docker/_ping", nil)
	if err != nil {
		return err
	}
	resp, err := e.client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("ping: %s", resp.Status)
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}

// Get asks the engine's API for a path such as /v1.48/images/NAME/json, and reads
// the answer; it fails the test when that is not 200.
func (e *Dockerd) Get(t testing.TB, path string, into any) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://docker"+path, nil)
	if err != nil {
		t.Fatal("lab: ", err)
	}
	resp, err := e.client.Do(req)
	if err != nil {
		t.Fatal("lab: ", err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, body)
	}
	if err == nil {
		err = json.Unmarshal(body, into)
	}
	if err != nil {
		t.Fatalf("lab: %s: %v", path, err)
	}
}

// Host is the engine's address for DOCKER_HOST.
func (e *Dockerd) Host() string { return "unix://" + filepath.Join(e.d.dir, "docker.sock") }

// Stop ends the engine and its containers.
func (e *Dockerd) Stop() {
	e.d.stop()
	e.containerd.stop()
}

// Kill is kill -9 for the engine, its containerd and its containers.
func (e *Dockerd) Kill() {
	e.d.kill()
	e.containerd.kill()
}

// Pause stops the engine's clock: its sockets accept, and nobody answers.
func (e *Dockerd) Pause() { e.d.signal(syscall.SIGSTOP) }

// Resume undoes Pause.
func (e *Dockerd) Resume() { e.d.signal(syscall.SIGCONT) }

// Log is what the engine wrote so far.
func (e *Dockerd) Log() string { return e.d.log() }

// CLI runs docker's own command line against the engine and gives its output
// (both streams, joined); it fails the test when the command fails.
func (e *Dockerd) CLI(t testing.TB, args ...string) string {
	t.Helper()
	Need(t, "docker")
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "docker", args...)
	cmd.Env = append(baseEnv(e.d.dir), "DOCKER_HOST="+e.Host())
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("docker %v: %v\n%s", args, err, out)
	}
	return string(out)
}

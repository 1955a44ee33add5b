//go:build e2e && linux

package lab

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moby/buildkit/client"
)

func TestMain(m *testing.M) { Main(m) }

func ctx(t *testing.T) context.Context {
	t.Helper()
	c, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return c
}

func TestSharedAnswersOnBothAddresses(t *testing.T) {
	b := Shared(t)
	if Shared(t) != b {
		t.Error("a second daemon")
	}
	if err := info(ctx(t), b.UnixAddr()); err != nil {
		t.Error(err)
	}
	c := b.Certs()
	withCert, err := client.New(ctx(t), b.TCPAddr(), client.WithServerConfig("localhost", c.CA),
		client.WithCredentials(c.Client.Cert, c.Client.Key))
	if err != nil {
		t.Fatal(err)
	}
	defer withCert.Close()
	if got, err := withCert.Info(ctx(t)); err != nil || got.BuildkitVersion.Version == "" {
		t.Errorf("with the client certificate: %+v, %v", got, err)
	}
	without, err := client.New(ctx(t), b.TCPAddr(), client.WithServerConfig("localhost", c.CA))
	if err != nil {
		t.Fatal(err)
	}
	defer without.Close()
	if _, err := without.Info(ctx(t)); err == nil {
		t.Error("the daemon lets in a client without a certificate")
	}
}

func TestKillStartPauseResume(t *testing.T) {
	b := BuildKit(t, BuildKitOpts{TCP: true})
	b.Kill()
	if err := info(ctx(t), b.Addr()); err == nil {
		t.Fatal("answers after Kill")
	}
	b.Start(t)
	b.Pause()
	short, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if err := info(short, b.Addr()); err == nil {
		t.Error("answers while paused")
	}
	b.Resume()
	if err := info(ctx(t), b.Addr()); err != nil {
		t.Error("after Resume:", err)
	}
}

func TestPlatforms(t *testing.T) {
	b := BuildKit(t, BuildKitOpts{Platforms: []string{"linux/arm64", "linux/s390x"}})
	workers, err := b.Client(t).ListWorkers(ctx(t))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range workers[0].Platforms {
		got = append(got, p.OS+"/"+p.Architecture)
	}
	// BuildKit appends what the machine itself can do.
	if len(got) < 2 || got[0] != "linux/arm64" || got[1] != "linux/s390x" {
		t.Errorf("platforms %v", got)
	}
}

// A build's RUN step is running when the daemon is killed: its container must
// go too, and its mounts.
func TestKillLeavesNoContainer(t *testing.T) {
	b := BuildKit(t, BuildKitOpts{})
	dir := ShellContext(t, "RUN echo $((6*7)) marker; sleep 600\n", nil)
	p := startBuildctl(t, b, dir)
	p.WaitFor("42 marker")
	if len(processes(b.d.dir)) < 2 {
		t.Error("the lab does not see the container's processes")
	}
	b.Kill()
	if left := leftovers(b.d.dir); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

func TestHelloBuildsAndLoads(t *testing.T) {
	Need(t, "docker")
	b, e := Shared(t), Docker(t)
	tar := filepath.Join(t.TempDir(), "hello.tar")
	p := startBuildctl(t, b, HelloContext(t), "--output", "type=docker,name=hello:lab,dest="+tar)
	if r := p.Wait(); r.Code != 0 {
		t.Fatal(r)
	}
	e.CLI(t, "load", "-i", tar)
	out := e.CLI(t, "run", "--rm", "--network", "none", "hello:lab")
	if !strings.Contains(out, "Hello from an image") || !strings.Contains(out, "a RUN step wrote this") {
		t.Errorf("the image says %q", out)
	}
	e.CLI(t, "run", "-d", "--network", "none", "--entrypoint", "/hello", "hello:lab") // Stop takes it along
}

func startBuildctl(t *testing.T, b *BuildKitd, dir string, args ...string) *Process {
	t.Helper()
	c := fakeBerth(t, FindTools(t).BuildCtl)
	return c.Start(append([]string{"--addr", b.UnixAddr(), "build", "--progress", "plain", "--frontend", "dockerfile.v0",
		"--local", "context=" + dir, "--local", "dockerfile=" + dir}, args...)...)
}

// fakeBerth is a CLI that runs another binary, so that the lab can be tested
// before berth works.
func fakeBerth(t *testing.T, bin string) *CLI {
	t.Helper()
	dir := Dir(t)
	return &CLI{Bin: bin, Work: dir, t: t, dir: dir, env: map[string]string{"TMPDIR": dir}}
}

func TestRegistry(t *testing.T) {
	open := Registry(t)
	if status, _, body := open.Get(t, "/v2/_catalog"); status != http.StatusOK || !strings.Contains(string(body), "repositories") {
		t.Errorf("%d %s", status, body)
	}
	closed := Registry(t, RegistryOpts{User: "ann", Password: "s3cret"})
	if status, _, _ := closed.Get(t, "/v2/_catalog"); status != http.StatusOK {
		t.Errorf("with the password: %d", status)
	}
	closed.opts.Password = "wrong"
	if status, _, _ := closed.Get(t, "/v2/_catalog"); status != http.StatusUnauthorized {
		t.Errorf("with a wrong password: %d", status)
	}
}

func TestPushToRegistry(t *testing.T) {
	b, r := Shared(t), Registry(t)
	name := r.Addr() + "/hello:1"
	p := startBuildctl(t, b, HelloContext(t), "--output", "type=image,name="+name+",push=true")
	if res := p.Wait(); res.Code != 0 {
		t.Fatal(res)
	}
	status, header, body := r.Get(t, "/v2/hello/manifests/1")
	if status != http.StatusOK || !json.Valid(body) || header.Get("Docker-Content-Digest") == "" {
		t.Errorf("%d %v %s", status, header, body)
	}
}

func TestCertificateVariants(t *testing.T) {
	c := NewCerts(t, "localhost", "127.0.0.1")
	other := NewCerts(t, "localhost", "127.0.0.1")
	wrongName := c.Issue(t, CertOpts{File: "wrong", Names: []string{"elsewhere.test"}})
	expired := c.Issue(t, CertOpts{File: "expired", Names: []string{"localhost"}, Expired: true})
	future := c.Issue(t, CertOpts{File: "future", Names: []string{"localhost"}, Future: true})
	client := c.Issue(t, CertOpts{File: "client2", Names: []string{"localhost"}, Client: true})
	for name, tc := range map[string]struct {
		server Pair
		ca     string
		ok     bool
	}{
		"right": {c.Server, c.CA, true}, "other CA": {c.Server, other.CA, false},
		"wrong name": {wrongName, c.CA, false}, "expired": {expired, c.CA, false},
		"not yet": {future, c.CA, false}, "client's": {client, c.CA, false},
	} {
		if err := handshake(t, tc.server, tc.ca); (err == nil) != tc.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func handshake(t *testing.T, server Pair, ca string) error {
	t.Helper()
	cert, err := tls.LoadX509KeyPair(server.Cert, server.Key)
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		if conn, err := l.Accept(); err == nil {
			_ = conn.(*tls.Conn).HandshakeContext(ctx(t))
			_ = conn.Close()
		}
	}()
	conn, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{RootCAs: pool(t, ca), ServerName: "localhost"})
	if err == nil {
		_ = conn.Close()
	}
	<-done
	return err
}

func TestTerminalAndSignals(t *testing.T) {
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Fatal(err)
	}
	c := fakeBerth(t, sh)
	r := c.Cmd("-c", "test -t 0 && test -t 1 && test -t 2 && echo terminal").TTY().Run()
	if r.Code != 0 || !strings.Contains(r.Stdout, "terminal") {
		t.Error(r)
	}
	p := c.Start("-c", `trap 'echo got it; exit 130' INT; echo ready; while :; do sleep 0.05; done`)
	p.WaitFor("ready")
	p.Interrupt()
	if r := p.Wait(); r.Code != 130 || !strings.Contains(r.Stdout, "got it") {
		t.Error(r)
	}
	r = c.Cmd("-c", "cat; echo $X >&2").Stdin(strings.NewReader("in")).Env("X=y").Run()
	if r.Stdout != "in" || r.Stderr != "y\n" {
		t.Error(r)
	}
}

func TestLeftoversAreSeen(t *testing.T) {
	Need(t, "root")
	dir := Dir(t)
	cmd := exec.Command("sleep", "600")
	cmd.Env = baseEnv(dir)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = cmd.Wait() }()
	point := filepath.Join(dir, "m")
	if err := os.Mkdir(point, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mount", "-t", "tmpfs", "tmpfs", point).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if left := leftovers(dir); len(left) != 2 {
		t.Errorf("wanted a process and a mount, got %q", left)
	}
	sweep(dir)
	if left := leftovers(dir); len(left) != 0 {
		t.Errorf("after sweep: %q", left)
	}
}

// A test binary that is killed cleans up nothing itself; its watchdog does.
func TestWatchdog(t *testing.T) {
	if os.Getenv("LAB_VICTIM") != "" {
		b := Shared(t)
		startBuildctl(t, b, ShellContext(t, "RUN echo $((6*7)) marker; sleep 600\n", nil)).WaitFor("42 marker")
		fmt.Println("victim in " + theRun.dir)
		select {}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	home, err := os.UserHomeDir()
	if err != nil {
		t.Fatal(err)
	}
	c := fakeBerth(t, self).With("LAB_VICTIM=1", "CI="+os.Getenv("CI"), "HOME="+home, "BERTH_CACHE="+os.Getenv("BERTH_CACHE"))
	p := c.Start("-test.run=^TestWatchdog$")
	p.WaitFor("victim in ")
	_, dir, _ := strings.Cut(strings.TrimSpace(p.Stdout()), "victim in ")
	if len(leftovers(dir)) == 0 {
		t.Fatal("the victim runs nothing in ", dir)
	}
	p.Kill()
	_ = p.Wait()
	limit := ctx(t)
	for {
		if _, err := os.Stat(dir); os.IsNotExist(err) {
			break
		}
		select {
		case <-limit.Done():
			t.Fatalf("still there: %q", leftovers(dir))
		case <-time.After(50 * time.Millisecond):
		}
	}
	if left := leftovers(dir); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

func TestBerthIsBuiltAndIsolated(t *testing.T) {
	c := Berth(t)
	r := c.OK("version")
	if !strings.Contains(r.Stdout, "v1.0.0-e2e") {
		t.Error(r)
	}
	if !strings.HasPrefix(c.BuildxConfig, theRun.dir) {
		t.Error("not isolated")
	}
}

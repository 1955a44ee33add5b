//go:build e2e && linux

package lab

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/moby/buildkit/client"
)

// BuildKitOpts says what kind of daemon to start. The zero value listens on a
// unix socket only.
type BuildKitOpts struct {
	Unix bool // listen on a unix socket; the default when TCP is false
	TCP  bool // listen on a free loopback port

	// TLS makes the TCP listener ask for TLS with the server certificate, and
	// for a client certificate of the same CA. nil: plain TCP.
	TLS *Certs
	// ServerCert is shown instead of TLS.Server, e.g. an expired one.
	ServerCert *Pair
	// NoClientCert asks no certificate of clients.
	NoClientCert bool

	Platforms []string // what the worker says it can build; nil: what it can
	Root      string   // state folder, which the caller removes; "": one of its own
	Config    string   // buildkitd.toml
	Flags     []string // more flags
	Env       []string // more environment, each "KEY=value"
}

// BuildKitd is a running BuildKit daemon. Its methods may be called at any
// time, and concurrently.
type BuildKitd struct {
	d     *daemon
	opts  BuildKitOpts
	tools Tools
	port  int
}

// BuildKit starts a daemon, waits until it answers, and ends it with the test.
func BuildKit(t testing.TB, opts BuildKitOpts) *BuildKitd {
	t.Helper()
	Need(t, "root", "runc")
	dir := newDir(t)
	t.Cleanup(func() { removeDir(t, dir) })
	b, err := newBuildKitd(FindTools(t), dir, opts)
	if err != nil {
		t.Fatal("lab: ", err)
	}
	b.d.logOnFailure(t)
	t.Cleanup(b.Stop)
	if err := b.up(); err != nil {
		t.Fatal("lab: ", err)
	}
	return b
}

// Shared is a daemon that all tests of the package share, started by the first
// that asks: a unix socket, and TCP with mutual TLS for the names localhost and
// 127.0.0.1 (see Certs). A test must not stop or pause it, and must not rely on
// an empty cache.
func Shared(t testing.TB) *BuildKitd {
	t.Helper()
	Need(t, "root", "runc")
	tools := FindTools(t)
	theRun.mu.Lock()
	defer theRun.mu.Unlock()
	if theRun.shared == nil {
		b, err := startShared(tools)
		if err != nil {
			t.Fatal("lab: ", err)
		}
		theRun.shared = b
		theRun.atEnd = append(theRun.atEnd, b.Stop)
	}
	theRun.shared.d.logOnFailure(t)
	return theRun.shared
}

func startShared(tools Tools) (*BuildKitd, error) {
	dir, err := makeDir()
	if err != nil {
		return nil, err
	}
	certs, err := makeCerts(filepath.Join(dir, "certs"), "localhost", "127.0.0.1")
	if err != nil {
		return nil, err
	}
	b, err := newBuildKitd(tools, dir, BuildKitOpts{Unix: true, TCP: true, TLS: certs})
	if err != nil {
		return nil, err
	}
	return b, b.up()
}

func newBuildKitd(tools Tools, dir string, opts BuildKitOpts) (*BuildKitd, error) {
	opts.Unix = opts.Unix || !opts.TCP
	if opts.Root == "" {
		opts.Root = filepath.Join(dir, "root")
	}
	b := &BuildKitd{opts: opts, tools: tools}
	config := filepath.Join(dir, "buildkitd.toml")
	if err := os.WriteFile(config, []byte(opts.Config), 0o644); err != nil {
		return nil, err
	}
	snapshotter := "native"
	if theRun.overlay() {
		snapshotter = "overlayfs"
	}
	args := []string{
		tools.BuildKitd, "--config", config, "--root", opts.Root,
		"--otel-socket-path", filepath.Join(dir, "otel.sock"),
		"--containerd-worker=false", "--oci-worker-snapshotter=" + snapshotter,
	}
	b.d = newDaemon("buildkitd", dir, args...)
	b.d.env = opts.Env
	for _, p := range opts.Platforms {
		b.d.args = append(b.d.args, "--oci-worker-platform="+p)
	}
	return b, b.listenOn()
}

// listenOn adds the flags of the listeners.
func (b *BuildKitd) listenOn() error {
	if b.opts.Unix {
		b.d.args = append(b.d.args, "--addr", b.UnixAddr())
	}
	if b.opts.TCP {
		port, err := freePort()
		if err != nil {
			return err
		}
		b.port = port
		b.d.args = append(b.d.args, "--addr", b.TCPAddr())
	}
	if c := b.opts.TLS; c != nil {
		server := c.Server
		if b.opts.ServerCert != nil {
			server = *b.opts.ServerCert
		}
		b.d.args = append(b.d.args, "--tlscert", server.Cert, "--tlskey", server.Key)
		if !b.opts.NoClientCert {
			b.d.args = append(b.d.args, "--tlscacert", c.CA)
		}
	}
	b.d.args = append(b.d.args, b.opts.Flags...)
	return nil
}

func (b *BuildKitd) up() error { return b.d.start(b.answers) }

// answers asks the daemon for its version, over the unix socket where there is
// one: a daemon whose certificate is wrong on purpose is up all the same.
func (b *BuildKitd) answers(ctx context.Context) error {
	if b.opts.Unix {
		return info(ctx, b.UnixAddr())
	}
	if b.opts.TLS == nil {
		return info(ctx, b.TCPAddr())
	}
	return tlsAnswers(ctx, loopback(b.port))
}

func info(ctx context.Context, addr string) error {
	c, err := client.New(ctx, addr)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	_, err = c.Info(ctx)
	return err
}

// Addr is the endpoint to give to berth: UnixAddr when it has one, else TCPAddr.
func (b *BuildKitd) Addr() string {
	if b.opts.Unix {
		return b.UnixAddr()
	}
	return b.TCPAddr()
}

// UnixAddr is unix:///….
func (b *BuildKitd) UnixAddr() string { return "unix://" + filepath.Join(b.d.dir, "bk.sock") }

// TCPAddr is tcp://127.0.0.1:port; see LocalhostAddr for the name.
func (b *BuildKitd) TCPAddr() string { return "tcp://" + loopback(b.port) }

// LocalhostAddr is tcp://localhost:port.
func (b *BuildKitd) LocalhostAddr() string { return fmt.Sprintf("tcp://localhost:%d", b.port) }

// Certs are those that the daemon was started with; nil when it has no TLS.
func (b *BuildKitd) Certs() *Certs { return b.opts.TLS }

// Kill is kill -9 for the daemon and the containers of its builds.
func (b *BuildKitd) Kill() { b.d.kill() }

// Stop ends the daemon in good order.
func (b *BuildKitd) Stop() { b.d.stop() }

// Terminate tells the daemon to stop, and does not wait: it takes no new calls
// and goes on with the builds that run.
func (b *BuildKitd) Terminate() { b.d.signal(syscall.SIGTERM) }

// Pause stops the daemon's clock: its sockets accept, and nobody answers.
func (b *BuildKitd) Pause() { b.d.signal(syscall.SIGSTOP) }

// Resume undoes Pause.
func (b *BuildKitd) Resume() { b.d.signal(syscall.SIGCONT) }

// Start runs a daemon again that was stopped or killed, on the same addresses
// and with the same state, and waits until it answers.
func (b *BuildKitd) Start(t testing.TB) {
	t.Helper()
	if err := b.up(); err != nil {
		t.Fatal("lab: ", err)
	}
}

// StartLater runs it again without waiting until it answers.
func (b *BuildKitd) StartLater(t testing.TB) {
	t.Helper()
	if err := b.d.spawn(); err != nil {
		t.Fatal("lab: ", err)
	}
}

// Log is what the daemon wrote so far.
func (b *BuildKitd) Log() string { return b.d.log() }

// WaitForLog waits until the daemon's log has a text so many times.
func (b *BuildKitd) WaitForLog(t testing.TB, text string, times int) {
	t.Helper()
	poll(t, fmt.Sprintf("%d times %q in the log of buildkitd", times, text), func() bool { return strings.Count(b.Log(), text) >= times })
}

// WaitRefused waits until the daemon, which was told to stop, takes no TCP
// connections any more.
func (b *BuildKitd) WaitRefused(t testing.TB) {
	t.Helper()
	poll(t, "that connections are refused", func() bool {
		c, err := net.Dial("tcp", loopback(b.port))
		if err == nil {
			_ = c.Close()
		}
		return err != nil
	})
}

// poll looks until something is so, for as long as a call of berth may take.
func poll(t testing.TB, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(DefaultLimit); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("lab: waited for %s", what)
		}
	}
}

// Client is BuildKit's own client, connected over the unix socket (the daemon
// needs one), for looking at what a build left. It is closed with the test.
func (b *BuildKitd) Client(t testing.TB) *client.Client {
	t.Helper()
	c, err := client.New(context.Background(), b.UnixAddr())
	if err != nil {
		t.Fatal("lab: ", err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// overlayWorks tells whether the run's folder can hold an overlay mount, which
// it cannot where it lies on an overlay itself.
func overlayWorks() bool {
	dir, err := makeDir()
	if err != nil {
		return false
	}
	at := func(name string) string {
		p := filepath.Join(dir, name)
		if err := os.Mkdir(p, 0o755); err != nil {
			return ""
		}
		return p
	}
	data := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", at("l"), at("u"), at("w"))
	point := at("m")
	if err := syscall.Mount("overlay", point, "overlay", 0, data); err != nil {
		return false
	}
	return syscall.Unmount(point, 0) == nil
}

//go:build e2e && linux

package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"
)

// readyLimit bounds how long a daemon may take to answer; it is generous
// because two cores may be shared with a compiler.
const readyLimit = 60 * time.Second

// daemon is a long-running process with a log and a folder of its own.
type daemon struct {
	name string
	dir  string   // processes and mounts that belong to it are found by this
	args []string // args[0] is the program
	env  []string

	mu   sync.Mutex
	cmd  *exec.Cmd     // nil when it is not running
	done chan struct{} // closed when cmd was waited for
}

func newDaemon(name, dir string, args ...string) *daemon {
	return &daemon{name: name, dir: dir, args: args}
}

// start runs the program and waits until ready answers with nil.
func (d *daemon) start(ready func(context.Context) error) error {
	if err := d.spawn(); err != nil {
		return fmt.Errorf("starting %s: %w", d.name, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), readyLimit)
	defer cancel()
	for {
		err := try(ctx, ready)
		if err == nil {
			return nil
		}
		select {
		case <-d.ended():
			return fmt.Errorf("%s ended before it was ready:\n%s", d.name, d.tail(0))
		case <-ctx.Done():
			d.kill()
			return fmt.Errorf("%s was not ready after %v: %w\n%s", d.name, readyLimit, err, d.tail(0))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func try(ctx context.Context, ready func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return ready(ctx)
}

func (d *daemon) spawn() error {
	log, err := os.OpenFile(d.logPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	cmd := exec.Command(d.args[0], d.args[1:]...)
	cmd.Env = append(baseEnv(d.dir), d.env...)
	cmd.Dir = d.dir
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a Ctrl-C in the terminal is the test's to handle
	if err := cmd.Start(); err != nil {
		return err
	}
	done := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(done)
	}()
	d.mu.Lock()
	d.cmd, d.done = cmd, done
	d.mu.Unlock()
	return nil
}

// baseEnv is all of the environment that the lab passes on.
func baseEnv(dir string) []string {
	return []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "LANG=C.UTF-8", "GORACE=" + GoRace, markEnv + "=" + dir}
}

func (d *daemon) ended() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.done
}

// signal sends a signal to the daemon alone; to one that ended it does nothing.
func (d *daemon) signal(sig syscall.Signal) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cmd != nil {
		_ = d.cmd.Process.Signal(sig)
	}
}

// kill is kill -9 for the daemon, and then for everything that it had started.
func (d *daemon) kill() {
	if d.ended() == nil {
		return
	}
	d.signal(syscall.SIGKILL)
	<-d.ended()
	sweep(d.dir)
}

// stop asks the daemon to end, and kills it when it does not within 15 s.
func (d *daemon) stop() {
	if d.ended() == nil {
		return
	}
	d.signal(syscall.SIGCONT) // a paused one hears nothing else
	d.signal(syscall.SIGTERM)
	select {
	case <-d.ended():
	case <-time.After(15 * time.Second):
	}
	d.kill()
}

func (d *daemon) logPath() string { return filepath.Join(d.dir, d.name+".log") }

// log is what the daemon wrote so far.
func (d *daemon) log() string {
	b, _ := os.ReadFile(d.logPath())
	return string(b)
}

// tail is the end of the log, from the given offset on.
func (d *daemon) tail(from int64) string {
	const most = 8 << 10
	b, _ := os.ReadFile(d.logPath())
	b = b[min(from, int64(len(b))):]
	if len(b) > most {
		b = append([]byte("…\n"), b[len(b)-most:]...)
	}
	return string(bytes.TrimSpace(b))
}

// logOnFailure prints the daemon's log, from now on, when the test failed.
// Register it after the cleanup that removes the log.
func (d *daemon) logOnFailure(t testing.TB) {
	var from int64
	if fi, err := os.Stat(d.logPath()); err == nil {
		from = fi.Size()
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of %s:\n%s", d.name, d.tail(from))
		}
	})
}

// freePort is a TCP port of the loopback interface that nobody listens on now.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	addr, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		return 0, errors.New("no TCP address")
	}
	return addr.Port, l.Close()
}

// FreeAddr is a loopback host:port that refuses connections: nobody listens.
func FreeAddr(t testing.TB) string {
	t.Helper()
	port, err := freePort()
	if err != nil {
		t.Fatal("lab: ", err)
	}
	return loopback(port)
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

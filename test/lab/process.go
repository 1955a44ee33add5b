//go:build e2e && linux

package lab

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// DefaultLimit is how long a call of berth may take before it is killed and
// the test fails. Bounds of berth's own are what tests look at, not this.
const DefaultLimit = 3 * time.Minute

// Result is how a call ended.
type Result struct {
	Stdout, Stderr string // on a terminal all is in Stdout
	Code           int    // exit code; -1 when a signal ended it
}

// String shows all of it, for a failed test.
func (r Result) String() string {
	return fmt.Sprintf("code: %d\nstdout: %s\nstderr: %s", r.Code, r.Stdout, r.Stderr)
}

// Cmd is a call of berth. Its methods change and return it.
type Cmd struct {
	c      *CLI
	args   []string
	dir    string
	env    map[string]string
	stdin  io.Reader
	stdout *os.File
	tty    *Size // nil: no terminal
	limit  time.Duration
}

// Stdin gives it something to read; without it reads /dev/null.
func (m *Cmd) Stdin(r io.Reader) *Cmd { m.stdin = r; return m }

// Dir sets the working directory.
func (m *Cmd) Dir(dir string) *Cmd { m.dir = dir; return m }

// Env adds environment, as CLI.With does.
func (m *Cmd) Env(kvs ...string) *Cmd { setEnv(m.env, kvs); return m }

// Limit sets how long it may take; see DefaultLimit.
func (m *Cmd) Limit(d time.Duration) *Cmd { m.limit = d; return m }

// StdoutTo sends standard output to a file or pipe instead of the Result. The
// caller closes f.
func (m *Cmd) StdoutTo(f *os.File) *Cmd { m.stdout = f; return m }

// TTY makes standard input, output and error a terminal of 120×40.
func (m *Cmd) TTY() *Cmd { return m.TTYOf(Size{Columns: 120, Lines: 40}) }

// TTYOf is TTY with another size.
func (m *Cmd) TTYOf(size Size) *Cmd { m.tty = &size; return m }

// Run runs it to its end.
func (m *Cmd) Run() Result {
	m.c.t.Helper()
	return m.Start().Wait()
}

// Start runs it in the background; it is killed with the test.
func (m *Cmd) Start() *Process {
	t := m.c.t
	t.Helper()
	cmd := exec.Command(m.c.Bin, m.args...)
	cmd.Dir, cmd.Env, cmd.Stdin = m.dir, environ(m.c.dir, m.env), m.stdin
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = 5 * time.Second // for a Stdin that never ends
	p := &Process{t: t, name: "berth " + strings.Join(m.args, " "), cmd: cmd, limit: m.limit, done: make(chan struct{})}
	p.stdout.changed, p.stderr.changed = make(chan struct{}), make(chan struct{})
	cmd.Stdout, cmd.Stderr = &p.stdout, &p.stderr
	if m.stdout != nil {
		cmd.Stdout = m.stdout
	}
	err := p.launch(m.tty)
	if err != nil {
		t.Fatalf("lab: %s: %v", p.name, err)
	}
	t.Cleanup(func() {
		p.Kill()
		<-p.done
	})
	return p
}

// Process is a call of berth that runs.
type Process struct {
	t              testing.TB
	name           string
	cmd            *exec.Cmd
	limit          time.Duration
	stdout, stderr buffer
	master         *os.File // the terminal's other end, nil without one
	done           chan struct{}
	waitErr        error // set before done is closed
}

func (p *Process) launch(tty *Size) error {
	copied := make(chan struct{})
	if tty != nil {
		master, slave, err := openTerminal(*tty)
		if err != nil {
			return err
		}
		defer func() { _ = slave.Close() }()
		p.master = master
		p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = slave, slave, slave
		p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
		go func() {
			defer close(copied)
			defer func() { _ = master.Close() }()
			_, _ = io.Copy(&p.stdout, master) // ends with EIO when the last user of the slave is gone
		}()
	} else {
		close(copied)
	}
	if err := p.cmd.Start(); err != nil {
		return err
	}
	go func() {
		err := p.cmd.Wait()
		<-copied
		p.waitErr = err
		close(p.done)
	}()
	return nil
}

// Type types text on the terminal that the process was given; see Cmd.TTY.
func (p *Process) Type(text string) {
	p.t.Helper()
	if _, err := io.WriteString(p.master, text); err != nil {
		p.t.Fatalf("lab: typing: %v", err)
	}
}

// Resize changes the size of the terminal that the process was given.
func (p *Process) Resize(size Size) {
	p.t.Helper()
	if err := setSize(int(p.master.Fd()), size); err != nil {
		p.t.Fatal("lab: ", err)
	}
}

// Interrupt sends SIGINT, as Ctrl-C does.
func (p *Process) Interrupt() { p.Signal(syscall.SIGINT) }

// Kill sends SIGKILL.
func (p *Process) Kill() { p.Signal(syscall.SIGKILL) }

// Signal sends a signal; to a process that ended it does nothing.
func (p *Process) Signal(sig syscall.Signal) { _ = p.cmd.Process.Signal(sig) }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Stdout is what it wrote to standard output so far.
func (p *Process) Stdout() string { return p.stdout.String() }

// Stderr is what it wrote to standard error so far.
func (p *Process) Stderr() string { return p.stderr.String() }

// Wait waits until the process has ended. One that takes longer than its limit
// is asked for its goroutines, killed, and fails the test, as does a data race.
func (p *Process) Wait() Result {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(p.limit):
		p.Signal(syscall.SIGQUIT)
		select {
		case <-p.done:
		case <-time.After(10 * time.Second):
			p.Kill()
			<-p.done
		}
		p.t.Fatalf("%s: still running after %v\n%s", p.name, p.limit, p.result())
	}
	r := p.result()
	var exit *exec.ExitError
	if p.waitErr != nil && !errors.As(p.waitErr, &exit) && !errors.Is(p.waitErr, exec.ErrWaitDelay) {
		// A write to its standard input that it did not read is its own business.
		if !errors.Is(p.waitErr, syscall.EPIPE) {
			p.t.Errorf("lab: %s: %v", p.name, p.waitErr)
		}
	}
	if strings.Contains(r.Stderr+r.Stdout, "WARNING: DATA RACE") {
		p.t.Errorf("%s: data race\n%s", p.name, r)
	}
	return r
}

func (p *Process) result() Result {
	return Result{Stdout: p.Stdout(), Stderr: p.Stderr(), Code: p.cmd.ProcessState.ExitCode()}
}

// WaitFor waits until standard output or standard error contains the text, and
// fails the test when the process ends, or its limit passes, without.
func (p *Process) WaitFor(text string) {
	p.t.Helper()
	limit := time.After(p.limit)
	for {
		out, outChanged := p.stdout.state()
		err, errChanged := p.stderr.state()
		if strings.Contains(out, text) || strings.Contains(err, text) {
			return
		}
		select {
		case <-outChanged:
		case <-errChanged:
		case <-p.done:
			if r := p.result(); !strings.Contains(r.Stdout, text) && !strings.Contains(r.Stderr, text) {
				p.t.Fatalf("%s: ended without %q\n%s", p.name, text, r)
			}
			return
		case <-limit:
			p.t.Fatalf("%s: no %q within %v\nstdout: %s\nstderr: %s", p.name, text, p.limit, out, err)
		}
	}
}

// buffer keeps what is written, and tells who waits for more.
type buffer struct {
	mu      sync.Mutex
	text    []byte
	changed chan struct{} // closed, and replaced, at each write
}

// Write implements io.Writer.
func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.text = append(b.text, p...)
	close(b.changed)
	b.changed = make(chan struct{})
	return len(p), nil
}

func (b *buffer) String() string {
	text, _ := b.state()
	return text
}

func (b *buffer) state() (string, <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return string(b.text), b.changed
}

// WaitForMore waits until more than n bytes have come on standard output, and
// fails the test when the process ends, or its limit passes, without.
func (p *Process) WaitForMore(n int) {
	p.t.Helper()
	limit := time.After(p.limit)
	for {
		out, changed := p.stdout.state()
		if len(out) > n {
			return
		}
		select {
		case <-changed:
		case <-p.done:
			if len(p.Stdout()) > n {
				return
			}
			p.t.Fatalf("%s: ended after %d bytes\n%s", p.name, n, p.result())
		case <-limit:
			p.t.Fatalf("%s: no more than %d bytes within %v\n%s", p.name, n, p.limit, out)
		}
	}
}

package stdio

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/berthbuild/berth/internal/dial"
)

// The classes of a helper's failures.
const (
	// NoHelper is a program that is not on PATH, or cannot be started.
	NoHelper dial.Class = "no-helper"
	// HelperFailed is one that ended with an error.
	HelperFailed dial.Class = "helper-failed"
	// NoBuildctl is a container or pod that has no buildctl to run.
	NoBuildctl dial.Class = "no-buildctl"
)

// StageProgram is the stage of a dial in which a program is found and started.
const StageProgram = "program"

// The exit codes that shells and container engines give to a command that was
// found but cannot be run, and to one that was not found.
const (
	CannotRun = 126
	NotFound  = 127
)

// grace is how long Close lets a helper pass on what it has read and end by
// itself before it is killed. It must be over before berth is: what is left then
// is left for good.
const grace = 500 * time.Millisecond

// ErrMute is the exit of a helper that ended well, but without a byte of an
// answer.
var ErrMute = errors.New("ended without a word")

// Command starts a program of this machine whose standard input and output are
// the connection. explain makes an error out of its exit (an *exec.ExitError,
// or ErrMute) and what it wrote to its standard error; nil is Explain. The
// program's environment is cmd's.
//
// The program gets a session of its own: a Ctrl-C in the terminal is berth's to
// handle, which may still want to tell the daemon of it; nothing can stop for a
// question on a terminal; and Close ends also what the program has started. It
// waits for that no longer than half a second.
func Command(cmd *exec.Cmd, explain func(exit error, stderr string) error) (*Conn, error) {
	name := filepath.Base(cmd.Args[0])
	if cmd.Err != nil {
		return nil, notStarted(cmd.Args[0], cmd.Err)
	}
	if explain == nil {
		explain = func(exit error, stderr string) error { return Explain(name, exit, stderr) }
	}
	stderr := &Tail{}
	cmd.Stderr, cmd.WaitDelay = stderr, lastWords/4 // a grandchild may keep stderr open
	detach(cmd)
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		_ = in.Close()
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, notStarted(cmd.Args[0], err)
	}
	heard := &counter{r: out}
	var reaped atomic.Bool // its number may be another's now
	wait := sync.OnceValue(func() error {
		exit := cmd.Wait()
		reaped.Store(true)
		if errors.Is(exit, exec.ErrWaitDelay) { // it ended well, and left something running
			exit = nil
		}
		if exit == nil && heard.n.Load() == 0 {
			exit = ErrMute
		}
		if exit == nil {
			return nil
		}
		return explain(exit, stderr.String())
	})
	return New(Stream{
		In: in, Out: heard, Wait: wait,
		Kill: func() {
			_, _ = in.Close(), out.Close() // may be closed
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				_ = wait()
			}()
			timer := time.NewTimer(grace)
			defer timer.Stop()
			select {
			case <-ended:
			case <-timer.C:
				if !reaped.Load() {
					kill(cmd)
				}
			}
		},
		Local: Addr{"stdio", "berth"}, Remote: Addr{"stdio", name},
	}), nil
}

// counter counts what is read.
type counter struct {
	r io.Reader
	n atomic.Int64
}

// Read implements io.Reader.
func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n.Add(int64(n))
	return n, err
}

func notStarted(name string, err error) error {
	if errors.Is(err, exec.ErrNotFound) {
		return &dial.Error{Class: NoHelper, Err: err,
			Text: fmt.Sprintf("there is no program %s on PATH", name), Tries: []string{"install it, or correct PATH"}}
	}
	why := err
	var path *fs.PathError
	if errors.As(err, &path) {
		why = path.Err
	}
	return &dial.Error{Class: NoHelper, Err: err, Text: fmt.Sprintf("%s cannot be started: %v", name, why)}
}

// Explain is the account of a helper that ended, in its own words where it had
// any. Its reason may heal (the daemon is not up yet), unless the exit says
// that there is nothing to run.
func Explain(name string, exit error, stderr string) *dial.Error {
	e := &dial.Error{Class: HelperFailed, Err: exit, Heals: true}
	code := ExitCode(exit)
	switch {
	case stderr != "":
		e.Text = name + " says: " + stderr
	case errors.Is(exit, ErrMute):
		e.Text = name + " " + ErrMute.Error()
	default:
		e.Text = fmt.Sprintf("%s ended (%v)", name, exit)
	}
	e.Heals = code != CannotRun && code != NotFound
	return e
}

// ExitCode is the code of a helper's exit, as *exec.ExitError has it: -1 where a
// signal ended it. It is 0 where the error has none.
func ExitCode(exit error) int {
	var e interface{ ExitCode() int }
	if errors.As(exit, &e) {
		return e.ExitCode()
	}
	return 0
}

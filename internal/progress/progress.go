// Package progress shows what builds do: it gathers the status streams of one
// or several daemons, and steps of our own, into one display.
//
// It is not for results, which go to standard output, nor for errors, which
// the caller prints once the display is closed. How a display looks is
// BuildKit's own progressui.
//
// Rules: whoever builds is never held up by a display that cannot write; what
// cannot be shown is dropped and the first write error is told by Close. The
// environment is not read here (progressui reads its colours itself).
package progress

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/console"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/util/progress/progressui"

	"github.com/berthbuild/berth/internal/hint"
)

// Mode is how progress is shown.
type Mode string

// The modes of --progress.
const (
	Auto    Mode = "auto"    // TTY on a terminal, else Plain
	TTY     Mode = "tty"     // redrawn in place; a terminal only
	Plain   Mode = "plain"   // lines
	RawJSON Mode = "rawjson" // one client.SolveStatus per line
	Quiet   Mode = "quiet"   // nothing
	None    Mode = "none"    // nothing; another word for Quiet
)

// Modes are all of them, as they are offered to the user.
func Modes() []Mode { return []Mode{Auto, TTY, Plain, RawJSON, Quiet, None} }

// ParseMode reads the value of --progress; "" is Auto.
func ParseMode(s string) (Mode, error) {
	if s == "" {
		return Auto, nil
	}
	if slices.Contains(Modes(), Mode(s)) {
		return Mode(s), nil
	}
	names := make([]string, 0, len(Modes()))
	for _, m := range Modes() {
		names = append(names, string(m))
	}
	return "", hint.New(fmt.Sprintf("progress mode %q is not known", s), "the modes are "+strings.Join(names, ", "))
}

// Options are what the display says about the build as a whole.
type Options struct {
	Builder string // "" for no such line
	Driver  string // "" is remote
	Phase   string // the word behind [+] on a terminal; "" is Building
}

// Printer draws until it is closed. It may be used by several goroutines.
type Printer struct {
	ch      chan *client.SolveStatus // what is drawn, in order
	drawn   chan struct{}            // closed when the display has ended
	closing chan struct{}            // closed when no more is taken
	out     *tolerant                // nil on a terminal

	mu      sync.Mutex // guards closed and the adding to senders
	closed  bool
	senders sync.WaitGroup // whoever may still send to ch

	warnings []client.VertexWarning // valid once drawn
	err      error                  // valid once drawn
}

// New starts a display on out. For TTY, and for Auto to find a terminal, out
// must be an *os.File or another console.File. The Printer must be closed.
func New(out io.Writer, mode Mode, o Options) (*Printer, error) {
	display, w, err := newDisplay(out, mode, o)
	if err != nil {
		return nil, err
	}
	p := &Printer{
		ch:      make(chan *client.SolveStatus),
		drawn:   make(chan struct{}),
		closing: make(chan struct{}),
		out:     w,
	}
	go p.draw(display)
	return p, nil
}

func newDisplay(out io.Writer, mode Mode, o Options) (progressui.Display, *tolerant, error) {
	if mode == Auto || mode == "" {
		mode = Plain
		if terminal(out) == nil {
			mode = TTY
		}
	}
	opts := []progressui.DisplayOpt{progressui.WithPhase(o.Phase)}
	if o.Builder != "" {
		driver := o.Driver
		if driver == "" {
			driver = "remote"
		}
		opts = append(opts, progressui.WithDesc(
			fmt.Sprintf("building with %q instance using %s driver", o.Builder, driver), driver+":"+o.Builder))
	}
	switch mode {
	case TTY:
		if err := terminal(out); err != nil {
			return progressui.Display{}, nil, hint.Wrap(err, "progress mode tty needs a terminal", "use --progress=plain")
		}
		d, err := progressui.NewDisplay(out, progressui.TtyMode, opts...)
		return d, nil, err
	case Plain, RawJSON:
		w := &tolerant{out: out}
		d, err := progressui.NewDisplay(w, progressui.DisplayMode(mode), opts...)
		return d, w, err
	case Quiet, None:
		d, err := progressui.NewDisplay(out, progressui.QuietMode)
		return d, nil, err
	default:
		_, err := ParseMode(string(mode))
		return progressui.Display{}, nil, err
	}
}

// terminal tells why out is no terminal; nil when it is one.
func terminal(out io.Writer) error {
	f, ok := out.(console.File)
	if !ok {
		return errors.New("the output is not a file")
	}
	_, err := console.ConsoleFromFile(f)
	return err
}

// draw runs the display. A display that ends early, and one that falls over
// something in a build's output, leaves the stream to be drained.
func (p *Printer) draw(d progressui.Display) {
	defer close(p.drawn)
	defer func() {
		for range p.ch { // nobody may be left waiting
		}
	}()
	defer func() {
		// The terminal display interprets whatever the programs of a build
		// print; a fault in there must not take the build down.
		if fault := recover(); fault != nil {
			p.err = fmt.Errorf("the progress display failed: %v", fault)
		}
	}()
	p.warnings, p.err = d.UpdateFrom(context.Background(), p.ch)
}

// send hands one status to the display, unless the Printer is closed.
func (p *Printer) send(s *client.SolveStatus) {
	if !p.enter() {
		return
	}
	defer p.senders.Done()
	p.ch <- s
}

// enter registers a sender; false when the Printer is closed.
func (p *Printer) enter() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	p.senders.Add(1)
	return true
}

// Close waits until everything that was sent has been drawn and ends the
// display. What sources send later is dropped. The warnings are the builds';
// the error is the first one from writing. Every call gives the same.
func (p *Printer) Close() ([]client.VertexWarning, error) {
	p.mu.Lock()
	first := !p.closed
	if first {
		p.closed = true
		close(p.closing)
	}
	p.mu.Unlock()
	if first {
		p.senders.Wait()
		close(p.ch)
	}
	<-p.drawn
	if p.err == nil && p.out != nil {
		return p.warnings, p.out.failure()
	}
	return p.warnings, p.err
}

// tolerant writes until the first error, keeps that one, and swallows the rest.
type tolerant struct {
	out io.Writer

	mu  sync.Mutex
	err error
}

func (t *tolerant) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err != nil {
		return len(b), nil
	}
	if n, err := t.out.Write(b); err != nil {
		t.err = err
	} else if n < len(b) {
		t.err = io.ErrShortWrite
	}
	return len(b), nil
}

func (t *tolerant) failure() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return hint.Wrap(t.err, "showing progress")
}

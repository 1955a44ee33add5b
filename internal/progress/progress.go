// Package progress shows what builds do: it gathers the status streams of one
// or several daemons, and steps of our own, into one display.
//
// It is not for results, which go to standard output, nor for errors, which
// the caller prints once the display is closed. How a display looks is
// BuildKit's own progressui.
//
// Rules: whoever builds is never held up by a display that cannot write; what
// cannot be shown is dropped and the first write error is told by Close. What
// others named or printed reaches a terminal as text and colours only. The
// environment is not read here (progressui reads its colours itself).
package progress

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/moby/buildkit/client"

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
	ch      chan sent     // what is drawn, in order
	drawn   chan struct{} // closed when the display has ended
	closing chan struct{} // closed when no more is taken
	screen  *screen
	kept    *record

	mu      sync.Mutex // guards closed and the adding to senders
	closed  bool
	senders sync.WaitGroup // whoever may still send to ch

	err error // valid once drawn
}

// sent is a status on its way to the display.
type sent struct {
	status *client.SolveStatus
	own    bool // of a Step, not of a daemon
}

// New starts a display on out. For TTY, and for Auto to find a terminal, out
// must be an *os.File or another console.File. The Printer must be closed.
func New(out io.Writer, mode Mode, o Options) (*Printer, error) {
	s, err := newScreen(out, mode, o)
	if err != nil {
		return nil, err
	}
	p := &Printer{
		ch:      make(chan sent),
		drawn:   make(chan struct{}),
		closing: make(chan struct{}),
		screen:  s,
		kept:    newRecord(s.mode == Quiet),
	}
	go p.draw()
	return p, nil
}

// draw runs the display, and ends it.
func (p *Printer) draw() {
	defer close(p.drawn)
	c := newCleaner()
	shown := make(chan *client.SolveStatus)
	go p.pump(c, shown)
	p.err = p.screen.run(shown, p.kept.open)
	if c.coloured() { // the pump has ended
		p.screen.reset()
	}
}

// pump hands on what is sent, noted and made fit for a terminal.
func (p *Printer) pump(c *cleaner, shown chan<- *client.SolveStatus) {
	defer close(shown)
	resized, stop := p.screen.resized()
	defer stop()
	for {
		select {
		case next, ok := <-p.ch:
			if !ok {
				return
			}
			s := next.status
			if p.screen.mode != RawJSON { // JSON can hold anything
				s = c.clean(s)
			}
			p.kept.note(s, next.status.Warnings, next.own)
			shown <- s
		case <-resized:
			shown <- &client.SolveStatus{} // the display looks at the size when something comes
		}
	}
}

// send hands one status of our own to the display, unless the Printer is
// closed.
func (p *Printer) send(s *client.SolveStatus) {
	if !p.enter() {
		return
	}
	defer p.senders.Done()
	p.ch <- sent{status: s, own: true}
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
// display. What sources send later is dropped. The warnings are the builds',
// each once; the error is the first one from writing, or a *Fault. Every call
// gives the same.
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
	return p.kept.warnings, p.err
}

// Failed are the steps of builds that ended with an error, for a display that
// shows nothing: Quiet and None. The others have shown them. To be called after
// Close.
func (p *Printer) Failed() []FailedStep { return p.kept.failed() }

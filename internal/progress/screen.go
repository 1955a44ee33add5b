package progress

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/containerd/console"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/util/progress/progressui"

	"github.com/berthbuild/berth/internal/hint"
)

const (
	// restarts is how often a display that fell over is begun anew.
	restarts = 3
	// lookAtSize is how soon a change of the terminal's size is seen.
	lookAtSize = 200 * time.Millisecond
)

// screen is where and how is drawn.
type screen struct {
	mode Mode // never Auto or None
	opts []progressui.DisplayOpt
	out  *tolerant // nil for TTY
	raw  io.Writer
	tty  console.Console // nil where out is no terminal
	disp progressui.Display
}

// newScreen looks what out is, and refuses a mode that it cannot do.
func newScreen(out io.Writer, mode Mode, o Options) (*screen, error) {
	tty, err := terminal(out)
	switch {
	case (mode == Auto || mode == "") && err == nil:
		mode = TTY
	case mode == Auto || mode == "":
		mode = Plain
	case mode == TTY && err != nil:
		return nil, hint.Wrap(err, "progress mode tty needs a terminal", "use --progress=plain")
	case mode == None:
		mode = Quiet
	}
	if _, err := ParseMode(string(mode)); err != nil {
		return nil, err
	}
	s := &screen{mode: mode, raw: out, tty: tty, opts: []progressui.DisplayOpt{progressui.WithPhase(o.Phase)}}
	if mode != TTY {
		s.out = &tolerant{out: out}
	}
	if o.Builder != "" {
		driver := o.Driver
		if driver == "" {
			driver = "remote"
		}
		s.opts = append(s.opts, progressui.WithDesc(
			fmt.Sprintf("building with %q instance using %s driver", o.Builder, driver), driver+":"+o.Builder))
	}
	s.disp, err = s.display(mode)
	return s, err
}

// terminal is the terminal that out is, or why it is none.
func terminal(out io.Writer) (console.Console, error) {
	f, ok := out.(console.File)
	if !ok {
		return nil, errors.New("the output is not a file")
	}
	return console.ConsoleFromFile(f)
}

// display makes one that has shown nothing yet.
func (s *screen) display(mode Mode) (progressui.Display, error) {
	if mode == TTY {
		return progressui.NewDisplay(s.raw, progressui.TtyMode, s.opts...)
	}
	if s.out == nil {
		s.out = &tolerant{out: s.raw}
	}
	return progressui.NewDisplay(s.out, progressui.DisplayMode(mode), s.opts...)
}

// run draws until shown ends, and reads it to its end whatever happens. A
// display that falls over what it is to show is followed by a plain one, which
// is told what open says is going on.
func (s *screen) run(shown chan *client.SolveStatus, open func() *client.SolveStatus) (err error) {
	defer func() {
		for range shown { // nobody may be left waiting
		}
	}()
	for left := restarts; ; left-- {
		if err = update(s.disp, shown); err == nil || left == 0 || s.mode == RawJSON {
			break
		}
		s.reset()
		next, nerr := s.display(Plain)
		if nerr != nil {
			return nerr
		}
		s.disp, shown = next, before(open(), shown)
	}
	if err == nil && s.out != nil {
		err = s.out.failure()
	}
	return err
}

// update runs one display. The terminal display interprets whatever the
// programs of a build print; a fault in there must not take the build down.
func update(d progressui.Display, shown chan *client.SolveStatus) (err error) {
	defer func() {
		if fault := recover(); fault != nil {
			err = &Fault{What: fault}
		}
	}()
	_, err = d.UpdateFrom(context.Background(), shown)
	return err
}

// Fault is a display that fell over what it was to show.
type Fault struct{ What any }

// Error says so.
func (f *Fault) Error() string { return fmt.Sprintf("the progress display failed: %v", f.What) }

// before is ch with one more status at its beginning.
func before(first *client.SolveStatus, ch <-chan *client.SolveStatus) chan *client.SolveStatus {
	out := make(chan *client.SolveStatus)
	go func() {
		defer close(out)
		out <- first
		for s := range ch {
			out <- s
		}
	}()
	return out
}

// reset leaves a terminal without the colours that a build's output, or a
// display that broke off, may have left on.
func (s *screen) reset() {
	if s.tty != nil {
		_, _ = io.WriteString(s.raw, "\x1b[0m") // a terminal that is gone needs none
	}
}

// resized tells of changes of the terminal's size, until stop is called.
func (s *screen) resized() (changes <-chan struct{}, stop func()) {
	changed := make(chan struct{})
	if s.mode != TTY {
		return changed, func() {}
	}
	done := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() { s.watchSize(changed, done) })
	return changed, func() {
		close(done)
		watching.Wait()
	}
}

func (s *screen) watchSize(changed chan<- struct{}, done <-chan struct{}) {
	tick := time.NewTicker(lookAtSize)
	defer tick.Stop()
	was, _ := s.tty.Size() // a terminal without a size has none later either
	for {
		select {
		case <-done:
			return
		case <-tick.C:
		}
		now, err := s.tty.Size()
		if err != nil || now == was {
			continue
		}
		was = now
		select {
		case changed <- struct{}{}:
		case <-done:
			return
		}
	}
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

//go:build linux || darwin

package progress

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/console"
	"github.com/moby/buildkit/client"
)

// pty is a pseudo-terminal and what was written to it.
type pty struct {
	t      *testing.T
	master console.Console
	tty    *os.File
	chunks chan []byte // closed when the terminal is
	seen   []byte
}

// openPTY makes one of a size; closePTY, or the end of the test, closes it.
func openPTY(t *testing.T, columns uint16) *pty {
	t.Helper()
	master, slave, err := console.NewPty()
	if err != nil {
		t.Skipf("this machine gives no pseudo terminal: %v", err)
	}
	tty, err := os.OpenFile(slave, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	p := &pty{t: t, master: master, tty: tty, chunks: make(chan []byte)}
	p.resize(columns)
	go func() {
		defer close(p.chunks)
		for {
			b := make([]byte, 4096)
			n, err := master.Read(b) // ends with an error when the other side closes
			if n > 0 {
				p.chunks <- b[:n]
			}
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() { p.close() })
	return p
}

func (p *pty) resize(columns uint16) {
	p.t.Helper()
	if err := p.master.Resize(console.WinSize{Height: 24, Width: columns}); err != nil {
		p.t.Fatal(err)
	}
}

// waitFor reads until there is a line that found likes.
func (p *pty) waitFor(what string, found func(line string) bool) {
	p.t.Helper()
	limit := time.After(30 * time.Second)
	for from := 0; ; {
		end := bytes.LastIndexByte(p.seen, '\n')
		if end >= from && slices.ContainsFunc(strings.Split(string(p.seen[from:end]), "\r\n"), found) {
			return
		}
		from = max(from, end)
		select {
		case b, ok := <-p.chunks:
			if !ok {
				p.t.Fatalf("no %s in %q", what, p.seen)
			}
			p.seen = append(p.seen, b...)
		case <-limit:
			p.t.Fatalf("no %s yet in %q", what, p.seen)
		}
	}
}

// close ends it and gives all that it was sent.
func (p *pty) close() []byte {
	_ = p.tty.Close()
	for b := range p.chunks {
		p.seen = append(p.seen, b...)
	}
	_ = p.master.Close()
	return p.seen
}

func TestTerminal(t *testing.T) {
	for _, mode := range []Mode{TTY, Auto} {
		term := openPTY(t, 100)
		p := open(t, term.tty, mode, Options{Builder: "remote"})
		src := p.Source("")
		src <- status("[internal] load build definition")
		close(src)
		term.drained(func() { closed(t, p) })
		got := term.close()
		for _, want := range []string{"[+] Building", "remote:remote", "load build definition"} {
			if !bytes.Contains(got, []byte(want)) {
				t.Errorf("%s: %q is not in %q", mode, want, got)
			}
		}
	}
}

// drained runs f while the terminal is read: what f writes must not wait.
func (p *pty) drained(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	for {
		select {
		case b, ok := <-p.chunks:
			if !ok {
				<-done
				return
			}
			p.seen = append(p.seen, b...)
		case <-done:
			return
		}
	}
}

// header is the first line of a frame of the display.
func header(columns int) func(string) bool {
	return func(line string) bool {
		i := strings.Index(line, "[+] Building")
		return i >= 0 && len(line)-i == columns && strings.HasSuffix(line, "remote:remote")
	}
}

// A terminal that changes its size is seen though nothing else happens.
func TestTerminalIsResized(t *testing.T) {
	term := openPTY(t, 100)
	p := open(t, term.tty, TTY, Options{Builder: "remote"})
	src := p.Source("")
	running := vertex("[1/1] RUN something that is silent for a long time")
	running.Completed = nil
	src <- &client.SolveStatus{Vertexes: []*client.Vertex{running}}
	// The last column stays free.
	term.waitFor("frame of 100 columns", header(99))
	term.resize(60)
	term.waitFor("frame of 60 columns", header(59))
	term.resize(140)
	term.waitFor("frame of 140 columns", header(139))
	close(src)
	term.drained(func() { closed(t, p) })
}

// No width is too small: where the display cannot draw, lines are written.
func TestTerminalOfAnyWidth(t *testing.T) {
	for _, columns := range []uint16{0, 1, 2, 5, 9, 10, 11, 12, 15, 20, 40, 500} {
		term := openPTY(t, columns)
		p := open(t, term.tty, TTY, Options{Builder: "b"})
		term.drained(func() {
			src := p.Source("")
			s := status("first")
			s.Vertexes[0].Completed = nil
			src <- s
			src <- &client.SolveStatus{Logs: []*client.VertexLog{{Vertex: s.Vertexes[0].Digest, Data: []byte("a log line\n"), Timestamp: time.Now()}}}
			src <- status("first", "second")
			close(src)
			closed(t, p)
		})
		if got := term.close(); len(got) == 0 {
			t.Errorf("%d columns show nothing", columns)
		}
	}
}

// drawn is a control sequence of the terminal display itself: colours, the
// cursor up, down and to a column, hidden and shown.
func drawn(seq string) bool {
	return colour(seq) || seq == "[?25l" || seq == "[?25h" ||
		strings.HasPrefix(seq, "[") && strings.ContainsAny(seq[len(seq)-1:], "ABG") && strings.Trim(seq[1:len(seq)-1], "0123456789") == ""
}

func TestHostileTextOnTerminal(t *testing.T) {
	for _, mode := range []Mode{TTY, Plain} {
		term := openPTY(t, 80)
		p := open(t, term.tty, mode, Options{Builder: "b"})
		term.drained(func() {
			src := p.Source("")
			for _, s := range hostile(small) {
				src <- s
			}
			close(src)
			closed(t, p)
		})
		got := term.close()
		// A name that is cut to the width may end in the middle of a letter.
		checkOutput(t, bytes.ToValidUTF8(got, nil), drawn)
		if !bytes.HasSuffix(got, []byte("\x1b[0m")) {
			t.Errorf("%s leaves the colour of a log on: %q", mode, got[max(0, len(got)-200):])
		}
	}
}

// A terminal that is gone does not stop the build.
func TestTerminalThatIsGone(t *testing.T) {
	term := openPTY(t, 80)
	p := open(t, term.tty, TTY, Options{Builder: "b"})
	src := p.Source("")
	src <- status("one")
	_ = term.master.Close()
	for i := range 20 {
		src <- status(fmt.Sprint(i))
	}
	close(src)
	closed(t, p)
}

package stdio

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/berthbuild/berth/internal/dial"
	"github.com/berthbuild/berth/internal/dial/dialtest"
	"github.com/berthbuild/berth/internal/endpoint"
)

func TestMain(m *testing.M) { dialtest.Main(m) }

// scheme runs the program of an endpoint's path.
func scheme() dial.Scheme {
	return dial.Scheme{Dial: func(ctx context.Context, e endpoint.Endpoint) (net.Conn, error) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		return Command(exec.Command(e.Path), nil)
	}}
}

func TestConformance(t *testing.T) {
	dialtest.Run(t, dialtest.Peer{
		Scheme: scheme(),
		Serve: func(t testing.TB, handle func(net.Conn)) endpoint.Endpoint {
			return endpoint.Endpoint{Scheme: "process", Path: dialtest.Relay(t, handle)}
		},
		Refused: func(testing.TB) endpoint.Endpoint {
			return endpoint.Endpoint{Scheme: "process", Path: "berth-has-no-such-program"}
		},
	})
}

// stub is a stream whose parts a test gives.
type stub struct {
	in     io.WriteCloser
	out    io.Reader
	why    error
	killed chan struct{}
}

func (s *stub) stream() Stream {
	s.killed = make(chan struct{}, 2)
	return Stream{In: s.in, Out: s.out, Wait: func() error { return s.why }, Kill: func() { s.killed <- struct{}{} }}
}

type sink struct{ err error }

func (s sink) Write(b []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	return len(b), nil
}

func (sink) Close() error { return nil }

// What the process said is read before the reason for its end.
func TestReasonComesLast(t *testing.T) {
	dialtest.NoLeaks(t)
	why := &dial.Error{Class: HelperFailed, Text: "the reason"}
	c := New((&stub{in: sink{}, out: strings.NewReader("hello"), why: why}).stream())
	defer c.Close()
	got, err := io.ReadAll(c)
	if string(got) != "hello" || !errors.Is(err, why) {
		t.Fatalf("read %q, %v", got, err)
	}
	if err := c.SetDeadline(time.Now().Add(time.Hour)); err != nil {
		t.Errorf("a deadline at the end: %v", err)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, why) {
		t.Errorf("a second read: %v", err)
	}
}

// A write that fails because the process is gone fails with its reason, even
// where the write is what noticed it first.
func TestWriteTellsTheReason(t *testing.T) {
	dialtest.NoLeaks(t)
	why := &dial.Error{Class: HelperFailed, Text: "the reason"}
	r, w := io.Pipe()
	c := New((&stub{in: sink{err: io.ErrClosedPipe}, out: r, why: why}).stream())
	defer c.Close()
	failed := make(chan error, 1)
	go func() {
		_, err := c.Write([]byte("x"))
		failed <- err
	}()
	_ = w.Close()
	if err := <-failed; !errors.Is(err, why) {
		t.Errorf("write: %v", err)
	}
}

func TestStreamErrorWithoutReason(t *testing.T) {
	dialtest.NoLeaks(t)
	broken := errors.New("broken")
	r, w := io.Pipe()
	c := New((&stub{in: sink{}, out: r}).stream())
	defer c.Close()
	_ = w.CloseWithError(broken)
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, broken) {
		t.Errorf("read: %v", err)
	}
}

// Close waits for nobody: not for a reason that never comes, not for a reader.
func TestCloseWaitsForNobody(t *testing.T) {
	dialtest.NoLeaks(t)
	r, w := io.Pipe()
	release := make(chan struct{})
	s := (&stub{in: sink{}, out: r}).stream()
	asked := make(chan struct{})
	s.Wait = func() error {
		close(asked)
		<-release
		return nil
	}
	killed := make(chan struct{}, 2)
	s.Kill = func() { killed <- struct{}{} }
	c := New(s)
	_ = w.Close()
	<-asked
	reads := make(chan error, 1)
	go func() {
		_, err := c.Read(make([]byte, 1))
		reads <- err
	}()
	for range 2 {
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	<-killed
	if err := <-reads; !errors.Is(err, net.ErrClosed) && !errors.Is(err, io.EOF) {
		t.Errorf("read of a closed connection: %v", err)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("read after Close: %v", err)
	}
	if _, err := c.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("write after Close: %v", err)
	}
	if err := c.SetReadDeadline(time.Now()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("deadline after Close: %v", err)
	}
	if len(killed) != 0 {
		t.Error("killed twice")
	}
	close(release)
}

// A write to a process that does not read ends at its deadline where the pipe
// has one.
func TestWriteDeadline(t *testing.T) {
	dialtest.NoLeaks(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := w.SetWriteDeadline(time.Now().Add(time.Hour)); err != nil {
		t.Skipf("this system's pipes have no deadlines: %v", err)
	}
	outR, outW := io.Pipe()
	c := New((&stub{in: w, out: outR}).stream())
	defer outW.Close()
	defer w.Close()
	defer c.Close()
	if err := c.SetWriteDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := c.Write(make([]byte, 64<<10)); err != nil {
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("write: %v", err)
			}
			return
		}
	}
}

func TestAddresses(t *testing.T) {
	dialtest.NoLeaks(t)
	s := (&stub{in: sink{}, out: strings.NewReader("")}).stream()
	c := New(s)
	defer c.Close()
	if c.LocalAddr().String() != "stdio" || c.RemoteAddr().Network() != "stdio" {
		t.Errorf("addresses %v, %v", c.LocalAddr(), c.RemoteAddr())
	}
	s.Remote = Addr{"ssh", "host"}
	d := New(s)
	defer d.Close()
	if d.RemoteAddr().String() != "host" || d.RemoteAddr().Network() != "ssh" {
		t.Errorf("address %v", d.RemoteAddr())
	}
}

func TestNotStarted(t *testing.T) {
	dialtest.NoLeaks(t)
	dir := t.TempDir()
	for _, tc := range []struct{ program, says string }{
		{"berth-has-no-such-program", "there is no program berth-has-no-such-program on PATH"},
		{dir, "cannot be started: "},
		{dir + "/nothing", "cannot be started: "},
	} {
		_, err := Command(exec.Command(tc.program), nil)
		var e *dial.Error
		if !errors.As(err, &e) || e.Class != NoHelper || e.Heals || !strings.Contains(e.Text, tc.says) {
			t.Errorf("%s: %#v", tc.program, err)
		}
	}
}

func TestTail(t *testing.T) {
	for _, tc := range []struct {
		what   string
		writes []string
		want   string
	}{
		{"nothing", nil, ""},
		{"lines", []string{"a\r\n", "\tb\n\n"}, "a b"},
		{"escapes", []string{"\x1b[31mred\x07\x00"}, "[31mred"},
		{"not UTF-8", []string{"a\xffb"}, "ab"},
		{"no cut", []string{strings.Repeat("a", tailSize), "b"}, strings.Repeat("a", tailSize) + "b"},
	} {
		var tail Tail
		for _, w := range tc.writes {
			if n, err := tail.Write([]byte(w)); n != len(w) || err != nil {
				t.Errorf("%s: Write = %d, %v", tc.what, n, err)
			}
		}
		if got := tail.String(); got != tc.want {
			t.Errorf("%s: %q, want %q", tc.what, got, tc.want)
		}
	}
}

// Whoever writes for ever fills no memory, and its first and last words stay.
func TestTailIsBounded(t *testing.T) {
	for _, size := range []int{1, 7, tailSize - 1, tailSize, 3 * tailSize, 1 << 20} {
		var tail Tail
		_, _ = tail.Write([]byte("first "))
		for n := 0; n < 4<<20; n += size * 64 {
			_, _ = tail.Write([]byte(strings.Repeat("x", size)))
		}
		for range 3 * tailSize / size {
			_, _ = tail.Write([]byte(strings.Repeat("y", size)))
		}
		_, _ = tail.Write([]byte(" last"))
		got := tail.String()
		if !strings.HasPrefix(got, "first ") || !strings.HasSuffix(got, " last") || len(got) > 3*tailSize {
			t.Errorf("writes of %d: %d bytes, %.20q…%q", size, len(got), got, got[max(0, len(got)-20):])
		}
		if cap(tail.head)+cap(tail.end) > 16*tailSize {
			t.Errorf("writes of %d: %d bytes are held", size, cap(tail.head)+cap(tail.end))
		}
	}
}

func FuzzTail(f *testing.F) {
	f.Add([]byte("a\nb"), 1)
	f.Add([]byte(strings.Repeat("ä", 3*tailSize)), 700)
	f.Fuzz(func(t *testing.T, data []byte, step int) {
		step = min(max(step, 1), 1<<16)
		var tail Tail
		for len(data) > 0 {
			n := min(step, len(data))
			if got, err := tail.Write(data[:n]); got != n || err != nil {
				t.Fatalf("Write = %d, %v", got, err)
			}
			data = data[n:]
		}
		got := tail.String()
		if len(got) > 3*tailSize || strings.ContainsAny(got, "\r\n\x1b\x00") {
			t.Fatalf("%q", got)
		}
	})
}

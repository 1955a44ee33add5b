// Package dialtest is the conformance suite that every scheme must pass:
// what internal/remote, and gRPC above it, rely on in a connection.
//
// It is not for the text of errors nor for TLS; internal/remote tests those.
//
// Rules: a scheme's test gives a Peer that plays the far end for real (a
// socket, a process, a server in the test's own process) and calls Run.
// Nothing waits for a fixed time; what must end is waited for with a bound
// that only a broken scheme reaches.
package dialtest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"testing"
	"time"

	"github.com/berthbuild/berth/internal/dial"
	"github.com/berthbuild/berth/internal/endpoint"
)

// bound ends a test whose scheme hangs; it is never reached otherwise.
const bound = 60 * time.Second

// Peer is the far end of a scheme under test.
type Peer struct {
	Scheme dial.Scheme

	// Serve starts a peer that gives each connection that reaches it to
	// handle, in a goroutine of its own, and closes it when handle returns.
	// It is stopped by t.Cleanup.
	Serve func(t testing.TB, handle func(net.Conn)) endpoint.Endpoint

	// Refused is an endpoint of this scheme where nobody listens.
	Refused func(t testing.TB) endpoint.Endpoint

	// Stalled is an endpoint where a dial neither succeeds nor fails by
	// itself. nil where the scheme cannot stall.
	Stalled func(t testing.TB) endpoint.Endpoint
}

// HalfCloser is what a connection of every scheme must be, apart from
// net.Conn: the daemon is told that no more will come, and may still answer.
type HalfCloser interface{ CloseWrite() error }

func closeWrite(c net.Conn) error {
	h, ok := c.(HalfCloser)
	if !ok {
		return fmt.Errorf("a %T cannot be closed half", c)
	}
	return h.CloseWrite()
}

type test struct {
	name string
	run  func(*testing.T, Peer)
}

// stalledTests are for schemes whose dial can be kept waiting.
func stalledTests() []test {
	return []test{
		{"cancelled while dialling", testCancelledWhile},
		{"deadline while dialling", testDeadlineWhile},
	}
}

// Run runs the suite.
func Run(t *testing.T, p Peer) {
	tests := []test{
		{"dial", testDial},
		{"refused", testRefused},
		{"stages", testStages},
		{"cancelled before", testCancelledBefore},
		{"slow peer", testSlowPeer},
		{"read deadline", testReadDeadline},
		{"we close first", testWeCloseFirst},
		{"peer closes first", testPeerClosesFirst},
		{"echo 64 MiB", testEcho},
		{"two at once", testTwoAtOnce},
		{"killed mid-stream", testKilled},
	}
	if p.Stalled != nil {
		tests = append(tests, stalledTests()...)
	}
	run(t, p, tests)
}

// RunStalled runs only the part of the suite that is about Peer.Stalled.
func RunStalled(t *testing.T, p Peer) { run(t, p, stalledTests()) }

func run(t *testing.T, p Peer, tests []test) {
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			NoLeaks(t)
			tc.run(t, p)
		})
	}
}

// connect dials and closes at the end of the test.
func connect(t *testing.T, p Peer, e endpoint.Endpoint) net.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	defer cancel()
	c, err := p.Scheme.Dial(ctx, e)
	if err != nil {
		t.Fatalf("Dial: %v", err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(bound)); err != nil {
		t.Fatalf("SetDeadline: %v", err)
	}
	return c
}

func testDial(t *testing.T, p Peer) {
	e := p.Serve(t, echoBack)
	c := connect(t, p, e)
	if _, err := c.Write([]byte("berth")); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 5)
	if _, err := io.ReadFull(c, got); err != nil || string(got) != "berth" {
		t.Fatalf("read %q, %v", got, err)
	}
	if c.LocalAddr() == nil || c.RemoteAddr() == nil {
		t.Error("the connection has no addresses")
	}
	if err := c.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	if _, err := c.Write([]byte("x")); err == nil {
		t.Error("a closed connection takes data")
	}
}

func testRefused(t *testing.T, p Peer) {
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	defer cancel()
	c, err := p.Scheme.Dial(ctx, p.Refused(t))
	if err == nil {
		_ = c.Close()
		t.Fatal("dialled where nobody listens")
	}
	if ctx.Err() != nil {
		t.Errorf("the refusal was not noticed: %v", err)
	}
}

func testCancelledBefore(t *testing.T, p Peer) {
	e := p.Serve(t, func(net.Conn) {})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	wantCanceled(t, p, ctx, e)
}

func testCancelledWhile(t *testing.T, p Peer) {
	e := p.Stalled(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stop := time.AfterFunc(50*time.Millisecond, cancel) // long enough to be under way; any moment must do
	defer stop.Stop()
	wantCanceled(t, p, ctx, e)
}

func wantCanceled(t *testing.T, p Peer, ctx context.Context, e endpoint.Endpoint) { //nolint:revive // the context under test
	t.Helper()
	c, err := p.Scheme.Dial(ctx, e)
	if err == nil {
		_ = c.Close()
		t.Fatal("a cancelled dial succeeded")
	}
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error = %v, want one that is context.Canceled", err)
	}
}

func testDeadlineWhile(t *testing.T, p Peer) {
	e := p.Stalled(t)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	c, err := p.Scheme.Dial(ctx, e)
	if err == nil {
		_ = c.Close()
		t.Fatal("a stalled dial succeeded")
	}
	var ne net.Error
	timeout := errors.Is(err, context.DeadlineExceeded) || errors.As(err, &ne) && ne.Timeout()
	if !timeout {
		t.Errorf("error = %v, want a timeout", err)
	}
}

// testSlowPeer: a peer that does not read yet makes us wait, not fail; and
// nothing is lost when it does.
func testSlowPeer(t *testing.T, p Peer) {
	release := make(chan struct{})
	e := p.Serve(t, func(c net.Conn) {
		<-release
		echoBack(c)
	})
	c := connect(t, p, e)
	want := randomBytes(8 << 20)
	sent := make(chan error, 1)
	go func() {
		_, err := c.Write(want)
		if err == nil {
			err = closeWrite(c)
		}
		sent <- err
	}()
	close(release)
	got, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%d bytes came back differently (%d sent)", len(got), len(want))
	}
}

// testReadDeadline: gRPC and TLS end a pending read by moving the deadline.
func testReadDeadline(t *testing.T, p Peer) {
	e := p.Serve(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	c := connect(t, p, e)
	got := make(chan error, 1)
	go func() {
		_, err := c.Read(make([]byte, 1))
		got <- err
	}()
	if err := c.SetReadDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if err := <-got; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("error = %v, want os.ErrDeadlineExceeded", err)
	}
}

func testWeCloseFirst(t *testing.T, p Peer) {
	e := p.Serve(t, func(c net.Conn) {
		all, err := io.ReadAll(c)
		if err == nil {
			_, _ = c.Write(append([]byte("got "), all...))
		}
	})
	c := connect(t, p, e)
	if _, err := c.Write([]byte("everything")); err != nil {
		t.Fatal(err)
	}
	if err := closeWrite(c); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(c); err != nil || string(got) != "got everything" {
		t.Errorf("after CloseWrite read %q, %v", got, err)
	}
}

func testPeerClosesFirst(t *testing.T, p Peer) {
	heard := make(chan string, 1)
	e := p.Serve(t, func(c net.Conn) {
		_, _ = c.Write([]byte("bye"))
		_ = closeWrite(c)
		all, _ := io.ReadAll(c)
		heard <- string(all)
	})
	c := connect(t, p, e)
	if got, err := io.ReadAll(c); err != nil || string(got) != "bye" {
		t.Fatalf("read %q, %v", got, err)
	}
	if _, err := c.Write([]byte("still here")); err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	if got := <-heard; got != "still here" {
		t.Errorf("after its CloseWrite the peer read %q", got)
	}
}

func testEcho(t *testing.T, p Peer) {
	e := p.Serve(t, echoBack)
	if err := echo(connect(t, p, e), 64<<20, 1); err != nil {
		t.Fatal(err)
	}
}

func testTwoAtOnce(t *testing.T, p Peer) {
	e := p.Serve(t, echoBack)
	done := make(chan error, 2)
	for i := range 2 {
		c := connect(t, p, e)
		go func() { done <- echo(c, 4<<20, uint64(i)) }()
	}
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// echoBack is a peer that returns what it gets. The wrappers keep io.Copy from
// splicing, for which the runtime keeps pipes open that look like a leak.
func echoBack(c net.Conn) {
	_, _ = io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c})
	_ = closeWrite(c)
}

// echo sends n bytes, half-closes, and compares the checksum of what returns.
func echo(c net.Conn, n int64, seed uint64) error {
	want, got := sha256.New(), sha256.New()
	sent := make(chan error, 1)
	go func() {
		src := rand.NewChaCha8([32]byte{byte(seed)})
		_, err := io.CopyN(io.MultiWriter(c, want), src, n)
		sent <- errors.Join(err, closeWrite(c))
	}()
	back, err := io.Copy(got, c)
	if err := errors.Join(err, <-sent); err != nil {
		return err
	}
	if back != n || !bytes.Equal(want.Sum(nil), got.Sum(nil)) {
		return errors.New("what came back is not what was sent")
	}
	return nil
}

// testKilled: a peer that vanishes is noticed by reads and by writes.
func testKilled(t *testing.T, p Peer) {
	e := p.Serve(t, func(c net.Conn) {
		_, _ = c.Write([]byte("half"))
		_, _ = io.ReadFull(c, make([]byte, 4))
	})
	c := connect(t, p, e)
	if _, err := io.ReadFull(c, make([]byte, 4)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("more than it wants to read")); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(make([]byte, 1)); err == nil {
		t.Errorf("read %d bytes from a peer that is gone", n)
	} else if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the peer's end was not noticed by a read")
	}
	for {
		_, err := c.Write(make([]byte, 64<<10))
		if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error("the peer's end was not noticed by a write")
		}
		if err != nil {
			return
		}
	}
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{7}).Read(b)
	return b
}

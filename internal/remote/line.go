package remote

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/session"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

const (
	// maxHeard is how much of what the peer says first is kept, in bytes:
	// enough for a banner, and for HTTP/2 frames up to the first answer.
	maxHeard = 4096
	// lastWords is how long a failed write waits for what the peer has to say
	// about it, which may be on its way.
	lastWords = 200 * time.Millisecond
	// goodbye is how long Close lets a blocked connection try to end in order.
	goodbye = 200 * time.Millisecond
)

var (
	// errNotHTTP2 ends the reading from a peer that speaks something else.
	errNotHTTP2 = errors.New("the peer does not speak HTTP/2")
	// errSilent is the end of a connection whose peer did not answer to a ping.
	errSilent = errors.New("the peer has fallen silent")
)

// recorder is a connection that remembers how it began and how it ended.
type recorder struct {
	net.Conn
	proven atomic.Bool   // the beginning does not matter any more
	closed atomic.Bool   // by us: later errors mean nothing
	news   chan struct{} // closed at the first byte, or at the first error
	guard  bool          // gRPC reads it: end a reading that begins with anything but HTTP/2
	frames walker        // where guard is set
	pulse  pulse

	mu       sync.Mutex
	heard    []byte
	told     bool      // news is closed
	first    time.Time // when the first byte came
	readErr  error
	writeErr error
}

func record(c net.Conn) *recorder {
	return &recorder{Conn: c, news: make(chan struct{}), pulse: pulse{born: time.Now()}}
}

// Read implements net.Conn.
func (r *recorder) Read(p []byte) (int, error) {
	n, err := r.Conn.Read(p)
	if n > 0 {
		r.pulse.beat()
	}
	if r.guard {
		r.frames.feed(p[:n])
	}
	if err == nil && r.proven.Load() {
		return n, nil
	}
	r.note(p[:n], err)
	if err == nil && r.guard && !mayBeHTTP2(r.begun()) {
		// gRPC would wait for the rest of a frame, which may never come.
		err = errNotHTTP2
	}
	return n, err
}

func (r *recorder) note(p []byte, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.proven.Load() {
		r.heard = append(r.heard, p[:min(len(p), maxHeard-len(r.heard))]...)
	}
	if r.readErr == nil && r.tells(err) {
		r.readErr = err
	}
	if len(p) > 0 && r.first.IsZero() {
		r.first = time.Now()
	}
	if !r.told && (len(p) > 0 || r.readErr != nil) {
		r.told = true
		close(r.news)
	}
}

// tells is whether err says something about the peer, and not about us who
// closed, or moved the deadline to stop.
func (r *recorder) tells(err error) bool {
	return err != nil && !r.closed.Load() && !errors.Is(err, net.ErrClosed) &&
		!errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, io.ErrClosedPipe)
}

// Write implements net.Conn. When it fails before the peer has said anything,
// the reason may just be arriving, an alert for example. Whoever called closes
// next, so it is waited for here.
func (r *recorder) Write(p []byte) (int, error) {
	n, err := r.Conn.Write(p)
	if !r.tells(err) {
		return n, err
	}
	r.mu.Lock()
	if r.writeErr == nil {
		r.writeErr = err
	}
	r.mu.Unlock()
	if !r.proven.Load() {
		timer := time.NewTimer(lastWords)
		defer timer.Stop()
		select {
		case <-r.news:
		case <-timer.C:
		}
	}
	return n, err
}

// SetWriteDeadline implements net.Conn. gRPC sets one only to say goodbye, which
// may not take long: a peer that has been silent takes no bytes either.
func (r *recorder) SetWriteDeadline(t time.Time) error {
	if !r.guard || t.IsZero() {
		return r.Conn.SetWriteDeadline(t)
	}
	r.leave()
	time.AfterFunc(goodbye, func() { _ = r.Conn.Close() }) // some cannot be bounded otherwise
	return r.Conn.SetWriteDeadline(t)
}

// leave notes that the connection is being ended by this side, and how long the
// peer had been silent then.
func (r *recorder) leave() {
	if !r.closed.Load() {
		r.pulse.stop()
	}
}

// silent is how long nothing had come when gRPC, which had sent a ping, hung up
// for that reason. It is 0 when that did not happen.
func (r *recorder) silent() time.Duration {
	quiet := r.pulse.stopped()
	if r.ended() != nil || quiet < pingTimeout {
		return 0
	}
	return quiet
}

// Close implements net.Conn.
func (r *recorder) Close() error {
	r.leave()
	r.closed.Store(true)
	return r.Conn.Close()
}

// begun is the first bytes that the peer sent.
func (r *recorder) begun() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.heard
}

// ended is what ended the connection, nil when we did or nothing has.
func (r *recorder) ended() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.readErr != nil {
		return r.readErr
	}
	return r.writeErr
}

// prove stops keeping what the peer says, and forgets what it has said.
func (r *recorder) prove() {
	r.proven.Store(true)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.heard = nil
}

// line is the connection of an attempt: the bytes on the wire, and what gRPC
// reads and writes, which is the same without TLS.
type line struct {
	raw, app *recorder
	tls      *handshake // nil without TLS
	host     string     // what BuildKit is a part of, "" where it runs by itself

	spans sdktrace.SpanExporter // takes spans to the daemon; nil where nothing is traced

	// session dials a connection for the session, nil where it goes over this one
	session session.Dialer

	mu       sync.Mutex
	detached error // what ended a session before we did
}

// SetSpanExporter implements client.TracerDelegate. Nothing is sent yet: the
// daemon has not answered.
func (l *line) SetSpanExporter(_ context.Context, e sdktrace.SpanExporter) error {
	l.spans = e
	return nil
}

func (l *line) prove() {
	l.raw.prove()
	l.app.prove()
}

// lost is what ended the connection.
func (l *line) lost() error {
	if err := l.app.ended(); err != nil {
		return err
	}
	if l.app.silent() > 0 {
		return errSilent
	}
	return l.raw.ended()
}

// hangUp ends everything. gRPC wants to say goodbye first, and would wait 5 s
// for a peer that does not read.
func (l *line) hangUp(c *client.Client) error {
	l.raw.closed.Store(true)
	l.app.closed.Store(true)
	var err error
	if c != nil {
		cut := time.AfterFunc(goodbye, func() { _ = l.raw.Close() })
		defer cut.Stop()
		err = c.Close()
	}
	if l.spans != nil {
		ctx, cancel := context.WithTimeout(context.Background(), goodbye)
		defer cancel()
		_ = l.spans.Shutdown(ctx) // ends its goroutine; that the connection is closed is known
	}
	_ = l.raw.Close() // a second time where gRPC has taken it over
	return err
}

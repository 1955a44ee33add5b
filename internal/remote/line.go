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

// errNotHTTP2 ends the reading from a peer that speaks something else.
var errNotHTTP2 = errors.New("the peer does not speak HTTP/2")

// recorder is a connection that remembers how it began and how it ended.
type recorder struct {
	net.Conn
	proven atomic.Bool   // the beginning does not matter any more
	closed atomic.Bool   // by us: later errors mean nothing
	news   chan struct{} // closed at the first byte, or at the first error
	guard  bool          // end a reading that begins with anything but HTTP/2

	mu       sync.Mutex
	heard    []byte
	told     bool      // news is closed
	first    time.Time // when the first byte came
	readErr  error
	writeErr error
}

func record(c net.Conn) *recorder { return &recorder{Conn: c, news: make(chan struct{})} }

// Read implements net.Conn.
func (r *recorder) Read(p []byte) (int, error) {
	n, err := r.Conn.Read(p)
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

// Close implements net.Conn.
func (r *recorder) Close() error {
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

	// session dials a connection for the session, nil where it goes over this one
	session func(ctx context.Context, proto string, meta map[string][]string) (net.Conn, error)
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
	_ = l.raw.Close() // a second time where gRPC has taken it over
	return err
}

package remote

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"time"

	"github.com/moby/buildkit/session"
	"golang.org/x/net/http2"

	"github.com/berthbuild/berth/internal/outcome"
)

// Wire is what became of the connection so far, as its bytes tell; after Close
// it is what had become of it before. A daemon that is being stopped shows here
// while a build goes on.
func (c *Conn) Wire() outcome.Wire {
	w := outcome.Wire{Err: c.line.lost(), Silent: c.line.app.silent(), GoAway: c.line.app.frames.goAway()}
	c.line.mu.Lock()
	defer c.line.mu.Unlock()
	w.Session = c.line.detached
	return w
}

// pulse knows how long ago the peer was heard.
type pulse struct {
	born time.Time
	last atomic.Int64 // since born
	quit atomic.Int64 // since last, when this side hung up; 0 is not yet
}

func (p *pulse) beat() { p.last.Store(int64(time.Since(p.born))) }

// stop notes for how long nothing had come. Only the first call counts.
func (p *pulse) stop() {
	quiet := int64(time.Since(p.born)) - p.last.Load()
	p.quit.CompareAndSwap(0, max(quiet, 1))
}

// stopped is what stop noted, 0 without.
func (p *pulse) stopped() time.Duration { return time.Duration(p.quit.Load()) }

// walker goes over the frames that a peer sends, for the one that says that it
// goes away. gRPC tells of that only when it is too late, and in words.
type walker struct {
	head [9]byte // of the frame that is being read
	have int     // bytes of head
	left int     // bytes of the frame's payload that are to come
	said []byte  // payload of a GOAWAY
	gone atomic.Pointer[outcome.GoAway]
}

// maxSaid is how much of a GOAWAY's payload is kept: the stream, the code, and
// the words of which the ones that matter are few.
const maxSaid = 8 + 32

// feed is called with everything that is read, by one goroutine.
func (w *walker) feed(p []byte) {
	for len(p) > 0 {
		if w.left == 0 && w.have < len(w.head) {
			n := copy(w.head[w.have:], p)
			w.have, p = w.have+n, p[n:]
			if w.have < len(w.head) {
				return
			}
			w.left = int(w.head[0])<<16 | int(w.head[1])<<8 | int(w.head[2])
			w.said = nil
		}
		n := min(w.left, len(p))
		if w.isGoAway() {
			w.said = append(w.said, p[:min(n, maxSaid-len(w.said))]...)
		}
		w.left, p = w.left-n, p[n:]
		if w.left == 0 {
			w.have = 0
			if w.isGoAway() {
				w.note()
			}
		}
	}
}

// skip passes over what comes before the first frame.
func (w *walker) skip(n int) { w.have, w.left = len(w.head), n }

func (w *walker) isGoAway() bool { return http2.FrameType(w.head[3]) == http2.FrameGoAway }

// note keeps the first fault that a peer finds, and otherwise that it drains.
func (w *walker) note() {
	if len(w.said) < 8 {
		return
	}
	g := outcome.GoOther
	switch code := http2.ErrCode(binary.BigEndian.Uint32(w.said[4:8])); {
	case code == http2.ErrCodeNo:
		g = outcome.GoDraining
	case code == http2.ErrCodeEnhanceYourCalm && string(w.said[8:]) == "too_many_pings":
		g = outcome.TooManyPings
	}
	if old := w.goAway(); old == outcome.NoGoAway || old == outcome.GoDraining {
		w.gone.Store(&g)
	}
}

func (w *walker) goAway() outcome.GoAway {
	if g := w.gone.Load(); g != nil {
		return *g
	}
	return outcome.NoGoAway
}

// openSession dials what a session runs over, and watches how it ends. A daemon that
// wants a connection of its own for it gets one; otherwise it is what stream opens.
func (l *line) openSession(ctx context.Context, stream session.Dialer, proto string, meta map[string][]string) (net.Conn, error) {
	dial := l.session
	if dial == nil {
		dial = stream
	}
	conn, err := dial(ctx, proto, meta)
	if err != nil {
		return nil, err
	}
	s := &sessionConn{Conn: conn, line: l}
	s.frames.skip(len(http2.ClientPreface))
	return s, nil
}

// errDetached is the end of a session whose daemon said goodbye.
var errDetached = errors.New("the daemon ended the session")

// sessionConn tells an end that came to a session from one that we made. A daemon
// that gives a session up leaves the connection open: it only says, in a session's
// own HTTP/2, that it goes away.
type sessionConn struct {
	net.Conn
	line   *line
	frames walker
	closed atomic.Bool
}

// Read implements net.Conn. Once closed it gives nothing any more: what BuildKit's
// own connection has left then is not fit to be read.
func (s *sessionConn) Read(p []byte) (int, error) {
	n, err := s.Conn.Read(p)
	if s.closed.Load() {
		return 0, io.EOF
	}
	s.frames.feed(p[:n])
	switch {
	case err != nil:
		s.line.detach(err)
	case s.frames.goAway() != outcome.NoGoAway:
		s.line.detach(errDetached)
	}
	return n, err
}

// detach notes how a session ended; the first one counts.
func (l *line) detach(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.detached == nil {
		l.detached = err
	}
}

// Close implements net.Conn.
func (s *sessionConn) Close() error {
	s.closed.Store(true)
	return s.Conn.Close()
}

package kubeapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/moby/spdystream"
)

// streams is a SPDY connection with the streams that we opened.
type streams struct {
	conn *spdystream.Connection
	open []*spdystream.Stream
	over *noted
}

func newStreams(over net.Conn) (*streams, error) {
	n := &noted{Conn: over}
	c, err := spdystream.NewConnection(n, false)
	if err != nil {
		return nil, err
	}
	go c.Serve(func(s *spdystream.Stream) { _ = s.Refuse() }) // the server opens none
	return &streams{conn: c, over: n}, nil
}

// noted remembers how reading ended, which spdystream does not tell.
type noted struct {
	net.Conn
	err atomic.Value
}

// Read implements io.Reader.
func (n *noted) Read(b []byte) (int, error) {
	got, err := n.Conn.Read(b)
	if err != nil && !errors.Is(err, io.EOF) {
		n.err.CompareAndSwap(nil, broken{err})
	}
	return got, err
}

// broken makes all errors one type, as atomic.Value wants it.
type broken struct{ error }

// end is what broke the connection, nil where it ended well.
func (n *noted) end() error {
	if b, ok := n.err.Load().(broken); ok {
		return b.error
	}
	return nil
}

// create opens a stream and waits until the server has taken it.
func (s *streams) create(ctx context.Context, headers map[string]string) (*spdystream.Stream, error) {
	h := http.Header{}
	for k, v := range headers {
		h.Set(k, v)
	}
	st, err := s.conn.CreateStream(h, nil, false)
	if err != nil {
		return nil, lost(ctx, err)
	}
	s.open = append(s.open, st)
	taken := make(chan error, 1)
	go func() { taken <- s.reply(st) }()
	select {
	case err = <-taken: // within a moment, when the connection ends
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		return nil, lost(ctx, err)
	}
	return st, nil
}

// reply waits for the server's answer. It must not stop while the connection
// lives: spdystream blocks where nobody takes a refusal.
func (s *streams) reply(st *spdystream.Stream) error {
	for {
		gone := s.gone()
		err := st.WaitTimeout(100 * time.Millisecond)
		if !errors.Is(err, spdystream.ErrTimeout) {
			return err
		}
		if gone {
			return errLost
		}
	}
}

// lost is what to call err: our own end, or the server's.
func lost(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if errors.Is(err, io.EOF) {
		return errLost
	}
	return fmt.Errorf("opening a stream over SPDY: %w", err)
}

// reset ends the streams. The connection is closed before, so that nothing
// blocks; spdystream keeps goroutines that hold unread data otherwise.
func (s *streams) reset() {
	for _, st := range s.open {
		go func() { _ = st.Reset() }() // fails: there is no connection any more
	}
}

// gone tells whether the connection below has ended.
func (s *streams) gone() bool {
	select {
	case <-s.conn.CloseChan():
		return true
	default:
		return false
	}
}

// execSPDY makes a process of four streams.
func execSPDY(ctx context.Context, conn *taken, stderr io.Writer) (*Process, error) {
	s, err := newStreams(conn)
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	p := &Process{conn: conn, extra: s.reset, done: make(chan struct{})}
	var all []*spdystream.Stream
	for _, kind := range []string{"error", "stdin", "stdout", "stderr"} {
		st, err := s.create(ctx, map[string]string{"streamType": kind})
		if err != nil {
			p.Kill()
			return nil, err
		}
		all = append(all, st)
	}
	p.In, p.Out = all[1], all[2]
	go func() { _, _ = io.Copy(stderr, all[3]) }() // ends with the stream
	go p.hear(s, all[0], true)
	return p, nil
}

// forwardSPDY makes a connection to a port of two streams. over is conn, or
// what goes through it.
func forwardSPDY(ctx context.Context, conn *taken, over net.Conn, port string) (*Process, error) {
	s, err := newStreams(over)
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	p := &Process{conn: conn, extra: s.reset, done: make(chan struct{})}
	headers := func(kind string) map[string]string {
		return map[string]string{"streamType": kind, "port": port, "requestID": "0"}
	}
	errs, err := s.create(ctx, headers("error"))
	if err != nil {
		p.Kill()
		return nil, err
	}
	_ = errs.Close() // nothing is written to it
	data, err := s.create(ctx, headers("data"))
	if err != nil {
		p.Kill()
		return nil, err
	}
	p.In, p.Out = data, data
	go p.hear(s, errs, false)
	return p, nil
}

// hear takes the server's words about the end.
func (p *Process) hear(s *streams, from io.Reader, command bool) {
	_, _ = io.Copy(writerFunc(p.say), from) // ends with the stream
	p.mu.Lock()
	silent := len(p.status) == 0
	p.mu.Unlock()
	err := s.over.end()
	if command && err == nil {
		err = errLost // a command's end is always told
	}
	p.finish(err)
	if !silent {
		p.hurry()
	}
}

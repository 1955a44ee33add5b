package filesession

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/klauspost/compress/gzip"
	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/session"
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/metadata"
)

// Compression pays where the way to the daemon is slower than this, in bytes per
// second: gzip at its fastest takes text in at a few times that, and what does not
// compress is passed on at more. On a unix socket it would double the time.
const slowLink = 40 << 20

// A way that takes this long, there and back, is one on which compression pays: what
// is under way is bounded by windows, in bytes, however wide the way is.
const longWay = 5 * time.Millisecond

// Where the way is short, this much is sent before a question that measures how fast
// it went. A link is slow when two questions say so: one may have waited for a busy
// daemon.
const (
	probe  = 512 << 10
	probes = 2
)

// small is what is sent before anything is decided: what a session has to say before
// files are asked for.
const small = 16 << 10

// probeBudget is how long an answer may take; what takes longer is slow.
const probeBudget = 10 * time.Second

// UseGzip has gRPC compress with a gzip whose level can be chosen message by
// message. A program calls it once, before the first connection; without it nothing
// is compressed.
func UseGzip() { encoding.RegisterCompressor(&compressor{}) }

// Compressing opens sessions whose stream is compressed where that pays, which is
// found out while the first megabyte is sent. It is for daemons that are reached
// over a network and know gzip, as buildkitd does.
func Compressing(api controlapi.ControlClient) session.Dialer {
	return func(ctx context.Context, _ string, meta map[string][]string) (net.Conn, error) {
		md := metadata.MD{}
		for k, v := range meta {
			md[strings.ToLower(k)] = v
		}
		opts := []grpc.CallOption{}
		zip, ok := encoding.GetCompressor("gzip").(*compressor)
		if ok {
			opts = append(opts, grpc.UseCompressor("gzip"))
		}
		ctx, cancel := context.WithCancel(metadata.NewOutgoingContext(ctx, md))
		stream, err := api.Session(ctx, opts...)
		if err != nil {
			cancel()
			return nil, err
		}
		w := &wire{stream: stream, cancel: cancel, zip: zip}
		if zip != nil {
			w.pace = newPace(ctx, func(ctx context.Context) {
				_, _ = api.Info(ctx, &controlapi.InfoRequest{}) // that it cannot say is an answer, too
			})
		}
		return w, nil
	}
}

// wire is the connection that a session's bytes make on a stream.
type wire struct {
	stream controlapi.Control_SessionClient
	cancel context.CancelFunc
	zip    *compressor // nil where nothing is compressed

	writing sync.Mutex
	pace    *pace // nil where zip is

	reading sync.Mutex
	left    []byte // of the last message
}

// Write implements net.Conn.
func (w *wire) Write(p []byte) (int, error) {
	w.writing.Lock()
	defer w.writing.Unlock()
	if err := w.send(&controlapi.BytesMessage{Data: p}); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (w *wire) send(m *controlapi.BytesMessage) error {
	if w.zip == nil {
		return w.stream.SendMsg(m)
	}
	var ready grpc.PreparedMsg
	if err := w.zip.with(w.pace.level(), func() error { return ready.Encode(w.stream, m) }); err != nil {
		return err
	}
	if err := w.stream.SendMsg(&ready); err != nil {
		return err
	}
	w.pace.sent(len(m.GetData()))
	return nil
}

// Read implements net.Conn.
func (w *wire) Read(p []byte) (int, error) {
	w.reading.Lock()
	defer w.reading.Unlock()
	for len(w.left) == 0 {
		m, err := w.stream.Recv()
		if err != nil {
			return 0, err
		}
		w.left = m.GetData()
	}
	n := copy(p, w.left)
	w.left = w.left[n:]
	return n, nil
}

// Close implements net.Conn.
func (w *wire) Close() error {
	w.cancel()
	return nil
}

// LocalAddr implements net.Conn.
func (*wire) LocalAddr() net.Addr { return address{} }

// RemoteAddr implements net.Conn.
func (*wire) RemoteAddr() net.Addr { return address{} }

// SetDeadline implements net.Conn; the stream's context is what ends it.
func (*wire) SetDeadline(time.Time) error { return nil }

// SetReadDeadline implements net.Conn.
func (*wire) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline implements net.Conn.
func (*wire) SetWriteDeadline(time.Time) error { return nil }

type address struct{}

// Network implements net.Addr.
func (address) Network() string { return "grpc" }

// String implements net.Addr.
func (address) String() string { return "session" }

// pace finds out whether a link is slow: by how long a question takes when nothing is
// under way, and then by how long one takes behind what was sent. How long SendMsg
// takes says nothing, since there are buffers of many megabytes on the way.
type pace struct {
	ctx    context.Context      //nolint:containedctx // of the session
	timed  func() time.Duration // how long a question takes now
	travel func() time.Duration // how long one took when nothing was under way

	bytes  int // guarded by the connection's lock, as what follows
	asked  int // how many questions were asked
	slowly int // how many of them have said that the link is slow
}

func newPace(ctx context.Context, ask func(context.Context)) *pace {
	timed := func() time.Duration {
		ctx, cancel := context.WithTimeout(ctx, probeBudget)
		defer cancel()
		began := time.Now()
		ask(ctx)
		return time.Since(began)
	}
	p := &pace{ctx: ctx, timed: timed, travel: sync.OnceValue(timed)}
	go p.travel()
	return p
}

// level is how the next message is compressed.
func (p *pace) level() int {
	if p.bytes >= small && (p.slowly == probes || p.travel() >= longWay) {
		return gzip.BestSpeed
	}
	return gzip.NoCompression
}

// sent notes that n bytes were sent. It waits for the answer to a question: what is
// sent meanwhile would fill the buffers as it is.
func (p *pace) sent(n int) {
	p.bytes += n
	if p.bytes < (p.asked+1)*probe || p.asked == probes || p.asked > p.slowly || p.travel() >= longWay {
		return
	}
	p.asked++
	if took := p.timed(); p.ctx.Err() == nil && isSlow(probe, took-p.travel()) {
		p.slowly++
	}
}

// isSlow tells whether n bytes that took d went over a slow link.
func isSlow(n int, d time.Duration) bool { return float64(n) < slowLink*d.Seconds() }

// compressor is gzip, at the level that with has set. gRPC has one compressor of a
// name for all connections, and asks it without saying for which.
type compressor struct {
	mu    sync.Mutex
	level int

	fast, plain sync.Pool // of *gzip.Writer
}

// with runs f, which compresses one message, at a level.
func (c *compressor) with(level int, f func() error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.level = level
	return f()
}

// Name implements encoding.Compressor.
func (*compressor) Name() string { return "gzip" }

// Compress implements encoding.Compressor. It is called within with; what berth does
// not send itself in this way is not compressed at all.
func (c *compressor) Compress(w io.Writer) (io.WriteCloser, error) {
	pool, level := &c.plain, gzip.NoCompression
	if c.level == gzip.BestSpeed {
		pool, level = &c.fast, gzip.BestSpeed
	}
	z, ok := pool.Get().(*gzip.Writer)
	if !ok {
		var err error
		if z, err = gzip.NewWriterLevel(w, level); err != nil {
			return nil, err
		}
	}
	z.Reset(w)
	return &pooled{z, pool}, nil
}

// Decompress implements encoding.Compressor.
func (*compressor) Decompress(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) }

type pooled struct {
	*gzip.Writer
	pool *sync.Pool
}

// Close implements io.Closer.
func (p *pooled) Close() error {
	if p.Writer == nil {
		return errors.New("closed twice")
	}
	err := p.Writer.Close()
	p.pool.Put(p.Writer)
	p.Writer = nil
	return err
}

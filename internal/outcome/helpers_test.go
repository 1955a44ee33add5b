package outcome_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/moby/buildkit/client"
	gateway "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/session/grpchijack"
	"github.com/moby/buildkit/util/grpcerrors"
	"github.com/moby/buildkit/util/stack"
	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/berthbuild/berth/internal/buildkittest"
)

// solve is a solve on a daemon of this process.
type solve struct {
	t      *testing.T
	ctx    context.Context
	server *buildkittest.Server
	client *client.Client
	begun  chan struct{}
}

func solving(t *testing.T, f buildkittest.SolveFunc) *solve {
	t.Helper()
	s := &solve{t: t, ctx: t.Context(), begun: make(chan struct{})}
	s.server = buildkittest.New(t, buildkittest.Options{Solve: func(ctx context.Context, b *buildkittest.Build) (map[string]string, error) {
		close(s.begun)
		return f(ctx, b)
	}})
	s.client = dial(t, "tcp://"+s.server.Addr())
	return s
}

func dial(t *testing.T, addr string, opts ...client.ClientOpt) *client.Client {
	t.Helper()
	var c *client.Client
	c, err := client.New(t.Context(), addr, append(opts,
		client.WithSessionDialer(func(ctx context.Context, proto string, meta map[string][]string) (net.Conn, error) {
			conn, err := grpchijack.Dialer(c.ControlClient())(ctx, proto, meta)
			return &mute{Conn: conn}, err
		}))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// mute gives nothing once it is closed. BuildKit's own would give rubbish, and
// the session would take a second to get over it.
type mute struct {
	net.Conn
	closed atomic.Bool
}

func (m *mute) Read(p []byte) (int, error) {
	n, err := m.Conn.Read(p)
	if m.closed.Load() {
		return 0, io.EOF
	}
	return n, err
}

func (m *mute) Close() error {
	m.closed.Store(true)
	return m.Conn.Close()
}

func (s *solve) with(ctx context.Context) *solve { s.ctx = ctx; return s }

// err is how it ends.
func (s *solve) err() error { return failing(s.ctx, s.t, s.client) }

// after is how it ends when fault is done once the daemon has begun.
func (s *solve) after(fault func()) error {
	go func() {
		<-s.begun
		fault()
	}()
	return s.err()
}

// gone makes the solve that runs end, as soon as a new call is refused.
func (s *solve) gone() {
	for {
		if _, err := s.client.Info(s.ctx); err != nil {
			break
		}
	}
	s.server.Kill()
}

func failing(ctx context.Context, t *testing.T, c *client.Client) error {
	t.Helper()
	_, err := c.Solve(ctx, nil, client.SolveOpt{Frontend: "x"}, nil)
	if err == nil {
		t.Fatal("the solve went well")
	}
	return err
}

// hangs is a build that ends with its client.
func hangs(ctx context.Context, _ *buildkittest.Build) (map[string]string, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// theirs is an error as buildkitd sends it, with its stack in it.
func theirs(err error) error {
	return grpcerrors.ToGRPC(context.Background(), stack.Enable(err))
}

// answering is how a solve ends whose daemon answers with err.
func answering(t *testing.T, err error) error {
	t.Helper()
	return solving(t, func(ctx context.Context, b *buildkittest.Build) (map[string]string, error) {
		if _, err := b.Session(ctx); err != nil { // a daemon's first question goes there
			return nil, err
		}
		return nil, theirs(err)
	}).err()
}

func exit(code uint32) error {
	return &gateway.ExitError{ExitCode: code, Err: errors.New("did not complete successfully")}
}

// sessionless is how a solve ends whose daemon has no session for it.
func sessionless(t *testing.T) error {
	t.Helper()
	return solving(t, func(ctx context.Context, b *buildkittest.Build) (map[string]string, error) {
		if _, err := b.Session(ctx); err != nil {
			return nil, err
		}
		ctx, cancel := context.WithTimeout(ctx, time.Millisecond)
		defer cancel()
		b.Request.Session = "nobody"
		_, err := b.Session(ctx)
		return nil, theirs(err)
	}).err()
}

// nowhere is how a solve ends where nobody listens.
func nowhere(t *testing.T) error {
	t.Helper()
	return failing(t.Context(), t, dial(t, "tcp://"+buildkittest.FreeAddr(t)))
}

// noTLS is how a solve ends that expects TLS of a daemon without.
func noTLS(t *testing.T) error {
	t.Helper()
	s := buildkittest.New(t, buildkittest.Options{})
	creds := credentials.NewTLS(&tls.Config{ServerName: "x", MinVersion: tls.VersionTLS12})
	return failing(t.Context(), t, dial(t, "tcp://"+s.Addr(),
		client.WithGRPCDialOption(grpc.WithTransportCredentials(creds)), client.WithGRPCDialOption(grpc.WithAuthority("x"))))
}

// invalid is how a solve ends that BuildKit's client does not even begin.
func invalid(t *testing.T) error {
	t.Helper()
	s := buildkittest.New(t, buildkittest.Options{})
	_, err := dial(t, "tcp://"+s.Addr()).Solve(t.Context(), nil, client.SolveOpt{
		Frontend: "x", Exports: []client.ExportEntry{{Type: client.ExporterLocal}},
	}, nil)
	if err == nil || !strings.Contains(err.Error(), "output directory is required") {
		t.Fatal(err)
	}
	return err
}

// resets is how a solve ends when something on the way, which is well itself,
// resets its stream.
func resets(t *testing.T) error {
	t.Helper()
	addr := buildkittest.Raw(t, func(c net.Conn) {
		if _, err := io.ReadFull(c, make([]byte, len(http2.ClientPreface))); err != nil {
			return
		}
		fr := http2.NewFramer(c, c)
		_ = fr.WriteSettings()
		for {
			f, err := fr.ReadFrame()
			if err != nil {
				return
			}
			switch f := f.(type) {
			case *http2.SettingsFrame:
				if !f.IsAck() {
					_ = fr.WriteSettingsAck()
				}
			case *http2.HeadersFrame:
				_ = fr.WriteRSTStream(f.StreamID, http2.ErrCodeInternal)
			}
		}
	})
	return failing(t.Context(), t, dial(t, addr))
}

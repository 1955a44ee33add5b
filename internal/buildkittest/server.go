package buildkittest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	controlapi "github.com/moby/buildkit/api/services/control"
	gatewayapi "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/session"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// Options is how a Server listens, what it claims to be, and what goes wrong.
// The zero value is a healthy daemon on a free loopback port.
type Options struct {
	Network string // "tcp" (the default) or "unix"
	Address string // default: a free port on 127.0.0.1; a socket in a temporary folder
	TLS     *TLS   // nil: plain

	Version string   // default "v0.34.2"
	Workers []Worker // default: one for linux/amd64

	// Solve is what a build does; nil succeeds at once, with one step shown.
	Solve SolveFunc
	// Call is what the frontend answers to a client with a gateway of its own;
	// nil refuses.
	Call CallFunc
	// History is what it remembers of builds; nil is a daemon without records.
	History HistoryFunc
	// Records are all builds that it remembers; it is asked where History is nil.
	Records RecordsFunc
	// Update changes what is remembered; nil refuses.
	Update func(*controlapi.UpdateBuildHistoryRequest) error
	// Status shows the progress of a build; nil shows what Solve has sent. It is
	// asked anew for each client.
	Status StatusFunc

	// Usage is what the cache holds; nil: nothing.
	Usage func(*controlapi.DiskUsageRequest) ([]*controlapi.UsageRecord, error)
	// Prune removes from the cache, and gives each record that is gone to
	// removed; nil removes nothing. ctx ends when the client cancels or the
	// server is closed.
	Prune func(ctx context.Context, req *controlapi.PruneRequest, removed func(*controlapi.UsageRecord) error) error

	// Faults.
	NoInfo    bool            // like a daemon before 0.11
	NoControl bool            // gRPC, but no BuildKit
	Err       error           // what Info and ListWorkers answer, when not nil
	Hold      <-chan struct{} // nothing is answered before it is closed
	Deaf      <-chan struct{} // connections are not accepted before it is closed
}

// TLS is the server's side of TLS.
type TLS struct {
	Server     Pair
	ClientCA   string // when set, a client certificate signed by it is required
	MaxVersion uint16 // default: the newest
}

// Worker is one worker that the daemon lists.
type Worker struct {
	ID        string
	Platforms []string // os/arch[/variant]
	Labels    map[string]string
}

// Call is one RPC that arrived.
type Call struct {
	Method    string // as in /moby.buildkit.v1.Control/Info
	Authority string // the :authority that the client sent
}

// Server is a running daemon. All methods may be called at any time.
type Server struct {
	opt      Options
	grpc     *grpc.Server
	listener *listener
	sessions *session.Manager
	tempDir  string
	done     chan struct{} // closed by Close and Kill
	stop     sync.Once
	draining atomic.Bool
	muted    atomic.Bool
	served   sync.WaitGroup

	mu     sync.Mutex
	drop   chan struct{} // closed, and replaced, by DropSessions
	calls  []Call
	solves []*controlapi.SolveRequest
	jobs   map[string]*job
	blobs  map[string][]byte // by digest
}

// New starts a server that ends with the test.
func New(t testing.TB, o Options) *Server {
	t.Helper()
	s, err := Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// Start starts a server; the caller closes it.
func Start(o Options) (*Server, error) {
	if o.Version == "" {
		o.Version = "v0.34.2"
	}
	if o.Workers == nil {
		o.Workers = []Worker{{ID: "worker0", Platforms: []string{"linux/amd64"}}}
	}
	s := &Server{opt: o, done: make(chan struct{}), drop: make(chan struct{}), jobs: map[string]*job{}, blobs: map[string][]byte{}}
	var err error
	if s.sessions, err = session.NewManager(); err != nil {
		return nil, err
	}
	opts := []grpc.ServerOption{grpc.UnaryInterceptor(s.unary), grpc.StreamInterceptor(s.stream)}
	if o.TLS != nil {
		cfg, err := o.TLS.Config()
		if err != nil {
			return nil, err
		}
		opts = append(opts, grpc.Creds(credentials.NewTLS(cfg)))
	}
	if err := s.listen(); err != nil {
		return nil, err
	}
	s.grpc = grpc.NewServer(opts...)
	if !o.NoControl {
		controlapi.RegisterControlServer(s.grpc, &control{s: s})
		gatewayapi.RegisterLLBBridgeServer(s.grpc, &bridge{s: s})
		contentapi.RegisterContentServer(s.grpc, &blobs{s: s})
	}
	s.served.Go(func() { _ = s.grpc.Serve(s.listener) })
	return s, nil
}

func (s *Server) listen() error {
	network, addr := s.opt.Network, s.opt.Address
	switch {
	case network == "unix" && addr == "":
		dir, err := os.MkdirTemp("", "berth") // a short path: sockets allow about 100 bytes
		if err != nil {
			return err
		}
		s.tempDir, addr = dir, filepath.Join(dir, "buildkitd.sock")
	case network == "" || network == "tcp":
		network = "tcp"
		if addr == "" {
			addr = "127.0.0.1:0"
		}
	case network != "unix":
		return fmt.Errorf("network %q", network)
	}
	l, err := net.Listen(network, addr)
	if err != nil {
		_ = os.RemoveAll(s.tempDir)
		return err
	}
	s.listener = &listener{Listener: l, deaf: s.opt.Deaf, done: s.done}
	return nil
}

// Config is the server's TLS configuration.
func (o *TLS) Config() (*tls.Config, error) {
	cert, err := tls.LoadX509KeyPair(o.Server.Cert, o.Server.Key)
	if err != nil {
		return nil, err
	}
	cfg := &tls.Config{
		Certificates: []tls.Certificate{cert},
		MinVersion:   tls.VersionTLS12,
		MaxVersion:   o.MaxVersion,
		NextProtos:   []string{"h2"},
	}
	if o.ClientCA != "" {
		pem, err := os.ReadFile(o.ClientCA)
		if err != nil {
			return nil, err
		}
		cfg.ClientAuth, cfg.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
		if !cfg.ClientCAs.AppendCertsFromPEM(pem) {
			return nil, errors.New("no certificate in " + o.ClientCA)
		}
	}
	return cfg, nil
}

// Addr is the address, as net.Dial wants it.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// Endpoint is the address as a person types it: tcp://… or unix://….
func (s *Server) Endpoint() string {
	return s.listener.Addr().Network() + "://" + filepath.ToSlash(s.Addr())
}

// Close stops the server and waits for what it started.
func (s *Server) Close() { s.end(); s.served.Wait() }

// Mute makes the daemon fall silent: calls that come from now on are not
// answered, and those that run go on.
func (s *Server) Mute() { s.muted.Store(true) }

// Kill is the daemon's sudden death: listener and connections are cut without
// a word, TCP ones by a reset.
func (s *Server) Kill() {
	_ = s.listener.Close()
	s.Cut()
	s.end()
}

// Cut cuts the connections that there are, as a network does; new ones are taken.
func (s *Server) Cut() { s.listener.cut() }

// Drain is a daemon that was told to stop: it takes nothing new and goes on with
// what runs. It does not wait for that.
// What it is asked on a connection that does not know of it yet is refused as a
// daemon's transport refuses it.
func (s *Server) Drain() {
	s.draining.Store(true)
	s.served.Go(s.grpc.GracefulStop)
}

// DropSessions ends the sessions that there are, as a daemon does with a client
// from which it hears nothing.
func (s *Server) DropSessions() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.drop)
	s.drop = make(chan struct{})
}

func (s *Server) end() {
	s.stop.Do(func() {
		close(s.done)
		s.grpc.Stop()
		_ = os.RemoveAll(s.tempDir)
	})
}

// Connections is how many connections were accepted so far.
func (s *Server) Connections() int {
	s.listener.mu.Lock()
	defer s.listener.mu.Unlock()
	return s.listener.accepted
}

// Calls is every RPC that arrived so far, in order.
func (s *Server) Calls() []Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.calls)
}

// Requests is every Solve that arrived so far, in order.
func (s *Server) Requests() []*controlapi.SolveRequest {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.solves)
}

func (s *Server) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	if err := s.arrived(ctx, info.FullMethod); err != nil {
		return nil, err
	}
	return next(ctx, req)
}

func (s *Server) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	if err := s.arrived(ss.Context(), info.FullMethod); err != nil {
		return err
	}
	return next(srv, ss)
}

// arrived records a call and holds it back while the test wants that.
func (s *Server) arrived(ctx context.Context, method string) error {
	call := Call{Method: method}
	if md, ok := metadata.FromIncomingContext(ctx); ok && len(md[":authority"]) > 0 {
		call.Authority = md[":authority"][0]
	}
	s.mu.Lock()
	s.calls = append(s.calls, call)
	s.mu.Unlock()
	if s.draining.Load() && method == controlapi.Control_Solve_FullMethodName {
		return status.Error(codes.Unavailable, "closing transport due to: graceful_stop")
	}
	hold := s.opt.Hold
	if s.muted.Load() {
		hold = nil // for ever
	} else if hold == nil {
		return nil
	}
	select {
	case <-hold:
		return nil
	case <-s.done:
		return errors.New("the server is closed")
	case <-ctx.Done():
		return ctx.Err()
	}
}

// listener remembers what it accepted, so that all can be cut.
type listener struct {
	net.Listener
	deaf <-chan struct{}
	done <-chan struct{}

	mu       sync.Mutex
	conns    []net.Conn
	accepted int
}

func (l *listener) Accept() (net.Conn, error) {
	if l.deaf != nil {
		select {
		case <-l.deaf:
		case <-l.done:
			return nil, net.ErrClosed
		}
	}
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns, l.accepted = append(l.conns, c), l.accepted+1
	return c, nil
}

func (l *listener) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.conns {
		if tc, ok := c.(*net.TCPConn); ok {
			_ = tc.SetLinger(0)
		}
		_ = c.Close()
	}
	l.conns = nil
}

// FreeAddr is a loopback address on which nobody listens at the moment, for a
// daemon that is to be started late.
func FreeAddr(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// waitFor is how long a build waits for its session.
const waitFor = 10 * time.Second

package remote

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"time"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/session/grpchijack"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
)

// ErrLost is what an RPC fails with after its connection was lost: a Conn does
// not connect again.
var ErrLost = errors.New("the connection to BuildKit was lost")

// anyTarget stands for the address, which gRPC has no use for: it gets its
// connection from us.
const anyTarget = "passthrough:///berth"

// With these a peer that has fallen silent is noticed after 30 s at most, and one
// that pauses for 20 s is not given up. While a session runs, the daemon asks it
// every 5 s whether it lives, so that a healthy connection is never pinged; one
// without a session would be, and a daemon hangs up on it for that. (A Docker
// engine, where the session has a connection of its own, does not mind.)
const (
	pingAfter   = 10 * time.Second // without a byte
	pingTimeout = 20 * time.Second // for the answer
)

// newClient makes a BuildKit client that uses the line, and only that. No
// byte has been sent on it when this returns.
func newClient(ctx context.Context, t Target, l *line, alive bool, answer time.Duration) (*client.Client, error) {
	opts := []client.ClientOpt{
		client.WithContextDialer((&handOver{line: l}).dial),
		client.WithGRPCDialOption(grpc.WithTransportCredentials(proven{tls: l.tls})),
		client.WithGRPCDialOption(grpc.WithAuthority(t.authority())),
		client.WithGRPCDialOption(grpc.WithChainUnaryInterceptor(tellExports)),
		// gRPC would close a connection that carries no RPC for 30 minutes.
		client.WithGRPCDialOption(grpc.WithIdleTimeout(0)),
		// The line is there already, so this bounds the peer's first frame
		// only; our own deadline, which is the same, knows more.
		client.WithGRPCDialOption(grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.DefaultConfig, MinConnectTimeout: answer,
		})),
	}
	if alive {
		opts = append(opts, client.WithGRPCDialOption(grpc.WithKeepaliveParams(keepalive.ClientParameters{
			Time: pingAfter, Timeout: pingTimeout,
		})))
	}
	var made *client.Client // there before anybody dials a session
	opts = append(opts, client.WithSessionDialer(func(ctx context.Context, proto string, meta map[string][]string) (net.Conn, error) {
		return l.openSession(ctx, grpchijack.Dialer(made.ControlClient()), proto, meta)
	}))
	if trace.SpanFromContext(ctx).IsRecording() {
		opts = append(opts, client.WithTracerDelegate(l))
	}
	l.app.guard = true
	made, err := client.New(ctx, anyTarget, opts...)
	return made, err
}

// handOver gives gRPC the line, once.
type handOver struct {
	line  *line
	taken atomic.Bool
}

func (h *handOver) dial(context.Context, string) (net.Conn, error) {
	if h.taken.Swap(true) {
		return nil, errors.Join(ErrLost, h.line.lost())
	}
	return h.line.app, nil
}

// proven tells gRPC that the handshake is done.
type proven struct{ tls *handshake }

// ClientHandshake implements credentials.TransportCredentials.
func (p proven) ClientHandshake(_ context.Context, _ string, c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	if p.tls == nil {
		return c, plainInfo{credentials.CommonAuthInfo{SecurityLevel: credentials.NoSecurity}}, nil
	}
	return c, credentials.TLSInfo{
		State:          p.tls.state,
		CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity},
	}, nil
}

// ServerHandshake implements credentials.TransportCredentials.
func (p proven) ServerHandshake(net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("not a server")
}

// Info implements credentials.TransportCredentials. It names no server: gRPC
// would insist on that name as the authority.
func (p proven) Info() credentials.ProtocolInfo {
	if p.tls == nil {
		return credentials.ProtocolInfo{SecurityProtocol: "insecure"}
	}
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

// Clone implements credentials.TransportCredentials.
func (p proven) Clone() credentials.TransportCredentials { return p }

// OverrideServerName implements credentials.TransportCredentials.
func (p proven) OverrideServerName(string) error { return nil }

type plainInfo struct{ credentials.CommonAuthInfo }

// AuthType implements credentials.AuthInfo.
func (plainInfo) AuthType() string { return "insecure" }

package outcome_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	gateway "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/util/grpcerrors"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/outcome"
)

// row is a row of the table: an error, mostly as a real round trip gave it, what
// else is known, and the verdict.
type row struct {
	name  string
	facts outcome.Facts
	class outcome.Class
	kind  outcome.Kind
	retry outcome.Retry
	text  string // a part of it
}

func check(t *testing.T, rows []row) {
	t.Helper()
	for _, r := range rows {
		v := outcome.Judge(r.facts)
		if v.Class != r.class || v.Kind != r.kind || v.Retry != r.retry {
			t.Errorf("%s: %v, %v, retry %v; want %v, %v, retry %v\nof %v", r.name, v.Class, v.Kind, v.Retry, r.class, r.kind, r.retry, r.facts.Err)
		}
		if (v.Text != "") != (r.class == outcome.Lost) || !strings.Contains(v.Text, r.text) || strings.HasPrefix(v.Text, "rpc error") {
			t.Errorf("%s: the text is %q, want %q", r.name, v.Text, r.text)
		}
		if v.Begun != r.facts.Begun {
			t.Errorf("%s: begun %v", r.name, v.Begun)
		}
	}
}

// What we decided ourselves beats all that the error says.
func TestOwnFlags(t *testing.T) {
	deaf := solving(t, hangs)
	closed := deaf.after(func() { deaf.client.Close() }) //nolint:errcheck // its error is the solve's
	why := errors.New("interrupted")
	ctx, cancel := context.WithCancelCause(t.Context())
	canceled := solving(t, hangs).with(ctx).after(func() { cancel(why) })
	dctx, stop := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer stop()
	late := solving(t, hangs).with(dctx).err()
	check(t, []row{
		{"1 we gave up", outcome.Facts{Err: closed, GaveUp: errors.New("it does not answer")}, outcome.Lost, outcome.GivenUp, outcome.Elsewhere, "it does not answer"},
		{"1 we gave up, and the user then too", outcome.Facts{Err: closed, GaveUp: why, User: why}, outcome.Lost, outcome.GivenUp, outcome.Elsewhere, ""},
		{"2 the user canceled", outcome.Facts{Err: canceled, User: outcome.Interrupted(ctx, canceled)}, outcome.Ours, outcome.Canceled, outcome.Never, ""},
		{"2 the user's deadline", outcome.Facts{Err: late, User: outcome.Interrupted(dctx, late)}, outcome.Ours, outcome.Deadline, outcome.Never, ""},
		{"2 on a dead connection", outcome.Facts{Err: canceled, User: why, Wire: outcome.Wire{Err: io.EOF}}, outcome.Ours, outcome.Canceled, outcome.Never, ""},
		{"2 a failed step", outcome.Facts{Err: answering(t, exit(3)), User: why}, outcome.Ours, outcome.Canceled, outcome.Never, ""},
	})
}

// A deadline that is far, and another error, are not the user's.
func TestInterrupted(t *testing.T) {
	soon, stop := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer stop()
	later, stop := context.WithTimeout(t.Context(), time.Hour)
	defer stop()
	late := status.Error(codes.DeadlineExceeded, "x")
	for _, c := range []struct {
		ctx  context.Context
		err  error
		want bool
	}{{t.Context(), late, false}, {later, late, false}, {later, io.EOF, false}, {soon, late, true}} {
		if got := outcome.Interrupted(c.ctx, c.err); (got != nil) != c.want {
			t.Errorf("%v: %v", c, got)
		}
	}
}

// A step that failed has failed, whatever else went wrong.
func TestStep(t *testing.T) {
	dropped := outcome.Wire{Session: io.EOF}
	check(t, []row{
		{"3 exit 3", outcome.Facts{Err: answering(t, exit(3)), Begun: true}, outcome.Failed, outcome.Step, outcome.Never, ""},
		{"3 exit 137", outcome.Facts{Err: answering(t, exit(137))}, outcome.Failed, outcome.Step, outcome.Never, ""},
		{"3 after the session was lost", outcome.Facts{Err: answering(t, exit(1)), Wire: dropped}, outcome.Failed, outcome.Step, outcome.Never, ""},
		{"3 on a connection that ended then", outcome.Facts{Err: answering(t, exit(1)), Wire: outcome.Wire{Err: io.EOF}}, outcome.Failed, outcome.Step, outcome.Never, ""},
	})
}

// The transport's own errors.
func TestTransport(t *testing.T) {
	victim := solving(t, hangs)
	killed := victim.after(victim.server.Kill)
	drained := solving(t, hangs)
	refused := drained.after(func() {
		drained.server.Drain()
		drained.gone()
	})
	eof, reset := outcome.Wire{Err: io.EOF}, outcome.Wire{Err: &net.OpError{Op: "read", Err: os.NewSyscallError("read", syscall.ECONNRESET)}}
	look := func(err error) outcome.Look { return outcome.Look{Done: true, Err: err} }
	nobody := look(errors.New("connection refused"))
	silent := grpcerrors.FromGRPC(status.Error(codes.Unavailable, "keepalive ping failed to receive ACK within timeout"))
	scolded := grpcerrors.FromGRPC(status.Error(codes.Unavailable, `closing transport due to: connection error: desc = "error reading from server: EOF", received prior goaway: code: ENHANCE_YOUR_CALM, debug data: "too_many_pings"`))
	check(t, []row{
		{"4 killed", outcome.Facts{Err: killed, Wire: eof, Begun: true}, outcome.Lost, outcome.Closed, outcome.Same, "the other side closed it"},
		{"4 killed, and not there", outcome.Facts{Err: killed, Wire: eof, Look: nobody}, outcome.Lost, outcome.Ended, outcome.Elsewhere, "closed it, and it cannot be reached now (connection refused)"},
		{"4 cut", outcome.Facts{Err: killed, Wire: reset, Look: look(nil)}, outcome.Lost, outcome.Cut, outcome.Same, syscall.ECONNRESET.Error() + ", but the daemon answers"},
		{"4 of a helper", outcome.Facts{Err: killed, Wire: outcome.Wire{Err: errors.New("ssh says: no")}}, outcome.Lost, outcome.Closed, outcome.Same, "ssh says: no"},
		{"4 of a scheme that says more", outcome.Facts{Err: killed, Wire: outcome.Wire{Err: fmt.Errorf("read: %w", hint.Wrap(io.EOF, "the tunnel"))}}, outcome.Lost, outcome.Closed, outcome.Same, "the tunnel: EOF"},
		{"4 keepalive", outcome.Facts{Err: silent, Wire: outcome.Wire{Silent: 30*time.Second + 300*time.Millisecond}}, outcome.Lost, outcome.Silent, outcome.Elsewhere, "for 30s"},
		{"4 keepalive, of a way that forgot it", outcome.Facts{Err: silent, Wire: outcome.Wire{Silent: 30 * time.Second}, Look: look(nil)}, outcome.Lost, outcome.Silent, outcome.Same, "for 30s, not even the answer to a ping, but the daemon answers on a new connection"},
		{"4 keepalive, of one that hangs", outcome.Facts{Err: silent, Wire: outcome.Wire{Silent: 30 * time.Second}, Look: nobody}, outcome.Lost, outcome.Silent, outcome.Elsewhere, "the way there hangs"},
		{"4 keepalive while draining", outcome.Facts{Err: silent, Wire: outcome.Wire{Silent: time.Minute, GoAway: outcome.GoDraining}}, outcome.Lost, outcome.Silent, outcome.Elsewhere, "for 1m0s"},
		{"4 too many pings", outcome.Facts{Err: scolded, Wire: outcome.Wire{Err: io.EOF, GoAway: outcome.TooManyPings}}, outcome.Lost, outcome.Pings, outcome.Same, "asked too often"},
		{"4 draining, before", outcome.Facts{Err: refused, Wire: outcome.Wire{GoAway: outcome.GoDraining}}, outcome.Lost, outcome.Draining, outcome.Elsewhere, "it is shutting down"},
		{"4 draining, and then gone", outcome.Facts{Err: killed, Wire: outcome.Wire{Err: io.EOF, GoAway: outcome.GoDraining}, Begun: true}, outcome.Lost, outcome.Draining, outcome.Elsewhere, "was shutting down, and ended before the build did"},
		{"4 draining, as told by a helper", outcome.Facts{Err: killed, Wire: outcome.Wire{Err: errors.New("the pod was evicted"), GoAway: outcome.GoDraining}, Begun: true}, outcome.Lost, outcome.Draining, outcome.Elsewhere, "before the build did: the pod was evicted"},
		{"4 found fault with us, and closed", outcome.Facts{Err: killed, Wire: outcome.Wire{Err: io.EOF, GoAway: outcome.GoOther}}, outcome.Lost, outcome.Closed, outcome.Same, "the other side closed it"},
		{"4 whatever the code", outcome.Facts{Err: grpcerrors.FromGRPC(status.Error(codes.Unknown, "x")), Wire: eof}, outcome.Lost, outcome.Closed, outcome.Same, "closed it"},
		{"4 nobody there", outcome.Facts{Err: nowhere(t)}, outcome.Lost, outcome.Unavailable, outcome.Elsewhere, "refused"},
		{"4 a proxy", outcome.Facts{Err: grpcerrors.FromGRPC(status.Error(codes.Unavailable, "no healthy upstream"))}, outcome.Lost, outcome.Unavailable, outcome.Elsewhere, "no healthy upstream"},
		{"4b no TLS there", outcome.Facts{Err: noTLS(t)}, outcome.Lost, outcome.Unavailable, outcome.Elsewhere, "handshake"},
	})
}

// Codes that a user's own cancelling has, too.
func TestOnTheWay(t *testing.T) {
	one := solving(t, hangs)
	closed := one.after(func() { one.client.Close() }) //nolint:errcheck // its error is the solve's
	check(t, []row{
		{"5 the client was closed", outcome.Facts{Err: closed}, outcome.Lost, outcome.Unavailable, outcome.Elsewhere, "closing"},
		{"5 not ready in time", outcome.Facts{Err: grpcerrors.FromGRPC(status.Error(codes.DeadlineExceeded, "waiting for connections to become ready"))}, outcome.Lost, outcome.Unavailable, outcome.Elsewhere, "waiting"},
		{"5 a stream was reset", outcome.Facts{Err: resets(t)}, outcome.Lost, outcome.Unavailable, outcome.Elsewhere, "RST_STREAM"},
		{"6 our input", outcome.Facts{Err: invalid(t)}, outcome.Failed, outcome.Input, outcome.Never, ""},
		{"6 another answer that is no daemon's", outcome.Facts{Err: grpcerrors.FromGRPC(status.Error(codes.Unimplemented, "x"))}, outcome.Failed, outcome.Input, outcome.Never, ""},
	})
}

// What a daemon says is the build's failure, also with the codes that a lost
// connection has, unless the session was lost or it canceled by itself.
func TestTold(t *testing.T) {
	dropped := outcome.Wire{Session: io.EOF}
	of := func(code codes.Code, text string) error {
		return answering(t, grpcerrors.WrapCode(errors.New(text), code))
	}
	check(t, []row{
		{"7 canceled", outcome.Facts{Err: answering(t, context.Canceled), Wire: dropped}, outcome.Lost, outcome.Session, outcome.Same, "context canceled"},
		{"7 unavailable", outcome.Facts{Err: of(codes.Unavailable, "error reading from server"), Wire: dropped}, outcome.Lost, outcome.Session, outcome.Same, "error reading from server"},
		{"7 EOF", outcome.Facts{Err: answering(t, io.EOF), Wire: dropped, Begun: true}, outcome.Lost, outcome.Session, outcome.Same, "needed something of it: EOF"},
		{"8 no session", outcome.Facts{Err: sessionless(t)}, outcome.Lost, outcome.Session, outcome.Same, "lost touch with this machine"},
		{"8 session unhealthy", outcome.Facts{Err: of(codes.Unknown, "session healthcheck failed fatally: x")}, outcome.Lost, outcome.Session, outcome.Same, "lost touch with this machine"},
		{"9 canceled by the daemon", outcome.Facts{Err: answering(t, context.Canceled)}, outcome.Lost, outcome.Dropped, outcome.Once, "context canceled"},
		{"9 the reference is taken", outcome.Facts{Err: of(codes.Unknown, "failed to create: job ID abc exists")}, outcome.Lost, outcome.Taken, outcome.Once, "job ID abc exists"},
		{"10 a registry that says no", outcome.Facts{Err: of(codes.Unavailable, "registry says no")}, outcome.Failed, outcome.Build, outcome.Never, ""},
		{"10 a registry that is slow", outcome.Facts{Err: of(codes.DeadlineExceeded, "registry says nothing")}, outcome.Failed, outcome.Build, outcome.Never, ""},
		{"10 an internal error", outcome.Facts{Err: of(codes.Internal, "x")}, outcome.Failed, outcome.Build, outcome.Never, ""},
		{"10 a file that exists", outcome.Facts{Err: of(codes.Unknown, "job ID.txt exists not")}, outcome.Failed, outcome.Build, outcome.Never, ""},
		{"11 a full disk", outcome.Facts{Err: of(codes.ResourceExhausted, "failed to add snapshot x to lease: write /var/lib/buildkit/containerdmeta.db: no space left on device")}, outcome.Lost, outcome.Unfit, outcome.Elsewhere, "lease: write /var/lib/buildkit/containerdmeta.db: no space left on device"},
		{"11 a disk that fails", outcome.Facts{Err: of(codes.Unknown, "open /var/lib/buildkit/x: input/output error")}, outcome.Lost, outcome.Unfit, outcome.Elsewhere, "input/output error"},
		{"11 a full disk while exporting, which may be ours", outcome.Facts{Err: of(codes.ResourceExhausted, "write /out/x: no space left on device"), Exporting: true}, outcome.Failed, outcome.Build, outcome.Never, ""},
		{"11 a file that is called so", outcome.Facts{Err: of(codes.NotFound, "no space left on device: not found")}, outcome.Failed, outcome.Build, outcome.Never, ""},
		{"10 before the connection ended", outcome.Facts{Err: of(codes.Unknown, "x"), Wire: outcome.Wire{Err: io.EOF}}, outcome.Failed, outcome.Build, outcome.Never, ""},
	})
}

// Errors of streams come with their details unread.
func TestFromDaemonOfAStream(t *testing.T) {
	if theirs := fmt.Errorf("failed to receive status: %w", theirs(status.Error(codes.Unavailable, "x"))); !outcome.FromDaemon(theirs) {
		t.Error("a daemon's is taken for the transport's")
	}
	for _, err := range []error{status.Error(codes.Unavailable, "x"), grpcerrors.FromGRPC(status.Error(codes.Unavailable, "x")), io.EOF, &gateway.ExitError{}} {
		if outcome.FromDaemon(err) {
			t.Errorf("%v is taken for a daemon's", err)
		}
	}
}

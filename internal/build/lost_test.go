package build

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/berthbuild/berth/internal/builder"
	"github.com/berthbuild/berth/internal/buildkittest"
	"github.com/berthbuild/berth/internal/dial/dialtest"
	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/outcome"
	"github.com/berthbuild/berth/internal/remote"
	"github.com/moby/buildkit/util/grpcerrors"
	"github.com/moby/buildkit/util/stack"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// theirs is an error as buildkitd sends it, with its stack in it.
func theirs(ctx context.Context, err error) error { return grpcerrors.ToGRPC(ctx, stack.Enable(err)) }

// seen is options whose progress is watched, and what is closed once text was in
// it.
func seen(t *testing.T, text string) (Options, <-chan struct{}) {
	t.Helper()
	var out buffer
	var once sync.Once
	shown := make(chan struct{})
	return optionsShowing(t, writer(func(b []byte) (int, error) {
		n, err := out.Write(b)
		if strings.Contains(out.String(), text) {
			once.Do(func() { close(shown) })
		}
		return n, err
	})), shown
}

// lostAs checks that err is one clear sentence of the kind, with hints.
func lostAs(t *testing.T, name string, err error, kind outcome.Kind, want string) {
	t.Helper()
	var l *Lost
	if !errors.As(err, &l) || l.Verdict.Kind != kind {
		t.Errorf("%s: %v", name, err)
		return
	}
	if !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "rpc error") || strings.Contains(err.Error(), "\n") || len(hint.Of(err)) == 0 {
		t.Errorf("%s: %v, want %q; hints %q", name, err, want, hint.Of(err))
	}
}

// What the build itself fails with is told as it is, also with a code that a
// broken connection has too.
func TestBuildFails(t *testing.T) {
	dialtest.NoLeaks(t)
	for _, err := range []error{
		status.Error(codes.Unknown, "process did not complete"),
		status.Error(codes.Unavailable, "registry says no"),
		status.Error(codes.DeadlineExceeded, "registry says nothing"),
		status.Error(codes.InvalidArgument, "bad"),
	} {
		s := daemon(t, func(ctx context.Context, _ *buildkittest.Build) (map[string]string, error) {
			return nil, theirs(ctx, err)
		})
		_, got := Run(t.Context(), builderOf(node("n0", s.Endpoint())), req(t), options(t))
		var l *Lost
		if got == nil || errors.As(got, &l) || !strings.HasPrefix(got.Error(), "failed to solve: ") {
			t.Errorf("%v: %v", err, got)
		}
	}
}

// A daemon that dies in the middle: one clear error, nothing left.
func TestKilled(t *testing.T) {
	dialtest.NoLeaks(t)
	for _, network := range []string{"tcp", "unix"} {
		var s *buildkittest.Server
		ready := make(chan struct{})
		o, shown := seen(t, "started")
		s = buildkittest.New(t, buildkittest.Options{Network: network, Solve: func(ctx context.Context, b *buildkittest.Build) (map[string]string, error) {
			<-ready
			b.Step("started")
			<-shown
			if _, err := sending(ctx, b, 0, []byte("half")); err != nil {
				return nil, err
			}
			go s.Kill()
			<-ctx.Done()
			return nil, ctx.Err()
		}})
		close(ready)
		dir := t.TempDir()
		_, err := Run(t.Context(), builderOf(node("n0", s.Endpoint())), req(t, output("tar", filepath.Join(dir, "x.tar"))), o)
		lostAs(t, network, err, outcome.Ended, "connection to node n0 of builder b at "+s.Endpoint()+" was lost during the build: ")
		if left := names(t, dir); len(left) > 0 {
			t.Errorf("left: %q", left)
		}
	}
}

// Faults of a daemon, and of what is between: each has its own words.
func TestLost(t *testing.T) {
	dialtest.NoLeaks(t)
	for _, c := range []struct {
		name  string
		begun bool
		fault func(context.Context, *buildkittest.Server, *buildkittest.Build) error
		kind  outcome.Kind
		want  string
	}{
		{"cut", true, func(ctx context.Context, s *buildkittest.Server, _ *buildkittest.Build) error {
			s.Cut()
			<-ctx.Done()
			return ctx.Err()
		}, outcome.Cut, ", but the daemon answers: it was restarted, or something on the way cut the connection"},
		{"cut before", false, func(ctx context.Context, s *buildkittest.Server, _ *buildkittest.Build) error {
			s.Cut()
			<-ctx.Done()
			return ctx.Err()
		}, outcome.Cut, "was lost before the build began: "},
		{"session dropped", true, func(ctx context.Context, s *buildkittest.Server, b *buildkittest.Build) error {
			c, err := b.Session(ctx)
			if err != nil {
				return err
			}
			s.DropSessions()
			<-c.Context(ctx).Done()
			ctx, cancel := context.WithTimeout(ctx, time.Millisecond)
			defer cancel()
			_, err = b.Session(ctx)
			return theirs(ctx, err)
		}, outcome.Session, "was lost during the build: the daemon lost touch with this machine, and then needed something of it"},
		{"canceled by the daemon", false, func(ctx context.Context, _ *buildkittest.Server, _ *buildkittest.Build) error {
			return theirs(ctx, context.Canceled)
		}, outcome.Dropped, "did not end the build: the daemon canceled it: "},
		{"from a proxy", false, func(context.Context, *buildkittest.Server, *buildkittest.Build) error {
			return status.Error(codes.Unavailable, "no healthy upstream")
		}, outcome.Unavailable, "was lost before the build began: no healthy upstream"},
	} {
		var s *buildkittest.Server
		ready := make(chan struct{})
		o, shown := seen(t, "started")
		s = daemon(t, func(ctx context.Context, b *buildkittest.Build) (map[string]string, error) {
			<-ready
			if c.begun {
				b.Step("started")
				<-shown
			}
			return nil, c.fault(ctx, s, b)
		})
		close(ready)
		_, err := Run(t.Context(), builderOf(node("n0", s.Endpoint())), req(t), o)
		lostAs(t, c.name, err, c.kind, c.want)
	}
}

// A daemon that is told to stop ends what it builds; a build that comes after is
// told so, where it has its connection already.
func TestDraining(t *testing.T) {
	dialtest.NoLeaks(t)
	running, drained := make(chan struct{}), make(chan struct{})
	s := daemon(t, func(_ context.Context, b *buildkittest.Build) (map[string]string, error) {
		close(running)
		<-drained
		b.Step("ended")
		return nil, nil
	})
	ended := make(chan error)
	go func() {
		_, err := Run(t.Context(), builderOf(node("n0", s.Endpoint())), req(t), options(t))
		ended <- err
	}()
	<-running
	late := builderOf(node("n0", s.Endpoint()))
	o := options(t)
	o.Started = func(string, string) { // connected, and not yet sent
		s.Drain()
		untilRefused(t, s)
	}
	_, err := Run(t.Context(), late, req(t), o)
	close(drained)
	lostAs(t, "late", err, outcome.Draining, "node n0 of builder b at "+s.Endpoint()+" takes no new builds: it is shutting down")
	if err := <-ended; err != nil {
		t.Errorf("the build that ran: %v", err)
	}
}

// untilRefused waits until the daemon takes no connections any more.
func untilRefused(t *testing.T, s *buildkittest.Server) {
	t.Helper()
	target, err := (&builder.Node{Builder: "b", Name: "n0", Driver: builder.DriverRemote, Endpoint: s.Endpoint()}).Target()
	if err != nil {
		t.Error(err)
		return
	}
	for {
		c, err := remote.Connect(t.Context(), target, remote.Config{Schemes: options(t).Schemes, Once: true})
		if err != nil {
			return
		}
		_ = c.Close()
	}
}

// What each kind says, and that it helps.
func TestLostSays(t *testing.T) {
	for kind, want := range map[outcome.Kind]string{
		outcome.Silent:      "berth doctor b",
		outcome.Ended:       "berth inspect b",
		outcome.GivenUp:     "berth inspect b",
		outcome.Cut:         "restarted",
		outcome.Draining:    "--builder",
		outcome.Session:     "suspended",
		outcome.Unavailable: "log",
	} {
		l := &Lost{Target: remote.Target{Builder: "b"}, Verdict: outcome.Verdict{Class: outcome.Lost, Kind: kind}, Cause: errors.New("x")}
		if hints := strings.Join(hint.Of(l), "\n"); !strings.Contains(hints, want) {
			t.Errorf("%s: %q", kind, hints)
		}
	}
}

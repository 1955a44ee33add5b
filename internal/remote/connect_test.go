package remote

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/berthbuild/berth/internal/buildkittest"
	"github.com/berthbuild/berth/internal/dial/dialtest"
	"github.com/berthbuild/berth/internal/endpoint"
)

func TestConnectGood(t *testing.T) {
	certs := buildkittest.TestCerts(t)
	tests := []struct {
		name    string
		server  buildkittest.Options
		opts    []string
		alive   bool
		version string
	}{
		{"tcp", buildkittest.Options{}, nil, false, "v0.34.2"},
		{"unix", buildkittest.Options{Network: "unix"}, nil, false, "v0.34.2"},
		{"keepalive", buildkittest.Options{}, nil, true, "v0.34.2"},
		{"before 0.11", buildkittest.Options{NoInfo: true}, nil, false, ""},
		{"TLS, no client certificate", buildkittest.Options{TLS: &buildkittest.TLS{Server: certs.Server}},
			[]string{"cacert", certs.CA.File}, false, "v0.34.2"},
		{"mutual TLS", buildkittest.Options{TLS: &buildkittest.TLS{Server: certs.Server, ClientCA: certs.CA.File}},
			mutual(certs), true, "v0.34.2"},
		{"mutual TLS 1.2", buildkittest.Options{TLS: &buildkittest.TLS{Server: certs.Server, ClientCA: certs.CA.File, MaxVersion: tls.VersionTLS12}},
			mutual(certs), false, "v0.34.2"},
		{"servername", buildkittest.Options{TLS: &buildkittest.TLS{Server: certs.NamedServer, ClientCA: certs.CA.File}},
			mutual(certs, "servername", "x.build.example"), false, "v0.34.2"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			dialtest.NoLeaks(t)
			s := buildkittest.New(t, tc.server)
			cfg := quick()
			cfg.KeepAlive = tc.alive
			c := mustConnect(t, target(t, s.Endpoint(), tc.opts...), cfg)
			if got := c.Version().Version; got != tc.version {
				t.Errorf("version = %q, want %q", got, tc.version)
			}
			ws, err := c.Workers(t.Context())
			if err != nil || len(ws) != 1 {
				t.Errorf("workers = %v, %v", ws, err)
			}
			if err := c.Lost(); err != nil {
				t.Errorf("Lost = %v", err)
			}
			if err := errors.Join(c.Close(), c.Close(), c.Lost()); err != nil {
				t.Errorf("after Close: %v", err)
			}
			if n := s.Connections(); n != 1 {
				t.Errorf("%d connections were made", n)
			}
		})
	}
}

func TestAuthority(t *testing.T) {
	certs := buildkittest.TestCerts(t)
	secure := &buildkittest.TLS{Server: certs.NamedServer}
	loopback := &buildkittest.TLS{Server: certs.Server}
	for name, tc := range map[string]struct {
		server buildkittest.Options
		opts   []string
		want   string // "" is the endpoint's host and port
	}{
		"plain":            {buildkittest.Options{}, nil, ""},
		"unix":             {buildkittest.Options{Network: "unix"}, nil, "localhost"},
		"TLS":              {buildkittest.Options{TLS: loopback}, []string{"cacert", certs.CA.File}, ""},
		"TLS + servername": {buildkittest.Options{TLS: secure}, []string{"cacert", certs.CA.File, "servername", "build.example"}, "build.example"},
	} {
		t.Run(name, func(t *testing.T) {
			s := buildkittest.New(t, tc.server)
			mustConnect(t, target(t, s.Endpoint(), tc.opts...), quick())
			want := tc.want
			if want == "" {
				want = s.Addr()
			}
			if calls := s.Calls(); len(calls) == 0 || calls[0].Authority != want {
				t.Errorf("calls = %+v, want the authority %q", calls, want)
			}
		})
	}
	for raw, want := range map[string]string{
		"tcp://[::1]:1": "[::1]:1", "tcp://[fe80::1%25eth0]:1": "[fe80::1]:1", "tcp://Host:1": "host:1",
	} {
		if got := target(t, raw).authority(); got != want {
			t.Errorf("authority of %s = %q, want %q", raw, got, want)
		}
	}
}

// TestLateDaemon: the daemon starts when Connect has said that it is waiting.
func TestLateDaemon(t *testing.T) {
	dialtest.NoLeaks(t)
	addr := buildkittest.FreeAddr(t)
	tg := target(t, "tcp://"+addr)
	cfg := quick()
	started := false
	cfg.OnWait = func(w Waiting) {
		var f *cause
		if !errors.As(w.Cause, &f) || f.class != Refused && f.class != Closed {
			return // "no answer yet" at the very beginning
		}
		if !started {
			started = true
			buildkittest.New(t, buildkittest.Options{Address: addr})
		}
	}
	mustConnect(t, tg, cfg)
	if !started {
		t.Error("connected to a daemon that was not there")
	}
}

// TestSlowDaemon: one that is connected to, but takes its time to answer.
func TestSlowDaemon(t *testing.T) {
	dialtest.NoLeaks(t)
	hold := make(chan struct{})
	s := buildkittest.New(t, buildkittest.Options{Hold: hold})
	cfg := quick()
	once := false
	cfg.OnWait = func(w Waiting) {
		if !once && w.Cause.Error() == "no answer yet (waiting for BuildKit)" {
			once = true
			close(hold)
		}
	}
	mustConnect(t, target(t, s.Endpoint()), cfg)
	if !once {
		t.Error("it was not said what is waited for")
	}
}

// TestSilentThenGood: a peer that does not answer at all is left, and tried anew.
func TestSilentThenGood(t *testing.T) {
	dialtest.NoLeaks(t)
	s := buildkittest.New(t, buildkittest.Options{})
	silent := target(t, buildkittest.Raw(t, buildkittest.Silence)).Endpoint
	cfg := quick()
	cfg.limits.answer = 200 * time.Millisecond
	cfg.Schemes = scripted(
		func(ctx context.Context, _ endpoint.Endpoint) (net.Conn, error) { return realTCP(ctx, silent) },
		realTCP)
	mustConnect(t, target(t, s.Endpoint()), cfg)
}

func TestBudgetEndsWithTheRealCause(t *testing.T) {
	tests := []struct {
		name  string
		dials []func(context.Context, endpoint.Endpoint) (net.Conn, error)
		want  Class
		text  string
	}{
		{"always refused", []func(context.Context, endpoint.Endpoint) (net.Conn, error){failing(syscall.ECONNREFUSED)},
			Refused, "connection refused"},
		{"refused, then cut while connecting", []func(context.Context, endpoint.Endpoint) (net.Conn, error){failing(syscall.ECONNREFUSED), hanging},
			Refused, "connection refused"},
		{"never anything", []func(context.Context, endpoint.Endpoint) (net.Conn, error){hanging},
			Timeout, "no answer to the attempt to connect within"},
	}
	if runtime.GOOS == "windows" {
		t.Skip("other numbers")
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			dialtest.NoLeaks(t)
			cfg := quick()
			cfg.Budget, cfg.Schemes = 100*time.Millisecond, scripted(tc.dials...)
			_, err := Connect(t.Context(), target(t, "tcp://h:1"), cfg)
			wantFailure(t, err, tc.want, tc.text)
		})
	}
}

// TestCallersDeadline: a deadline of the caller's context is a budget, and
// ends with the cause too.
func TestCallersDeadline(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	cfg := quick()
	cfg.Schemes = scripted(failing(syscall.ECONNREFUSED))
	if runtime.GOOS == "windows" {
		t.Skip("other numbers")
	}
	_, err := Connect(ctx, target(t, "tcp://h:1"), cfg)
	f := wantFailure(t, err, Refused, "connection refused")
	if errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a bare deadline: %v", err)
	}
	if f != nil && f.Tries < 2 {
		t.Errorf("tried %d times", f.Tries)
	}
}

func TestConnectTimeoutOption(t *testing.T) {
	cfg := quick()
	cfg.Budget = 0
	cfg.Schemes = scripted(hanging)
	_, err := Connect(t.Context(), target(t, "tcp://h:1", "connect-timeout", "20ms"), cfg)
	wantFailure(t, err, Timeout, "no answer")
}

// TestCancel: at each stage, the caller's own reason comes back at once and
// nothing is left.
func TestCancel(t *testing.T) {
	certs := buildkittest.TestCerts(t)
	mine := errors.New("the user pressed Ctrl-C")
	ctxs := func(t *testing.T) (context.Context, func()) {
		ctx, cancel := context.WithCancelCause(t.Context())
		t.Cleanup(func() { cancel(nil) })
		return ctx, func() { cancel(mine) }
	}
	check := func(t *testing.T, ctx context.Context, tg Target, cfg Config) {
		t.Helper()
		_, err := Connect(ctx, tg, cfg)
		if !errors.Is(err, mine) {
			t.Errorf("error = %v, want the cause of the cancellation", err)
		}
	}
	t.Run("connecting", func(t *testing.T) {
		dialtest.NoLeaks(t)
		ctx, cancel := ctxs(t)
		cfg := quick()
		cfg.Schemes = scripted(func(ctx context.Context, e endpoint.Endpoint) (net.Conn, error) {
			cancel()
			return hanging(ctx, e)
		})
		check(t, ctx, target(t, "tcp://h:1"), cfg)
	})
	t.Run("between attempts", func(t *testing.T) {
		dialtest.NoLeaks(t)
		ctx, cancel := ctxs(t)
		cfg := quick()
		cfg.limits.minDelay, cfg.limits.maxDelay = time.Hour, time.Hour
		cfg.Schemes = scripted(failing(&net.DNSError{IsNotFound: true}))
		cfg.OnWait = func(w Waiting) {
			if w.Cause.Error() == "no such host: h" {
				cancel()
			}
		}
		check(t, ctx, target(t, "tcp://h:1"), cfg)
	})
	for name, opts := range map[string][]string{"TLS handshake": {"cacert", certs.CA.File}, "plain greeting": nil} {
		t.Run(name, func(t *testing.T) {
			dialtest.NoLeaks(t)
			ctx, cancel := ctxs(t)
			raw := buildkittest.Raw(t, func(c net.Conn) {
				_, _ = c.Read(make([]byte, 1)) // it has begun to speak
				cancel()
				buildkittest.Silence(c)
			})
			check(t, ctx, target(t, raw, opts...), quick())
		})
	}
	t.Run("waiting for BuildKit", func(t *testing.T) {
		dialtest.NoLeaks(t)
		ctx, cancel := ctxs(t)
		s := buildkittest.New(t, buildkittest.Options{
			Hold: make(chan struct{}), TLS: &buildkittest.TLS{Server: certs.Server, ClientCA: certs.CA.File},
		})
		cfg := quick()
		cfg.OnWait = func(w Waiting) {
			if len(s.Calls()) > 0 {
				cancel()
			}
		}
		check(t, ctx, target(t, s.Endpoint(), mutual(certs)...), cfg)
	})
}

// TestOnWaitEndsWithConnect: no call after the return, none without need.
func TestOnWaitEndsWithConnect(t *testing.T) {
	var returned atomic.Bool
	var calls atomic.Int32
	cfg := quick()
	cfg.Budget = 60 * time.Millisecond
	cfg.Schemes = scripted(hanging)
	cfg.OnWait = func(w Waiting) {
		calls.Add(1)
		if returned.Load() {
			t.Error("called after Connect has returned")
		}
		if w.Cause == nil || w.Left < 0 || w.Left > cfg.Budget || w.Target.Node != "n0" {
			t.Errorf("told %+v", w)
		}
	}
	_, _ = Connect(t.Context(), target(t, "tcp://h:1"), cfg)
	returned.Store(true)
	if calls.Load() == 0 {
		t.Error("never told")
	}
}

// TestLost: a connection whose daemon dies says so, fails, and is not dialled
// again behind our back.
func TestLost(t *testing.T) {
	dialtest.NoLeaks(t)
	s := buildkittest.New(t, buildkittest.Options{})
	var dials atomic.Int32
	cfg := quick()
	cfg.Schemes = scripted(func(ctx context.Context, e endpoint.Endpoint) (net.Conn, error) {
		dials.Add(1)
		return realTCP(ctx, e)
	})
	c := mustConnect(t, target(t, s.Endpoint()), cfg)
	s.Kill()
	for range 3 {
		_, err := c.Workers(t.Context())
		wantFailure(t, err, Closed, "the connection was lost")
	}
	if c.Lost() == nil {
		t.Error("Lost knows nothing")
	}
	if n := dials.Load(); n != 1 {
		t.Errorf("dialled %d times", n)
	}
}

func TestWorkersCancelled(t *testing.T) {
	c := mustConnect(t, target(t, buildkittest.New(t, buildkittest.Options{}).Endpoint()), quick())
	mine := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(mine)
	if _, err := c.Workers(ctx); !errors.Is(err, mine) {
		t.Errorf("error = %v", err)
	}
}

func TestUnknownScheme(t *testing.T) {
	_, err := Connect(t.Context(), Target{Endpoint: endpoint.Endpoint{Scheme: "gopher", Host: "h"}}, quick())
	wantFailure(t, err, BadConfig, "gopher")
}

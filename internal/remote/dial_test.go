package remote

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/buildkit/client"

	"github.com/berthbuild/berth/internal/buildkittest"
	"github.com/berthbuild/berth/internal/dial"
	"github.com/berthbuild/berth/internal/dial/dialtest"
	"github.com/berthbuild/berth/internal/endpoint"
	"github.com/berthbuild/berth/internal/hint"
)

// TestDial: the connection is raw, and ends at the daemon, with TLS done.
func TestDial(t *testing.T) {
	certs := buildkittest.TestCerts(t)
	plain := buildkittest.New(t, buildkittest.Options{})
	secure := buildkittest.New(t, buildkittest.Options{TLS: &buildkittest.TLS{Server: certs.Server, ClientCA: certs.CA.File}})
	for name, tg := range map[string]Target{
		"plain": target(t, plain.Endpoint()), "TLS": target(t, secure.Endpoint(), mutual(certs)...),
	} {
		t.Run(name, func(t *testing.T) {
			dialtest.NoLeaks(t)
			conn, err := Dial(t.Context(), tg, quick())
			if err != nil {
				t.Fatal(err)
			}
			if _, ok := conn.(dialtest.HalfCloser); !ok {
				t.Errorf("a %T cannot be closed half", conn)
			}
			c, err := client.New(t.Context(), "passthrough:///x", client.WithContextDialer(func(context.Context, string) (net.Conn, error) { return conn, nil }))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close() //nolint:errcheck // a test's
			if info, err := c.Info(t.Context()); err != nil || info.BuildkitVersion.Version != "v0.34.2" {
				t.Errorf("Info: %+v, %v", info, err)
			}
		})
	}
}

func TestDialFails(t *testing.T) {
	dialtest.NoLeaks(t)
	tg := target(t, "tcp://"+buildkittest.FreeAddr(t))
	tg.Tries = []string{"the target's own hint"}
	c := quick()
	c.Budget = 20 * time.Millisecond
	_, err := Dial(t.Context(), tg, c)
	var f *Failure
	if !errors.As(err, &f) || f.Class != Refused || f.Tries < 2 {
		t.Errorf("error = %v, want a Failure of class %s after several tries", err, Refused)
	}
	if !slices.Contains(hint.Of(err), "the target's own hint") {
		t.Errorf("hints %q", hint.Of(err))
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("stop")
	cancel(stop)
	if _, err := Dial(ctx, tg, quick()); !errors.Is(err, stop) {
		t.Errorf("cancelled: %v", err)
	}
}

// hostedConn is a connection to a program that BuildKit is a part of.
type hostedConn struct{ net.Conn }

func (hostedConn) Host() string { return "Docker/20.10.99 (test)" }

// TestSchemeWithSession: the session has a connection of its own, the host is
// told, and workers that were asked for once are not asked for again.
func TestSchemeWithSession(t *testing.T) {
	old := buildkittest.New(t, buildkittest.Options{
		NoInfo: true,
		// One that ended at once would be over before its session has begun.
		Solve: func(ctx context.Context, _ *buildkittest.Build) (map[string]string, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		},
	})
	e, err := endpoint.Parse(old.Endpoint())
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan map[string][]string, 1)
	noSession := errors.New("no session for you")
	c := quick()
	c.Schemes = dial.Registry{{
		Name: endpoint.SchemeDockerEngine,
		Dial: func(ctx context.Context, got endpoint.Endpoint) (net.Conn, error) {
			if got.Host != "ctx" {
				t.Errorf("dialled %v", got)
			}
			conn, err := realTCP(ctx, e)
			return hostedConn{conn}, err
		},
		Session: func(_ context.Context, got endpoint.Endpoint, _ string, meta map[string][]string) (net.Conn, error) {
			asked <- meta
			return nil, noSession
		},
	}}
	conn := mustConnect(t, Target{Builder: "b", Node: "n0", Endpoint: endpoint.DockerEngine("ctx")}, c)
	if conn.Host() != "Docker/20.10.99 (test)" {
		t.Errorf("host %q", conn.Host())
	}
	if !strings.Contains(conn.Target().String(), "at docker context ctx") {
		t.Errorf("target %s", conn.Target())
	}
	old.Close()
	if ws, err := conn.Workers(t.Context()); err != nil || len(ws) == 0 {
		t.Errorf("workers %v, %v", ws, err)
	}
	statuses := make(chan *client.SolveStatus)
	go func() {
		for range statuses { //nolint:revive // drained
		}
	}()
	_, err = conn.Client().Solve(t.Context(), nil, client.SolveOpt{Frontend: "dockerfile.v0"}, statuses)
	if err == nil {
		t.Fatal("solved")
	}
	select {
	case meta := <-asked:
		if len(meta) == 0 {
			t.Error("the session dialer was told nothing")
		}
	case <-time.After(30 * time.Second):
		t.Error("the session went over the main connection")
	}
}

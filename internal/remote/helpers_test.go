package remote

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/berthbuild/berth/internal/buildkittest"
	"github.com/berthbuild/berth/internal/dial"
	"github.com/berthbuild/berth/internal/dial/schemes"
	"github.com/berthbuild/berth/internal/endpoint"
	"github.com/berthbuild/berth/internal/hint"
)

// target is node n0 of builder b at raw, with driver options k, v, k, v….
func target(t testing.TB, raw string, kv ...string) Target {
	t.Helper()
	e, err := endpoint.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	m := map[string]string{}
	for i := 0; i < len(kv); i += 2 {
		m[kv[i]] = kv[i+1]
	}
	o, err := endpoint.ParseOptions(e, m)
	if err != nil {
		t.Fatal(err)
	}
	return Target{Builder: "b", Node: "n0", Endpoint: e, Options: o}
}

// mutual is the driver options for mutual TLS with the right certificates.
func mutual(c *buildkittest.Certs, extra ...string) []string {
	return append([]string{"cacert", c.CA.File, "cert", c.Client.Cert, "key", c.Client.Key}, extra...)
}

// quick is the configuration of most tests: nothing takes long that is known
// to end badly.
func quick() Config {
	return Config{Schemes: schemes.All(dial.Env{}), Budget: 30 * time.Second, limits: limits{
		grace: time.Millisecond, tick: 10 * time.Millisecond, minDelay: time.Millisecond, maxDelay: 5 * time.Millisecond,
	}}
}

func mustConnect(t *testing.T, tg Target, c Config) *Conn {
	t.Helper()
	conn, err := Connect(t.Context(), tg, c)
	if err != nil {
		t.Fatalf("Connect: %v\nhints: %s", err, strings.Join(hint.Of(err), "\n       "))
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// scripted is a registry whose tcp dials are the given ones, in turn; the
// last one is repeated.
func scripted(dials ...func(context.Context, endpoint.Endpoint) (net.Conn, error)) dial.Registry {
	n := 0
	return dial.Registry{{Name: "tcp", Dial: func(ctx context.Context, e endpoint.Endpoint) (net.Conn, error) {
		d := dials[min(n, len(dials)-1)]
		n++
		return d(ctx, e)
	}}}
}

// failing is a dial that fails as package net would say it.
func failing(err error) func(context.Context, endpoint.Endpoint) (net.Conn, error) {
	return func(context.Context, endpoint.Endpoint) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: err}
	}
}

// hanging is a dial that ends only with its context.
func hanging(ctx context.Context, _ endpoint.Endpoint) (net.Conn, error) {
	<-ctx.Done()
	return nil, &net.OpError{Op: "dial", Net: "tcp", Err: ctx.Err()}
}

func realTCP(ctx context.Context, e endpoint.Endpoint) (net.Conn, error) {
	s, _ := schemes.All(dial.Env{}).Lookup("tcp")
	return s.Dial(ctx, e)
}

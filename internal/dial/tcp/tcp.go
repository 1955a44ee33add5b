// Package tcp dials tcp:// endpoints: a host name or address, and a port.
//
// It is not for TLS, which internal/remote adds where the options ask for it,
// nor for how one speaks with a proxy (internal/dial/proxy).
//
// Rules: all addresses of a name are tried, IPv6 and IPv4 side by side
// ("happy eyeballs"), as net.Dialer does; a proxy, and the environment that may
// name one, only where the driver option proxy asks for it.
package tcp

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/berthbuild/berth/internal/dial"
	"github.com/berthbuild/berth/internal/dial/proxy"
	"github.com/berthbuild/berth/internal/endpoint"
)

// idle is after how long without traffic the kernel asks whether the peer is
// still there. It keeps the entries of NAT boxes alive during a silent build
// step, and ends a connection whose peer has vanished.
const idle = 15 * time.Second

// Scheme is tcp://HOST:PORT.
func Scheme(env dial.Env) dial.Scheme {
	return dial.Scheme{
		Name:    endpoint.SchemeTCP,
		Summary: "a daemon that listens on TCP, with or without TLS",
		Stages: func(endpoint.Endpoint) []string {
			return []string{dial.StageResolve, dial.StageConnect, dial.StageProxy}
		},
		Dial:    connect,
		Members: addresses(net.DefaultResolver.LookupNetIP),
		Via: func(ctx context.Context, e endpoint.Endpoint, p endpoint.Proxy) (net.Conn, error) {
			return proxy.Dial(ctx, p, e, env, connect)
		},
		Keys: dial.NewKeyring(env),
	}
}

func connect(ctx context.Context, e endpoint.Endpoint) (net.Conn, error) {
	d := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: idle, Interval: idle, Count: 4}}
	watched, done := dial.TraceNetwork(ctx)
	return done(d.DialContext(watched, "tcp", e.Address()))
}

// addresses finds what a name stands for: each address is a daemon of its own. They
// are sorted, since name servers give them in a new order each time.
func addresses(lookup func(ctx context.Context, network, host string) ([]netip.Addr, error)) func(context.Context, endpoint.Endpoint) ([]dial.Member, error) {
	return func(ctx context.Context, e endpoint.Endpoint) ([]dial.Member, error) {
		found, err := lookup(ctx, "ip", e.Host)
		if err != nil {
			return nil, err
		}
		for i := range found {
			found[i] = found[i].Unmap()
		}
		slices.SortFunc(found, netip.Addr.Compare)
		var all []dial.Member
		for _, a := range slices.Compact(found) {
			one := e
			one.Host = a.String()
			all = append(all, dial.Member{Name: one.Host, Endpoint: one})
		}
		return all, nil
	}
}

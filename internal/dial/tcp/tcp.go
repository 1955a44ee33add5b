// Package tcp dials tcp:// endpoints: a host name or address, and a port.
//
// It is not for TLS, which internal/remote adds where the options ask for it.
//
// Rules: all addresses of a name are tried, IPv6 and IPv4 side by side
// ("happy eyeballs"), as net.Dialer does; no proxy and no environment.
package tcp

import (
	"context"
	"net"
	"time"

	"github.com/berthbuild/berth/internal/dial"
	"github.com/berthbuild/berth/internal/endpoint"
)

// idle is after how long without traffic the kernel asks whether the peer is
// still there. It keeps the entries of NAT boxes alive during a silent build
// step, and ends a connection whose peer has vanished.
const idle = 15 * time.Second

// Scheme is tcp://HOST:PORT.
func Scheme() dial.Scheme {
	return dial.Scheme{
		Name:    endpoint.SchemeTCP,
		Summary: "a daemon that listens on TCP, with or without TLS",
		Dial:    connect,
	}
}

func connect(ctx context.Context, e endpoint.Endpoint) (net.Conn, error) {
	d := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: idle, Interval: idle, Count: 4}}
	return d.DialContext(ctx, "tcp", e.Address())
}

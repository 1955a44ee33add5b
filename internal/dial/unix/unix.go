// Package unix dials unix:// endpoints: the socket of a daemon on this
// machine.
//
// It is not for finding out why a socket does not answer (its owner, its
// mode): internal/remote does that when the dial has failed.
package unix

import (
	"context"
	"net"

	"github.com/berthbuild/berth/internal/dial"
	"github.com/berthbuild/berth/internal/endpoint"
)

// Scheme is unix:///PATH.
func Scheme() dial.Scheme {
	return dial.Scheme{
		Name:    endpoint.SchemeUnix,
		Summary: "a daemon's socket on this machine",
		Dial:    connect,
	}
}

func connect(ctx context.Context, e endpoint.Endpoint) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "unix", e.Address())
}

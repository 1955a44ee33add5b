// Package unix dials unix:// endpoints: the socket of a daemon on this
// machine.
//
// It is not for finding out why a socket does not answer (its owner, its
// mode): internal/remote does that when the dial has failed.
package unix

import (
	"context"
	"net"
	"os"

	"github.com/berthbuild/berth/internal/dial"
	"github.com/berthbuild/berth/internal/endpoint"
)

// Scheme is unix:///PATH.
func Scheme() dial.Scheme {
	return dial.Scheme{
		Name:    endpoint.SchemeUnix,
		Summary: "a daemon's socket on this machine",
		Stages:  func(endpoint.Endpoint) []string { return []string{stageSocket, dial.StageConnect} },
		Dial:    connect,
	}
}

func connect(ctx context.Context, e endpoint.Endpoint) (net.Conn, error) {
	look(ctx, e.Path)
	var d net.Dialer
	end := dial.Begin(ctx, dial.StageConnect)
	c, err := d.DialContext(ctx, "unix", e.Address())
	end("", err)
	return c, err
}

// stageSocket is whether there is a socket at all, and whose.
const stageSocket = "socket"

// look tells a tracer of the socket. That it is not one, or may not be used, is
// for the system to say when it is connected to.
func look(ctx context.Context, path string) {
	if !dial.Traced(ctx) {
		return
	}
	end := dial.Begin(ctx, stageSocket)
	st, err := os.Stat(path)
	if err != nil {
		end("", err)
		return
	}
	end(st.Mode().String(), nil)
}

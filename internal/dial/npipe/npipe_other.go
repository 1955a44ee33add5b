//go:build !windows

package npipe

import (
	"context"
	"net"

	"github.com/berthbuild/berth/internal/dial"
)

func open(context.Context, string) (net.Conn, error) {
	return nil, &dial.Error{
		Class: OnlyWindows, Text: "named pipes are there on Windows only",
		Tries: []string{"a socket of this machine is unix:///PATH", "a daemon on a Windows machine is reached over tcp:// with TLS"},
	}
}

// Package npipe dials npipe:// endpoints: a daemon's named pipe on a Windows
// machine.
//
// It is not for pipes of other machines, nor for those that other systems call
// named pipes.
package npipe

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"

	"github.com/berthbuild/berth/internal/dial"
	"github.com/berthbuild/berth/internal/endpoint"
)

// The classes of failures.
const (
	// NoPipe is a pipe that is not there.
	NoPipe dial.Class = "no-pipe"
	// PipePermission is one that this user may not open.
	PipePermission dial.Class = "pipe-permission"
	// OnlyWindows is a pipe on another system.
	OnlyWindows dial.Class = "only-windows"
	// PipeFailed is any other failure to open it.
	PipeFailed dial.Class = "pipe-failed"
)

// Scheme is npipe:////./pipe/NAME.
func Scheme() dial.Scheme {
	return dial.Scheme{
		Name:    endpoint.SchemeNpipe,
		Summary: "a daemon's named pipe, on Windows",
		Dial: func(ctx context.Context, e endpoint.Endpoint) (net.Conn, error) {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			return open(ctx, e.Path)
		},
	}
}

// explain reads the error of opening a pipe.
func explain(path string, err error) error {
	e := &dial.Error{Class: PipeFailed, Text: fmt.Sprintf("the pipe cannot be opened: %v", err), Err: err}
	switch {
	case errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, context.DeadlineExceeded):
		e.Class, e.Heals, e.Text = NoPipe, true, "the pipe has no free instance"
		e.Tries = []string{"the daemon does not accept connections; is it hanging? look at its log"}
	case errors.Is(err, fs.ErrNotExist):
		e.Class, e.Heals, e.Text = NoPipe, true, "no such pipe"
		e.Tries = []string{"is buildkitd running? start it with: buildkitd --addr " + endpoint.SchemeNpipe + "://" + path}
	case errors.Is(err, fs.ErrPermission):
		e.Class, e.Text = PipePermission, "permission denied on the pipe"
		e.Tries = []string{"let buildkitd give the pipe to your group: buildkitd --group NAME …, or run as an administrator"}
	}
	return e
}

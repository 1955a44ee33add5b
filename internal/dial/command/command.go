// Package command dials exec:// endpoints: a command line of the user's own
// that speaks BuildKit on its standard input and output.
//
// It is not for anything that somebody else may have written: the command line
// comes from the user's own state or command, and nowhere else.
//
// Rules: no shell reads the command line. The command has the user's
// environment, runs in the folder that berth runs in, and has no terminal.
package command

import (
	"context"
	"net"
	"os/exec"

	"github.com/berthbuild/berth/internal/dial"
	"github.com/berthbuild/berth/internal/dial/stdio"
	"github.com/berthbuild/berth/internal/endpoint"
)

// Scheme is exec://?cmd=COMMAND+LINE.
func Scheme(env dial.Env) dial.Scheme {
	return dial.Scheme{
		Name:    endpoint.SchemeExec,
		Summary: "a command of your own that speaks BuildKit on its standard input and output",
		Stages:  func(endpoint.Endpoint) []string { return []string{stdio.StageProgram} },
		Dial: func(ctx context.Context, e endpoint.Endpoint) (net.Conn, error) {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			args := e.Command()
			if len(args) == 0 {
				return nil, &dial.Error{Class: stdio.NoHelper, Text: "the endpoint has no command"}
			}
			cmd := exec.Command(args[0], args[1:]...) //nolint:gosec // the user's own; it lives until Close, not with ctx
			cmd.Dir = env.Dir
			end := dial.Begin(ctx, stdio.StageProgram)
			conn, err := stdio.Command(cmd, nil)
			if end(cmd.Path, err); err != nil {
				return nil, err // not a typed nil
			}
			return conn, nil
		},
	}
}

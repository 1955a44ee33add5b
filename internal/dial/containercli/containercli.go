// Package containercli dials podman-container:// and nerdctl-container://
// endpoints: a BuildKit in a container, through `buildctl dial-stdio` that
// podman or nerdctl run in it.
//
// It is not for Docker, whose engine is asked without a program
// (internal/dial/dockercontainer).
//
// Rules: which engine it is, and for whom, is the program's own business, by
// its configuration and environment; its words are passed on.
package containercli

import (
	"context"
	"net"
	"os/exec"

	"github.com/berthbuild/berth/internal/dial"
	"github.com/berthbuild/berth/internal/dial/stdio"
	"github.com/berthbuild/berth/internal/endpoint"
)

// stageContainer is the container with buildctl in it, of which the program
// tells when it ends.
const stageContainer = "container"

// Podman is podman-container://NAME.
func Podman(env dial.Env) dial.Scheme {
	return scheme(env, endpoint.SchemePodmanContainer, "podman")
}

// Nerdctl is nerdctl-container://NAME.
func Nerdctl(env dial.Env) dial.Scheme {
	return scheme(env, endpoint.SchemeNerdctlContainer, "nerdctl")
}

func scheme(env dial.Env, name, program string) dial.Scheme {
	return dial.Scheme{
		Name:    name,
		Summary: "a daemon in a container, through the program " + program,
		Stages:  func(endpoint.Endpoint) []string { return []string{stdio.StageProgram, stageContainer} },
		Dial: func(ctx context.Context, e endpoint.Endpoint) (net.Conn, error) {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			cmd := exec.Command(program, "exec", "-i", e.Host, "buildctl", "dial-stdio") //nolint:gosec // a name has no special characters; it lives until Close, not with ctx
			cmd.Dir = env.Dir
			end := dial.Begin(ctx, stdio.StageProgram)
			conn, err := stdio.Command(cmd, func(exit error, stderr string) error {
				return explain(program, e.Host, exit, stderr)
			})
			if end(cmd.Path, err); err != nil {
				return nil, err // not a typed nil
			}
			dial.Report(ctx, dial.Stage{Name: stageContainer, Text: "buildctl was asked for in " + e.Host})
			return conn, nil
		},
	}
}

// explain tells a container without buildctl, for which the programs exit as a
// shell does, from everything else, of which their words tell.
func explain(program, container string, exit error, stderr string) error {
	err := stdio.Explain(program, exit, stderr)
	try := program + " exec " + container + " buildctl --version"
	switch stdio.ExitCode(exit) {
	case stdio.CannotRun, stdio.NotFound:
		err.Class = stdio.NoBuildctl
		err.Tries = []string{"is it a container of moby/buildkit, or another with buildctl on its PATH? " + try}
	default:
		err.Tries = []string{
			"is the container running, and buildkitd in it? " + program + " ps --all; " + program + " logs " + container,
			try,
		}
	}
	return err
}

// Package cli is berth's command line: one file per command, which holds its
// flags, their wiring and nothing else, and the few files that all commands
// share (main.go, app.go, plugin.go, errors.go).
//
// It is the only package that uses cobra, that reads the environment, and that
// turns errors into text and exit codes. A command is an options struct, a
// newXCmd that only parses into it, and a runX that acts.
package cli

import (
	"context"
	"errors"
	"io"
	"log"
	"os"
	"os/signal"
	"syscall"

	"github.com/berthbuild/berth/internal/filesession"
	"github.com/berthbuild/berth/internal/remote"
	"github.com/berthbuild/berth/internal/ui"
	"github.com/docker/cli/cli-plugins/socket"
	"github.com/sirupsen/logrus"
)

// Exit codes. Scripts rely on them; the README says them.
const (
	exitOK       = 0
	exitFailed   = 1
	exitCanceled = 130 // as a shell reports a process that SIGINT ended
)

// errCanceled is the cause of a context that a signal, or docker, ended.
var errCanceled = errors.New("canceled")

// Main runs the command line args (with the program's name first) on the
// process's own streams and environment, and returns the exit code.
func Main(args []string) int {
	dir, err := os.Getwd()
	if err != nil {
		dir = "." // relative paths will fail where they are used, by name
	}
	// Go's HTTP libraries log broken connections here; what matters of them
	// comes as an error, too.
	log.SetOutput(io.Discard)
	remote.UseBuildKitCodec()
	filesession.UseGzip()
	// And containerd's content store warns of what no user can act on, such as
	// a file system without fs-verity under a local cache.
	logrus.SetLevel(logrus.ErrorLevel)
	return Run(context.Background(), Invocation{
		Args: args, Streams: ui.System(), LookupEnv: os.LookupEnv, Environ: os.Environ, Dir: dir,
	})
}

// Invocation is one call of the program.
type Invocation struct {
	Args      []string // the program's name first
	Streams   *ui.Streams
	LookupEnv func(string) (string, bool)
	Environ   func() []string // as of os.Environ; may be nil
	Dir       string          // the working directory
}

// Run is Main on given streams and environment.
func Run(ctx context.Context, inv Invocation) int {
	ctx, stop := cancelable(ctx)
	defer stop()
	a := &app{io: inv.Streams, lookupEnv: inv.LookupEnv, environ: inv.Environ, dir: inv.Dir, args: inv.Args}
	root := newRoot(a, inv.Args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	err = settled(ctx, err)
	a.printError(err)
	return exitCode(err)
}

// settled is why a command ended: where its context was ended, that is the
// reason.
func settled(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return context.Cause(ctx)
	}
	return err
}

// exitCode is the one place where an error becomes a number.
func exitCode(err error) int {
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errCanceled):
		return exitCanceled
	default:
		return exitFailed
	}
}

// cancelable ends the context at the first interrupt, and the process at the
// second, for a user who does not want to wait for the end of a cleanup. When
// docker runs berth as a plugin it forwards an interrupt by closing a socket.
func cancelable(parent context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(parent)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	// A reader that went away shows as a write error, which commands report,
	// rather than as sudden death in the middle of a build.
	signal.Ignore(syscall.SIGPIPE)
	go func() {
		defer signal.Stop(signals)
		for range 2 {
			select {
			case <-signals:
				if ctx.Err() != nil {
					os.Exit(exitCanceled)
				}
				cancel(errCanceled)
			case <-parent.Done():
				return
			}
		}
	}()
	socket.ConnectAndWait(func() { cancel(errCanceled) })
	return ctx, func() { cancel(context.Canceled) }
}

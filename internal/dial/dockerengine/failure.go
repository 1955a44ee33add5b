package dockerengine

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"

	"github.com/berthbuild/berth/internal/dial"
	"github.com/berthbuild/berth/internal/dockerconfig"
	"github.com/berthbuild/berth/internal/hint"
)

// The classes of failures.
const (
	// BadContext is a docker context that does not exist or cannot be used.
	BadContext dial.Class = "docker-context"
	// NoEngine is an engine that is not there now.
	NoEngine dial.Class = "docker-unreachable"
	// NotAllowed is an engine that this user may not use.
	NotAllowed dial.Class = "docker-permission"
	// BadTLS is an engine whose certificate, or to which ours, is not good.
	BadTLS dial.Class = "docker-tls"
	// NotDocker is something else than an engine.
	NotDocker dial.Class = "not-docker"
	// NoBuildKit is an engine without a BuildKit.
	NoBuildKit dial.Class = "docker-no-buildkit"
)

const (
	otherEngine  = "another engine is chosen with DOCKER_HOST, or docker context use NAME"
	ownDaemon    = "build on a daemon of your own: berth create --use --driver remote ENDPOINT"
	startEngine  = "start it: systemctl start docker"
	joinTheGroup = "be in the group of the socket: usermod -aG docker \"$USER\", then log in again"
)

func badContext(err error) error {
	return &dial.Error{Class: BadContext, Text: err.Error(), Tries: hint.Of(err), Err: err}
}

// unreachable reads the error of a dial.
func unreachable(ctx context.Context, e dockerconfig.Engine, err error) error {
	if ctx.Err() != nil {
		return ended(ctx, e)
	}
	out := &dial.Error{Class: NoEngine, Err: err, Heals: true, Tries: []string{startEngine, otherEngine}}
	var op *net.OpError
	var cert *tls.CertificateVerificationError
	var alert tls.AlertError
	var record tls.RecordHeaderError
	var host x509.HostnameError
	switch {
	case errors.Is(err, fs.ErrNotExist):
		out.Text = notRunning(e, "no such socket")
	case errors.Is(err, syscall.ECONNREFUSED):
		out.Text = notRunning(e, "connection refused")
	case errors.Is(err, fs.ErrPermission):
		out.Class, out.Heals = NotAllowed, false
		out.Text = "permission denied on the Docker engine's socket " + e.Shown()
		out.Tries = []string{joinTheGroup, otherEngine}
	case errors.As(err, &cert), errors.As(err, &alert), errors.As(err, &record), errors.As(err, &host):
		out.Class, out.Heals = BadTLS, false
		out.Text = fmt.Sprintf("TLS with the Docker engine at %s: %v", e.Shown(), err)
		out.Tries = []string{"look at the context's certificates: docker context inspect " + e.Name, otherEngine}
	case errors.As(err, &op):
		out.Text = fmt.Sprintf("the Docker engine at %s cannot be reached: %v", e.Shown(), op.Err)
		out.Tries = out.Tries[1:]
	default:
		out.Text = fmt.Sprintf("the Docker engine at %s cannot be reached: %v", e.Shown(), err)
		out.Tries = out.Tries[1:]
	}
	return out
}

func notRunning(e dockerconfig.Engine, why string) string {
	return fmt.Sprintf("no Docker engine is running at %s: %s", e.Shown(), why)
}

// ended is for a dial that the caller stopped, or whose time is over.
func ended(ctx context.Context, e dockerconfig.Engine) error {
	if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return ctx.Err()
	}
	return &dial.Error{
		Class: NoEngine, Heals: true, Err: ctx.Err(),
		Text:  fmt.Sprintf("the Docker engine at %s does not answer", e.Shown()),
		Tries: []string{"see whether it hangs: docker version", otherEngine},
	}
}

// broken is for a connection that ended, or spoke something else, where an
// answer was expected.
func broken(e dockerconfig.Engine, err error) error {
	out := &dial.Error{Class: NoEngine, Heals: true, Err: err, Tries: []string{otherEngine}}
	var op *net.OpError
	var sys *os.SyscallError
	switch {
	case strings.HasPrefix(e.Host, "ssh://"): // the end of ssh comes with its words
		out.Text = fmt.Sprintf("the Docker engine at %s cannot be reached: %v", e.Shown(), err)
	case errors.As(err, &op), errors.As(err, &sys), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		out.Text = fmt.Sprintf("the Docker engine at %s closes the connection instead of an answer", e.Shown())
	default: // net/http has no type for what is not HTTP
		out.Class, out.Heals = NotDocker, false
		out.Text = fmt.Sprintf("what listens at %s is not a Docker engine: it does not speak HTTP", e.Shown())
	}
	return out
}

func refusedPing(e dockerconfig.Engine, server string, status int) error {
	out := &dial.Error{Class: NotDocker, Tries: []string{"see what it says: docker version", otherEngine}}
	what := "what listens at " + e.Shown()
	if server != "" {
		what += " (" + server + ")"
	}
	switch {
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		out.Class = NotAllowed
	case status >= http.StatusInternalServerError:
		out.Class, out.Heals = NoEngine, true
	}
	out.Text = fmt.Sprintf("%s does not answer as a Docker engine: HTTP %d %s", what, status, http.StatusText(status))
	return out
}

func refusedUpgrade(e dockerconfig.Engine, host string, status int, said string) error {
	out := &dial.Error{Class: NoBuildKit, Tries: []string{ownDaemon, otherEngine}}
	if host == "" {
		host = "the engine"
	}
	if status == http.StatusUnauthorized || status == http.StatusForbidden {
		out.Class = NotAllowed
		out.Text = fmt.Sprintf("%s at %s does not let you use its BuildKit: HTTP %d", host, e.Shown(), status)
	} else {
		out.Text = fmt.Sprintf("%s at %s has no BuildKit: HTTP %d", host, e.Shown(), status)
	}
	if said != "" {
		out.Text += " (" + said + ")"
	}
	return out
}

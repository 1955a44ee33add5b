// Package dockercontainer dials docker-container:// endpoints: a BuildKit in a
// container, through `buildctl dial-stdio` that the Docker engine runs in it.
//
// It is not for starting or making containers, nor for podman and nerdctl,
// which have no API that is always there (internal/dial/containercli).
//
// Rules: all of it is the engine's API, on one connection; no docker program is
// needed. An engine tells that it could not run a command only in the stream
// itself, or by the exec's exit, so the reason of a failure is asked for when
// the stream ends. Nothing is kept between two dials.
package dockercontainer

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/berthbuild/berth/internal/dial"
	"github.com/berthbuild/berth/internal/dial/dockerengine"
	"github.com/berthbuild/berth/internal/dial/stdio"
	"github.com/berthbuild/berth/internal/endpoint"
)

// Scheme is docker-container://NAME[?context=CONTEXT].
func Scheme(env dial.Env) dial.Scheme {
	return dial.Scheme{
		Name:    endpoint.SchemeDockerContainer,
		Summary: "a daemon in a container, through the Docker engine's API",
		Stages: func(endpoint.Endpoint) []string {
			return []string{dockerengine.StageEngine, stageContainer, stageBuildctl}
		},
		Dial: func(ctx context.Context, e endpoint.Endpoint) (net.Conn, error) {
			return connect(ctx, env, e)
		},
	}
}

// The stages after the engine's own.
const (
	stageContainer = "container" // found, and running
	stageBuildctl  = "buildctl"  // there, and it finds the daemon
)

// goodbye bounds how long Close takes in what is under way from the container.
// An engine that has nobody to give it to says so in its log, as an error. It is
// over in some milliseconds.
const goodbye = 25 * time.Millisecond

// command is what speaks BuildKit in the container. It finds the daemon as
// buildctl does: by the container's BUILDKIT_HOST, or where buildkitd listens
// when nothing else was said.
func command() []string { return []string{"buildctl", "dial-stdio"} }

func connect(ctx context.Context, env dial.Env, e endpoint.Endpoint) (net.Conn, error) {
	x := &execution{env: env, container: e.Host, context: e.Param(endpoint.ContainerContext)}
	raw, err := dockerengine.Open(ctx, env, x.context, func(api dockerengine.API) error {
		end := dial.Begin(ctx, stageContainer)
		err := x.start(api)
		end("buildctl was started in "+x.container, err)
		return err
	})
	if err != nil {
		return nil, err
	}
	return x.connection(raw), nil
}

// execution is one run of the command in a container.
type execution struct {
	env       dial.Env
	container string // name or id
	context   string // docker's, "" for the one in force
	id        string // the engine's, of this run
}

// start makes the exec and turns the talk with the engine into its streams. The
// engine agrees before it has tried to run anything.
func (x *execution) start(api dockerengine.API) error {
	answer, err := api.Ask(http.MethodPost, x.path("exec"), map[string]any{
		"AttachStdin": true, "AttachStdout": true, "AttachStderr": true, "Cmd": command(),
	})
	if err != nil {
		return err
	}
	var made struct {
		ID string `json:"Id"`
	}
	switch {
	case answer.Status >= http.StatusBadRequest:
		return x.refused(api, answer)
	case answer.Decode(&made) != nil || made.ID == "":
		return x.notDocker(api)
	}
	x.id = made.ID
	answer, err = api.Upgrade("/exec/"+url.PathEscape(x.id)+"/start", "tcp", map[string]any{"Detach": false, "Tty": false})
	switch {
	case err != nil:
		return err
	case answer.Status >= http.StatusBadRequest:
		return x.refused(api, answer)
	case answer.Status != http.StatusSwitchingProtocols:
		return x.notDocker(api)
	}
	return nil
}

func (x *execution) path(what string) string {
	return "/containers/" + url.PathEscape(x.container) + "/" + what
}

// connection makes one out of the exec's streams.
func (x *execution) connection(raw net.Conn) net.Conn {
	stderr := &stdio.Tail{}
	ctx, cancel := context.WithCancel(context.Background()) // until Close
	out := &output{demux: newDemux(raw, stderr), words: stderr, over: make(chan struct{}), failed: func() bool {
		end, err := x.end(ctx)
		return err == nil && !end.Running && end.ExitCode != 0
	}}
	return stdio.New(stdio.Stream{
		In: input{raw}, Out: out,
		Wait: func() error {
			if out.broken != nil {
				return out.broken
			}
			return x.reason(ctx, stderr.String(), out.heard)
		},
		Kill: func() {
			cancel()
			out.discard.Store(true)
			_ = input{raw}.Close() // it ends anyway
			timer := time.NewTimer(goodbye)
			defer timer.Stop()
			select {
			case <-out.over:
			case <-timer.C:
			}
			_ = raw.Close() // nobody is left to tell
		},
		Local:  stdio.Addr{Scheme: endpoint.SchemeDockerContainer, Name: "berth"},
		Remote: stdio.Addr{Scheme: endpoint.SchemeDockerContainer, Name: x.container},
	})
}

// input is the exec's standard input: closing it leaves the rest open.
type input struct{ c net.Conn }

// Write implements io.Writer.
func (i input) Write(p []byte) (int, error) { return i.c.Write(p) }

// SetWriteDeadline bounds the writes.
func (i input) SetWriteDeadline(t time.Time) error { return i.c.SetWriteDeadline(t) }

// Close implements io.Closer.
func (i input) Close() error {
	if h, ok := i.c.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return fmt.Errorf("the connection to the engine (%T) cannot be closed half", i.c)
}

// output is the exec's standard output. BuildKit begins with an HTTP/2 frame of
// less than 64 KiB, which is a zero byte; what begins with another may be the
// engine saying, in the place of the command, that it cannot run it.
type output struct {
	*demux
	words  *stdio.Tail
	failed func() bool // the exec is over, and ended badly
	heard  bool        // something of the command's own
	begun  bool

	discard atomic.Bool   // nobody reads any more
	over    chan struct{} // closed at the end
	once    sync.Once
}

// Read implements io.Reader.
func (o *output) Read(p []byte) (int, error) {
	n, err := o.read(p)
	for err == nil && o.discard.Load() {
		n, err = o.read(p)
	}
	if err != nil {
		o.once.Do(func() { close(o.over) })
	}
	return n, err
}

func (o *output) read(p []byte) (int, error) {
	if !o.begun {
		first, err := o.peek()
		if err != nil {
			return 0, err
		}
		o.begun = true
		if first != 0 && o.failed() {
			if _, err := io.Copy(o.words, o.demux); err != nil {
				return 0, err
			}
			return 0, io.EOF
		}
	}
	n, err := o.demux.Read(p)
	o.heard = o.heard || n > 0
	return n, err
}

// Package dockerengine dials the BuildKit inside a Docker engine, by the name
// of a docker context. The engine's HTTP API is upgraded twice: POST /grpc
// becomes the connection for BuildKit's API, POST /session the one for a
// build's session.
//
// It is not for containers of that engine, nor for loading images into it. What
// such a BuildKit can and cannot do is the business of internal/request.
//
// Rules: the engine is found in docker's configuration at each dial; nothing is
// kept between two. A connection tells what the engine calls itself
// (dial.Hosted), because a BuildKit older than 0.11 cannot tell its version.
package dockerengine

import (
	"bufio"
	"context"
	"net"
	"strings"

	"github.com/berthbuild/berth/internal/dial"
	"github.com/berthbuild/berth/internal/dockerconfig"
	"github.com/berthbuild/berth/internal/endpoint"
)

// The paths of the engine's API. They are the same in all its versions, so no
// version is agreed on.
const (
	pingPath    = "/_ping"
	grpcPath    = "/grpc"
	sessionPath = "/session"
)

// Scheme is docker-engine://CONTEXT, which is made by endpoint.DockerEngine and
// never typed.
func Scheme(env dial.Env) dial.Scheme {
	d := dialler{env}
	return dial.Scheme{
		Name:    endpoint.SchemeDockerEngine,
		Summary: "the BuildKit inside a Docker engine, by the name of a docker context",
		Stages:  func(endpoint.Endpoint) []string { return []string{StageEngine, stageBuildKit} },
		Dial:    d.dial,
		Session: d.session,
	}
}

// StageEngine is the stage up to a connection to the Docker engine.
const StageEngine = "engine"

// stageBuildKit is the engine's own word on it.
const stageBuildKit = "buildkit"

type dialler struct{ env dial.Env }

// dial asks first who is there, on the same connection: the answer names the
// engine's version, and is clearer than a refused upgrade where it is none.
func (d dialler) dial(ctx context.Context, e endpoint.Endpoint) (net.Conn, error) {
	return d.upgraded(ctx, e, func(t *talk) error {
		end := dial.Begin(ctx, stageBuildKit)
		host, err := t.ping()
		if err != nil {
			end("", err)
			return err
		}
		t.conn.host = host
		err = t.upgrade(grpcPath, "h2c", nil)
		end("inside "+host, err)
		return err
	})
}

func (d dialler) session(ctx context.Context, e endpoint.Endpoint, proto string, meta map[string][]string) (net.Conn, error) {
	return d.upgraded(ctx, e, func(t *talk) error { return t.upgrade(sessionPath, proto, meta) })
}

// upgraded connects and gives the connection over once say has agreed with the
// engine on what is spoken next.
func (d dialler) upgraded(ctx context.Context, e endpoint.Endpoint, say func(*talk) error) (net.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	end := dial.Begin(ctx, StageEngine)
	engine, err := d.engine(e.Host)
	if err != nil {
		end("", err)
		return nil, err
	}
	raw, err := engine.Dial(ctx)
	if err != nil {
		err = unreachable(ctx, engine, err)
		end("", err)
		return nil, err
	}
	end("docker context "+engine.Name+" at "+engine.Shown(), nil)
	c := &conn{Conn: raw, buffered: bufio.NewReader(raw), slow: strings.HasPrefix(engine.Host, "ssh://")}
	stop := context.AfterFunc(ctx, func() { _ = c.Close() }) // ends what say waits for
	err = say(&talk{engine: engine, conn: c})
	if !stop() {
		return nil, ended(ctx, engine)
	}
	if err != nil {
		_ = c.Close() // the error says more
		return nil, err
	}
	return c, nil
}

// engine finds the engine of a docker context.
func (d dialler) engine(context string) (dockerconfig.Engine, error) {
	if d.env.Docker == nil {
		return dockerconfig.Engine{}, &dial.Error{Class: BadContext, Text: "docker's configuration is not available"}
	}
	config, err := d.env.Docker()
	if err != nil {
		return dockerconfig.Engine{}, badContext(err)
	}
	engine, err := config.Engine(context)
	if err != nil {
		return dockerconfig.Engine{}, badContext(err)
	}
	return engine, nil
}

// conn is a connection that was upgraded.
type conn struct {
	net.Conn
	buffered *bufio.Reader // may hold what came right behind the engine's answer
	host     string
	slow     bool // closing it waits for a process
}

var _ dial.Hosted = (*conn)(nil)

// Host implements dial.Hosted.
func (c *conn) Host() string { return c.host }

// Read implements net.Conn.
func (c *conn) Read(p []byte) (int, error) {
	if c.buffered.Buffered() > 0 {
		return c.buffered.Read(p)
	}
	return c.Conn.Read(p)
}

// CloseWrite tells the engine that no more will come; it may still answer.
func (c *conn) CloseWrite() error {
	if h, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return nil // a Windows pipe has no such thing; Close will tell
}

// Close implements net.Conn. It does not wait for the ssh that an ssh:// engine
// is reached by.
func (c *conn) Close() error {
	if !c.slow {
		return c.Conn.Close()
	}
	go func() { _ = c.Conn.Close() }()
	return nil
}

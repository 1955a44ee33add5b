package remote

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/moby/buildkit/client"
	"go.opentelemetry.io/otel/attribute"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"

	"github.com/berthbuild/berth/internal/dial"
	"github.com/berthbuild/berth/internal/endpoint"
)

// DefaultBudget is how long Connect tries when nothing else was said.
const DefaultBudget = 20 * time.Second

// workersTimeout bounds Conn.Workers.
const workersTimeout = 5 * time.Second

// Target is one daemon: where it is, and for whom.
type Target struct {
	Builder, Node string // for messages and hints; may be empty
	Endpoint      endpoint.Endpoint
	Options       endpoint.Options
	Tries         []string // hints besides those of the failure; may be nil
}

// String names the target in a message: "node n of builder b at tcp://…".
func (t Target) String() string {
	switch {
	case t.Node == "":
		return t.where()
	case t.Builder == "":
		return fmt.Sprintf("node %s at %s", t.Node, t.where())
	}
	return fmt.Sprintf("node %s of builder %s at %s", t.Node, t.Builder, t.where())
}

// where is the endpoint as users know it.
func (t Target) where() string {
	if t.Endpoint.Scheme == endpoint.SchemeDockerEngine {
		return "docker context " + t.Endpoint.Host
	}
	return t.Endpoint.String()
}

// attributes say it in a trace.
func (t Target) attributes() []attribute.KeyValue {
	all := []attribute.KeyValue{attribute.String("berth.endpoint.scheme", t.Endpoint.Scheme)}
	if t.Builder != "" {
		all = append(all, attribute.String("berth.builder.name", t.Builder), attribute.String("berth.node.name", t.Node))
	}
	switch port, err := strconv.Atoi(t.Endpoint.Port); {
	case err == nil:
		all = append(all, semconv.ServerAddress(t.Endpoint.Hostname()), semconv.ServerPort(port))
	case t.Endpoint.Host != "":
		all = append(all, semconv.ServerAddress(t.Endpoint.Host))
	}
	return all
}

// authority is what the HTTP/2 requests are addressed to, so that a proxy can
// route them.
func (t Target) authority() string {
	switch {
	case t.Options.ServerName != "":
		return t.Options.ServerName
	case t.Endpoint.Host == "":
		return "localhost"
	case t.Endpoint.Port == "":
		return t.Endpoint.Hostname()
	}
	return net.JoinHostPort(t.Endpoint.Hostname(), t.Endpoint.Port)
}

// Config is how to connect.
type Config struct {
	Schemes dial.Registry

	// Budget bounds the whole; 0 takes Target.Options.ConnectTimeout, and
	// DefaultBudget where that is 0 too.
	Budget time.Duration

	// Once makes one attempt only: what could heal is reported, not waited for.
	Once bool

	// Ask lets a person be asked for a passphrase even so. Without Once it is
	// always so.
	Ask bool

	// KeepAlive notices a peer that has gone silent within 30 s. Only for a
	// connection that will carry a session: a daemon hangs up on one that
	// pings without.
	KeepAlive bool

	// OnWait is called while Connect is waiting: within the first second, when
	// the cause changes, and each second. It is called from one goroutine at a
	// time and never after Connect has returned. It may be nil.
	OnWait func(Waiting)

	limits limits // set by tests
}

// Waiting is what OnWait is told.
type Waiting struct {
	Target Target
	Cause  error // the last one; or that there is no answer yet
	Left   time.Duration
}

// String is a line for a person.
func (w Waiting) String() string {
	who := w.Target.where()
	if w.Target.Node != "" {
		who = fmt.Sprintf("node %s at %s", w.Target.Node, who)
	}
	return fmt.Sprintf("waiting for %s: %v, %s left", who, w.Cause, seconds(w.Left))
}

// limits are the times within one Connect.
type limits struct {
	dial     time.Duration // one attempt to connect
	answer   time.Duration // TLS handshake and first answer, together
	grace    time.Duration // before the first OnWait
	tick     time.Duration // between two of them
	minDelay time.Duration // between attempts, growing
	maxDelay time.Duration
}

func (l limits) orDefault() limits {
	set := func(d *time.Duration, def time.Duration) {
		if *d == 0 {
			*d = def
		}
	}
	set(&l.dial, 5*time.Second)
	set(&l.answer, 10*time.Second)
	set(&l.grace, 500*time.Millisecond)
	set(&l.tick, time.Second)
	set(&l.minDelay, 50*time.Millisecond)
	set(&l.maxDelay, time.Second)
	return l
}

// Conn is a connection to a BuildKit daemon that has answered.
type Conn struct {
	target  Target
	client  *client.Client
	version client.BuildkitVersion
	workers []*client.WorkerInfo // where they were asked for when connecting
	host    string
	line    *line
	once    sync.Once
	err     error
}

// Client is the BuildKit client on this connection. It is valid until Close.
func (c *Conn) Client() *client.Client { return c.client }

// Version is what the daemon said it is; zero when it is older than 0.11,
// which cannot say.
func (c *Conn) Version() client.BuildkitVersion { return c.version }

// Host is the program that this BuildKit is a part of, as it calls itself
// ("Docker/20.10.24 (linux)"); empty for a BuildKit that runs by itself.
func (c *Conn) Host() string { return c.host }

// Spans takes a trace's spans to the daemon; nil where Connect was called
// without a span that is recorded. It is valid until Close.
func (c *Conn) Spans() sdktrace.SpanExporter { return c.line.spans }

// Target is what was connected to.
func (c *Conn) Target() Target { return c.target }

// Lost is the error that ended the connection, nil while it lives and after
// Close. A peer that fell silent is noticed only with KeepAlive.
func (c *Conn) Lost() error { return c.line.lost() }

// Workers asks for the daemon's workers. It takes at most 5 s; the error is a
// *Failure, or ctx's cause when that ended first.
func (c *Conn) Workers(ctx context.Context) ([]*client.WorkerInfo, error) {
	if c.workers != nil {
		return c.workers, nil
	}
	start := time.Now()
	actx, cancel := context.WithTimeout(ctx, workersTimeout)
	defer cancel()
	ws, err := c.client.ListWorkers(actx)
	if err == nil {
		return ws, nil
	}
	if cerr := interrupted(ctx); cerr != nil {
		return nil, cerr
	}
	why := classifyWorkers(c.target, err, c.line.lost(), actx.Err() != nil)
	return nil, newFailure(c.target, why, time.Since(start), 1)
}

// Close ends the connection and what runs on it. It may be called again.
func (c *Conn) Close() error {
	c.once.Do(func() { c.err = c.line.hangUp(c.client) })
	return c.err
}

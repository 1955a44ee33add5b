package remote

import (
	"context"
	"crypto/tls"
	"net"
	"time"

	"github.com/moby/buildkit/util/grpcerrors"
	"google.golang.org/grpc/codes"

	"github.com/berthbuild/berth/internal/dial"
)

// probeTimeout bounds the look whether a peer that hangs up on us speaks TLS.
const probeTimeout = 2 * time.Second

// proxyLimit is how long an attempt through a proxy may take: the proxy makes
// one of its own, and says what became of it only when that has ended.
const proxyLimit = 15 * time.Second

// attempt dials, shakes hands and asks, once. Exactly one result is nil.
func (r *run) attempt(ctx context.Context) (*Conn, *cause) {
	l, why := r.open(ctx)
	if why != nil {
		return nil, why
	}
	return r.greet(ctx, l)
}

// open dials and shakes hands. Exactly one result is nil.
func (r *run) open(ctx context.Context) (*line, *cause) {
	// The files are read first: what is wrong with them is worth telling even
	// when the daemon is not there either.
	var hs *handshake
	if r.target.Options.TLS() {
		var err error
		end := dial.Begin(ctx, StageFiles)
		hs, err = newHandshake(ctx, r.target, r.scheme.Keys)
		if end("", err); err != nil {
			return nil, classifyFiles(err)
		}
	}
	l, why := r.dial(ctx)
	if why != nil {
		return nil, why
	}
	r.until = time.Now().Add(r.limits.answer)
	ctx, cancel := context.WithDeadline(ctx, r.until)
	defer cancel()
	if hs != nil {
		r.report.at(stageTLS)
		tc := tls.Client(l.raw, hs.config)
		end := dial.Begin(ctx, StageTLS)
		err := tc.HandshakeContext(ctx)
		if end("", err); err != nil {
			timedOut := ctx.Err() != nil
			_ = l.hangUp(nil)
			return nil, classifyHandshake(r.target, hs, l, err, timedOut)
		}
		hs.state = tc.ConnectionState()
		l.app, l.tls = record(tc), hs
	}
	return l, nil
}

func (r *run) dial(ctx context.Context) (*line, *cause) {
	r.report.at(stageDial)
	limit := max(r.limits.dial, r.scheme.Limit)
	if !r.target.Options.Proxy.IsZero() {
		limit = max(limit, proxyLimit)
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	began := time.Now()
	c, err := r.connect(ctx)
	if err != nil {
		return nil, classifyDial(r.target, err, time.Since(began))
	}
	raw := record(c)
	l := &line{raw: raw, app: raw}
	if h, ok := c.(dial.Hosted); ok {
		l.host = h.Host()
	}
	if r.scheme.Session != nil {
		l.session = func(ctx context.Context, proto string, meta map[string][]string) (net.Conn, error) {
			return r.scheme.Session(ctx, r.target.Endpoint, proto, meta)
		}
	}
	return l, nil
}

// connect dials as the options say.
func (r *run) connect(ctx context.Context) (net.Conn, error) {
	proxy := r.target.Options.Proxy
	switch {
	case proxy.IsZero():
		return r.scheme.Dial(ctx, r.target.Endpoint)
	case r.scheme.Via == nil:
		return nil, &dial.Error{Class: BadConfig, Text: r.scheme.Name + ":// endpoints are not reached through a proxy"}
	}
	return r.scheme.Via(ctx, r.target.Endpoint, proxy)
}

// greet hands the line to gRPC and asks the daemon who it is.
func (r *run) greet(ctx context.Context, l *line) (*Conn, *cause) {
	ctx, cancel := context.WithDeadline(ctx, r.until)
	defer cancel()
	r.report.at(stageInfo)
	began := time.Now()
	c, err := newClient(ctx, r.target, l, r.config.KeepAlive, r.limits.answer)
	if err != nil {
		_ = l.hangUp(nil)
		return nil, &cause{class: BadConfig, text: err.Error(), err: err, stage: stageInfo}
	}
	conn := &Conn{target: r.target, client: c, host: l.host, line: l}
	err = conn.ask(ctx)
	traceAnswer(ctx, l, began, err)
	if err == nil {
		l.prove()
		return conn, nil
	}
	ev := evidence{rpc: err, timedOut: ctx.Err() != nil, waited: time.Since(began)}
	ev.lost = l.lost()
	_ = l.hangUp(c)
	ev.heard = l.app.begun()
	why := classifyAnswer(r.target, l, ev)
	if why.class == Closed && l.tls == nil && len(ev.heard) == 0 && r.speaksTLS(ctx) {
		why = tlsRequired(r.target, err)
	}
	return nil, why
}

// ask gets the version, or the workers. A daemon before 0.11 has no Info, but has workers.
func (c *Conn) ask(ctx context.Context) error {
	info, err := c.client.Info(ctx)
	if err == nil {
		c.version = info.BuildkitVersion
		return nil
	}
	if grpcerrors.Code(err) == codes.Unimplemented {
		c.workers, err = c.client.ListWorkers(ctx)
	}
	return err
}

// speaksTLS looks whether the peer answers a TLS greeting in TLS: many TLS
// servers hang up without a word on a client that speaks plain.
func (r *run) speaksTLS(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	c, err := r.connect(dial.WithTracer(ctx, nil)) // no part of the way
	if err != nil {
		return false
	}
	rec := record(c)
	defer func() { _ = rec.Close() }()
	// Whether the certificate is good does not matter here; nothing is sent
	// over this connection afterwards.
	_ = tls.Client(rec, &tls.Config{
		ServerName: serverName(r.target), NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS12,
	}).HandshakeContext(ctx)
	return isTLSRecord(rec.begun())
}

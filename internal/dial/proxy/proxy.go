// Package proxy reaches an address through a proxy: HTTP CONNECT, or SOCKS 5.
//
// It is not for choosing a proxy by itself: the driver option proxy does, and
// only its value env asks the environment. What comes out is the connection to
// the daemon, on which nothing has been said yet.
//
// Rules: a proxy is a stranger. What it sends is bounded in size and, by the
// context, in time; it is told apart by codes and never by text; and no error
// holds a password. A failure says whether it is the proxy that cannot be
// reached, the proxy that refuses, or the daemon that the proxy cannot reach.
package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/berthbuild/berth/internal/dial"
	"github.com/berthbuild/berth/internal/endpoint"
	"github.com/berthbuild/berth/internal/hint"
)

// idle is after how long without traffic the kernel asks whether the proxy is
// still there.
const idle = 15 * time.Second

// Dial connects to e through p, and without a proxy where p is that of the
// environment and the environment has none for e. direct makes a connection
// without one. The caller closes the connection.
func Dial(ctx context.Context, p endpoint.Proxy, e endpoint.Endpoint, env dial.Env,
	direct func(context.Context, endpoint.Endpoint) (net.Conn, error),
) (net.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	p, err := Resolve(p, e, env)
	if err != nil {
		return nil, err
	}
	if p.IsZero() {
		return direct(ctx, e)
	}
	d := dialer{proxy: p, to: e}
	if p.Kind == endpoint.ProxySOCKS5 {
		return d.resolved(ctx)
	}
	return d.once(ctx, e.Hostname())
}

// dialer is one attempt.
type dialer struct {
	proxy endpoint.Proxy
	to    endpoint.Endpoint
}

// once connects to the daemon as host, which the proxy resolves if it is a name.
func (d dialer) once(ctx context.Context, host string) (net.Conn, error) {
	nd := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: idle, Interval: idle, Count: 4}}
	watched, done := dial.TraceNetwork(ctx)
	c, err := done(nd.DialContext(watched, "tcp", d.proxy.Address()))
	if err != nil {
		return nil, d.unreached(ctx, err)
	}
	end := dial.Begin(ctx, dial.StageProxy)
	through, err := d.talk(ctx, c, host)
	end(fmt.Sprintf("%s to %s", d.proxy, net.JoinHostPort(host, d.to.Port)), err)
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	return through, nil
}

// talk asks for the connection. Whatever it waits for ends with ctx.
func (d dialer) talk(ctx context.Context, c net.Conn, host string) (net.Conn, error) {
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	through, err := d.ask(ctx, c, host)
	if !stop() && err == nil { // too late: its deadline is over
		err = ctx.Err()
	}
	switch {
	case err == nil:
		return through, nil
	case ctx.Err() != nil && errors.Is(ctx.Err(), context.Canceled):
		return nil, ctx.Err()
	case ctx.Err() != nil:
		return nil, d.silent(errors.Join(ctx.Err(), err))
	}
	return nil, err
}

func (d dialer) ask(ctx context.Context, c net.Conn, host string) (net.Conn, error) {
	switch d.proxy.Kind {
	case endpoint.ProxySOCKS5, endpoint.ProxySOCKS5H:
		return c, d.socks(c, host)
	case endpoint.ProxyHTTPS:
		secure, err := d.secure(ctx, c)
		if err != nil {
			return nil, err
		}
		return d.connect(secure, host)
	}
	return d.connect(c, host)
}

// resolved looks the daemon's name up here, and tries its addresses in turn.
func (d dialer) resolved(ctx context.Context) (net.Conn, error) {
	const most = 4
	addrs, err := new(net.Resolver).LookupHost(ctx, d.to.Hostname())
	if err != nil {
		if ctx.Err() != nil && errors.Is(ctx.Err(), context.Canceled) {
			return nil, ctx.Err()
		}
		return nil, hint.Wrap(err, "", "to let the proxy resolve the name, write socks5h:// instead of socks5://")
	}
	var last error
	for _, addr := range addrs[:min(len(addrs), most)] {
		c, err := d.once(ctx, addr)
		if err == nil {
			return c, nil
		}
		var own *dial.Error
		if last = err; !errors.As(err, &own) || own.Class != dial.ProxyGateway { // the next would end the same way
			break
		}
	}
	return nil, last
}

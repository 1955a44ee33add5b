package filesession

import (
	"context"
	"net"
	"sync"
)

// listener accepts one connection that is there already.
type listener struct {
	ctx  context.Context //nolint:containedctx // Accept has none
	conn net.Conn
	once sync.Once
}

func newListener(ctx context.Context, conn net.Conn) *listener {
	return &listener{ctx: ctx, conn: conn}
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	var first net.Conn
	l.once.Do(func() { first = l.conn })
	if first != nil {
		return first, nil
	}
	<-l.ctx.Done()
	return nil, net.ErrClosed
}

// Close implements net.Listener. The connection is closed by its owner.
func (*listener) Close() error { return nil }

// Addr implements net.Listener.
func (l *listener) Addr() net.Addr { return l.conn.LocalAddr() }

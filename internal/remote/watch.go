package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"syscall"
	"time"
)

// ErrSilent is why a context ends that Watch was told to end.
var ErrSilent = errors.New("the daemon has stopped answering")

// Pulse is how a daemon that is busy for us is asked for signs of life. The zero
// value is for everybody but tests.
type Pulse struct {
	Every    time.Duration // between two questions; 0: 5 s
	Patience time.Duration // how long one may take; 0: 22 s, longer than a short stop
}

func (p Pulse) orDefault() Pulse {
	if p.Every == 0 {
		p.Every = 5 * time.Second
	}
	if p.Patience == 0 {
		p.Patience = 22 * time.Second
	}
	return p
}

// Watch ends the context, with ErrSilent, when the daemon answers nothing any
// more. Only silence counts: a daemon that is being stopped refuses new calls,
// and ends the one that runs. It returns when ctx ends. gRPC's own keepalive is
// for connections with a session only; see Config.KeepAlive.
func (c *Conn) Watch(ctx context.Context, p Pulse, end context.CancelCauseFunc) {
	p = p.orDefault()
	tick := time.NewTicker(p.Every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		asked, cancel := context.WithTimeout(ctx, p.Patience)
		_, err := c.client.Info(asked)
		silent := err != nil && asked.Err() != nil && ctx.Err() == nil
		cancel()
		if silent {
			end(ErrSilent)
			return
		}
	}
}

// LostText is a connection that broke in the middle (see Conn.Lost), without its
// addresses, for a message that says them already.
func LostText(wire error) error {
	var errno syscall.Errno
	switch {
	case errors.As(wire, &errno):
		wire = errno
	case errors.Is(wire, io.EOF):
		return errors.New("the connection was lost: the other side closed it")
	}
	return fmt.Errorf("the connection was lost: %w", wire)
}

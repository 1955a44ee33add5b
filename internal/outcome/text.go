package outcome

import (
	"errors"
	"fmt"
	"io"
	"syscall"
	"time"

	"github.com/berthbuild/berth/internal/hint"
)

// text completes "the connection was lost: …".
func text(f Facts, k Kind) string {
	switch k {
	case GivenUp:
		return f.GaveUp.Error()
	case Closed:
		return closing(f)
	case Ended:
		return fmt.Sprintf("%s, and it cannot be reached now (%v)", closing(f), f.Look.Err)
	case Cut:
		return closing(f) + ", but the daemon answers: it was restarted, or something on the way cut the connection"
	case Silent:
		words := fmt.Sprintf("nothing was heard of it for %s, not even the answer to a ping", f.Wire.Silent.Round(time.Second))
		if f.Look.answered() {
			return words + ", but the daemon answers on a new connection: something on the way forgot this one, or stopped for a while"
		}
		return words + ": the daemon, its machine or the way there hangs"
	case Draining:
		if !f.Begun {
			return "it is shutting down"
		}
		words := "the daemon was shutting down, and ended before the build did"
		if own := account(f.Wire.Err); own != "" {
			return words + ": " + own
		}
		return words
	case Pings:
		return "the other side hung up because it was asked too often whether it lives"
	case Session:
		words := "the daemon lost touch with this machine, and then needed something of it"
		if noSession(f.Err) {
			return words
		}
		return words + ": " + said(f.Err)
	case Dropped:
		return "the daemon canceled it: " + said(f.Err)
	}
	return said(f.Err)
}

// closing is how the connection was closed.
func closing(f Facts) string {
	var errno syscall.Errno
	switch own := account(f.Wire.Err); {
	case own != "":
		return own
	case errors.As(f.Wire.Err, &errno):
		return errno.Error()
	}
	return "the other side closed it"
}

// account is what whoever carries the connection says of its end; "" where it is
// only that it ended.
func account(wire error) string {
	var errno syscall.Errno
	var own hint.Hinter // a scheme, which knows its other side
	switch {
	case errors.As(wire, &own):
		return own.Error()
	case wire == nil, errors.Is(wire, io.EOF), errors.As(wire, &errno):
		return ""
	}
	return wire.Error()
}

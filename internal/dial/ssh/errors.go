package ssh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"unicode"

	"golang.org/x/crypto/ssh"

	"github.com/berthbuild/berth/internal/dial"
)

// The classes of this scheme's failures.
const (
	// Config is a mistake in ssh_config, or something in it that berth has not.
	Config dial.Class = "ssh-config"
	// HostKey is a machine that cannot be known to be the right one.
	HostKey dial.Class = "ssh-host-key"
	// Auth is a machine that does not let us in.
	Auth dial.Class = "ssh-auth"
	// KeyLocked is a key that needs a passphrase which nobody gave.
	KeyLocked dial.Class = "ssh-key-locked"
	// Forward is a machine that lets us in, but not to the socket.
	Forward dial.Class = "ssh-forward"
	// Protocol is something that is not an ssh server, or shares no algorithm.
	Protocol dial.Class = "ssh-protocol"
	// Jump is a machine on the way that cannot be reached, or cannot reach on.
	Jump dial.Class = "ssh-jump"
)

// Classes that other schemes have too; internal/remote lists them.
const (
	closed           dial.Class = "closed"
	silent           dial.Class = "silent"
	noSocket         dial.Class = "no-socket"
	refusedClass     dial.Class = "refused"
	socketPermission dial.Class = "socket-permission"
)

// interrupted keeps ctx's own error in the chain where that is what ended the
// dial.
func interrupted(ctx context.Context, err error) error {
	cause := ctx.Err()
	if cause == nil || errors.Is(err, cause) {
		return err
	}
	if errors.Is(cause, context.Canceled) {
		return cause
	}
	return &dial.Error{Class: silent, Heals: true, Text: "the ssh server does not answer in time", Err: errors.Join(cause, err)}
}

// unreached is for a machine that there is no connection to. What the system
// says about the first is told by internal/remote as for any other connection.
func unreached(s *settings, err error) error {
	var refused *ssh.OpenChannelError
	switch {
	case errors.As(err, &refused):
		return &dial.Error{
			Class: Jump, Heals: refused.Reason != ssh.Prohibited, Err: err,
			Text: fmt.Sprintf("the jump host cannot connect to %s: %s", s.address(), channelText(refused)),
		}
	case s.behind:
		return &dial.Error{Class: Jump, Heals: true, Err: err, Text: fmt.Sprintf("the jump host was lost on the way to %s: %s", s.address(), plain(err))}
	}
	return err
}

// explainHop says which machine an error is about, where that is not the one
// that was named.
func (s *settings) explainHop(err error) error {
	if !s.jump {
		return err
	}
	prefix := "jump host " + s.host + ": "
	var own *dial.Error
	if errors.As(err, &own) {
		told := *own
		told.Text = prefix + own.Text
		return &told
	}
	return &dial.Error{Class: Jump, Heals: true, Text: prefix + plain(err), Err: err,
		Tries: []string{s.command()}}
}

// channelText is why a channel was not opened, in the server's words where they
// say something.
func channelText(e *ssh.OpenChannelError) string {
	if e.Message == "" || e.Message == "open failed" {
		return plain(errors.New(e.Reason.String()))
	}
	return plain(errors.New(e.Message))
}

// silence is for a handshake that time ran out on.
func silence(s *settings, cause error, heard []byte) error {
	if errors.Is(cause, context.Canceled) {
		return cause
	}
	text := "connected to port " + s.port + ", but no ssh server answers"
	if len(heard) > 0 {
		text = "the ssh server does not finish the login in time"
	}
	return &dial.Error{Class: silent, Heals: true, Text: text, Err: cause,
		Tries: []string{"is " + s.port + " the port of sshd, and is the machine very busy? " + s.command()}}
}

// notSSH is for a peer that began with something else, or with nothing.
func notSSH(s *settings, heard []byte, lost, err error) error {
	said := plain(errors.New(string(heard)))
	switch {
	case lost != nil && said == "":
		return &dial.Error{
			Class: closed, Heals: true, Err: errors.Join(err, lost), Text: "the ssh server hangs up before it says anything",
			Tries: []string{"does it have too many logins at once (MaxStartups), or does a firewall stand before it? " + s.command()},
		}
	case lost != nil: // sshd says why in plain text
		return &dial.Error{Class: closed, Heals: true, Err: errors.Join(err, lost), Text: "the ssh server hangs up: " + said}
	}
	return &dial.Error{
		Class: Protocol, Err: err, Text: fmt.Sprintf("port %s is not that of an ssh server: it says %q", s.port, said),
		Tries: []string{"ssh://" + s.user + "@" + s.host + ":PORT"},
	}
}

// plain is an error's text, on one line and fit for a terminal, without what
// every error of the library begins with.
func plain(err error) string {
	var op *net.OpError
	if errors.As(err, &op) && op.Err != nil {
		var sys *os.SyscallError
		if err = op.Err; errors.As(err, &sys) {
			err = sys.Err
		}
	}
	if errors.Is(err, io.EOF) && errors.Unwrap(err) == nil {
		return "it was closed"
	}
	text := strings.ToValidUTF8(err.Error(), "")
	text = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case !unicode.IsPrint(r):
			return -1
		}
		return r
	}, text)
	text = strings.Join(strings.Fields(text), " ")
	for {
		rest, found := strings.CutPrefix(text, "ssh: ")
		if !found {
			rest, found = strings.CutPrefix(text, "handshake failed: ")
		}
		if !found {
			break
		}
		text = rest
	}
	const most = 240
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	return text
}

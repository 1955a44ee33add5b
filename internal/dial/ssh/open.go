package ssh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"

	"golang.org/x/crypto/ssh"

	"github.com/berthbuild/berth/internal/dial"
	"github.com/berthbuild/berth/internal/dial/stdio"
)

// defaultSocket is where buildkitd listens when it is not told otherwise.
const defaultSocket = "/run/buildkit/buildkitd.sock"

// How the question about the socket ends; a shell has no such codes of its own.
const (
	exitMissing = 91 + iota
	exitNoSocket
	exitDenied
	exitUnheard // it is there, but the system does not list it among those that are listened on
	exitThere
)

// open opens the daemon's socket on the machine: as a channel of its own, and
// where the server forbids that, through buildctl.
func open(ctx context.Context, l *link, s *settings, path string) (net.Conn, error) {
	socket := path
	if socket == "" {
		socket = defaultSocket
	}
	end := dial.Begin(ctx, stageForward)
	conn, text, err := either(ctx, l, s, path, socket)
	end(text, err)
	return conn, err
}

// either also says which way it was.
func either(ctx context.Context, l *link, s *settings, path, socket string) (net.Conn, string, error) {
	conn, err := direct(l, s, socket)
	var refused *ssh.OpenChannelError
	if err == nil || !errors.As(err, &refused) {
		return conn, "the server opens " + socket, err
	}
	// OpenSSH gives the same answer to a socket that is not there and to
	// forwarding that is forbidden.
	look := l.look(socket)
	if own := look.explain(s, socket); own != nil {
		own.Err = err
		return nil, "", own
	}
	if err := ctx.Err(); err != nil {
		return nil, "", err
	}
	conn, err = viaBuildctl(l, s, path, &why{refused: refused, unheard: look.code == exitUnheard, socket: socket})
	return conn, "the server opens no sockets (" + channelText(refused) + "), so buildctl runs there", err
}

// direct is a channel that ends at the socket.
func direct(l *link, s *settings, socket string) (net.Conn, error) {
	ch, reqs, err := l.client.OpenChannel("direct-streamlocal@openssh.com", ssh.Marshal(&struct {
		Path, Reserved0 string
		Reserved1       uint32
	}{Path: socket}))
	if err != nil {
		return nil, err
	}
	go ssh.DiscardRequests(reqs)
	go func() { _, _ = io.Copy(io.Discard, ch.Stderr()) }()
	return stdio.New(stdio.Stream{
		In: sending{ch, halfClose{ch}}, Out: ch, Kill: l.close, Wait: l.lost,
		Local: l.client.LocalAddr(), Remote: stdio.Addr{Scheme: "ssh", Name: s.user + "@" + s.address() + socket},
	}), nil
}

// sending is the way into a channel. The library calls one that was closed
// "EOF".
type sending struct {
	w    io.Writer
	half io.Closer
}

// halfClose is a channel's CloseWrite, as a Close.
type halfClose struct{ ssh.Channel }

// Close implements io.Closer.
func (h halfClose) Close() error { return h.CloseWrite() }

// Write implements io.Writer.
func (s sending) Write(p []byte) (int, error) {
	n, err := s.w.Write(p)
	if errors.Is(err, io.EOF) {
		err = &net.OpError{Op: "write", Net: "ssh", Err: syscall.EPIPE}
	}
	return n, err
}

// Close implements io.Closer: it says that no more comes.
func (s sending) Close() error {
	if err := s.half.Close(); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// lost is what ended the ssh connection, nil while it lives: then the daemon
// has closed its socket in good order.
func (l *link) lost() error {
	for _, w := range l.wires {
		if _, err := w.begun(); err != nil {
			return &dial.Error{Class: closed, Heals: true, Text: "the ssh connection was lost: " + plain(err), Err: err}
		}
	}
	return nil
}

// answer is what the machine says about a socket.
type answer struct{ code int }

// look asks the machine for the socket. It is asked by exit codes, which need
// no reading of texts; the path has no character that a shell minds.
func (l *link) look(socket string) answer {
	sess, err := l.client.NewSession()
	if err != nil {
		return answer{}
	}
	defer sess.Close() //nolint:errcheck // it has ended
	err = sess.Run(fmt.Sprintf("test -e %[1]s || exit %[2]d; test -S %[1]s || exit %[3]d; test -w %[1]s || exit %[4]d; "+
		"test ! -r /proc/net/unix || grep -qF ' %[1]s' /proc/net/unix || exit %[5]d; exit %[6]d",
		socket, exitMissing, exitNoSocket, exitDenied, exitUnheard, exitThere))
	return answer{exitStatus(err)}
}

// explain says why the socket cannot be used, nil where it can, or where the
// machine does not tell.
func (a answer) explain(s *settings, socket string) *dial.Error {
	switch a.code {
	case exitMissing:
		return &dial.Error{
			Class: noSocket, Heals: true, Text: fmt.Sprintf("no such socket on %s: %s", s.host, socket),
			Tries: []string{
				"is buildkitd running there? start it with: buildkitd --addr unix://" + socket,
				"or name its socket: ssh://" + s.user + "@" + s.host + "/PATH/buildkitd.sock",
			},
		}
	case exitNoSocket:
		return &dial.Error{Class: noSocket, Text: fmt.Sprintf("%s on %s is not a socket", socket, s.host),
			Tries: []string{s.command() + " ls -l " + socket}}
	case exitDenied:
		return &dial.Error{
			Class: socketPermission, Text: fmt.Sprintf("permission denied for %s on the socket %s", s.user, socket),
			Tries: []string{
				"let buildkitd give it to a group of " + s.user + ": buildkitd --group GROUP …",
				s.command() + " ls -l " + socket,
			},
		}
	}
	return nil
}

// why is the reason to run buildctl.
type why struct {
	refused *ssh.OpenChannelError
	socket  string
	unheard bool
}

const allowHint = "allow it in sshd_config: AllowStreamLocalForwarding local, and no DisableForwarding"

// viaBuildctl runs BuildKit's own command on the machine, as buildx does.
func viaBuildctl(l *link, s *settings, path string, because *why) (net.Conn, error) {
	command := "buildctl dial-stdio"
	if path != "" {
		command = "buildctl --addr unix://" + path + " dial-stdio"
	}
	forbidden := func(err error) error {
		return &dial.Error{
			Class: Forward, Err: errors.Join(because.refused, err),
			Text:  fmt.Sprintf("the server lets berth neither open the socket (%s) nor run commands", channelText(because.refused)),
			Tries: []string{allowHint},
		}
	}
	sess, err := l.client.NewSession()
	if err != nil {
		return nil, forbidden(err)
	}
	stderr := &stdio.Tail{}
	sess.Stderr = stderr
	in, err := sess.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := sess.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := sess.Start(command); err != nil {
		return nil, forbidden(err)
	}
	return stdio.New(stdio.Stream{
		In: sending{in, in}, Out: out, Kill: l.close,
		Wait: func() error {
			if err := l.lost(); err != nil {
				return err
			}
			return because.explain(s, sess.Wait(), stderr.String())
		},
		Local: l.client.LocalAddr(), Remote: stdio.Addr{Scheme: "ssh", Name: s.user + "@" + s.address() + " " + command},
	}), nil
}

// explain says why buildctl ended, and why it was run at all.
func (w *why) explain(s *settings, exit error, stderr string) error {
	if exit == nil {
		return nil
	}
	code := exitStatus(exit)
	absent := code == stdio.CannotRun || code == stdio.NotFound
	text := fmt.Sprintf("the server does not open the socket (%s)", channelText(w.refused))
	switch {
	case absent && w.unheard:
		return &dial.Error{
			Class: refusedClass, Heals: true, Err: exit, Text: fmt.Sprintf("nobody listens on %s on %s", w.socket, s.host),
			Tries: []string{"is buildkitd running there? start it with: buildkitd --addr unix://" + w.socket, "if it is: " + allowHint},
		}
	case absent:
		if text += ", and there is no buildctl to run"; stderr != "" {
			text += ": " + stderr
		}
		return &dial.Error{Class: Forward, Text: text, Err: exit, Tries: []string{allowHint, "or install buildctl on " + s.host}}
	case stderr != "":
		return &dial.Error{Class: stdio.HelperFailed, Heals: true, Text: "buildctl on " + s.host + " says: " + stderr, Err: exit,
			Tries: []string{text + ", so buildctl was run there; " + allowHint}}
	}
	return &dial.Error{Class: Forward, Text: text + ", and buildctl there ended: " + plain(exit), Err: exit, Tries: []string{allowHint}}
}

// exitStatus is a remote command's code, 0 where there is none.
func exitStatus(err error) int {
	var exit *ssh.ExitError
	if errors.As(err, &exit) {
		return exit.ExitStatus()
	}
	return 0
}

package ssh

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/berthbuild/berth/internal/dial"
	"github.com/berthbuild/berth/internal/dial/dialtest"
	"github.com/berthbuild/berth/internal/endpoint"
)

type ctxType = context.Context

// tested is a peer of the conformance suite behind a server that prepare
// changes.
func tested(t *testing.T, prepare func(s *server, handle func(net.Conn))) dialtest.Peer {
	w := newWorld(t)
	start := func(t testing.TB, handle func(net.Conn)) endpoint.Endpoint {
		s := newServer(w)
		prepare(s, handle)
		s.serve(t)
		w.knows(s)
		return s.at("/run/b.sock")
	}
	return dialtest.Peer{
		Scheme:  w.scheme(),
		Serve:   start,
		Refused: func(t testing.TB) endpoint.Endpoint { return start(t, nil) },
		Stalled: func(t testing.TB) endpoint.Endpoint {
			s := newServer(w)
			s.greet = func(c net.Conn) bool {
				_, _ = io.Copy(io.Discard, c) // says nothing
				return false
			}
			return s.serve(t).at("")
		},
	}
}

func TestConformanceDirect(t *testing.T) {
	dialtest.Run(t, tested(t, func(s *server, handle func(net.Conn)) {
		if handle != nil {
			s.sockets["/run/b.sock"] = handle
		}
	}))
}

func TestConformanceBuildctl(t *testing.T) {
	dialtest.Run(t, tested(t, func(s *server, handle func(net.Conn)) {
		s.forbid = true
		s.exec = func(command string, c net.Conn) int {
			switch {
			case strings.HasPrefix(command, "test ") && handle == nil:
				return exitMissing
			case strings.HasPrefix(command, "test "):
				return exitThere
			case command == "buildctl --addr unix:///run/b.sock dial-stdio":
				handle(c)
				return 0
			}
			return 127
		}
	}))
}

func TestConformanceBehindAJump(t *testing.T) {
	w := newWorld(t)
	start := func(t testing.TB, handle func(net.Conn)) endpoint.Endpoint {
		bastion, inner := newServer(w).serve(t), newServer(w)
		if handle != nil {
			inner.sockets["/run/b.sock"] = handle
		}
		inner.serve(t)
		w.knows(bastion)
		w.knows(inner)
		w.write(".ssh/config", "Host inner\n HostName 127.0.0.1\n Port "+port(inner)+"\n ProxyJump 127.0.0.1:"+port(bastion)+"\n")
		return parse(t, "ssh://ann@inner/run/b.sock")
	}
	dialtest.Run(t, dialtest.Peer{
		Scheme:  w.scheme(),
		Serve:   start,
		Refused: func(t testing.TB) endpoint.Endpoint { return start(t, nil) },
		Stalled: func(t testing.TB) endpoint.Endpoint {
			bastion, inner := newServer(w).serve(t), newServer(w)
			inner.greet = func(c net.Conn) bool {
				_, _ = io.Copy(io.Discard, c)
				return false
			}
			inner.serve(t)
			w.knows(bastion)
			w.write(".ssh/config", "Host inner\n HostName 127.0.0.1\n Port "+port(inner)+"\n ProxyJump 127.0.0.1:"+port(bastion)+"\n")
			return parse(t, "ssh://ann@inner")
		},
	})
}

func port(s *server) string {
	_, p, _ := net.SplitHostPort(s.addr)
	return p
}

// fails dials, and gives the scheme's own account of the failure.
func fails(t *testing.T, d *dialer, e endpoint.Endpoint, class dial.Class, says ...string) *dial.Error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	c, err := d.connect(ctx, e)
	if err == nil {
		_ = c.Close()
		t.Fatal("connected")
	}
	var own *dial.Error
	if !errors.As(err, &own) {
		t.Fatalf("%T %v has no account of the scheme", err, err)
	}
	if own.Class != class {
		t.Errorf("class %s, want %s: %v", own.Class, class, own)
	}
	all := own.Text + "\n" + strings.Join(own.Tries, "\n")
	for _, text := range says {
		if !strings.Contains(all, text) {
			t.Errorf("lacks %q:\n%s", text, all)
		}
	}
	return own
}

// works dials and has something echoed.
func works(t *testing.T, d *dialer, e endpoint.Endpoint) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	c, err := d.connect(ctx, e)
	if err != nil {
		t.Fatalf("%v", err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("berth")); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 5)
	if _, err := io.ReadFull(c, got); err != nil || string(got) != "berth" {
		t.Fatalf("read %q, %v", got, err)
	}
}

func echo(c net.Conn) { _, _ = io.Copy(c, c) }

// echoing is a server with a daemon where daemons are.
func echoing(w *world, hostKeys ...ssh.Signer) *server {
	s := newServer(w, hostKeys...)
	s.sockets[defaultSocket] = echo
	return s
}

func TestSocketProblems(t *testing.T) {
	for name, tc := range map[string]struct {
		look, code int // exit codes of test and of buildctl
		stderr     string
		class      dial.Class
		heals      bool
		says       string
	}{
		"missing":     {look: exitMissing, class: noSocket, heals: true, says: "no such socket on 127.0.0.1: /run/buildkit/buildkitd.sock"},
		"a file":      {look: exitNoSocket, class: noSocket, says: "is not a socket"},
		"denied":      {look: exitDenied, class: socketPermission, says: "permission denied for ann on the socket"},
		"no buildctl": {look: exitThere, code: 127, stderr: "sh: buildctl: not found\n", class: Forward, says: "there is no buildctl to run: sh: buildctl: not found"},
		"its error": {
			look: exitThere, code: 1, stderr: "could not\x1b[2J connect\n", class: "helper-failed", heals: true,
			says: "buildctl on 127.0.0.1 says: could not[2J connect",
		},
		"endless stderr": {
			look: 127, code: 1, stderr: strings.Repeat("noise ", 1<<20), class: "helper-failed", heals: true, says: " … ",
		},
		"nobody there": {look: exitUnheard, code: 127, stderr: "sh: buildctl: not found\n", class: refusedClass, heals: true, says: "nobody listens on /run/buildkit/buildkitd.sock on 127.0.0.1"},
		"mute":         {look: 1, code: 3, class: Forward, says: "buildctl there ended"},
	} {
		t.Run(name, func(t *testing.T) {
			dialtest.NoLeaks(t)
			w := newWorld(t)
			s := newServer(w)
			s.stderr = tc.stderr
			s.exec = func(command string, _ net.Conn) int {
				if strings.HasPrefix(command, "test ") {
					return tc.look
				}
				if command != "buildctl dial-stdio" {
					t.Errorf("ran %q", command)
				}
				return tc.code
			}
			s.serve(t)
			w.knows(s)
			c, err := w.dialer().connect(t.Context(), s.at(""))
			if err == nil {
				defer c.Close()
				_, err = io.ReadAll(c)
			}
			var own *dial.Error
			if !errors.As(err, &own) {
				t.Fatalf("%v", err)
			}
			if own.Class != tc.class || own.Heals != tc.heals || !strings.Contains(own.Text, tc.says) || len(own.Text) > 8<<10 {
				t.Errorf("class %s, heals %v: %.300s", own.Class, own.Heals, own.Text)
			}
		})
	}
}

func TestNoSessionsAtAll(t *testing.T) {
	w := newWorld(t)
	s := newServer(w).serve(t)
	w.knows(s)
	fails(t, w.dialer(), s.at(""), Forward, "neither open the socket", "AllowStreamLocalForwarding")
}

func TestPeersThatAreNotSSH(t *testing.T) {
	for name, tc := range map[string]struct {
		greet func(net.Conn) bool
		class dial.Class
		says  string
	}{
		"http":        {says("HTTP/1.1 400 Bad Request\r\nServer: nginx\r\n" + strings.Repeat("x", 300) + "\r\n"), Protocol, `it says "HTTP/1.1 400 Bad Request Server: nginx`},
		"binary":      {says("\x00\x00\x12\x04\x00\x00" + strings.Repeat("\xff", 400)), Protocol, "is not that of an ssh server"},
		"hangs up":    {says(""), closed, "hangs up before it says anything"},
		"MaxStartups": {says("Exceeded MaxStartups\r\n"), closed, "hangs up: Exceeded MaxStartups"},
		"half way":    {says("SSH-2.0-x\r\n"), closed, "hangs up during the handshake"},
		"endless":     {endless("no version\r\n"), Protocol, "is not that of an ssh server"},
		"garbage":     {endless("SSH-2.0-x\r\n\x00\x00\x00\x08garbage"), Protocol, "the ssh handshake fails"},
	} {
		t.Run(name, func(t *testing.T) {
			dialtest.NoLeaks(t)
			w := newWorld(t)
			s := newServer(w)
			s.greet = tc.greet
			e := fails(t, w.dialer(), s.serve(t).at(""), tc.class, tc.says)
			if e.Heals != (tc.class == closed) {
				t.Errorf("heals: %v", e.Heals)
			}
			if len(e.Text) > 600 {
				t.Errorf("%d bytes of text", len(e.Text))
			}
		})
	}
}

// says writes and hangs up, after it has read what we say first.
func says(text string) func(net.Conn) bool {
	return func(c net.Conn) bool {
		_, _ = c.Read(make([]byte, 256))
		_, _ = io.WriteString(c, text)
		return false
	}
}

func endless(text string) func(net.Conn) bool {
	return func(c net.Conn) bool {
		go func() { _, _ = io.Copy(io.Discard, c) }()
		for {
			if _, err := io.WriteString(c, text); err != nil {
				return false
			}
		}
	}
}

func TestEndlessBanner(t *testing.T) {
	w := newWorld(t)
	s := newServer(w)
	s.config.BannerCallback = func(ssh.ConnMetadata) string { return strings.Repeat("welcome ", 10<<10) }
	s.serve(t)
	w.knows(s)
	fails(t, w.dialer(), s.at(""), Protocol, "does not stop talking")
	s = echoing(w)
	s.config.BannerCallback = func(ssh.ConnMetadata) string { return "welcome" }
	s.serve(t)
	w.knows(s)
	works(t, w.dialer(), s.at(""))
}

// A server that answers nothing after it was connected to is told from one
// that is not there.
func TestSilence(t *testing.T) {
	w := newWorld(t)
	s := newServer(w)
	s.greet = func(c net.Conn) bool { _, _ = io.Copy(io.Discard, c); return false }
	s.serve(t)
	w.write(".ssh/config", "ConnectTimeout 1\n")
	e := fails(t, w.dialer(), s.at(""), silent, "no ssh server answers")
	if !e.Heals || !errors.Is(e, context.DeadlineExceeded) {
		t.Errorf("%#v", e)
	}
}

// A server that lets us in and then says nothing ends with the dial.
func TestMuteAfterLogin(t *testing.T) {
	dialtest.NoLeaks(t)
	w := newWorld(t)
	s := newServer(w)
	s.mute = true
	s.serve(t)
	w.knows(s)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err := w.dialer().connect(ctx, s.at(""))
	var own *dial.Error
	if !errors.As(err, &own) || own.Class != silent || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
}

// What the system says of a connection is in the chain, for internal/remote.
func TestRefusedKeepsTheChain(t *testing.T) {
	w := newWorld(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	_, err = w.dialer().connect(t.Context(), parse(t, "ssh://"+l.Addr().String()))
	var op *net.OpError
	var own *dial.Error
	if !errors.As(err, &op) || errors.As(err, &own) {
		t.Errorf("%#v", err)
	}
	w.write(".ssh/config", "Host in\n ProxyJump "+l.Addr().String()+"\n")
	e := fails(t, w.dialer(), parse(t, "ssh://in"), Jump, "jump host 127.0.0.1: ", "refused")
	if !e.Heals || !errors.As(e, &op) {
		t.Errorf("%#v", e)
	}
}

// A connection that breaks is told with its reason, and not as a good end.
func TestLost(t *testing.T) {
	w := newWorld(t)
	s := newServer(w)
	raw := make(chan net.Conn, 1)
	s.greet = func(c net.Conn) bool { raw <- c; return true }
	s.sockets[defaultSocket] = func(c net.Conn) {
		_, _ = c.Write([]byte("x"))
		_, _ = io.Copy(io.Discard, c)
	}
	s.serve(t)
	w.knows(s)
	c, err := w.dialer().connect(t.Context(), s.at(""))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	_ = (<-raw).Close()
	_, err = c.Read(make([]byte, 1))
	var own *dial.Error
	if !errors.As(err, &own) || own.Class != closed || !strings.Contains(own.Text, "the ssh connection was lost") {
		t.Errorf("%v", err)
	}
	for {
		if _, err := c.Write(bytes.Repeat([]byte("x"), 1<<20)); err != nil {
			if !errors.As(err, &own) {
				t.Errorf("a write says %v", err)
			}
			return
		}
	}
}

func TestJumps(t *testing.T) {
	w := newWorld(t)
	a, b, target := newServer(w).serve(t), newServer(w).serve(t), echoing(w).serve(t)
	for _, s := range []*server{a, b, target} {
		w.knows(s)
	}
	config := "Host a\n HostName 127.0.0.1\n Port " + port(a) + "\n User al\n" +
		"Host b\n HostName 127.0.0.1\n Port " + port(b) + "\n ProxyJump a\n" +
		"Host two\n ProxyJump a,bob@b\n" +
		"Host chain\n ProxyJump ssh://bob@b:" + port(b) + "\n" +
		"Host two chain\n HostName 127.0.0.1\n Port " + port(target) + "\n"
	w.write(".ssh/config", config)
	for _, name := range []string{"two", "chain"} {
		works(t, w.dialer(), parse(t, "ssh://tim@"+name))
	}
	for s, want := range map[*server]string{a: "al al", b: "bob bob", target: "tim tim"} {
		s.mu.Lock()
		if got := strings.Join(s.users, " "); got != want {
			t.Errorf("%s logged in, want %s", got, want)
		}
		s.mu.Unlock()
	}
	w.write(".ssh/config", config+"Host away\n HostName 127.0.0.1\n Port 1\n ProxyJump b\n")
	fails(t, w.dialer(), parse(t, "ssh://away"), Jump, "the jump host cannot connect to 127.0.0.1:1: Connection refused")
	w.write(".ssh/known_hosts", "")
	fails(t, w.dialer(), parse(t, "ssh://two"), HostKey, "jump host a: the host key of [127.0.0.1]:"+port(a)+" is unknown")
}

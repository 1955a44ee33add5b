// Package ssh dials ssh:// endpoints: a daemon's socket on a machine that is
// reached by ssh, without the ssh program.
//
// It is not a general ssh client: it logs in with keys only, opens one channel
// to the socket, and reads of ssh_config what decides where and as whom to log
// in (see settings).
//
// Rules: what would weaken or bypass what ssh itself would do is refused by
// name, not skipped. A host key is accepted as ssh would accept it. Nobody is
// asked within a dial: what needs a person is an error with Ask (see
// dial.Error). One dial is one ssh connection, which ends with the connection
// that it was made for.
package ssh

import (
	"context"
	"net"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/berthbuild/berth/internal/dial"
	"github.com/berthbuild/berth/internal/endpoint"
)

const (
	// patience is how long an attempt may take: sshd often looks up names that
	// nobody answers for before it lets anybody in.
	patience = 15 * time.Second
	// tcpTimeout bounds connecting to the first machine, unless ConnectTimeout
	// says otherwise.
	tcpTimeout = 5 * time.Second
	// idle is after how long without traffic the kernel asks whether the peer
	// is still there.
	idle = 15 * time.Second
)

// Scheme is ssh://[USER@]HOST[:PORT][/SOCKET].
func Scheme(env dial.Env) dial.Scheme {
	d := newDialer(env)
	return dial.Scheme{
		Name:    endpoint.SchemeSSH,
		Summary: "a daemon's socket on a machine that is reached by ssh",
		Limit:   patience,
		Stages:  stages,
		Dial:    d.connect,
	}
}

// dialer is the scheme, and what it has learnt from the person at the terminal.
type dialer struct {
	env    dial.Env
	system string        // the system's ssh_config
	local  func() string // the user's own name, "" where nobody knows

	mu       sync.Mutex
	unlocked map[string]ssh.Signer // keys that a passphrase was given for, by file
	trusted  map[string]string     // host keys that somebody said yes to, by name
	warned   map[string]bool

	asking sync.Mutex // one question at a time
}

func newDialer(env dial.Env) *dialer {
	return &dialer{
		env: env, system: systemConfig(env), local: sync.OnceValue(func() string { return localUser(env) }),
		unlocked: map[string]ssh.Signer{}, trusted: map[string]string{}, warned: map[string]bool{},
	}
}

// warn says something once.
func (d *dialer) warn(text string) {
	d.mu.Lock()
	seen := d.warned[text]
	d.warned[text] = true
	d.mu.Unlock()
	if !seen {
		d.env.Warning(text)
	}
}

// connect makes one attempt.
func (d *dialer) connect(ctx context.Context, e endpoint.Endpoint) (net.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	end := dial.Begin(ctx, stageConfig)
	hops, err := d.route(e.Host, e.User, e.Port, 0)
	if err != nil {
		end("", err)
		return nil, err
	}
	end(routeText(hops), nil)
	l := &link{}
	stop := context.AfterFunc(ctx, l.close)
	conn, err := d.through(ctx, l, hops, e)
	if !stop() && err == nil { // too late: it is closed
		err = ctx.Err()
	}
	if err != nil {
		l.close()
		return nil, interrupted(ctx, err)
	}
	return conn, nil
}

// through logs in on every machine of the route, and opens the socket on the
// last.
func (d *dialer) through(ctx context.Context, l *link, hops []*settings, e endpoint.Endpoint) (net.Conn, error) {
	for i, s := range hops {
		s.jump = i < len(hops)-1
		if err := d.login(ctx, l, s); err != nil {
			return nil, s.explainHop(err)
		}
	}
	return open(ctx, l, hops[len(hops)-1], e.Path)
}

// link is the way to the last machine: one connection to the first, and in it
// one login after the other.
type link struct {
	mu     sync.Mutex
	base   net.Conn    // to the first machine; closing it ends everything
	over   bool        // closed
	client *ssh.Client // on the last machine so far
	wires  []*wire     // what the logins went over
}

// hold gives the base to the link, which may be closed already.
func (l *link) hold(base net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.base = base
	if l.over {
		_ = base.Close()
	}
}

// close ends everything, without a word to the other side and without waiting.
func (l *link) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = true
	if l.base != nil {
		_ = l.base.Close()
	}
}

// dialTCP goes to the machine from here, or from the last one of the link.
func (l *link) dialTCP(ctx context.Context, s *settings) (net.Conn, error) {
	if l.client != nil {
		end := dial.Begin(ctx, dial.StageConnect)
		c, err := l.client.DialContext(ctx, "tcp", s.address())
		end("to "+s.address()+" from the jump host", err)
		return c, err
	}
	timeout := s.connectTimeout
	if timeout == 0 {
		timeout = tcpTimeout
	}
	nd := net.Dialer{
		Timeout:         timeout,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: idle, Interval: idle, Count: 4},
	}
	watched, done := dial.TraceNetwork(ctx)
	c, err := done(nd.DialContext(watched, s.network, s.address()))
	if err != nil {
		return nil, err
	}
	l.hold(c)
	return quick(c), nil
}

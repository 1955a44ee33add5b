package ssh

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/berthbuild/berth/internal/dial"
	"github.com/berthbuild/berth/internal/dial/dialtest"
	"github.com/berthbuild/berth/internal/endpoint"
)

// world is a user with a home, a key in it, and an environment.
type world struct {
	t    testing.TB
	home string
	env  map[string]string
	key  ssh.Signer // the user's usual one, in ~/.ssh/id_ed25519

	mu       sync.Mutex
	warnings []string
	ask      func(question string) (string, error) // nil: no terminal
}

func newWorld(t testing.TB) *world {
	t.Helper()
	dir, err := os.MkdirTemp("", "berth") // short enough for an agent's socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	w := &world{t: t, home: dir, env: map[string]string{"USER": "ann"}}
	if err := os.Mkdir(filepath.Join(dir, ".ssh"), 0o700); err != nil {
		t.Fatal(err)
	}
	w.key = w.writeKey(".ssh/id_ed25519", "")
	return w
}

// write writes a file below the home and gives its path.
func (w *world) write(name, text string) string {
	w.t.Helper()
	path := filepath.Join(w.home, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
	return path
}

func (w *world) read(name string) string {
	w.t.Helper()
	b, err := os.ReadFile(filepath.Join(w.home, name))
	if err != nil {
		w.t.Fatal(err)
	}
	return string(b)
}

// writeKey makes a key, encrypted where there is a passphrase.
func (w *world) writeKey(name, passphrase string) ssh.Signer {
	w.t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		w.t.Fatal(err)
	}
	var block *pem.Block
	if passphrase == "" {
		block, err = ssh.MarshalPrivateKey(private, "")
	} else {
		block, err = ssh.MarshalPrivateKeyWithPassphrase(private, "", []byte(passphrase))
	}
	if err != nil {
		w.t.Fatal(err)
	}
	w.write(name, string(pem.EncodeToMemory(block)))
	return signer(w.t, private)
}

func signer(t testing.TB, private any) ssh.Signer {
	t.Helper()
	s, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func newED25519(t testing.TB) ssh.Signer {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return signer(t, private)
}

func newECDSA(t testing.TB) ssh.Signer {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return signer(t, private)
}

// dialer is a fresh one in this world, with its own view of ssh_config.
func (w *world) dialer() *dialer {
	env := dial.Env{
		Home: w.home, Dir: w.home,
		LookupEnv: func(name string) (string, bool) { v, ok := w.env[name]; return v, ok },
		Warn: func(text string) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.warnings = append(w.warnings, text)
		},
	}
	if w.ask != nil {
		env.Ask = func(_ ctxType, question string) (string, error) { return w.ask(question) }
	}
	d := newDialer(env)
	d.system = filepath.Join(w.home, "etc", "ssh_config")
	return d
}

func (w *world) warned() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Join(w.warnings, "\n")
}

func (w *world) scheme() dial.Scheme { return dial.Scheme{Name: "ssh", Dial: w.dialer().connect} }

// knows writes down the server's first key.
func (w *world) knows(s *server) {
	w.t.Helper()
	old := ""
	if b, err := os.ReadFile(filepath.Join(w.home, ".ssh", "known_hosts")); err == nil {
		old = string(b)
	}
	w.write(".ssh/known_hosts", old+knownhosts.Line([]string{s.addr}, s.hostKeys[0].PublicKey())+"\n")
}

// server is an sshd in this process.
type server struct {
	t        testing.TB
	addr     string
	hostKeys []ssh.Signer
	config   *ssh.ServerConfig

	sockets map[string]func(net.Conn)            // what listens where
	forbid  bool                                 // no forwarding
	mute    bool                                 // no answer to a wish for a channel
	exec    func(command string, c net.Conn) int // nil: no commands; gives the exit code
	stderr  string                               // what a command says
	greet   func(net.Conn) bool                  // false: the connection is not ssh's

	mu    sync.Mutex
	users []string // who logged in
}

// newServer makes an sshd that lets the world's key in; serve starts it.
func newServer(w *world, hostKeys ...ssh.Signer) *server {
	w.t.Helper()
	if hostKeys == nil {
		hostKeys = []ssh.Signer{newED25519(w.t)}
	}
	s := &server{t: w.t, hostKeys: hostKeys, sockets: map[string]func(net.Conn){}}
	s.config = &ssh.ServerConfig{MaxAuthTries: -1}
	s.allow(w.key.PublicKey())
	for _, k := range hostKeys {
		s.config.AddHostKey(k)
	}
	return s
}

// allow lets only these keys in, from the next login on.
func (s *server) allow(keys ...ssh.PublicKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.config.PublicKeyCallback = func(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
		for _, k := range keys {
			if sameKey(k, key) {
				return nil, nil
			}
		}
		return nil, fmt.Errorf("not this key")
	}
}

// addHostKey gives the server another key, or another one of the same kind.
func (s *server) addHostKey(k ssh.Signer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	config := &ssh.ServerConfig{PublicKeyCallback: s.config.PublicKeyCallback, MaxAuthTries: s.config.MaxAuthTries}
	if cert, ok := k.PublicKey().(*ssh.Certificate); !ok || cert == nil {
		s.hostKeys[0] = k
	}
	for _, k := range append(s.hostKeys, k) {
		config.AddHostKey(k)
	}
	s.config = config
}

// serve starts the server. t is the test that it ends with.
func (s *server) serve(t testing.TB) *server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.addr = l.Addr().String()
	dialtest.ServeListener(t, l, s.connection)
	return s
}

func (s *server) connection(c net.Conn) {
	s.mu.Lock()
	config := *s.config
	s.mu.Unlock()
	if s.greet != nil && !s.greet(c) {
		return
	}
	conn, chans, reqs, err := ssh.NewServerConn(c, &config)
	if err != nil {
		return
	}
	s.mu.Lock()
	s.users = append(s.users, conn.User())
	s.mu.Unlock()
	var wg sync.WaitGroup
	wg.Go(func() { ssh.DiscardRequests(reqs) })
	for ch := range chans {
		wg.Go(func() { s.channel(ch) })
	}
	wg.Wait()
}

func (s *server) channel(ch ssh.NewChannel) {
	if s.mute {
		return
	}
	switch ch.ChannelType() {
	case "direct-streamlocal@openssh.com":
		var to struct {
			Path, Reserved0 string
			Reserved1       uint32
		}
		_ = ssh.Unmarshal(ch.ExtraData(), &to)
		handle := s.sockets[to.Path]
		if s.forbid || handle == nil {
			_ = ch.Reject(ssh.ConnectionFailed, "open failed")
			return
		}
		handle2(ch, handle)
	case "direct-tcpip":
		var to struct {
			Host       string
			Port       uint32
			Origin     string
			OriginPort uint32
		}
		_ = ssh.Unmarshal(ch.ExtraData(), &to)
		far, err := net.Dial("tcp", net.JoinHostPort(to.Host, fmt.Sprint(to.Port)))
		if err != nil {
			_ = ch.Reject(ssh.ConnectionFailed, "Connection refused")
			return
		}
		handle2(ch, func(c net.Conn) { splice(c, far) })
	case "session":
		s.session(ch)
	default:
		_ = ch.Reject(ssh.UnknownChannelType, "no")
	}
}

// handle2 accepts a channel and gives it away as a connection.
func handle2(nc ssh.NewChannel, handle func(net.Conn)) {
	ch, reqs, err := nc.Accept()
	if err != nil {
		return
	}
	go ssh.DiscardRequests(reqs)
	handle(chanConn{ch})
	_ = ch.Close()
}

func splice(a, b net.Conn) {
	var wg sync.WaitGroup
	pump := func(to, from net.Conn) {
		_, _ = io.Copy(struct{ io.Writer }{to}, struct{ io.Reader }{from})
		_ = to.(dialtest.HalfCloser).CloseWrite()
	}
	wg.Go(func() { pump(b, a) })
	pump(a, b)
	wg.Wait()
	_ = b.Close()
}

func (s *server) session(nc ssh.NewChannel) {
	if s.exec == nil {
		_ = nc.Reject(ssh.Prohibited, "no sessions")
		return
	}
	ch, reqs, err := nc.Accept()
	if err != nil {
		return
	}
	for r := range reqs {
		var cmd struct{ Text string }
		if r.Type != "exec" || ssh.Unmarshal(r.Payload, &cmd) != nil {
			_ = r.Reply(false, nil)
			continue
		}
		_ = r.Reply(true, nil)
		go ssh.DiscardRequests(reqs)
		code := s.exec(cmd.Text, chanConn{ch})
		if s.stderr != "" && strings.HasPrefix(cmd.Text, "buildctl") {
			_, _ = io.WriteString(ch.Stderr(), s.stderr)
		}
		_ = ch.CloseWrite()
		_, _ = ch.SendRequest("exit-status", false, ssh.Marshal(&struct{ Status uint32 }{uint32(code)}))
		_ = ch.Close()
		return
	}
}

// chanConn is a channel as the peer of dialtest wants it.
type chanConn struct{ ssh.Channel }

func (chanConn) LocalAddr() net.Addr              { return &net.UnixAddr{Name: "server"} }
func (chanConn) RemoteAddr() net.Addr             { return &net.UnixAddr{Name: "client"} }
func (chanConn) SetDeadline(time.Time) error      { return nil }
func (chanConn) SetReadDeadline(time.Time) error  { return nil }
func (chanConn) SetWriteDeadline(time.Time) error { return nil }

func parse(t testing.TB, raw string) endpoint.Endpoint {
	t.Helper()
	e, err := endpoint.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// at is the server's endpoint, for the user and the path given.
func (s *server) at(path string) endpoint.Endpoint {
	s.t.Helper()
	return parse(s.t, "ssh://ann@"+s.addr+path)
}

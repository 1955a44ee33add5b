package ssh

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/cpu"

	"github.com/berthbuild/berth/internal/dial"
)

const (
	// maxBanners bounds what a server may say before it has let us in, in bytes.
	maxBanners = 64 << 10
	// maxHeard is how much of a server's beginning is kept, in bytes.
	maxHeard = 256
)

var errBanners = errors.New("the server does not stop talking before it lets anybody in")

// login is one ssh handshake: which machine it is, and who we are.
type login struct {
	d       *dialer
	s       *settings
	host    *hostCheck
	ring    *keyring
	seen    *sightings
	wire    *wire
	banners int
	methods []string // what the server would take
	tried   []string // what it was given
}

// login logs in on the machine, from the last one of the link or from here.
func (d *dialer) login(ctx context.Context, l *link, s *settings) error {
	if s.connectTimeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, s.connectTimeout)
		defer cancel()
		defer context.AfterFunc(ctx, l.close)()
	}
	s.behind = l.client != nil
	facts, err := readKnown(s)
	if err != nil {
		return err
	}
	conn, err := l.dialTCP(ctx, s)
	if err != nil {
		return unreached(s, err)
	}
	a := &login{d: d, s: s, wire: &wire{Conn: conn}, host: &hostCheck{d: d, s: s, known: facts}}
	a.seen = watchLogin(ctx, a)
	a.ring = d.gather(ctx, s)
	defer a.ring.close()
	c, chans, reqs, err := ssh.NewClientConn(a.wire, s.address(), a.config())
	if err != nil {
		err = a.explain(ctx, err)
		a.seen.tell(ctx, err)
		return err
	}
	a.seen.tell(ctx, nil)
	l.client, l.wires = ssh.NewClient(c, chans, reqs), append(l.wires, a.wire)
	a.wire.settle()
	return nil
}

// config is for x/crypto/ssh.
func (a *login) config() *ssh.ClientConfig {
	c := &ssh.ClientConfig{
		User:              a.s.user,
		HostKeyCallback:   a.seen.hostKey(a.host.check),
		HostKeyAlgorithms: a.host.known.algorithms(),
		BannerCallback: func(text string) error {
			if a.banners += len(text) + 1; a.banners > maxBanners {
				return errBanners
			}
			return nil
		},
		AuthCallback: func(now *ssh.ClientAuthContext) (ssh.AuthMethod, error) {
			if a.banners > maxBanners {
				return nil, errBanners
			}
			a.methods, a.tried = now.AllowedMethods, now.TriedMethods
			return nil, nil // the next one of Auth
		},
	}
	if len(a.ring.signers) > 0 {
		c.Auth = []ssh.AuthMethod{ssh.PublicKeys(a.seen.signers(a.ring)...)}
	}
	c.Ciphers = ciphers()
	return c
}

// ciphers prefers the one that is fast here.
func ciphers() []string {
	all := ssh.SupportedAlgorithms().Ciphers // AES-GCM first
	if cpu.X86.HasAES || cpu.ARM64.HasAES || cpu.S390X.HasAES {
		return all
	}
	const fast = ssh.CipherChaCha20Poly1305
	return append([]string{fast}, slices.DeleteFunc(all, func(c string) bool { return c == fast })...)
}

// explain tells why the handshake failed, by how far it came.
func (a *login) explain(ctx context.Context, err error) error {
	heard, lost := a.wire.begun()
	switch {
	case ctx.Err() != nil:
		return silence(a.s, ctx.Err(), heard)
	case a.host.refusal != nil:
		return a.host.refusal
	case a.ring.locked != "":
		return a.d.needsPassphrase(a.ring.locked)
	case errors.Is(err, errBanners):
		return &dial.Error{Class: Protocol, Err: err, Text: errBanners.Error(), Tries: []string{a.s.command()}}
	case !bytes.HasPrefix(heard, []byte("SSH-")) && !bytes.Contains(heard, []byte("\nSSH-")):
		return notSSH(a.s, heard, lost, err)
	case !a.host.ok:
		return a.disagreed(err, lost)
	}
	return a.rejected(err, lost)
}

// disagreed is for a failure before the machine has proven who it is.
func (a *login) disagreed(err, lost error) error {
	if lost != nil {
		return &dial.Error{
			Class: closed, Heals: true, Err: errors.Join(err, lost), Text: "the ssh server hangs up during the handshake",
			Tries: []string{"does it have too many logins at once (MaxStartups)? look at its log"},
		}
	}
	e := &dial.Error{Class: Protocol, Err: err, Text: "the ssh handshake fails: " + plain(err)}
	var none *ssh.AlgorithmNegotiationError
	if errors.As(err, &none) {
		e.Tries = []string{"is the ssh server very old? what it offers is not secure any more, and not supported"}
	}
	return e
}

// rejected is for a failure after that: we are not let in.
func (a *login) rejected(err, lost error) error {
	e := &dial.Error{Class: Auth, Err: err}
	who := a.s.user + "@" + a.s.host
	switch {
	case len(a.ring.mute) > 0:
		return a.d.needsPassphrase(a.ring.mute[0])
	case lost != nil && !errors.Is(lost, io.EOF):
		return &dial.Error{Class: closed, Heals: true, Err: errors.Join(err, lost), Text: "the ssh connection was lost while logging in"}
	case len(a.methods) > 0 && !slices.Contains(a.methods, "publickey"):
		e.Text = fmt.Sprintf("%s may log in only by %s, and berth has keys", who, plain(errors.New(strings.Join(a.methods, ", "))))
	case len(a.ring.signers) == 0:
		e.Text = "there is no key to log in with as " + who
		e.Tries = []string{"make one: ssh-keygen -t ed25519, and let it in: ssh-copy-id " + strings.TrimPrefix(a.s.command(), "ssh ")}
	case !slices.Contains(a.tried, "publickey"): // it ended the login, and did not refuse the last key
		e.Text = fmt.Sprintf("%s is not let in: %s", who, plain(err))
		if len(a.ring.signers) > 4 {
			e.Tries = append(e.Tries, "too many keys are offered before the right one: name it with IdentityFile, and IdentitiesOnly yes, in ~/.ssh/config")
		}
	default:
		e.Text = fmt.Sprintf("%s is not let in with %s", who, listed(a.ring.offered))
		e.Tries = []string{"let a key in: ssh-copy-id " + strings.TrimPrefix(a.s.command(), "ssh "),
			"or name the right one with IdentityFile in ~/.ssh/config"}
	}
	e.Tries = append(e.Tries, a.ring.notes[:min(len(a.ring.notes), 3)]...)
	if a.s.user == a.d.local() {
		e.Tries = append(e.Tries, "is "+a.s.user+" the right name there? ssh://USER@"+a.s.host)
	}
	return e
}

// listed names some.
func listed(all []string) string {
	const most = 3
	if len(all) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(all[:most], ", "), len(all)-most)
	}
	return strings.Join(all, ", ")
}

// wire is the connection below ssh, which remembers how it began and ended.
type wire struct {
	net.Conn
	mu      sync.Mutex
	settled bool
	heard   []byte
	lost    error
}

// Read implements net.Conn.
func (w *wire) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	if err == nil && n == 0 {
		return n, nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.settled {
		w.heard = append(w.heard, p[:min(n, maxHeard-len(w.heard))]...)
	}
	if err != nil && w.lost == nil && !errors.Is(err, net.ErrClosed) {
		w.lost = err
	}
	return n, err
}

// settle stops keeping what is read.
func (w *wire) settle() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.settled, w.heard = true, nil
}

// begun is the first bytes that were read, and what ended the reading.
func (w *wire) begun() ([]byte, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.heard, w.lost
}

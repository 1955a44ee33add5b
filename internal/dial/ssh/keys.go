package ssh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"runtime"
	"slices"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/berthbuild/berth/internal/dial"
)

const (
	// maxKey bounds a key file in bytes.
	maxKey = 1 << 20
	// maxGuesses is how often a passphrase is asked for, as ssh does.
	maxGuesses = 3
)

// errLocked ends a login that needs a passphrase.
var errLocked = errors.New("the key is encrypted")

// keyring is what there is to log in with on one machine, in the order in which
// ssh offers it.
type keyring struct {
	d *dialer
	s *settings

	signers []ssh.Signer
	offered []string // their names
	notes   []string // why others are not among them
	locked  string   // the encrypted file that the server would take
	mute    []string // encrypted files that do not say which key is in them
	close   func()
}

// identity is a key file.
type identity struct {
	path   string
	public ssh.PublicKey // nil where the file does not say
	signer ssh.Signer    // nil where there is a public half only
	locked bool
}

// gather reads the files and asks the agent. The caller calls close.
func (d *dialer) gather(ctx context.Context, s *settings) *keyring {
	k := &keyring{d: d, s: s, close: func() {}}
	var files []identity
	for _, path := range s.identities {
		if id := k.read(path); id != nil {
			files = append(files, *id)
		}
	}
	inAgent := k.fromAgent(ctx, files)
	for _, locked := range []bool{false, true} { // what costs no question first
		for _, id := range files {
			if id.locked == locked && id.signer != nil && !slices.ContainsFunc(inAgent, sameAs(id.public)) {
				k.offer(id.signer, id.path)
			}
		}
	}
	return k
}

// offer adds a key, and before it the certificate that was issued for it.
func (k *keyring) offer(signer ssh.Signer, name string) {
	for _, path := range append(slices.Clone(k.s.certs), name+"-cert.pub") {
		cert, ok := readPublic(path).(*ssh.Certificate)
		if !ok || !sameKey(cert.Key, signer.PublicKey()) {
			continue
		}
		if certified, err := ssh.NewCertSigner(cert, signer); err == nil {
			k.signers, k.offered = append(k.signers, certified), append(k.offered, path)
		}
	}
	k.signers, k.offered = append(k.signers, signer), append(k.offered, name)
}

func sameAs(key ssh.PublicKey) func(ssh.Signer) bool {
	return func(s ssh.Signer) bool { return key != nil && sameKey(s.PublicKey(), key) }
}

// fromAgent offers the agent's keys: first those that were named, then the
// others, unless only the named ones are wanted.
func (k *keyring) fromAgent(ctx context.Context, files []identity) []ssh.Signer {
	if k.s.agentSocket == "" {
		return nil
	}
	conn, err := new(net.Dialer).DialContext(ctx, "unix", k.s.agentSocket)
	if err != nil {
		k.notes = append(k.notes, "the agent does not answer: "+plain(err))
		return nil
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	k.close = func() {
		stop()
		_ = conn.Close()
	}
	all, err := agent.NewClient(conn).Signers()
	if err != nil {
		k.notes = append(k.notes, "the agent gives no keys: "+plain(err))
		return nil
	}
	named := func(s ssh.Signer) bool {
		return slices.ContainsFunc(files, func(id identity) bool {
			return id.public != nil && sameKey(id.public, s.PublicKey())
		})
	}
	for _, first := range []bool{true, false} {
		for _, s := range all {
			if named(s) == first && (first || !k.s.onlyThese) {
				name := "the agent's " + shown(s.PublicKey())
				if as, ok := s.(ssh.AlgorithmSigner); ok { // the agent's always are
					s = &agentKey{AlgorithmSigner: as, ring: k, name: name}
				}
				k.offer(s, name)
			}
		}
	}
	return all
}

// agentKey notes that the agent did not sign, because its owner said no, for
// example.
type agentKey struct {
	ssh.AlgorithmSigner
	ring *keyring
	name string
}

// SignWithAlgorithm implements ssh.AlgorithmSigner.
func (a *agentKey) SignWithAlgorithm(rand io.Reader, data []byte, algorithm string) (*ssh.Signature, error) {
	sig, err := a.AlgorithmSigner.SignWithAlgorithm(rand, data, algorithm)
	if err != nil {
		a.ring.notes = append(a.ring.notes, fmt.Sprintf("the agent did not sign with %s: %s", a.name, plain(err)))
	}
	return sig, err
}

// read reads one key file, nil where there is nothing to offer.
func (k *keyring) read(path string) *identity {
	text, err := readFile(path, maxKey)
	if errors.Is(err, fs.ErrNotExist) {
		if public := readPublic(path + ".pub"); public != nil { // the agent has the other half
			return &identity{path: path, public: public}
		}
		if k.s.explicit {
			k.notes = append(k.notes, path+" does not exist")
		}
		return nil
	}
	if err != nil {
		k.notes = append(k.notes, fmt.Sprintf("%s %v", path, err))
		return nil
	}
	if public, _, _, _, err := ssh.ParseAuthorizedKey(text); err == nil {
		return &identity{path: path, public: public}
	}
	if open := tooOpen(path); open != "" {
		k.d.warn(open)
		k.notes = append(k.notes, open)
		return nil
	}
	k.d.mu.Lock()
	signer := k.d.unlocked[path]
	k.d.mu.Unlock()
	if signer == nil {
		signer, err = ssh.ParsePrivateKey(text)
	}
	var missing *ssh.PassphraseMissingError
	switch {
	case errors.As(err, &missing):
		return k.locking(path, missing.PublicKey)
	case err != nil:
		k.notes = append(k.notes, fmt.Sprintf("%s is not a private key that can be read", path))
		return nil
	}
	return &identity{path: path, public: signer.PublicKey(), signer: signer}
}

// locking is an encrypted key. Older formats do not say which key it is; then
// its .pub file does.
func (k *keyring) locking(path string, public ssh.PublicKey) *identity {
	if public == nil {
		public = readPublic(path + ".pub")
	}
	if public == nil {
		k.mute = append(k.mute, path)
		return nil
	}
	return &identity{path: path, public: public, locked: true, signer: &lockedKey{ring: k, path: path, public: public}}
}

func readPublic(path string) ssh.PublicKey {
	text, err := readFile(path, maxKey)
	if err != nil {
		return nil
	}
	public, _, _, _, err := ssh.ParseAuthorizedKey(text)
	if err != nil {
		return nil
	}
	return public
}

// tooOpen says why ssh would not use the key: others may read it.
func tooOpen(path string) string {
	st, err := os.Stat(path)
	if err != nil || runtime.GOOS == "windows" || !ours(st) || st.Mode().Perm()&0o077 == 0 {
		return ""
	}
	return fmt.Sprintf("permissions %04o for %s are too open: the key is ignored until you chmod 600 %s", st.Mode().Perm(), path, path)
}

// lockedKey stands for a key that needs a passphrase. The server is asked
// whether it would take the key before anybody is asked for the passphrase.
type lockedKey struct {
	ring   *keyring
	path   string
	public ssh.PublicKey
}

// PublicKey implements ssh.Signer.
func (l *lockedKey) PublicKey() ssh.PublicKey { return l.public }

// Sign implements ssh.Signer.
func (l *lockedKey) Sign(io.Reader, []byte) (*ssh.Signature, error) {
	l.ring.locked = l.path
	return nil, errLocked
}

// SignWithAlgorithm implements ssh.AlgorithmSigner.
func (l *lockedKey) SignWithAlgorithm(rand io.Reader, data []byte, _ string) (*ssh.Signature, error) {
	return l.Sign(rand, data)
}

// needsPassphrase is the failure of a login for which the file is needed.
func (d *dialer) needsPassphrase(path string) *dial.Error {
	e := &dial.Error{
		Class: KeyLocked, Text: "the key " + path + " is encrypted, and nobody was asked for its passphrase", Err: errLocked,
		Tries: []string{"give it to an agent: eval $(ssh-agent) && ssh-add " + path, "or run berth in a terminal, which asks for it"},
	}
	if d.env.Ask != nil {
		e.Ask = func(ctx context.Context) error { return d.unlock(ctx, path) }
	}
	return e
}

// unlock asks for the passphrase, and keeps the key until the command ends.
func (d *dialer) unlock(ctx context.Context, path string) error {
	d.asking.Lock()
	defer d.asking.Unlock()
	d.mu.Lock()
	done := d.unlocked[path] != nil
	d.mu.Unlock()
	if done { // for another connection, while we were waiting
		return nil
	}
	text, err := readFile(path, maxKey)
	if err != nil {
		return fmt.Errorf("%s %w", path, err)
	}
	question := fmt.Sprintf("Passphrase for the key %s: ", path)
	for range maxGuesses {
		phrase, err := d.env.Ask(ctx, question)
		if err != nil {
			return err
		}
		if phrase == "" {
			break
		}
		if signer, err := ssh.ParsePrivateKeyWithPassphrase(text, []byte(phrase)); err == nil {
			d.mu.Lock()
			d.unlocked[path] = signer
			d.mu.Unlock()
			return nil
		}
		question = fmt.Sprintf("That is not it. Passphrase for the key %s: ", path)
	}
	return fmt.Errorf("the passphrase for the key %s was not given", path)
}

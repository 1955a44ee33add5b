package ssh

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/berthbuild/berth/internal/dial/dialtest"
)

func TestWrongKey(t *testing.T) {
	w := newWorld(t)
	s := echoing(w)
	s.allow(newED25519(t).PublicKey())
	s.serve(t)
	w.knows(s)
	e := fails(t, w.dialer(), s.at(""), Auth, "ann@127.0.0.1 is not let in with "+w.home+"/.ssh/id_ed25519",
		"ssh-copy-id -p "+port(s)+" ann@127.0.0.1", "is ann the right name there?")
	if e.Heals {
		t.Error("it is told that waiting helps")
	}
	_ = os.Remove(filepath.Join(w.home, ".ssh", "id_ed25519"))
	fails(t, w.dialer(), s.at(""), Auth, "there is no key to log in with as ann@127.0.0.1", "ssh-keygen -t ed25519")
}

func TestPasswordOnly(t *testing.T) {
	w := newWorld(t)
	s := echoing(w)
	s.config.PublicKeyCallback = nil
	s.config.PasswordCallback = func(ssh.ConnMetadata, []byte) (*ssh.Permissions, error) { return nil, errors.New("no") }
	s.serve(t)
	w.knows(s)
	fails(t, w.dialer(), s.at(""), Auth, "may log in only by password")
}

// The server ends the login before the right key is reached.
func TestTooManyKeys(t *testing.T) {
	w := newWorld(t)
	config := ""
	for _, name := range []string{"k1", "k2", "k3", "k4", "k5", "k6", "k7"} {
		w.writeKey(name, "")
		config += "IdentityFile ~/" + name + "\n"
	}
	w.write(".ssh/config", config)
	s := echoing(w)
	s.config.MaxAuthTries = 4
	s.serve(t)
	w.knows(s)
	fails(t, w.dialer(), s.at(""), Auth, "is not let in: ", "IdentitiesOnly yes")
}

func TestEncryptedKey(t *testing.T) {
	w := newWorld(t)
	key := w.writeKey(".ssh/id_ed25519", "hunter2")
	path := filepath.Join(w.home, ".ssh", "id_ed25519")
	s := echoing(w)
	s.allow(key.PublicKey())
	s.serve(t)
	w.knows(s)

	e := fails(t, w.dialer(), s.at(""), KeyLocked, "the key "+path+" is encrypted", "ssh-add "+path)
	if e.Ask != nil || e.Heals {
		t.Errorf("without a terminal: %#v", e)
	}

	var asked []string
	answers := []string{"wrong", "hunter2"}
	w.ask = func(question string) (string, error) {
		asked = append(asked, question)
		a := answers[0]
		answers = answers[1:]
		return a, nil
	}
	d := w.dialer()
	e = fails(t, d, s.at(""), KeyLocked)
	if e.Ask == nil {
		t.Fatal("with a terminal, nobody would be asked")
	}
	if err := e.Ask(t.Context()); err != nil {
		t.Fatal(err)
	}
	works(t, d, s.at(""))
	if err := e.Ask(t.Context()); err != nil || len(asked) != 2 || !strings.Contains(asked[0], path) || !strings.Contains(asked[1], "not it") {
		t.Errorf("asked %q, %v", asked, err)
	}

	// The server does not take the key: then nobody is asked.
	s.allow(newED25519(t).PublicKey())
	if e := fails(t, w.dialer(), s.at(""), Auth); e.Ask != nil {
		t.Error("asks for the passphrase of a key that the server does not take")
	}

	s.allow(key.PublicKey())
	w.ask = func(string) (string, error) { return "", io.ErrUnexpectedEOF }
	e = fails(t, w.dialer(), s.at(""), KeyLocked)
	if err := e.Ask(t.Context()); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Error(err)
	}
}

// The older format does not say which key is in it.
func TestEncryptedOldFormat(t *testing.T) {
	w := newWorld(t)
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	block, err := x509.EncryptPEMBlock(rand.Reader, "EC PRIVATE KEY", der, []byte("pw"), x509.PEMCipherAES256) //nolint:staticcheck // the format under test
	if err != nil {
		t.Fatal(err)
	}
	_ = os.Remove(filepath.Join(w.home, ".ssh", "id_ed25519"))
	w.write(".ssh/id_ecdsa", string(pem.EncodeToMemory(block)))
	s := echoing(w)
	s.allow(signer(t, private).PublicKey())
	s.serve(t)
	w.knows(s)
	w.ask = func(string) (string, error) { return "still wrong", nil }
	e := fails(t, w.dialer(), s.at(""), KeyLocked)
	if err := e.Ask(t.Context()); err == nil || strings.Contains(err.Error(), "still wrong") || !strings.Contains(err.Error(), "id_ecdsa") {
		t.Error(err)
	}
	w.ask = func(string) (string, error) { return "pw", nil }
	d := w.dialer()
	e = fails(t, d, s.at(""), KeyLocked, "id_ecdsa is encrypted")
	if err := e.Ask(t.Context()); err != nil {
		t.Fatal(err)
	}
	works(t, d, s.at(""))
}

func TestKeyThatOthersMayRead(t *testing.T) {
	w := newWorld(t)
	path := filepath.Join(w.home, ".ssh", "id_ed25519")
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	s := echoing(w).serve(t)
	w.knows(s)
	d := w.dialer()
	for range 2 {
		fails(t, d, s.at(""), Auth, "permissions 0644 for "+path+" are too open", "chmod 600 "+path)
	}
	if got := w.warned(); strings.Count(got, "too open") != 1 {
		t.Errorf("warned %q", got)
	}
}

// runAgent is an agent with keys, on a socket.
func runAgent(t *testing.T, w *world, keys ...any) agent.Agent {
	t.Helper()
	ring := agent.NewKeyring()
	for _, k := range keys {
		if err := ring.Add(agent.AddedKey{PrivateKey: k}); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(w.home, "agent.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	w.env["SSH_AUTH_SOCK"] = path
	dialtest.ServeListener(t, l, func(c net.Conn) { _ = agent.ServeAgent(ring, c) })
	return ring
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestAgent(t *testing.T) {
	dialtest.NoLeaks(t)
	w := newWorld(t)
	one, two := newKey(t), newKey(t)
	ring := runAgent(t, w, one, two)
	s := echoing(w)
	s.allow(signer(t, two).PublicKey())
	s.serve(t)
	w.knows(s)
	works(t, w.dialer(), s.at(""))

	w.write(".ssh/config", "IdentitiesOnly yes\n")
	fails(t, w.dialer(), s.at(""), Auth, "is not let in with "+w.home+"/.ssh/id_ed25519")

	// A public key selects among the agent's.
	w.write("two.pub", string(ssh.MarshalAuthorizedKey(signer(t, two).PublicKey())))
	for _, name := range []string{"~/two.pub", "~/two"} {
		w.write(".ssh/config", "IdentitiesOnly yes\nIdentityFile "+name+"\n")
		works(t, w.dialer(), s.at(""))
	}

	w.write(".ssh/config", "IdentityAgent none\n")
	fails(t, w.dialer(), s.at(""), Auth)
	w.env["MY_AGENT"], w.env["SSH_AUTH_SOCK"] = w.env["SSH_AUTH_SOCK"], "/nonexistent"
	fails(t, w.dialer(), s.at(""), Auth)
	w.write(".ssh/config", "")
	fails(t, w.dialer(), s.at(""), Auth, "the agent does not answer: no such file or directory")
	w.write(".ssh/config", "IdentityAgent $MY_AGENT\n")
	works(t, w.dialer(), s.at(""))

	if err := ring.Lock([]byte("x")); err != nil {
		t.Fatal(err)
	}
	fails(t, w.dialer(), s.at(""), Auth)
}

// An agent that does not answer ends with the dial.
func TestMuteAgent(t *testing.T) {
	dialtest.NoLeaks(t)
	w := newWorld(t)
	path := filepath.Join(w.home, "agent.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	dialtest.ServeListener(t, l, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	w.env["SSH_AUTH_SOCK"] = path
	s := echoing(w).serve(t)
	w.knows(s)
	w.write(".ssh/config", "ConnectTimeout 1\n")
	fails(t, w.dialer(), s.at(""), silent)
}

func TestUserCertificate(t *testing.T) {
	w := newWorld(t)
	ca := newED25519(t)
	cert := &ssh.Certificate{Key: w.key.PublicKey(), CertType: ssh.UserCert, ValidPrincipals: []string{"ann"}, ValidBefore: ssh.CertTimeInfinity}
	if err := cert.SignCert(rand.Reader, ca); err != nil {
		t.Fatal(err)
	}
	w.write(".ssh/id_ed25519-cert.pub", string(ssh.MarshalAuthorizedKey(cert)))
	s := echoing(w)
	checker := ssh.CertChecker{IsUserAuthority: func(k ssh.PublicKey) bool { return sameKey(k, ca.PublicKey()) }}
	s.config.PublicKeyCallback = checker.Authenticate
	s.serve(t)
	w.knows(s)
	works(t, w.dialer(), s.at(""))
}

func TestKeysThatAreNone(t *testing.T) {
	w := newWorld(t)
	w.write("garbage", "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n")
	w.write(".ssh/config", "IdentityFile ~/garbage\nIdentityFile ~/missing\nIdentityFile ~\n")
	s := echoing(w).serve(t)
	w.knows(s)
	fails(t, w.dialer(), s.at(""), Auth, "garbage is not a private key that can be read", "missing does not exist", w.home+" is not a file")
}

package ssh

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/berthbuild/berth/internal/dial"
)

// hostCheck holds the key that a machine shows against what is known.
type hostCheck struct {
	d     *dialer
	s     *settings
	known known

	ok      bool        // the key was accepted
	refusal *dial.Error // why it was not
}

// check is the ssh.HostKeyCallback. The machine has proven by then that it has
// the key.
func (c *hostCheck) check(_ string, remote net.Addr, key ssh.PublicKey) error {
	c.ok, c.refusal = false, nil
	if c.refusal = c.judge(remote, key); c.refusal != nil {
		return c.refusal
	}
	c.ok = true
	return nil
}

func (c *hostCheck) judge(remote net.Addr, key ssh.PublicKey) *dial.Error {
	if cert, ok := key.(*ssh.Certificate); ok {
		return c.judgeCert(remote, cert)
	}
	for _, k := range c.known.keys {
		if k.revoked && sameKey(k.key, key) {
			return c.revoked(k)
		}
	}
	var others []knownKey
	for _, k := range c.known.keys {
		switch {
		case k.revoked || k.authority:
		case sameKey(k.key, key):
			return nil
		default:
			others = append(others, k)
		}
	}
	c.d.mu.Lock()
	trusted := c.d.trusted[c.s.name()] == ssh.FingerprintSHA256(key)
	c.d.mu.Unlock()
	switch {
	case trusted:
		return nil
	case len(others) > 0 && c.s.strict == strictOff:
		c.d.warn(fmt.Sprintf("the host key of %s has changed (%s), and StrictHostKeyChecking no accepts it", c.s.name(), shown(key)))
		return nil
	case len(others) > 0:
		return c.changed(key, others)
	case c.s.strict == strictNew || c.s.strict == strictOff:
		c.d.remember(c.s, key)
		return nil
	}
	return c.unknown(key)
}

// judgeCert is for a key that an authority has signed. It is asked for only
// where an authority is known.
func (c *hostCheck) judgeCert(remote net.Addr, cert *ssh.Certificate) *dial.Error {
	checker := ssh.CertChecker{
		IsHostAuthority: func(by ssh.PublicKey, _ string) bool {
			for _, k := range c.known.keys {
				if k.authority && sameKey(k.key, by) {
					return true
				}
			}
			return false
		},
		IsRevoked: func(cert *ssh.Certificate) bool {
			for _, k := range c.known.keys {
				if k.revoked && (sameKey(k.key, cert.SignatureKey) || sameKey(k.key, cert.Key)) {
					return true
				}
			}
			return false
		},
	}
	principal := c.s.hostName
	if c.s.alias != "" {
		principal = c.s.alias
	}
	err := checker.CheckHostKey(net.JoinHostPort(principal, c.s.port), remote, cert)
	if err == nil {
		return nil
	}
	return &dial.Error{
		Class: HostKey, Err: err,
		Text:  fmt.Sprintf("the host certificate of %s is not good: %s", c.s.name(), plain(err)),
		Tries: []string{"have it signed anew for " + principal + ", or correct the @cert-authority line in known_hosts"},
	}
}

// shown is how a key is told to people.
func shown(key ssh.PublicKey) string { return keyKind(key) + " " + ssh.FingerprintSHA256(key) }

// keyKind is the name that ssh-keygen has for a kind of key.
func keyKind(key ssh.PublicKey) string {
	kind := strings.TrimPrefix(strings.TrimPrefix(key.Type(), "ssh-"), "sk-")
	kind, _, _ = strings.Cut(kind, "-")
	return strings.ToUpper(kind)
}

func (c *hostCheck) revoked(k knownKey) *dial.Error {
	return &dial.Error{
		Class: HostKey, Text: fmt.Sprintf("the host key of %s was revoked (%s)", c.s.name(), shown(k.key)),
		Tries: []string{"the line that revokes it: " + k.where()},
	}
}

// unknown is for a machine of which nothing is known.
func (c *hostCheck) unknown(key ssh.PublicKey) *dial.Error {
	e := &dial.Error{
		Class: HostKey, Text: fmt.Sprintf("the host key of %s is unknown: %s", c.s.name(), shown(key)),
		Tries: []string{"compare it with what this prints on that machine: ssh-keygen -lf /etc/ssh/ssh_host_" +
			strings.ToLower(keyKind(key)) + "_key.pub"},
	}
	if len(c.known.bad) > 0 {
		e.Tries = append(e.Tries, "a line that may be about it cannot be read: "+c.known.bad[0])
	}
	if scan := c.scan(key); scan != "" {
		e.Tries = append(e.Tries, "if it is the same: "+scan)
	}
	e.Tries = append(e.Tries, "or say yes once to: "+c.s.command())
	if c.d.env.Ask != nil && c.s.strict == strictAsk {
		e.Ask = func(ctx context.Context) error { return c.d.askHost(ctx, c.s, key) }
	}
	return e
}

// scan is the command that writes down the key, where ssh-keyscan can reach the
// machine and would give it the right name.
func (c *hostCheck) scan(key ssh.PublicKey) string {
	if c.s.behind || c.s.alias != "" || c.s.mayAdd == 0 {
		return ""
	}
	line := "ssh-keyscan "
	if c.s.port != "22" {
		line += "-p " + c.s.port + " "
	}
	return line + "-t " + strings.ToLower(keyKind(key)) + " " + c.s.hostName + " >> " + c.s.known[0]
}

// changed is for a machine of which other keys are known.
func (c *hostCheck) changed(key ssh.PublicKey, others []knownKey) *dial.Error {
	text := fmt.Sprintf("the host key of %s has changed: it is %s now, and not as in %s", c.s.name(), shown(key), others[0].where())
	if others[0].key.Type() != key.Type() {
		text = fmt.Sprintf("the host key of %s is not the known one: it shows %s, known is %s (%s)",
			c.s.name(), shown(key), shown(others[0].key), others[0].where())
	}
	e := &dial.Error{Class: HostKey, Text: text, Tries: []string{
		"was the machine set up anew? if not, somebody may be listening in between: ask its owner",
	}}
	if others[0].key.Type() == key.Type() {
		e.Tries = append(e.Tries, fmt.Sprintf("if it was: ssh-keygen -f %s -R '%s', and log in once: %s",
			others[0].file, c.s.name(), c.s.command()))
	} else if scan := c.scan(key); scan != "" {
		e.Tries = append(e.Tries, "if it was, or has more keys than this one: "+scan)
	}
	return e
}

// askHost shows the fingerprint to the person at the terminal.
func (d *dialer) askHost(ctx context.Context, s *settings, key ssh.PublicKey) error {
	d.asking.Lock()
	defer d.asking.Unlock()
	d.mu.Lock()
	said := d.trusted[s.name()] == ssh.FingerprintSHA256(key)
	d.mu.Unlock()
	if said { // for another connection, while we were waiting
		return nil
	}
	question := fmt.Sprintf("The host key of %s is unknown. It is %s.\nConnect, and remember it (yes/no)? ", s.name(), shown(key))
	for {
		answer, err := d.env.Ask(ctx, question)
		if err != nil {
			return err
		}
		switch answer = strings.TrimSpace(answer); {
		case strings.EqualFold(answer, "yes") || answer == ssh.FingerprintSHA256(key):
			d.mu.Lock()
			d.trusted[s.name()] = ssh.FingerprintSHA256(key)
			d.mu.Unlock()
			d.remember(s, key)
			return nil
		case strings.EqualFold(answer, "no") || answer == "":
			return errors.New("the host key was not accepted")
		}
		question = "Please type yes, no or the fingerprint: "
	}
}

// remember writes the key down, as ssh does. That it cannot is told, and does
// not stop the connection.
func (d *dialer) remember(s *settings, key ssh.PublicKey) {
	if s.mayAdd == 0 || s.known[0] == os.DevNull {
		return
	}
	name := s.name()
	if s.hash {
		name = knownhosts.HashHostname(name)
	}
	path := s.known[0]
	// In one write: other processes may be adding too.
	line := name + " " + strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key))) + "\n"
	if text, err := readFile(path, maxKnown); err == nil && len(text) > 0 && text[len(text)-1] != '\n' {
		line = "\n" + line
	}
	if err := appendTo(path, line); err != nil {
		d.warn(fmt.Sprintf("the host key of %s was accepted, but not written down: %v", s.name(), err))
		return
	}
	d.warn(fmt.Sprintf("the host key of %s was accepted and written to %s (%s)", s.name(), path, shown(key)))
}

func appendTo(path, line string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(line)
	return errors.Join(err, f.Close())
}

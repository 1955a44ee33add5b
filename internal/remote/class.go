package remote

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/berthbuild/berth/internal/dial"
	"github.com/berthbuild/berth/internal/hint"
)

// Class is the kind of a failure. The strings are stable: they are printed as
// JSON and compared by scripts.
type Class = dial.Class

// The classes that can heal by themselves.
const (
	Refused     Class = "refused"     // nobody listens
	NoSocket    Class = "no-socket"   // the socket does not exist
	DNS         Class = "dns"         // the name is not known, or cannot be asked for
	Unreachable Class = "unreachable" // no way to the host
	Timeout     Class = "timeout"     // no answer to the attempt to connect
	Silent      Class = "silent"      // connected, but no answer to what was said
	Closed      Class = "closed"      // connected, and hung up on
	Unavailable Class = "unavailable" // it says itself that it cannot serve now
)

// The classes that somebody must do something about.
const (
	SocketPermission Class = "socket-permission" // the socket may not be opened by this user
	TLSUntrusted     Class = "tls-untrusted"     // the certificate is signed by an unknown CA, or is not for servers
	TLSName          Class = "tls-name"          // the certificate is for another name
	TLSExpired       Class = "tls-expired"       // the certificate is not valid any more, or not yet
	TLSClientCert    Class = "tls-client-cert"   // our certificate is missing or refused
	TLSRequired      Class = "tls-required"      // the peer speaks TLS and we do not
	TLSHandshake     Class = "tls-handshake"     // the two cannot agree for another reason
	NotTLS           Class = "not-tls"           // we speak TLS and the peer does not
	NotHTTP2         Class = "not-http2"         // another protocol
	HTTPStatus       Class = "http-status"       // an HTTP/2 server or proxy, which answers in place of BuildKit
	NotBuildKit      Class = "not-buildkit"      // a gRPC server without BuildKit's API
	Denied           Class = "denied"            // who we are is not enough
	DaemonError      Class = "daemon-error"      // BuildKit answers with an error
	BadConfig        Class = "config"            // certificate files, or the endpoint itself, cannot be used
	ConnectError     Class = "connect"           // the system cannot make a connection (no files left, …)
)

// The classes of a proxy are dial.ProxyUnreachable and those after it; that of a
// key whose passphrase is not known is dial.KeyLocked.

// heals tells whether waiting may help with a failure of the class, unless a
// scheme has said so itself.
func heals(c Class) bool {
	return slices.Contains([]Class{Refused, NoSocket, DNS, Unreachable, Timeout, Silent, Closed, Unavailable}, c)
}

// stage is how far an attempt came.
type stage int

const (
	stageDial stage = iota
	stageTLS
	stageInfo
)

// String completes "no answer yet (…)".
func (s stage) String() string {
	return [...]string{"connecting", "TLS handshake", "waiting for BuildKit"}[s]
}

// cause is why an attempt failed.
type cause struct {
	class Class
	text  string   // a few words for a person
	tries []string // hints
	err   error    // what it was read from; may be nil
	stage stage
	bare  bool // no more is known than that time ran out
	heal  bool // a scheme says that waiting may help
}

func (c *cause) heals() bool { return c.heal || heals(c.class) }

// fromScheme is the scheme's own account, nil where err has none.
func fromScheme(err error, s stage) *cause {
	var e *dial.Error
	if !errors.As(err, &e) {
		return nil
	}
	return &cause{class: e.Class, text: printable(e.Text, maxText), tries: e.Tries, err: e, stage: s, heal: e.Heals,
		bare: errors.Is(e.Err, context.DeadlineExceeded)}
}

// Error is the few words; the chain below has the rest.
func (c *cause) Error() string { return c.text }

// Unwrap gives what the cause was read from.
func (c *cause) Unwrap() error { return c.err }

// Failure is why there is no connection.
type Failure struct {
	Target Target
	Class  Class
	Cause  error // the last real one; its text is Short
	Waited time.Duration
	Tries  int
	Heals  bool // waiting longer might have helped

	hints []string
}

func newFailure(t Target, c *cause, waited time.Duration, tries int) *Failure {
	return &Failure{Target: t, Class: c.class, Cause: c, Waited: waited, Tries: tries, Heals: c.heals(),
		hints: slices.Concat(c.tries, t.Tries)}
}

// Error says who was not reached, why, and how long that was tried.
func (f *Failure) Error() string {
	msg := f.Target.String() + ": " + f.Short()
	switch {
	case f.Tries > 1:
		return fmt.Sprintf("%s (tried %d times in %s)", msg, f.Tries, seconds(f.Waited))
	case f.Waited >= time.Second && f.Heals:
		return fmt.Sprintf("%s (gave up after %s)", msg, seconds(f.Waited))
	}
	return msg
}

// Short is the cause in a few words, for a table.
func (f *Failure) Short() string { return f.Cause.Error() }

// Unwrap gives the cause, below which the system's own errors are.
func (f *Failure) Unwrap() error { return f.Cause }

// Hints implements hint.Hinter.
func (f *Failure) Hints() []string { return f.hints }

var _ hint.Hinter = (*Failure)(nil)

// seconds prints a duration for people: whole seconds, or less than one.
func seconds(d time.Duration) string {
	if d < 0 {
		d = 0
	}
	if d < time.Second {
		return d.Round(10 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}

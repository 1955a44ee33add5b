// Package dial says what a scheme is: a way to turn an endpoint into a
// net.Conn that ends at the daemon.
//
// It is not for TLS, gRPC, waiting or explaining: those are the same for all
// schemes and live in internal/remote. Each scheme has a package of its own
// below this one, and internal/dial/schemes lists them.
//
// Rules: a dialler makes one attempt and returns when ctx ends; its errors
// keep the chain of the system's errors, so that internal/remote can tell
// them apart by type; what it returns has been proven to lead somewhere and
// is closed by the caller; nothing of it is left after Close. Every scheme
// passes dialtest.
package dial

import (
	"context"
	"net"
	"time"

	"github.com/berthbuild/berth/internal/dockerconfig"
	"github.com/berthbuild/berth/internal/endpoint"
)

// Class is the kind of a failure to connect, as internal/remote lists them.
type Class string

// The classes of a failure on the way through a proxy.
const (
	ProxyUnreachable Class = "proxy-unreachable" // no connection to the proxy itself
	ProxySilent      Class = "proxy-silent"      // it does not answer; it may be waiting for the daemon
	ProxyGateway     Class = "proxy-gateway"     // it cannot reach the daemon
	ProxyAuth        Class = "proxy-auth"        // it demands a login, or another one
	ProxyRefused     Class = "proxy-refused"     // it does not want to go there
	ProxyTLS         Class = "proxy-tls"         // no TLS with the proxy itself
	ProxyProtocol    Class = "proxy-protocol"    // it is no such proxy
	ProxyConfig      Class = "proxy-config"      // the environment names one that cannot be
)

// KeyLocked is an encrypted key of TLS whose passphrase is not known.
const KeyLocked Class = "tls-key-locked"

// Error is a scheme's own account of why there is no connection: what refused,
// in its words. A scheme returns it from Dial, or from the Read of a connection
// whose far end turned out not to be there (a helper that ended, for example).
type Error struct {
	Class Class
	Text  string   // a few words for a person, without the endpoint
	Tries []string // hints
	Heals bool     // waiting may help
	Err   error    // what it was read from; may be nil

	// Ask asks the person at the terminal for what another attempt needs: a
	// passphrase, a yes. It is called outside of any budget, ends with ctx, and
	// its error says what was not given. nil where nobody can help, or is there.
	Ask func(ctx context.Context) error
}

// Error is the few words.
func (e *Error) Error() string { return e.Text }

// Unwrap gives what the error was read from.
func (e *Error) Unwrap() error { return e.Err }

// Hints implements hint.Hinter.
func (e *Error) Hints() []string { return e.Tries }

// Env is what schemes may know of the world besides the endpoint. The surface
// fills it; schemes read no environment themselves. All functions may be nil.
type Env struct {
	Home      string                               // the user's folder
	Dir       string                               // what relative paths are relative to
	LookupEnv func(string) (string, bool)          // the environment
	Docker    func() (*dockerconfig.Config, error) // docker's configuration, read when first asked for
	// Ask asks the person at the terminal for a secret, such as a passphrase.
	// nil where there is no terminal.
	Ask func(ctx context.Context, question string) (string, error)
	// Warn says something that does not stop the command.
	Warn func(text string)
}

// Getenv is a variable of the environment, "" where it is not set.
func (e Env) Getenv(name string) string {
	if e.LookupEnv == nil {
		return ""
	}
	v, _ := e.LookupEnv(name)
	return v
}

// Warning calls Warn where there is one.
func (e Env) Warning(text string) {
	if e.Warn != nil {
		e.Warn(text)
	}
}

// Scheme is one way to reach a daemon.
type Scheme struct {
	Name    string // as in NAME://…
	Summary string // one line for the documentation

	// Limit is how long an attempt may take where the scheme needs more time
	// than a TCP connection; 0 where it does not.
	Limit time.Duration

	// Stages names the stages of a Dial of the endpoint, in the order in which
	// it tells a Tracer of them; nil is StageConnect alone. The last one may be
	// proven only by the first byte of an answer, and fail by a Read.
	Stages func(e endpoint.Endpoint) []string

	// Dial makes one attempt. The caller closes the connection.
	Dial func(ctx context.Context, e endpoint.Endpoint) (net.Conn, error)

	// Members finds the daemons behind an endpoint that may lead to several, each
	// with an endpoint that leads to it alone, sorted by name. It asks those who
	// know them, not them. nil where an endpoint is one daemon.
	Members func(ctx context.Context, e endpoint.Endpoint) ([]Member, error)

	// Via is Dial through a proxy. nil where the scheme has no use for one.
	Via func(ctx context.Context, e endpoint.Endpoint, p endpoint.Proxy) (net.Conn, error)

	// Keys is what TLS over the scheme asks and warns with; nil where there is
	// nobody to ask and nobody to warn.
	Keys *Keyring

	// Session dials what the session of a build goes over, for a daemon that
	// wants a connection of its own for it: proto and meta are what BuildKit's
	// client wants to be told to the other side. nil where the session runs
	// inside the connection of Dial, as it does everywhere but in a Docker
	// engine. The caller closes the connection.
	Session func(ctx context.Context, e endpoint.Endpoint, proto string, meta map[string][]string) (net.Conn, error)
}

// Member is one daemon out of several behind an endpoint.
type Member struct {
	Name     string // among them: a pod's name, an address
	Endpoint endpoint.Endpoint
}

// Hosted is a connection to a BuildKit that is part of another program, which
// said what it is before BuildKit could. A connection of Dial may be one.
type Hosted interface {
	net.Conn
	// Host is what the program calls itself, such as "Docker/20.10.24 (linux)".
	Host() string
}

// Registry is the schemes that a program knows, in the order to list them.
type Registry []Scheme

// Lookup finds a scheme by its name.
func (r Registry) Lookup(name string) (Scheme, bool) {
	for _, s := range r {
		if s.Name == name {
			return s, true
		}
	}
	return Scheme{}, false
}

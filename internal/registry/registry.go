// Package registry speaks with registries of images: it reads manifests and
// blobs, lists what refers to an image, and writes both.
//
// It is not for what an image means: which manifests make an image, and what is
// copied with it, is decided by its callers.
//
// Rules: a registry is not trusted. What it sends is held against the digest and
// the size that it was asked for by, documents are bounded, and credentials go to
// the registry that they are for and to its token server only, wherever it
// redirects to. A registry that throttles is waited for as long as it says, within a
// budget; silence has a budget too; and every wait ends at once with its context.
// Nothing is read from docker's configuration: credentials come as a Keychain.
package registry

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/distribution/reference"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// Descriptor names content by its digest.
type Descriptor = ocispecs.Descriptor

const (
	// dockerHub is how references call docker's own registry, and hubHost where
	// it is.
	dockerHub = "docker.io"
	hubHost   = "index.docker.io"
)

// Plain says to which registries plain HTTP is spoken, besides HTTPS.
type Plain int

// The choices.
const (
	PlainLoopback Plain = iota // those on this machine
	PlainPrivate               // also those with a private address
	PlainAlways
	PlainNever
)

// Host is how one registry is reached.
type Host struct {
	Plain    Plain
	Insecure bool     // any certificate will do
	RootCAs  [][]byte // PEM, besides those of the system
	KeyPairs []tls.Certificate
	Mirrors  []string // asked first where something is read: HOST or HOST/PATH
}

// Wait is why nothing happens for a while.
type Wait struct {
	Host   string
	Reason string // "429 Too Many Requests"
	For    time.Duration
}

// String is the wait as a line for people.
func (w Wait) String() string {
	return fmt.Sprintf("waiting %s for %s: %s", w.For.Round(time.Millisecond), w.Host, w.Reason)
}

// Options are what a Client needs to know. All of it may be left out.
type Options struct {
	Keychain authn.Keychain  // nil: nobody logs in
	Hosts    map[string]Host // by the host of a reference: "docker.io", "localhost:5000"
	Default  Host            // of all others
	OnWait   func(Wait)      // called ahead of each wait
}

// Client speaks with registries. It keeps connections and tokens for as long as it
// lives, and can be used by several goroutines.
type Client struct {
	o     Options
	times times

	mu       sync.Mutex
	pipes    map[string]pipe
	sessions map[sessionKey]*session
	repos    map[string]*Repository
}

// pipe is the connections to one registry.
type pipe struct {
	transport *http.Transport
	err       error
}

// New makes a client. Nobody is contacted.
func New(o Options) *Client {
	if o.Keychain == nil {
		o.Keychain = authn.NewMultiKeychain() // anonymous
	}
	if o.OnWait == nil {
		o.OnWait = func(Wait) {}
	}
	return &Client{o: o, times: realTimes(), pipes: map[string]pipe{}, sessions: map[sessionKey]*session{}, repos: map[string]*Repository{}}
}

// Close ends the connections that nobody uses.
func (c *Client) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.pipes {
		if p.transport != nil {
			p.transport.CloseIdleConnections()
		}
	}
}

// Repository is one repository of a registry.
type Repository struct {
	c    *Client
	host string // as references call it
	path string

	referrers sync.Mutex // held while the list of an image's referrers is changed
}

// Repository is the one that a reference is in.
func (c *Client) Repository(ref reference.Named) *Repository {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.repos[ref.Name()]
	if r == nil {
		r = &Repository{c: c, host: reference.Domain(ref), path: reference.Path(ref)}
		c.repos[ref.Name()] = r
	}
	return r
}

// Name is the repository's whole name, as references have it.
func (r *Repository) Name() string { return r.host + "/" + r.path }

// Host is the registry's name, as references have it.
func (r *Repository) Host() string { return r.host }

// SameRegistry tells whether blobs can be mounted from one into the other.
func (r *Repository) SameRegistry(o *Repository) bool { return r.c == o.c && r.host == o.host }

// settings are those of a registry.
func (c *Client) settings(host string) Host {
	if h, ok := c.o.Hosts[host]; ok {
		return h
	}
	return c.o.Default
}

// address is where a registry is.
func address(host string) string {
	if host == dockerHub {
		return hubHost
	}
	return host
}

// mayBePlain tells whether plain HTTP may be spoken to a registry.
func (h Host) mayBePlain(host string) bool {
	switch h.Plain {
	case PlainAlways:
		return true
	case PlainNever:
		return false
	}
	name := host
	if n, _, err := net.SplitHostPort(host); err == nil {
		name = n
	}
	ip := net.ParseIP(strings.Trim(name, "[]"))
	switch {
	case name == "localhost", strings.HasSuffix(name, ".localhost"), ip != nil && ip.IsLoopback():
		return true
	case h.Plain == PlainPrivate:
		return strings.HasSuffix(name, ".local") || ip != nil && ip.IsPrivate()
	}
	return false
}

// sessionKey is what a token is for.
type sessionKey struct {
	host, path string
	push       bool
	from       string // a repository to mount from
}

func (k sessionKey) scopes() []string {
	right := "pull"
	if k.push {
		right = "push,pull"
	}
	scopes := []string{"repository:" + k.path + ":" + right}
	if k.from != "" {
		scopes = append(scopes, "repository:"+k.from+":pull")
	}
	return scopes
}

// session is a client that has logged in. It finds out itself by which scheme.
type session struct {
	mu     sync.Mutex // held while it logs in
	client *http.Client
}

// session logs in, once for each purpose. A login that fails is tried again the next
// time.
func (c *Client) session(ctx context.Context, k sessionKey) (*session, error) {
	c.mu.Lock()
	s := c.sessions[k]
	if s == nil {
		s = &session{}
		c.sessions[k] = s
	}
	c.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.client != nil {
		return s, nil
	}
	return s, s.open(ctx, c, k)
}

func (s *session) open(ctx context.Context, c *Client, k sessionKey) error {
	var opts []name.Option
	settings := c.settings(k.host)
	plain := settings.mayBePlain(k.host)
	if plain {
		opts = append(opts, name.Insecure)
	}
	reg, err := name.NewRegistry(address(k.host), opts...)
	if err != nil {
		return err
	}
	auth, err := c.credentials(ctx, reg)
	if err != nil {
		return err
	}
	base, err := c.pipe(k.host, settings)
	if err != nil {
		return err
	}
	hello := &handshake{inner: &patient{c: c, base: base, host: address(k.host), plain: plain}}
	rt, err := transport.NewWithContext(ctx, reg, auth, hello, k.scopes())
	if err != nil {
		return hello.why(err)
	}
	s.client = &http.Client{Transport: rt, CheckRedirect: checkRedirect}
	return nil
}

// credentialsBudget is how long docker's credential helper may take.
const credentialsBudget = 30 * time.Second

// credentials asks the keychain, and with it maybe a helper, which knows nothing of
// our time.
func (c *Client) credentials(ctx context.Context, reg name.Registry) (authn.Authenticator, error) {
	type answer struct {
		auth authn.Authenticator
		err  error
	}
	ctx, cancel := context.WithTimeoutCause(ctx, credentialsBudget, fmt.Errorf("the credential helper has not answered for %s", credentialsBudget))
	defer cancel()
	answers := make(chan answer, 1)
	go func() {
		auth, err := authn.Resolve(ctx, c.o.Keychain, reg)
		answers <- answer{auth, err}
	}()
	select {
	case a := <-answers:
		return a.auth, a.err
	case <-ctx.Done():
		return nil, fmt.Errorf("credentials for %s: %w", reg, context.Cause(ctx))
	}
}

// pipe makes the connections to a registry, once.
func (c *Client) pipe(host string, h Host) (*http.Transport, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p, ok := c.pipes[host]
	if !ok {
		p.transport, p.err = newTransport(h)
		c.pipes[host] = p
	}
	return p.transport, p.err
}

// checkRedirect bounds a chain of redirects, which end at the web.
func checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) >= maxRedirects {
		return fmt.Errorf("it redirects more than %d times", maxRedirects)
	}
	if s := req.URL.Scheme; s != "http" && s != "https" {
		return fmt.Errorf("it redirects to %q", s+":")
	}
	return nil
}

const maxRedirects = 10

// Package endpoint turns the text of an endpoint URL and of driver options
// into checked values: what scheme, which host and port or socket path, which
// TLS files.
//
// It is pure: it opens no file, resolves no name and reads no environment.
// Whether a file exists or a daemon answers is the business of
// internal/remote; how a scheme is dialled is that of internal/dial.
//
// Rules: a refusal says what is wrong with which text and, where it is clear
// what was meant, gives the corrected line as a hint. A password that
// somebody put into a URL is refused and never repeated in a message.
package endpoint

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/berthbuild/berth/internal/hint"
)

// The schemes of this version.
const (
	SchemeUnix = "unix"
	SchemeTCP  = "tcp"
)

// SchemeDockerEngine is Docker's own BuildKit, by the name of a docker context.
// Nobody types it and nothing stores it: there is no grammar for it.
const SchemeDockerEngine = "docker-engine"

// DockerEngine is the BuildKit inside the engine of a docker context.
func DockerEngine(context string) Endpoint {
	return Endpoint{Scheme: SchemeDockerEngine, Host: context}
}

// grammar is how the part after "NAME://" of one scheme is read. Each scheme
// has a file of its own, scheme_….go, with its names and its parser.
type grammar struct {
	name  string
	parse func(raw, rest string) (Endpoint, error)
}

// grammars is every scheme that can be parsed.
func grammars() []grammar {
	return []grammar{
		{SchemeUnix, parseUnix},
		{SchemeTCP, parseTCP},
		{SchemeSSH, parseSSH},
		{SchemeDockerContainer, parseDockerContainer},
		{SchemePodmanContainer, parsePodmanContainer},
		{SchemeNerdctlContainer, parseNerdctlContainer},
		{SchemeExec, parseExec},
		{SchemeNpipe, parseNpipe},
		{SchemeKubePod, parseKubePod},
		{SchemeKubeDeployment, parseKubeDeployment},
		{SchemeKubeStatefulSet, parseKubeStatefulSet},
		{SchemeKubeService, parseKubeService},
		{SchemeKubeSelector, parseKubeSelector},
	}
}

const (
	// maxLen bounds an endpoint in bytes; nothing real comes near it.
	maxLen = 4096
	// maxSunPath is what fits into sockaddr_un on Linux, without its NUL. The
	// kernel's own error for a longer one is a bare "invalid argument".
	maxSunPath = 107
	// maxShown bounds in bytes how much of a bad text a message repeats.
	maxShown = 120
)

// Endpoint is where a daemon listens. Values that Parse returned can be
// compared with ==: equal endpoints have equal fields.
type Endpoint struct {
	Scheme string // lower case: "tcp", "unix", …
	User   string // ssh: who to log in as; "" where nothing was said
	Host   string // DNS name in lower case, or an IP without brackets, with its zone if any; the name of a container, pod, …
	Port   string // 1 to 65535, no leading zeros
	Path   string // unix: absolute and clean, taken literally; ssh: the remote socket
	Query  string // parameters that the scheme knows, as url.Values.Encode writes them
}

// Param is a parameter of the endpoint's query, "" where it was not given.
func (e Endpoint) Param(key string) string {
	v, err := url.ParseQuery(e.Query) // Parse wrote it, so it can be read
	if err != nil {
		return ""
	}
	return v.Get(key)
}

// Parse checks and normalises raw. The error names what is wrong; hint.Of
// gives the corrected line where that is obvious.
func Parse(raw string) (Endpoint, error) {
	if err := checkText(raw); err != nil {
		return Endpoint{}, refuse(raw, err)
	}
	scheme, rest, ok := cutScheme(raw)
	if !ok {
		return Endpoint{}, missingScheme(raw)
	}
	for _, g := range grammars() {
		if g.name == scheme {
			return g.parse(raw, rest)
		}
	}
	return Endpoint{}, otherScheme(raw, scheme, rest)
}

// String is the normalised URL; Parse gives the same Endpoint back. It never
// holds a password.
func (e Endpoint) String() string {
	if e.IsZero() {
		return ""
	}
	s := e.Scheme + "://"
	if e.User != "" {
		s += e.User + "@"
	}
	s += e.authority() + e.Path
	if e.Query != "" {
		s += "?" + e.Query
	}
	return s
}

// authority is host and port as they stand in a URL.
func (e Endpoint) authority() string {
	host := e.Host
	if addr, zone, ok := strings.Cut(host, "%"); ok {
		host = addr + "%25" + zone // as RFC 6874 wants it inside a URL
	}
	switch {
	case e.Port != "":
		return net.JoinHostPort(host, e.Port)
	case strings.Contains(host, ":"):
		return "[" + host + "]"
	}
	return host
}

// Address is what to give to net.Dial: host:port, or the socket's or pipe's path.
func (e Endpoint) Address() string {
	if e.Scheme == SchemeUnix || e.Scheme == SchemeNpipe || e.IsZero() {
		return e.Path
	}
	return net.JoinHostPort(e.Host, e.Port)
}

// Hostname is the name that a TLS server is expected to have when nothing
// else was said: the host without a zone, "" for unix.
func (e Endpoint) Hostname() string {
	host, _, _ := strings.Cut(e.Host, "%")
	return host
}

// Loopback tells whether the host is this machine by its name or address.
func (e Endpoint) Loopback() bool {
	host := e.Hostname()
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.Unmap().IsLoopback()
	}
	name := strings.ToLower(strings.TrimSuffix(host, "."))
	return name == "localhost" || strings.HasSuffix(name, ".localhost")
}

// Local tells whether the daemon is on this machine, as far as its address says: a
// socket or pipe, a container, a command, or a loopback address.
func (e Endpoint) Local() bool {
	switch e.Scheme {
	case SchemeTCP, SchemeSSH:
		return e.Loopback()
	case SchemeKubePod, SchemeKubeDeployment, SchemeKubeStatefulSet, SchemeKubeService, SchemeKubeSelector:
		return false
	}
	return true
}

// IsZero tells whether e is no endpoint at all.
func (e Endpoint) IsZero() bool { return e == Endpoint{} }

// checkText refuses what no endpoint may contain, whatever its scheme.
func checkText(raw string) error {
	switch {
	case raw == "":
		return hint.New("is empty", examples()...)
	case len(raw) > maxLen:
		return fmt.Errorf("is %d bytes long; at most %d are allowed", len(raw), maxLen)
	case !utf8.ValidString(raw):
		return errors.New("is not valid UTF-8")
	}
	for _, r := range raw {
		if r == 0 {
			return errors.New("contains a NUL byte")
		}
		if unicode.IsControl(r) {
			return fmt.Errorf("contains the control character %U", r)
		}
	}
	return nil
}

// cutScheme splits "scheme://rest". The scheme comes back in lower case.
func cutScheme(raw string) (scheme, rest string, ok bool) {
	scheme, rest, ok = strings.Cut(raw, "://")
	if !ok || !schemeSyntax(scheme) {
		return "", raw, false
	}
	return strings.ToLower(scheme), rest, true
}

func schemeSyntax(s string) bool {
	for i, r := range s {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
		other := r >= '0' && r <= '9' || r == '+' || r == '-' || r == '.'
		if !letter && (i == 0 || !other) {
			return false
		}
	}
	return s != ""
}

func examples() []string {
	return []string{"tcp://HOST:1234", "unix:///run/buildkit/buildkitd.sock"}
}

// refuse names the endpoint that cause is about, without its secrets.
func refuse(raw string, cause error, hints ...string) error {
	return hint.Wrap(cause, fmt.Sprintf("endpoint %q", redact(raw)), hints...)
}

// redact makes raw fit for a message: without user and password, without a
// query (where tokens are put), and of a bearable length.
func redact(raw string) string {
	scheme, rest, ok := cutScheme(raw)
	prefix := ""
	if ok {
		prefix = scheme + "://"
	}
	if scheme != SchemeUnix || !strings.HasPrefix(rest, "/") {
		// A password may contain any character, a slash too: everything up
		// to the last @ is taken for it.
		if i := strings.LastIndexByte(rest, '@'); i >= 0 {
			rest = "…" + rest[i:]
		}
	}
	if i := strings.IndexAny(rest, "?#"); i >= 0 {
		rest = rest[:i+1] + "…"
	}
	shown := prefix + rest
	if len(shown) > maxShown {
		shown = strings.ToValidUTF8(shown[:maxShown], "") + "…"
	}
	return shown
}

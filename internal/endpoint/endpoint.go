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
	Scheme string // lower case: "tcp" or "unix"
	Host   string // tcp: DNS name in lower case, or an IP without brackets, with its zone if any
	Port   string // tcp: 1 to 65535, no leading zeros
	Path   string // unix: absolute and clean, taken literally
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
	switch scheme {
	case SchemeUnix:
		return parseUnix(raw, rest)
	case SchemeTCP:
		return parseTCP(raw, rest)
	default:
		return Endpoint{}, otherScheme(raw, scheme, rest)
	}
}

// String is the normalised URL; Parse gives the same Endpoint back. It never
// holds a password.
func (e Endpoint) String() string {
	switch {
	case e.IsZero():
		return ""
	case e.Scheme == SchemeUnix:
		return SchemeUnix + "://" + e.Path
	}
	host := e.Host
	if addr, zone, ok := strings.Cut(host, "%"); ok {
		host = addr + "%25" + zone // as RFC 6874 wants it inside a URL
	}
	return e.Scheme + "://" + net.JoinHostPort(host, e.Port)
}

// Address is what to give to net.Dial: host:port, or the socket's path.
func (e Endpoint) Address() string {
	if e.Scheme == SchemeUnix || e.IsZero() {
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

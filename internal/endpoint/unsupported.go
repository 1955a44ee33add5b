package endpoint

import (
	"fmt"
	"strings"
)

// otherScheme refuses a scheme that has no grammar, and says what to use
// instead. Nothing of rest is repeated unless it is a clean host and port.
func otherScheme(raw, scheme, rest string) error {
	if scheme == "http" || scheme == "https" {
		return refuse(raw, fmt.Errorf("%s:// is not how BuildKit is reached; it speaks gRPC over tcp://", scheme), webHints(scheme, rest)...)
	}
	return refuse(raw, fmt.Errorf("the scheme %q is unknown", scheme), examples()...)
}

func webHints(scheme, rest string) []string {
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		rest = rest[:i]
	}
	line := "tcp://HOST:1234"
	if e, err := parseAuthority(rest); err == nil {
		line = e.String()
	} else if host, err := parseHost(rest); err == nil {
		line = Endpoint{Scheme: SchemeTCP, Host: host, Port: map[string]string{"http": "80", "https": "443"}[scheme]}.String()
	}
	if scheme == "https" {
		return []string{line, "TLS is switched on with --driver-opt cacert=…, or servername=…"}
	}
	return []string{line}
}

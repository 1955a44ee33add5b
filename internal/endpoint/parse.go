package endpoint

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path"
	"strconv"
	"strings"

	"github.com/berthbuild/berth/internal/hint"
)

// parseUnix takes the path literally: a per cent sign, a space or an umlaut
// in it is part of the name, because that is what the socket's name is.
func parseUnix(raw, rest string) (Endpoint, error) {
	switch {
	case rest == "":
		return Endpoint{}, refuse(raw, errors.New("has no socket path"), "unix:///run/buildkit/buildkitd.sock")
	case strings.ContainsAny(rest, "?#"):
		return Endpoint{}, refuse(raw, errors.New("has a query or fragment, which a socket path cannot have"))
	case rest[0] != '/':
		return Endpoint{}, refuse(raw, errors.New("the socket path is relative; it must begin with /"), absoluteHint(rest)...)
	}
	p := path.Clean(rest)
	if p == "/" {
		return Endpoint{}, refuse(raw, errors.New("has no socket path, only /"), "unix:///run/buildkit/buildkitd.sock")
	}
	if len(p) > maxSunPath {
		return Endpoint{}, refuse(raw,
			fmt.Errorf("the socket path is %d bytes long; the system allows %d", len(p), maxSunPath),
			"make a short symbolic link to the socket's folder and use that")
	}
	return Endpoint{Scheme: SchemeUnix, Path: p}, nil
}

// absoluteHint corrects a relative socket path by what a shell fills in.
func absoluteHint(rest string) []string {
	if strings.Contains(rest, "@") { // may hold a password
		return []string{"unix:///run/buildkit/buildkitd.sock"}
	}
	if home, ok := strings.CutPrefix(rest, "~/"); ok {
		return []string{"unix://$HOME/" + home}
	}
	return []string{"unix://$PWD/" + strings.TrimPrefix(rest, "./")}
}

func parseTCP(raw, rest string) (Endpoint, error) {
	if strings.Contains(rest, "@") {
		return Endpoint{}, refuse(raw, errors.New("has a user name or password, which tcp:// has no use for"),
			"authenticate with a client certificate: --driver-opt cacert=…,cert=…,key=…")
	}
	authority, tail := rest, ""
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		authority, tail = rest[:i], rest[i:]
	}
	e, err := parseAuthority(authority)
	if err != nil {
		return Endpoint{}, refuse(raw, err)
	}
	switch {
	case tail == "":
		return e, nil
	case strings.ContainsAny(tail, "?#"):
		return Endpoint{}, refuse(raw, errors.New("has a query or fragment; options are given with --driver-opt"), e.String())
	default:
		return Endpoint{}, refuse(raw, errors.New("has a path, which tcp:// cannot have"), e.String())
	}
}

func parseAuthority(authority string) (Endpoint, error) {
	host, port, err := splitHostPort(authority)
	if err != nil {
		return Endpoint{}, err
	}
	host, err = parseHost(host)
	if err != nil {
		return Endpoint{}, err
	}
	e := Endpoint{Scheme: SchemeTCP, Host: host}
	if port == "" {
		e.Port = "1234"
		return Endpoint{}, hint.New("the port is missing", e.String())
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return Endpoint{}, fmt.Errorf("the port %q is not a number from 1 to 65535", clip(port))
	}
	e.Port = strconv.FormatUint(n, 10)
	return e, nil
}

// splitHostPort cuts at the last colon; an IPv6 address keeps its brackets. A
// missing port is "", told by the caller when it knows that the host is good.
func splitHostPort(authority string) (host, port string, err error) {
	if authority == "" {
		return "", "", hint.New("the host is missing", "tcp://HOST:1234")
	}
	if authority[0] == '[' {
		end := strings.IndexByte(authority, ']')
		if end < 0 {
			return "", "", errors.New("the ] after the IPv6 address is missing")
		}
		host, port = authority[:end+1], authority[end+1:]
		if port != "" && port[0] != ':' {
			return "", "", fmt.Errorf("%q after the IPv6 address is not a port", clip(port))
		}
		return host, strings.TrimPrefix(port, ":"), nil
	}
	if addr, aerr := netip.ParseAddr(authority); aerr == nil && addr.Is6() {
		return "", "", hint.New("an IPv6 address must be in brackets, and have a port",
			Endpoint{Scheme: SchemeTCP, Host: addr.String(), Port: "1234"}.String())
	}
	host, port, _ = strings.Cut(authority, ":")
	switch {
	case strings.Contains(port, ":"):
		return "", "", errors.New("has more than one colon; an IPv6 address must be in brackets")
	case host == "":
		return "", "", hint.New("the host is missing", "tcp://HOST:1234")
	}
	return host, port, nil
}

// missingScheme guesses what was meant by a text without "scheme://".
func missingScheme(raw string) error {
	missing := errors.New("the scheme is missing")
	if strings.Contains(raw, "@") { // may hold a password: repeat nothing of it
		return refuse(raw, missing, examples()...)
	}
	if i := strings.IndexByte(raw, ':'); i > 0 {
		scheme, rest := strings.ToLower(raw[:i]), raw[i+1:]
		switch {
		case scheme == SchemeUnix && !strings.HasPrefix(rest, "/"):
			_, err := parseUnix(raw, rest)
			return err
		case scheme == SchemeUnix || scheme == SchemeTCP && strings.Contains(rest, ":"):
			var corrected []string
			if e, err := Parse(scheme + "://" + rest); err == nil {
				corrected = []string{e.String()}
			}
			return refuse(raw, fmt.Errorf("the // after %q is missing", scheme+":"), corrected...)
		}
		if e, err := parseAuthority(raw); err == nil {
			return refuse(raw, missing, e.String())
		}
		if scheme == SchemeExec {
			return refuse(raw, errors.New("the command is a parameter of the endpoint"), ExecEndpoint(strings.TrimSpace(rest)).String())
		}
	}
	switch {
	case strings.HasPrefix(raw, `\\.\pipe\`):
		if e, err := parseNpipe(raw, raw); err == nil {
			return refuse(raw, missing, e.String())
		}
		return refuse(raw, missing, SchemeNpipe+"://"+pipeRoot+"buildkitd")
	case raw[0] == '/':
		return refuse(raw, missing, SchemeUnix+"://"+path.Clean(raw))
	case raw[0] == '.' || raw[0] == '~':
		return refuse(raw, missing, absoluteHint(raw)...)
	}
	if host, err := parseHost(raw); err == nil {
		return refuse(raw, missing, SchemeTCP+"://"+net.JoinHostPort(host, "1234"))
	}
	return refuse(raw, missing, examples()...)
}

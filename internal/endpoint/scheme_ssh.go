package endpoint

import (
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/berthbuild/berth/internal/hint"
)

// SchemeSSH is ssh://[USER@]HOST[:PORT][/SOCKET].
const SchemeSSH = "ssh"

const (
	// maxUser bounds a login name in bytes; systems allow 32, directories more.
	maxUser = 128
	sshHint = "ssh://USER@HOST/run/buildkit/buildkitd.sock"
)

// parseSSH reads the machine and the socket on it. HOST may be a name out of
// ssh_config. The path becomes a part of a command line on the machine, where a
// daemon's socket cannot be opened directly: it has no character that a shell
// would mind.
func parseSSH(raw, rest string) (Endpoint, error) {
	e := Endpoint{Scheme: SchemeSSH}
	var err error
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		if e.User, err = parseUser(rest[:i]); err != nil {
			return Endpoint{}, refuse(SchemeSSH+"://…@"+rest[i+1:], err, sshHint)
		}
		rest = rest[i+1:]
	}
	if i := strings.IndexAny(rest, "?#"); i >= 0 {
		return Endpoint{}, refuse(raw, hint.New("has a query or fragment, which ssh:// does not know",
			"options of ssh are read from ~/.ssh/config: Port, IdentityFile, ProxyJump, …"))
	}
	authority := rest
	if i := strings.IndexByte(rest, '/'); i >= 0 {
		authority = rest[:i]
		if e.Path, err = parseRemoteSocket(rest[i:]); err != nil {
			return Endpoint{}, refuse(raw, err)
		}
	}
	if e.Host, e.Port, err = parseSSHHost(authority); err != nil {
		return Endpoint{}, refuse(raw, err)
	}
	return e, nil
}

// parseUser checks a login name. Its errors repeat nothing: what stands before
// the @ may be a password.
func parseUser(user string) (string, error) {
	switch {
	case user == "":
		return "", errors.New("the user before the @ is empty")
	case strings.ContainsAny(user, ":"):
		return "", hint.New("has a password, which must not be in a URL: it would be kept and shown",
			"log in with a key: ssh-copy-id USER@HOST")
	case len(user) > maxUser:
		return "", fmt.Errorf("the user is longer than %d bytes", maxUser)
	case user[0] == '-' || user[0] == '.' || user[0] == '+':
		return "", errors.New("the user begins with a character that no login name begins with")
	}
	for i, r := range strings.TrimSuffix(user, "$") { // as Windows machines are called
		if !nameRune(r) && (i == 0 || r != '.' && r != '+') {
			return "", hint.New("the user has a character that a login name in a URL cannot have",
				"name it in ~/.ssh/config: User …")
		}
	}
	return user, nil
}

func parseSSHHost(authority string) (host, port string, err error) {
	switch {
	case authority == "":
		return "", "", hint.New("the host is missing", sshHint)
	case authority[0] != '[' && strings.Count(authority, ":") > 1:
		return "", "", hint.New("has more than one colon; an IPv6 address must be in brackets", "ssh://[::1]:22")
	}
	host, port, err = splitHostPort(authority)
	if err != nil {
		return "", "", err
	}
	if host, err = parseHost(host); err != nil {
		return "", "", err
	}
	if port == "" {
		if strings.HasSuffix(authority, ":") {
			return "", "", errors.New("the port after the colon is missing")
		}
		return host, "", nil
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return "", "", fmt.Errorf("the port %q is not a number from 1 to 65535", clip(port))
	}
	return host, strconv.FormatUint(n, 10), nil
}

// parseRemoteSocket checks the path of a socket on another machine. A lone
// slash is no path.
func parseRemoteSocket(p string) (string, error) {
	clean := path.Clean(p)
	if clean == "/" && !strings.Contains(p, ".") {
		return "", nil
	}
	for _, part := range strings.Split(p, "/") {
		if part == ".." {
			return "", errors.New("the socket path has .. in it; write the path as it is")
		}
	}
	if strings.HasPrefix(p, "/~") {
		return "", hint.New("the socket path begins with ~, which nobody replaces there", "ssh://USER@HOST/home/USER/buildkitd.sock")
	}
	for _, r := range clean {
		if !nameRune(r) && !strings.ContainsRune("/.+,=:", r) {
			return "", fmt.Errorf("the socket path contains %q; letters, digits and / . _ + , = : - are allowed", r)
		}
	}
	if len(clean) > maxSunPath {
		return "", fmt.Errorf("the socket path is %d bytes long; systems allow %d", len(clean), maxSunPath)
	}
	if clean == "/" {
		return "", errors.New("the socket path is a folder")
	}
	return clean, nil
}

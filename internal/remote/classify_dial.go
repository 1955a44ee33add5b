package remote

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path"
	"strings"
	"time"

	"github.com/berthbuild/berth/internal/dial"
	"github.com/berthbuild/berth/internal/endpoint"
	"github.com/berthbuild/berth/internal/hint"
)

// classifyDial reads the error of a dial, which never got as far as a byte.
func classifyDial(t Target, err error, took time.Duration) *cause {
	if own := fromScheme(err, stageDial); own != nil {
		if own.class == dial.ProxyUnreachable {
			unreachedProxy(own, took)
		}
		return own
	}
	c := &cause{err: err, stage: stageDial}
	if t.Endpoint.Scheme == endpoint.SchemeUnix && classifySocket(t, c) {
		return c
	}
	host := t.Endpoint.Hostname()
	var dns *net.DNSError
	var ne net.Error
	switch {
	case errors.As(err, &dns):
		classifyDNS(c, dns, host)
	case isAny(err, refusedErrnos()):
		c.class, c.text, c.tries = Refused, "connection refused", refusedHints(t)
	case isAny(err, unreachableErrnos()):
		c.class, c.text = Unreachable, unreachableText(err)
		c.tries = []string{"is this machine on the right network or VPN?", "ping " + hint.Quote(host)}
	case isAny(err, resetErrnos()):
		c.class, c.text = Closed, "the connection was reset while connecting"
	case errors.As(err, &ne) && ne.Timeout():
		c.class, c.bare = Timeout, true
		c.text = fmt.Sprintf("no answer to the attempt to connect within %s", seconds(took))
		c.tries = []string{
			"a firewall that drops packets, a wrong address, or a machine that is off looks like this",
			tryHint(t),
		}
	case errors.Is(err, fs.ErrPermission):
		c.class, c.text = Unreachable, "the system does not permit the connection"
		c.tries = []string{"a firewall rule or sandbox on this machine forbids it"}
	default:
		c.class, c.text = ConnectError, systemText(err)
		c.tries = hint.Of(err)
	}
	return c
}

// unreachedProxy adds why there is no connection to a proxy.
func unreachedProxy(c *cause, took time.Duration) {
	var own *dial.Error
	if !errors.As(c.err, &own) || own.Err == nil {
		return
	}
	why := classifyDial(Target{}, own.Err, took)
	c.text, c.bare = c.text+": "+why.text, why.bare
	if why.class == DNS {
		c.tries = why.tries
	}
}

// classifySocket looks at the socket itself: the dial's error does not tell a
// dead socket from a file that is none, nor which folder denies access.
func classifySocket(t Target, c *cause) bool {
	p := t.Endpoint.Path
	st, serr := os.Stat(p)
	switch {
	case errors.Is(c.err, fs.ErrNotExist):
		c.class, c.text = NoSocket, "no such socket"
		c.tries = []string{"is buildkitd running? start it with: buildkitd --addr unix://" + hint.Quote(p)}
		if st, err := os.Stat(path.Dir(p)); err != nil || !st.IsDir() {
			c.tries = append([]string{fmt.Sprintf("the folder %s does not exist either; is the path right?", path.Dir(p))}, c.tries...)
		}
	case errors.Is(c.err, fs.ErrPermission):
		c.class = SocketPermission
		c.text, c.tries = deniedBy(p)
	case isAny(c.err, busyErrnos()):
		c.class, c.text = Unavailable, "the socket's queue is full"
		c.tries = []string{"the daemon does not accept connections; is it hanging? look at its log"}
	case serr == nil && st.Mode()&fs.ModeSocket == 0 && !windows():
		c.class, c.text = BadConfig, fmt.Sprintf("%s is %s, not a socket", p, kindOf(st.Mode()))
		c.tries = []string{"ls -l " + hint.Quote(p)}
	case isAny(c.err, refusedErrnos()):
		c.class, c.text = Refused, "connection refused"
		c.tries = []string{
			"the socket is there, but no daemon listens on it: start it with: buildkitd --addr unix://" + hint.Quote(p),
		}
	default:
		return false
	}
	return true
}

func kindOf(m fs.FileMode) string {
	switch {
	case m.IsDir():
		return "a directory"
	case m.IsRegular():
		return "a file"
	}
	return "something else"
}

// deniedBy finds what denies access to the socket, for the hint.
func deniedBy(p string) (string, []string) {
	st, err := os.Lstat(p)
	if err == nil {
		return "permission denied on the socket" + ownedBy(st),
			append(groupHints(st), "let buildkitd give the socket to your group: buildkitd --group \"$(id -g)\" …", "ls -l "+hint.Quote(p))
	}
	for dir := path.Dir(p); dir != "/"; dir = path.Dir(dir) {
		if st, err := os.Lstat(dir); err == nil {
			return fmt.Sprintf("permission denied in the folder %s%s", dir, ownedBy(st)),
				[]string{"the folder keeps this user out: ls -ld " + hint.Quote(dir)}
		}
	}
	return "permission denied on the socket", []string{"ls -l " + hint.Quote(p)}
}

func classifyDNS(c *cause, dns *net.DNSError, host string) {
	if t := dns.Name; t != "" { // ssh_config may lead elsewhere than the endpoint says
		host = strings.TrimSuffix(t, ".")
	}
	c.class = DNS
	c.tries = []string{"is the name right? getent hosts " + hint.Quote(host)}
	switch {
	case dns.IsNotFound:
		c.text = "no such host: " + host
	case dns.IsTimeout:
		c.text, c.bare = "the name server did not answer for "+host, true
		c.tries = []string{"is the network up? getent hosts " + hint.Quote(host)}
	default:
		c.text = "the name server could not answer for " + host
	}
}

// tryHint is a command that shows the same failure without berth.
func tryHint(t Target) string {
	if t.Endpoint.Scheme != endpoint.SchemeSSH {
		return "nc -vz " + hint.Quote(t.Endpoint.Hostname()) + " " + t.Endpoint.Port
	}
	line := "ssh -v "
	if t.Endpoint.Port != "" {
		line += "-p " + t.Endpoint.Port + " "
	}
	if t.Endpoint.User != "" {
		line += t.Endpoint.User + "@"
	}
	return line + t.Endpoint.Host
}

func refusedHints(t Target) []string {
	if t.Endpoint.Scheme == endpoint.SchemeSSH {
		return []string{"is sshd running there, and listening on this port? " + tryHint(t)}
	}
	if t.Endpoint.Loopback() {
		return []string{"is buildkitd running, and listening on this port? buildkitd --addr " + t.Endpoint.String()}
	}
	return []string{
		"is buildkitd running there, and listening on this address? (--addr tcp://0.0.0.0:" + t.Endpoint.Port + " with TLS)",
		tryHint(t),
	}
}

// unreachableText tells the two apart that mean different repairs.
func unreachableText(err error) string {
	if isAny(err, noRouteErrnos()) {
		return "network is unreachable"
	}
	return "host is unreachable"
}

// systemText is the system's own words without the address, which is said
// anyway.
func systemText(err error) string {
	var op *net.OpError
	if errors.As(err, &op) && op.Err != nil {
		err = op.Err
	}
	var sys *os.SyscallError
	if errors.As(err, &sys) {
		err = sys.Err
	}
	return printable(err.Error(), maxText)
}

func isAny(err error, all []error) bool {
	for _, one := range all {
		if errors.Is(err, one) {
			return true
		}
	}
	return false
}

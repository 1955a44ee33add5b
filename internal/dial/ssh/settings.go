package ssh

import (
	"fmt"
	"net"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/berthbuild/berth/internal/dial"
)

// maxHops bounds the machines on the way.
const maxHops = 8

// The policies for a host key, as StrictHostKeyChecking has them.
const (
	strictYes = "yes"        // it must be known
	strictAsk = "ask"        // somebody is asked; where nobody is there, it must be known
	strictNew = "accept-new" // an unknown one is accepted, a changed one is not
	strictOff = "no"         // any is accepted
)

// settings is how to log in on one machine.
type settings struct {
	host, hostName, user, port string
	jump                       bool // it is on the way to another
	behind                     bool // another is on the way to it
	network                    string
	connectTimeout             time.Duration // 0 where nothing was said

	alias       string   // by which name its host key is known, or ""
	known       []string // the files, the user's first
	mayAdd      int      // how many of them are the user's
	strict      string
	hash        bool
	identities  []string // files
	explicit    bool     // they were named, and are not the usual ones
	certs       []string
	onlyThese   bool
	agentSocket string // "" where there is none

	jumps []string // as named, nearest first
}

func (s *settings) address() string { return net.JoinHostPort(s.hostName, s.port) }

// name is whom the host key belongs to, as known_hosts has it.
func (s *settings) name() string {
	switch {
	case s.alias != "":
		return s.alias
	case s.port != "22":
		return "[" + s.hostName + "]:" + s.port
	}
	return s.hostName
}

// command is an ssh command line to this machine, as the user would type it.
func (s *settings) command() string {
	line := "ssh "
	if s.port != "22" {
		line += "-p " + s.port + " "
	}
	return line + s.user + "@" + s.host
}

// route is the machines to go through, the last is the one that was named.
func (d *dialer) route(host, userName, port string, depth int) ([]*settings, error) {
	s, err := d.settings(host, userName, port)
	if err != nil || len(s.jumps) == 0 {
		return []*settings{s}, err
	}
	var hops []*settings
	for i, jump := range s.jumps {
		jumpHost, jumpUser, jumpPort, err := parseJump(jump)
		if err != nil {
			return nil, err
		}
		if depth+len(s.jumps) > maxHops {
			return nil, badConfig("ProxyJump", "the way to %s has more than %d machines; do they jump in a circle?", s.host, maxHops)
		}
		var way []*settings
		if i == 0 { // the first may have a way of its own
			way, err = d.route(jumpHost, jumpUser, jumpPort, depth+1)
		} else {
			way = make([]*settings, 1)
			way[0], err = d.settings(jumpHost, jumpUser, jumpPort)
		}
		if err != nil {
			return nil, err
		}
		hops = append(hops, way...)
	}
	hops = append(hops, s)
	if len(hops) > maxHops {
		return nil, badConfig("ProxyJump", "the way to %s has more than %d machines", s.host, maxHops)
	}
	return hops, nil
}

// parseJump reads [user@]host[:port], or the same as an ssh:// URL.
func parseJump(text string) (host, userName, port string, err error) {
	rest, _ := strings.CutPrefix(text, "ssh://")
	bad := func(why string) (string, string, string, error) {
		return "", "", "", badConfig("ProxyJump", "%q %s", clip(text), why)
	}
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		userName, rest = rest[:i], rest[i+1:]
		if strings.Contains(userName, ":") {
			return "", "", "", badConfig("ProxyJump", "a jump host has a password, or more than a name, before its @")
		}
	}
	host = strings.TrimSuffix(rest, "/")
	if h, p, err := net.SplitHostPort(host); err == nil {
		host, port = h, p
	}
	host = strings.ToLower(strings.TrimSuffix(strings.TrimPrefix(host, "["), "]"))
	if host == "" || host[0] == '-' || strings.ContainsAny(host, "/ \t'\"$`;&|<>()\\") {
		return bad("is not a host")
	}
	if port != "" && !isPort(port) {
		return bad("has a port that is not a number from 1 to 65535")
	}
	return host, userName, port, nil
}

func isPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0
}

// settings reads what the configuration says about a host. User and port that
// were named with it win.
func (d *dialer) settings(host, userName, port string) (*settings, error) {
	r := &reader{d: d, host: host, user: userName, values: map[string]value{}, lists: map[string][]value{}}
	if err := r.read(); err != nil {
		return nil, err
	}
	if err := r.refuseOthers(); err != nil {
		return nil, err
	}
	s := &settings{host: host, hostName: r.hostName(), user: r.userName(), port: port, network: "tcp", strict: strictAsk}
	switch {
	case s.user == "":
		return nil, badConfig("user", "nobody knows who to log in as: ssh://USER@%s", host)
	case s.hostName == "" || s.hostName[0] == '-' || strings.ContainsAny(s.hostName, "/ \t'\"$`;&|<>()\\@"):
		return nil, badConfig(r.values["hostname"].where, "HostName %q is not a host", clip(s.hostName))
	}
	p := &picker{reader: r, s: s}
	p.where()
	p.hostKeys()
	p.keys()
	return s, p.err
}

// refuseOthers names the directives that change the way to a host, or whom to
// trust, and that berth does not have.
func (r *reader) refuseOthers() error {
	if v, ok := r.values["proxycommand"]; ok && !isNone(v) {
		return &dial.Error{
			Class: Config, Text: v.where + ": ProxyCommand is not supported",
			Tries: []string{
				"where it runs ssh -W %h:%p JUMP, write instead: ProxyJump JUMP",
				"or let ssh do it all: exec://?cmd=ssh+" + r.host + "+buildctl+dial-stdio",
			},
		}
	}
	for _, name := range []string{"RevokedHostKeys", "KnownHostsCommand"} {
		if v, ok := r.values[strings.ToLower(name)]; ok && !isNone(v) {
			return badConfig(v.where, "%s is not supported; without it a host key could be accepted that is not good", name)
		}
	}
	canonical, on := r.values["canonicalizehostname"]
	if _, domains := r.values["canonicaldomains"]; on && domains && !strings.EqualFold(canonical.args[0], "no") {
		return badConfig(canonical.where, "CanonicalizeHostname is not supported: name the host in full, and set it to no for that Host")
	}
	return nil
}

func isNone(v value) bool { return strings.EqualFold(v.args[0], "none") }

// picker turns directives into settings; the first mistake stays.
type picker struct {
	*reader
	s   *settings
	err error
}

func (p *picker) fail(v value, format string, args ...any) {
	if p.err == nil {
		p.err = badConfig(v.where, format, args...)
	}
}

// get is a directive of one word.
func (p *picker) get(name string) (string, value, bool) {
	v, ok := p.values[strings.ToLower(name)]
	if !ok {
		return "", v, false
	}
	return v.args[0], v, true
}

func (p *picker) flag(name string, def bool) bool {
	text, v, ok := p.get(name)
	if !ok {
		return def
	}
	switch strings.ToLower(text) {
	case "yes", "true":
		return true
	case "no", "false":
		return false
	}
	p.fail(v, "%s is yes or no, not %q", name, clip(text))
	return def
}

// where is about the way to the machine.
func (p *picker) where() {
	if text, v, ok := p.get("Port"); ok && !isPort(text) {
		p.fail(v, "Port %q is not a number from 1 to 65535", clip(text))
	} else if ok && p.s.port == "" {
		p.s.port = text
	}
	if p.s.port == "" {
		p.s.port = "22"
	}
	if text, v, ok := p.get("AddressFamily"); ok {
		network, known := map[string]string{"any": "tcp", "inet": "tcp4", "inet6": "tcp6"}[strings.ToLower(text)]
		if !known {
			p.fail(v, "AddressFamily is any, inet or inet6, not %q", clip(text))
		}
		p.s.network = network
	}
	if text, v, ok := p.get("ConnectTimeout"); ok && !isNone(v) {
		if _, err := strconv.ParseUint(text, 10, 31); err == nil {
			text += "s"
		}
		d, err := time.ParseDuration(strings.ToLower(text))
		if err != nil || d < 0 {
			p.fail(v, "ConnectTimeout %q is not a time", clip(text))
		}
		p.s.connectTimeout = d
	}
	if v, ok := p.values["proxyjump"]; ok && !isNone(v) {
		for _, jump := range strings.Split(p.expand(v, strings.Join(v.args, "")), ",") {
			p.s.jumps = append(p.s.jumps, strings.TrimSpace(jump))
		}
		host, userName, port, err := parseJump(p.s.jumps[0])
		switch {
		case err != nil:
			p.fail(v, "%w", err)
		case host == p.host && (port == "" || port == p.s.port) && (userName == "" || userName == p.s.user):
			p.fail(v, "%s jumps to itself: except it with Host * !%s", host, host)
		}
	}
}

// hostKeys is about how the machine proves itself.
func (p *picker) hostKeys() {
	if text, v, ok := p.get("StrictHostKeyChecking"); ok {
		policy, known := map[string]string{
			"yes": strictYes, "true": strictYes, "ask": strictAsk, "accept-new": strictNew,
			"no": strictOff, "false": strictOff, "off": strictOff,
		}[strings.ToLower(text)]
		if !known {
			p.fail(v, "StrictHostKeyChecking %q is not yes, no, ask or accept-new", clip(text))
		}
		p.s.strict = policy
	}
	if alias, _, ok := p.get("HostKeyAlias"); ok {
		p.s.alias = strings.ToLower(alias)
	}
	p.s.hash = p.flag("HashKnownHosts", false)
	home := filepath.Join("~", ".ssh")
	p.s.known = p.paths("UserKnownHostsFile", filepath.Join(home, "known_hosts"), filepath.Join(home, "known_hosts2"))
	p.s.mayAdd = len(p.s.known)
	dir := filepath.Dir(p.d.system)
	p.s.known = append(p.s.known, p.paths("GlobalKnownHostsFile",
		filepath.Join(dir, "ssh_known_hosts"), filepath.Join(dir, "ssh_known_hosts2"))...)
}

// keys is about how we prove ourselves.
func (p *picker) keys() {
	p.s.onlyThese = p.flag("IdentitiesOnly", false)
	for _, v := range p.lists["identityfile"] {
		p.s.explicit = true
		if !isNone(v) {
			p.s.identities = append(p.s.identities, p.path(v, v.args[0]))
		}
	}
	if !p.s.explicit && p.d.env.Home != "" {
		for _, name := range []string{"id_ed25519", "id_ecdsa", "id_rsa"} {
			p.s.identities = append(p.s.identities, filepath.Join(p.d.env.Home, ".ssh", name))
		}
	}
	for _, v := range p.lists["certificatefile"] {
		p.s.certs = append(p.s.certs, p.path(v, v.args[0]))
	}
	p.s.agentSocket = p.d.env.Getenv("SSH_AUTH_SOCK")
	if text, v, ok := p.get("IdentityAgent"); ok {
		switch {
		case isNone(v):
			p.s.agentSocket = ""
		case text == "SSH_AUTH_SOCK":
		case strings.HasPrefix(text, "$") && !strings.HasPrefix(text, "${"):
			p.s.agentSocket = p.d.env.Getenv(text[1:])
		default:
			p.s.agentSocket = p.path(v, text)
		}
	}
}

// paths is a directive of several files.
func (p *picker) paths(name string, def ...string) []string {
	v, ok := p.values[strings.ToLower(name)]
	if !ok {
		v.args = def
		if p.d.env.Home == "" && strings.HasPrefix(name, "User") {
			return nil
		}
	}
	if ok && isNone(v) {
		return nil
	}
	var all []string
	for _, text := range v.args {
		all = append(all, p.path(v, text))
	}
	return all
}

// path is a file that a directive names.
func (p *picker) path(v value, text string) string {
	text = p.expand(v, text)
	if text == "~" || strings.HasPrefix(text, "~/") || strings.HasPrefix(text, `~\`) {
		return filepath.Join(p.d.env.Home, text[1:])
	}
	if strings.HasPrefix(text, "~") {
		p.fail(v, "only ~/ is understood, not %q", clip(text))
	}
	if !filepath.IsAbs(text) {
		return filepath.Join(p.d.env.Dir, text)
	}
	return text
}

// expand replaces %h and the like, and ${VARIABLE}.
func (p *picker) expand(v value, text string) string {
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		switch {
		case text[i] == '%':
			i++
			token, ok := p.token(text[i:min(i+1, len(text))])
			if !ok {
				p.fail(v, "%q in %q is not understood", text[i-1:min(i+1, len(text))], clip(text))
				return ""
			}
			b.WriteString(token)
		case strings.HasPrefix(text[i:], "${"):
			name, _, closed := strings.Cut(text[i+2:], "}")
			set := p.d.env.Getenv(name)
			if !closed || set == "" {
				p.fail(v, "${%s is not a variable that is set", clip(name))
				return ""
			}
			b.WriteString(set)
			i += len(name) + 2
		default:
			b.WriteByte(text[i])
		}
	}
	return b.String()
}

func (p *picker) token(letter string) (string, bool) {
	alias := p.s.alias
	if alias == "" {
		alias = p.host
	}
	port := p.s.port
	if port == "" {
		port = "22"
	}
	text, ok := map[string]string{
		"%": "%", "d": p.d.env.Home, "h": p.s.hostName, "k": alias, "n": p.host,
		"p": port, "r": p.s.user, "u": p.d.local(),
	}[letter]
	return text, ok
}

// localUser is who we are on this machine, "" where nobody knows.
func localUser(env dial.Env) string {
	for _, name := range []string{"USER", "LOGNAME", "USERNAME"} {
		if v := env.Getenv(name); v != "" {
			return v
		}
	}
	u, err := user.Current()
	if err != nil {
		return ""
	}
	return u.Username[strings.LastIndexByte(u.Username, '\\')+1:] // DOMAIN\NAME
}

// badConfig is a mistake in the configuration, with its place.
func badConfig(where, format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	return &dial.Error{Class: Config, Text: where + ": " + err.Error(), Err: err}
}

// clip bounds what a message repeats.
func clip(s string) string {
	const most = 80
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}

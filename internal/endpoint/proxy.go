package endpoint

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/berthbuild/berth/internal/hint"
)

// The kinds of proxies.
const (
	ProxyHTTP    = "http"    // CONNECT
	ProxyHTTPS   = "https"   // CONNECT, within TLS to the proxy
	ProxySOCKS5  = "socks5"  // names are resolved here
	ProxySOCKS5H = "socks5h" // names are resolved by the proxy
	ProxyEnv     = "env"     // what the environment names, if anything
)

// hiddenPassword is what a password is shown as, as package net/url does.
const hiddenPassword = "xxxxx"

// Proxy is through what a daemon is reached. The zero value is no proxy.
type Proxy struct {
	Kind     string // ProxyHTTP, …; "" is no proxy
	Host     string // as Endpoint.Host; "" for ProxyEnv
	Port     string // never empty where Host is not
	User     string // who to log in as; "" without a login
	Password Secret
}

// ParseProxy reads "http://[user:password@]host[:port]", https, socks5, socks5h,
// or "env". What is not a letter, digit or one of -._~ in user and password is
// percent-encoded, as in every URL. No error repeats user or password.
func ParseProxy(text string) (Proxy, error) {
	if text == ProxyEnv {
		return Proxy{Kind: ProxyEnv}, nil
	}
	scheme, rest, ok := cutScheme(text)
	switch {
	case len(text) > maxLen:
		return Proxy{}, fmt.Errorf("is longer than %d bytes", maxLen)
	case !utf8.ValidString(text) || strings.ContainsFunc(text, unicode.IsControl):
		return Proxy{}, errors.New("contains a control character, or is no UTF-8")
	case !ok:
		return Proxy{}, proxyScheme(text)
	}
	p := Proxy{Kind: scheme}
	switch scheme {
	case ProxyHTTP:
		p.Port = "80"
	case ProxyHTTPS:
		p.Port = "443"
	case ProxySOCKS5, ProxySOCKS5H:
		p.Port = "1080"
	default:
		return Proxy{}, hint.New(fmt.Sprintf("%q is not a kind of proxy that berth speaks to", clip(scheme)), "known are: http, https, socks5, socks5h, env")
	}
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		if err := p.login(rest[:i]); err != nil {
			return Proxy{}, err
		}
		rest = rest[i+1:]
	}
	if err := p.address(rest); err != nil {
		return Proxy{}, err
	}
	return p, nil
}

// proxyScheme is about a text without one; it may hold a password.
func proxyScheme(text string) error {
	missing := errors.New("has no scheme")
	if !strings.Contains(text, "@") {
		if host, port, err := splitHostPort(text); err == nil && port != "" {
			if host, err = parseHost(host); err == nil {
				return hint.Wrap(missing, "", ProxyHTTP+"://"+strings.ToLower(host)+":"+port)
			}
		}
	}
	return hint.Wrap(missing, "", "http://HOST:3128, socks5://HOST:1080, or env")
}

func (p *Proxy) login(text string) error {
	user, password, _ := strings.Cut(text, ":")
	var err, err2 error
	p.User, err = url.PathUnescape(user)
	password, err2 = url.PathUnescape(password)
	p.Password = NewSecret(password)
	switch {
	case err != nil || err2 != nil:
		return hint.New("has a user or password with a % that encodes nothing", "a per cent sign itself is written %25")
	case p.User == "":
		return errors.New("has an @ but no user before it")
	case strings.ContainsFunc(p.User+password, unicode.IsControl) || !utf8.ValidString(p.User+password):
		return errors.New("has a control character in user or password")
	case p.http() && strings.Contains(p.User, ":"):
		return errors.New("has a colon in the user's name, which HTTP cannot send")
	case !p.http() && (len(p.User) > 255 || len(password) > 255):
		return errors.New("has a user or password of more than 255 bytes, which SOCKS cannot send")
	}
	return nil
}

func (p *Proxy) address(text string) error {
	authority := strings.TrimSuffix(text, "/")
	if strings.ContainsAny(authority, "/?#") {
		return errors.New("has a path, query or fragment, which a proxy cannot have (a / in a password is written %2F)")
	}
	host, port, err := splitHostPort(authority)
	if err != nil {
		return err
	}
	if p.Host, err = parseHost(host); err != nil {
		return err
	}
	if port == "" {
		return nil
	}
	e, err := parseAuthority(authority)
	p.Port = e.Port
	return err
}

func (p Proxy) http() bool { return p.Kind == ProxyHTTP || p.Kind == ProxyHTTPS }

// IsZero tells whether there is none.
func (p Proxy) IsZero() bool { return p.Kind == "" }

// Address is what to give to net.Dial.
func (p Proxy) Address() string { return net.JoinHostPort(p.Host, p.Port) }

// String is the URL for people, with the password hidden.
func (p Proxy) String() string { return p.text(hiddenPassword) }

// stored is the URL with the password in it.
func (p Proxy) stored() string { return p.text(escape(p.Password.Reveal())) }

func (p Proxy) text(password string) string {
	switch p.Kind {
	case "", ProxyEnv:
		return p.Kind
	}
	login := ""
	if p.User != "" {
		login = escape(p.User)
		if !p.Password.IsZero() {
			login += ":" + password
		}
		login += "@"
	}
	return p.Kind + "://" + login + Endpoint{Host: p.Host, Port: p.Port}.authority()
}

// escape encodes all that is not unreserved, so that the result is one word
// anywhere.
func escape(text string) string {
	return strings.ReplaceAll(url.QueryEscape(text), "+", "%20")
}

// Redacted is options as they may be shown: a proxy's password is hidden. The
// options themselves stay as they are.
func Redacted(kv map[string]string) map[string]string {
	if _, ok := kv[OptProxy]; !ok {
		return kv
	}
	shown := make(map[string]string, len(kv))
	for k, v := range kv {
		if k == OptProxy {
			if p, err := ParseProxy(v); err == nil {
				v = p.String()
			} else {
				v = "…"
			}
		}
		shown[k] = v
	}
	return shown
}

package remote

import (
	"net"
	"testing"
	"time"

	"github.com/berthbuild/berth/internal/buildkittest"
	"github.com/berthbuild/berth/internal/dial"
	"github.com/berthbuild/berth/internal/dial/dialtest"
)

// TestFaults is the table of what goes wrong on the way to a daemon with TLS:
// for each, the class, the words and the hint.
func TestFaults(t *testing.T) {
	certs := buildkittest.TestCerts(t)
	must := func(p buildkittest.Pair, err error) buildkittest.Pair {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	between, err := certs.CA.Intermediate("between-ca")
	if err != nil {
		t.Fatal(err)
	}
	below := must(between.Issue("below", buildkittest.Leaf{Names: []string{"127.0.0.1"}}))
	tomorrow := must(certs.CA.Issue("tomorrow-client", buildkittest.Leaf{Client: true, Future: true}))
	stranger := certs.OtherClient
	daemonWith := func(p buildkittest.Pair, clientCA string, opts ...string) func(*testing.T) (Target, dial.Registry) {
		return daemon(buildkittest.Options{TLS: &buildkittest.TLS{Server: p, ClientCA: clientCA}}, opts...)
	}
	ca := []string{"cacert", certs.CA.File}
	with := func(p buildkittest.Pair) []string {
		return []string{"cacert", certs.CA.File, "cert", p.Cert, "key", p.Key}
	}
	proxied := func(t *testing.T) (Target, dial.Registry) {
		p := dialtest.Proxy(t, dialtest.ProxyOpts{User: "me", Password: "hunter2"})
		s := buildkittest.New(t, buildkittest.Options{TLS: &buildkittest.TLS{Server: certs.Server}})
		return target(t, s.Endpoint(), "cacert", certs.CA.File, "proxy", "http://"+p.Addr), nil
	}
	runClasses(t, []classCase{
		{name: "1 wrong CA", setup: daemonWith(certs.OtherServer, "", ca...), class: TLSUntrusted,
			text: "certificate is signed by an unknown CA (CN=other-ca)", hint: "it was checked against cacert " + certs.CA.File + "; the CA to name is CN=other-ca: berth create"},
		{name: "2 wrong server name", setup: daemonWith(certs.NamedServer, "", ca...), class: TLSName,
			text: `certificate is for "build.example", "*.build.example", not for "127.0.0.1"`, hint: "servername=build.example"},
		{name: "3 expired server", setup: daemonWith(certs.ExpiredServer, "", ca...), class: TLSExpired, text: "ago by this machine's clock", hint: "issue a new certificate for the daemon (where berth made it: berth certs renew)"},
		{name: "4 expired client", setup: daemonWith(certs.Server, certs.CA.File, with(certs.ExpiredClient)...), class: TLSClientCert,
			text: "the daemon refused our client certificate: it expired on 20", hint: "we sent " + certs.ExpiredClient.Cert},
		{name: "5 client not yet valid", setup: daemonWith(certs.Server, certs.CA.File, with(tomorrow)...), class: TLSClientCert,
			text: "the daemon refused our client certificate: it is not valid before 20", hint: "we sent " + tomorrow.Cert},
		{name: "6 no client certificate", setup: daemonWith(certs.Server, certs.CA.File, ca...), class: TLSClientCert,
			text: "the daemon requires a client certificate", hint: "it wants one signed by CN=ca: berth create"},
		{name: "7 client of another CA", setup: daemonWith(certs.Server, certs.CA.File, with(stranger)...), class: TLSClientCert,
			text: "signed by a CA that it does not know", hint: "the daemon wants one signed by CN=ca"},
		{name: "8 key of another certificate", setup: daemonWith(certs.Server, certs.CA.File, with(buildkittest.Pair{Cert: certs.Client.Cert, Key: stranger.Key})...), class: BadConfig,
			text: "does not belong to the certificate in " + certs.Client.Cert, hint: "openssl pkey -pubout"},
		{name: "9 intermediate missing", setup: daemonWith(below, "", ca...), class: TLSUntrusted,
			text: "certificate is signed by an unknown CA (CN=between-ca)", hint: "if CN=between-ca is an intermediate CA, the daemon must send its certificate, too"},
		{name: "10 TLS 1.0 only", setup: rawPeer(oldTLS(t, certs.Server), ca...), class: TLSHandshake, text: "the peer speaks neither TLS 1.2 nor 1.3", hint: "openssl s_client"},
		{name: "11 closes in the handshake", setup: rawPeer(func(c net.Conn) { _, _ = c.Read(make([]byte, 4096)) }, ca...), class: Closed,
			text: "the peer closes the connection during the TLS handshake", hint: "a proxy whose daemon is down"},
		{name: "12 HTTP/1.1", setup: rawPeer(buildkittest.Say("HTTP/1.1 400 Bad Request\r\n\r\n"), ca...), class: NotTLS, text: "it is an HTTP/1 server", hint: "is this the port of buildkitd?"},
		{name: "12 HTTP/1.1 within TLS", setup: rawPeer(tlsPeer(t, certs.Server, "http/1.1"), ca...), class: NotHTTP2, text: "no HTTP/2", hint: "a web server or proxy"},
		{name: "13 silent", setup: rawPeer(buildkittest.Silence, ca...), class: Silent, text: "no answer to the TLS handshake", hint: "is the daemon hanging", budget: 100 * time.Millisecond},
		{name: "14 no such name", setup: dialFails(&net.DNSError{Err: "no such host", IsNotFound: true}), class: DNS, text: "no such host: host", hint: "getent hosts host"},
		{name: "15 blackholed", setup: func(t *testing.T) (Target, dial.Registry) { return target(t, "tcp://host:1"), scripted(hanging) },
			class: Timeout, text: "no answer to the attempt to connect", hint: "a firewall that drops packets", budget: 20 * time.Millisecond},
		{name: "16 from tomorrow", setup: daemonWith(certs.FutureServer, "", ca...), class: TLSExpired, text: "ahead of this machine's clock", hint: "is this machine's clock right? date -u"},
		{name: "17 proxy wants a login", setup: proxied, class: dial.ProxyAuth, text: "demands a login (HTTP 407 Proxy Authentication Required)", hint: "proxy=http://USER:PASSWORD@"},

		// Relatives of them.
		{name: "made anew", setup: daemonWith(sameNamedServer(t), "", ca...), class: TLSUntrusted, text: "unknown CA (CN=ca)", hint: "it has another key: was the CA made anew?"},
		{name: "client's certificate is a server's", setup: daemonWith(certs.Server, certs.CA.File, with(certs.Server)...), class: TLSClientCert, text: "it is not for clients"},
		{name: "TLS 1.0 chosen", setup: rawPeer(buildkittest.Say("\x16\x03\x01\x00\x2a\x02\x00\x00\x26\x03\x01"+string(make([]byte, 36))), ca...), class: TLSHandshake, text: "neither TLS 1.2 nor 1.3"},
		{name: "folder's options", setup: daemonWith(certs.OtherServer, "", "tlsdir", tlsFolder(t, certs)), class: TLSUntrusted, text: "unknown CA", hint: "cacert=CA.pem,cert="},
		{name: "proxy not there", setup: at("tcp://daemon.example:1", "proxy", "http://"+buildkittest.FreeAddr(t)), class: dial.ProxyUnreachable, text: ": connection refused", hint: "is the proxy's address right"},
		{name: "proxy refuses", setup: func(t *testing.T) (Target, dial.Registry) {
			p := buildkittest.Raw(t, buildkittest.Say("HTTP/1.1 403 Forbidden\r\n\r\n"))
			return target(t, "tcp://daemon.example:1", "proxy", "http"+p[len("tcp"):]), nil
		}, class: dial.ProxyRefused, text: "HTTP 403 Forbidden", hint: "port 443"},
		{name: "proxy is silent", setup: func(t *testing.T) (Target, dial.Registry) {
			p := buildkittest.Raw(t, buildkittest.Silence)
			return target(t, "tcp://daemon.example:1", "proxy", "http"+p[len("tcp"):]), nil
		}, class: dial.ProxySilent, text: "does not answer in time", budget: 50 * time.Millisecond},
		{name: "not there for the proxy", setup: func(t *testing.T) (Target, dial.Registry) {
			p := dialtest.Proxy(t, dialtest.ProxyOpts{SOCKS: true})
			return target(t, "tcp://"+buildkittest.FreeAddr(t), "proxy", "socks5://"+p.Addr), nil
		}, class: dial.ProxyGateway, text: "cannot be reached from the proxy"},
	})
}

// sameNamedServer is a server's certificate of another CA called "ca".
func sameNamedServer(t *testing.T) buildkittest.Pair {
	return buildkittest.TestCerts(t).Server
}

func tlsFolder(t *testing.T, c *buildkittest.Certs) string {
	return folder(t, map[string][]byte{"ca.crt": read(t, c.CA.File), "tls.crt": read(t, c.Client.Cert), "tls.key": read(t, c.Client.Key)})
}

// TestChainIsSent: with the intermediate, all is well.
func TestChainIsSent(t *testing.T) {
	certs := buildkittest.TestCerts(t)
	between, err := certs.CA.Intermediate("between-ca")
	if err != nil {
		t.Fatal(err)
	}
	below, err := between.Issue("below", buildkittest.Leaf{Names: []string{"127.0.0.1"}})
	if err != nil {
		t.Fatal(err)
	}
	chain := append(read(t, below.Cert), read(t, between.File)...)
	below.Cert = write(t, t.TempDir(), "chain.pem", chain)
	s := buildkittest.New(t, buildkittest.Options{TLS: &buildkittest.TLS{Server: below}})
	mustConnect(t, target(t, s.Endpoint(), "cacert", certs.CA.File), quick())
}

// TestThroughProxies: all of BuildKit, through each kind.
func TestThroughProxies(t *testing.T) {
	certs := buildkittest.TestCerts(t)
	s := buildkittest.New(t, buildkittest.Options{TLS: &buildkittest.TLS{Server: certs.Server, ClientCA: certs.CA.File}})
	plain := buildkittest.New(t, buildkittest.Options{})
	for kind, socks := range map[string]bool{"http": false, "socks5": true, "socks5h": true} {
		p := dialtest.Proxy(t, dialtest.ProxyOpts{SOCKS: socks, User: "me", Password: "hunter2"})
		mustConnect(t, target(t, s.Endpoint(), mutual(certs, "proxy", kind+"://me:hunter2@"+p.Addr)...), quick())
		mustConnect(t, target(t, plain.Endpoint(), "proxy", kind+"://me:hunter2@"+p.Addr), quick())
		if asked := p.Asked(); len(asked) != 2 || "tcp://"+asked[0] != s.Endpoint() {
			t.Errorf("%s was asked for %q", kind, asked)
		}
	}
}

// TestProxyHeals: a daemon that the proxy cannot reach yet is waited for.
func TestProxyHeals(t *testing.T) {
	addr := buildkittest.FreeAddr(t)
	p := dialtest.Proxy(t, dialtest.ProxyOpts{})
	cfg := quick()
	var s *buildkittest.Server
	cfg.OnWait = func(w Waiting) {
		if f, ok := w.Cause.(*cause); ok && f.class == dial.ProxyGateway && s == nil { //nolint:errorlint // what it was given
			var err error
			if s, err = buildkittest.Start(buildkittest.Options{Address: addr}); err != nil {
				t.Error(err)
			}
		}
	}
	mustConnect(t, target(t, "tcp://"+addr, "proxy", "http://"+p.Addr), cfg)
	if s == nil {
		t.Fatal("nothing was waited for")
	}
	s.Close()
}

func TestSpan(t *testing.T) {
	for d, want := range map[time.Duration]string{
		20 * time.Second: "20s", 90 * time.Minute: "1h30m", 47*time.Hour + 59*time.Minute + 31*time.Second: "48h0m", 100 * time.Hour: "4 days",
	} {
		if got := span(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
}

package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/berthbuild/berth/internal/dial"
	"github.com/berthbuild/berth/internal/dial/dialtest"
	"github.com/berthbuild/berth/internal/endpoint"
)

func parse(t testing.TB, raw string) endpoint.Endpoint {
	t.Helper()
	e, err := endpoint.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func parseProxy(t testing.TB, text string) endpoint.Proxy {
	t.Helper()
	p, err := endpoint.ParseProxy(text)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func direct(ctx context.Context, e endpoint.Endpoint) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "tcp", e.Address())
}

// through is a scheme that goes through the proxy.
func through(p endpoint.Proxy) dial.Scheme {
	return dial.Scheme{Name: "tcp", Dial: func(ctx context.Context, e endpoint.Endpoint) (net.Conn, error) {
		return Dial(ctx, p, e, dial.Env{}, direct)
	}}
}

// closedPort is an endpoint where nobody listens.
func closedPort(t testing.TB) endpoint.Endpoint {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return parse(t, "tcp://"+l.Addr().String())
}

func TestConformance(t *testing.T) {
	for kind, socks := range map[string]bool{"http": false, "socks5": true, "socks5h": true} {
		t.Run(kind, func(t *testing.T) {
			s := dialtest.Proxy(t, dialtest.ProxyOpts{SOCKS: socks, User: "me", Password: "p@ss:w/rd"})
			mute, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			dialtest.ServeListener(t, mute, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
			peer := dialtest.Peer{
				Scheme: through(parseProxy(t, kind+"://me:p%40ss%3Aw%2Frd@"+s.Addr)),
				Serve: func(t testing.TB, handle func(net.Conn)) endpoint.Endpoint {
					l, err := net.Listen("tcp", "127.0.0.1:0")
					if err != nil {
						t.Fatal(err)
					}
					dialtest.ServeListener(t, l, handle)
					return parse(t, "tcp://"+l.Addr().String())
				},
				Refused: closedPort,
			}
			dialtest.Run(t, peer)
			// A proxy that takes the connection and never answers.
			peer.Scheme = through(parseProxy(t, kind+"://"+mute.Addr().String()))
			peer.Stalled = func(t testing.TB) endpoint.Endpoint { return parse(t, "tcp://daemon.example:1234") }
			if kind == "socks5" {
				peer.Stalled = func(t testing.TB) endpoint.Endpoint { return parse(t, "tcp://127.0.0.1:1234") }
			}
			dialtest.RunStalled(t, peer)
		})
	}
}

// A name is resolved by the proxy, and what the daemon says first is not lost.
func TestNameAndEarlyBytes(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dialtest.ServeListener(t, l, func(c net.Conn) { _, _ = c.Write([]byte("hello from the daemon")) })
	hosts := map[string]string{"daemon.example:1234": l.Addr().String()}
	for kind, socks := range map[string]bool{"http": false, "socks5h": true} {
		s := dialtest.Proxy(t, dialtest.ProxyOpts{SOCKS: socks, Hosts: hosts})
		c, err := through(parseProxy(t, kind+"://"+s.Addr)).Dial(t.Context(), parse(t, "tcp://daemon.example:1234"))
		if err != nil {
			t.Fatal(kind, err)
		}
		got, err := io.ReadAll(c)
		_ = c.Close()
		if string(got) != "hello from the daemon" || err != nil {
			t.Errorf("%s: read %q, %v", kind, got, err)
		}
	}
	// All in one packet.
	raw := rawProxy(t, "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.0 200 ok\r\nX: y\r\n\r\nhello from the daemon")
	c, err := through(parseProxy(t, "http://"+raw)).Dial(t.Context(), parse(t, "tcp://daemon.example:1234"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	got := make([]byte, 21)
	if _, err := io.ReadFull(c, got); string(got) != "hello from the daemon" {
		t.Errorf("read %q, %v", got, err)
	}
}

// rawProxy says text to everybody who has said something.
func rawProxy(t testing.TB, text string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dialtest.ServeListener(t, l, func(c net.Conn) {
		_, _ = c.Read(make([]byte, 4096))
		_, _ = io.WriteString(c, text)
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.CloseWrite()
		}
		_, _ = io.Copy(io.Discard, c)
	})
	return l.Addr().String()
}

func TestFailures(t *testing.T) {
	closed := closedPort(t).Address()
	login := dialtest.Proxy(t, dialtest.ProxyOpts{User: "me", Password: "hunter2"}).Addr
	socksLogin := dialtest.Proxy(t, dialtest.ProxyOpts{SOCKS: true, User: "me", Password: "hunter2"}).Addr
	tests := []struct {
		name, proxy string
		class       dial.Class
		says, tip   string
		heals       bool
	}{
		{"nobody there", "http://" + closed, dial.ProxyUnreachable, "cannot be reached", "nc -vz 127.0.0.1", true},
		{"nobody there, SOCKS", "socks5h://me:hunter3@" + closed, dial.ProxyUnreachable, "the proxy socks5h://me:xxxxx@127", "", true},
		{"no login", "http://" + login, dial.ProxyAuth, "demands a login (HTTP 407 Proxy Authentication Required)", "USER:PASSWORD@" + login, false},
		{"wrong login", "http://me:hunter3@" + login, dial.ProxyAuth, "does not accept the login of me", "%2F", false},
		{"no login, SOCKS", "socks5h://" + socksLogin, dial.ProxyAuth, "demands a login", "socks5h://USER:PASSWORD", false},
		{"wrong login, SOCKS", "socks5h://me:hunter3@" + socksLogin, dial.ProxyAuth, "does not accept the login of me", "", false},
		{"forbidden", "http://" + rawProxy(t, "HTTP/1.1 403 Forb\x1b[1midden\r\n\r\n"), dial.ProxyRefused, "refuses to connect to daemon.example:1234 (HTTP 403 Forb[1midden)", "port 443 only", false},
		{"not allowed", "http://" + rawProxy(t, "HTTP/1.1 405 Method Not Allowed\r\n\r\n"), dial.ProxyRefused, "HTTP 405", "", false},
		{"redirect", "http://" + rawProxy(t, "HTTP/1.1 302 Found\r\nLocation: http://login.example/\r\n\r\n"), dial.ProxyRefused, "HTTP 302", "", false},
		{"bad gateway", "http://" + rawProxy(t, "HTTP/1.1 502 Bad Gateway\r\n\r\n"), dial.ProxyGateway, "cannot be reached from the proxy", "NO_PROXY", true},
		{"unavailable", "http://" + rawProxy(t, "HTTP/1.1 503\r\n\r\n"), dial.ProxyGateway, "(HTTP 503)", "", true},
		{"gateway timeout", "http://" + rawProxy(t, "HTTP/1.1 504 Gateway Timeout\r\n\r\n"), dial.ProxyGateway, "HTTP 504", "", true},
		{"hangs up", "http://" + rawProxy(t, ""), dial.ProxyGateway, "hangs up", "", true},
		{"hangs up within", "http://" + rawProxy(t, "HTTP/1.1 200 ok\r\nX-"), dial.ProxyGateway, "hangs up", "", true},
		{"garbage", "http://" + rawProxy(t, "SSH-2.0-OpenSSH\r\n\r\n"), dial.ProxyProtocol, "is no http proxy", "socks5://", false},
		{"endless head", "http://" + rawProxy(t, "HTTP/1.1 200 ok\r\n"+strings.Repeat("X: y\r\n", 1<<20)), dial.ProxyProtocol, "no end", "", false},
		{"endless line", "http://" + rawProxy(t, "HTTP/1.1 200 "+strings.Repeat("x", 1<<20)), dial.ProxyProtocol, "no end", "", false},
		{"only interim answers", "http://" + rawProxy(t, strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 100)), dial.ProxyProtocol, "", "", false},
		{"HTTP to SOCKS", "http://" + socksLogin, dial.ProxyGateway, "hangs up", "", true},
		{"SOCKS to HTTP", "socks5h://" + rawProxy(t, "HTTP/1.1 400 Bad Request\r\n\r\n"), dial.ProxyProtocol, "does not speak SOCKS 5", "http://", false},
		{"SOCKS 4", "socks5h://" + rawProxy(t, "\x00\x5a\x00\x00\x00\x00\x00\x00"), dial.ProxyProtocol, "", "", false},
		{"SOCKS, unknown method", "socks5h://" + rawProxy(t, "\x05\x01"), dial.ProxyProtocol, "not offered", "", false},
		{"SOCKS, hangs up", "socks5h://" + rawProxy(t, "\x05\x00"), dial.ProxyGateway, "hangs up", "", true},
		{"SOCKS, kind of address", "socks5h://" + rawProxy(t, "\x05\x00\x05\x00\x00\x09"), dial.ProxyProtocol, "kind 9", "", false},
		{"SOCKS, other version", "socks5h://" + rawProxy(t, "\x05\x00\x04\x00\x00\x01"), dial.ProxyProtocol, "version 4", "", false},
		{"TLS to plain", "https://" + rawProxy(t, "HTTP/1.1 400 Bad Request\r\n\r\n"), dial.ProxyProtocol, "does not speak TLS", "", false},
	}
	for code, want := range map[byte]dial.Class{
		1: dial.ProxyGateway, 2: dial.ProxyRefused, 3: dial.ProxyGateway, 4: dial.ProxyGateway, 5: dial.ProxyGateway,
		6: dial.ProxyGateway, 7: dial.ProxyRefused, 8: dial.ProxyRefused, 99: dial.ProxyProtocol,
	} {
		tests = append(tests, struct {
			name, proxy string
			class       dial.Class
			says, tip   string
			heals       bool
		}{fmt.Sprintf("SOCKS code %d", code), "socks5h://" + rawProxy(t, "\x05\x00\x05"+string(rune(code))+"\x00\x01\x00\x00\x00\x00\x00\x00"), want, "", "", want == dial.ProxyGateway})
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			_, err := through(parseProxy(t, tc.proxy)).Dial(ctx, parse(t, "tcp://daemon.example:1234"))
			var own *dial.Error
			if !errors.As(err, &own) {
				t.Fatalf("error = %v (%T)", err, err)
			}
			if own.Class != tc.class || own.Heals != tc.heals || !strings.Contains(own.Text, tc.says) {
				t.Errorf("%s %q heals=%v, want %s %q %v", own.Class, own.Text, own.Heals, tc.class, tc.says, tc.heals)
			}
			tips := strings.Join(own.Tries, "\n")
			if !strings.Contains(tips, tc.tip) {
				t.Errorf("hints %q, want %q", tips, tc.tip)
			}
			if all := own.Text + tips + fmt.Sprintf("%+v", own.Err); strings.Contains(all, "hunter") || strings.ContainsAny(all, "\x1b") {
				t.Errorf("not to be shown: %q", all)
			}
		})
	}
}

// TestSecureProxy: a proxy must prove who it is.
func TestSecureProxy(t *testing.T) {
	cert := selfSigned(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := dialtest.Proxy(t, dialtest.ProxyOpts{})
	dialtest.ServeListener(t, l, func(c net.Conn) { s.Serve(tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert}})) })
	_, err = through(parseProxy(t, "https://"+l.Addr().String())).Dial(t.Context(), parse(t, "tcp://daemon.example:1234"))
	var own *dial.Error
	if !errors.As(err, &own) || own.Class != dial.ProxyTLS || own.Heals {
		t.Errorf("error = %v, want %s", err, dial.ProxyTLS)
	}
}

func TestResolve(t *testing.T) {
	env := func(kv ...string) dial.Env {
		return dial.Env{LookupEnv: func(name string) (string, bool) {
			for i := 0; i < len(kv); i += 2 {
				if kv[i] == name {
					return kv[i+1], true
				}
			}
			return "", false
		}}
	}
	for _, tc := range []struct {
		e, want string
		env     dial.Env
	}{
		{"tcp://d.example:1234", "", env()},
		{"tcp://d.example:1234", "http://p:3128", env("HTTPS_PROXY", "http://p:3128")},
		{"tcp://d.example:1234", "http://p:3128", env("https_proxy", "p:3128")},
		{"tcp://d.example:1234", "http://p:80", env("HTTPS_PROXY", "http://p/")},
		{"tcp://d.example:1234", "socks5://a:1080", env("ALL_PROXY", "socks5://a")},
		{"tcp://d.example:1234", "http://p:3128", env("ALL_PROXY", "socks5://a", "HTTPS_PROXY", "http://p:3128")},
		{"tcp://d.example:1234", "", env("HTTP_PROXY", "http://p:3128")},
		{"tcp://d.example:1234", "", env("HTTPS_PROXY", "http://p:3128", "NO_PROXY", "x,.example")},
		{"tcp://d.example:1234", "", env("HTTPS_PROXY", "http://p:3128", "no_proxy", "d.example:1234")},
		{"tcp://d.example:1234", "http://p:3128", env("HTTPS_PROXY", "http://p:3128", "no_proxy", "d.example:99")},
		{"tcp://10.1.2.3:1234", "", env("HTTPS_PROXY", "http://p:3128", "NO_PROXY", "10.0.0.0/8")},
		{"tcp://[fd00::1]:1234", "", env("HTTPS_PROXY", "http://p:3128", "NO_PROXY", "fd00::/8")},
		{"tcp://d.example:1234", "", env("HTTPS_PROXY", "http://p:3128", "NO_PROXY", "*")},
		{"tcp://localhost:1234", "", env("HTTPS_PROXY", "http://p:3128")},
		{"tcp://127.0.0.1:1234", "", env("HTTPS_PROXY", "http://p:3128")},
	} {
		p, err := Resolve(endpoint.Proxy{Kind: endpoint.ProxyEnv}, parse(t, tc.e), tc.env)
		if err != nil || p.String() != tc.want {
			t.Errorf("%s: %q, %v; want %q", tc.e, p, err, tc.want)
		}
	}
	for _, bad := range []string{"http://me:hunter2@", "gopher://me:hunter2@h:1", "http://me:hunter2%zz@h:1", "http://h:1/x?hunter2"} {
		_, err := Resolve(endpoint.Proxy{Kind: endpoint.ProxyEnv}, parse(t, "tcp://d.example:1"), env("HTTPS_PROXY", bad))
		var own *dial.Error
		if !errors.As(err, &own) || own.Class != dial.ProxyConfig || !strings.Contains(own.Text, "HTTPS_PROXY") || strings.Contains(own.Text+strings.Join(own.Tries, ""), "hunter2") {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

func FuzzAnswers(f *testing.F) {
	for _, seed := range []string{"HTTP/1.1 200 ok\r\n\r\nrest", "HTTP/1.1 407 x\r\nA: b\r\n\r\n", "\x05\x02\x01\x00\x05\x00\x00\x03\x01ab", "\x05\x00\x05\x00\x00\x01abcdef", "", "\x05\xff"} {
		f.Add(seed, true)
		f.Add(seed, false)
	}
	f.Fuzz(func(t *testing.T, answer string, socks bool) {
		p := endpoint.Proxy{Kind: endpoint.ProxyHTTP, Host: "p", Port: "1", User: "u", Password: endpoint.NewSecret("hunter2hunter2")}
		if socks {
			p.Kind = endpoint.ProxySOCKS5H
		}
		near, far := net.Pipe()
		defer near.Close()
		go func() {
			go func() { _, _ = io.Copy(io.Discard, far) }()
			_, _ = io.WriteString(far, answer)
			_ = far.Close()
		}()
		d := dialer{proxy: p, to: endpoint.Endpoint{Scheme: "tcp", Host: "d.example", Port: "1"}}
		c, err := d.talk(t.Context(), near, "d.example")
		if (c == nil) == (err == nil) {
			t.Fatalf("%v, %v", c, err)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2hunter2") && !strings.Contains(answer, "hunter2") {
			t.Fatalf("the password is in %v", err)
		}
	})
}

package remote

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/berthbuild/berth/internal/buildkittest"
	"github.com/berthbuild/berth/internal/dial"
	"github.com/berthbuild/berth/internal/dial/dialtest"
	"github.com/berthbuild/berth/internal/endpoint"
	"github.com/berthbuild/berth/internal/hint"
)

// wantFailure checks what holds for every failure, and class and text.
func wantFailure(t *testing.T, err error, class Class, text string) *Failure {
	t.Helper()
	var f *Failure
	if !errors.As(err, &f) {
		t.Fatalf("error = %v (%T), want a *Failure", err, err)
	}
	if f.Class != class || !strings.Contains(f.Short(), text) {
		t.Errorf("failure = %s %q, want %s %q", f.Class, f.Short(), class, text)
	}
	if !strings.Contains(f.Error(), f.Short()) || strings.Contains(f.Error(), "deadline exceeded") {
		t.Errorf("text = %q", f.Error())
	}
	if strings.ContainsAny(f.Error(), "\n\x1b\x00") {
		t.Errorf("text is not one clean line: %q", f.Error())
	}
	return f
}

type classCase struct {
	name   string
	setup  func(t *testing.T) (Target, dial.Registry)
	class  Class
	text   string
	hint   string // in one of the hints
	budget time.Duration
}

func runClasses(t *testing.T, tests []classCase) {
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			dialtest.NoLeaks(t)
			tg, reg := tc.setup(t)
			cfg := quick()
			cfg.Once = true // what could heal is reported too
			if reg != nil {
				cfg.Schemes = reg
			}
			if tc.budget != 0 {
				cfg.Budget = tc.budget
			}
			_, err := Connect(t.Context(), tg, cfg)
			f := wantFailure(t, err, tc.class, tc.text)
			if f == nil {
				return
			}
			hints := strings.Join(hint.Of(err), "\n")
			if !strings.Contains(hints, tc.hint) {
				t.Errorf("hints = %q, want %q in them", hints, tc.hint)
			}
			t.Logf("%v\n  %s", err, hints)
		})
	}
}

// at is a target without a registry of its own.
func at(raw string, opts ...string) func(t *testing.T) (Target, dial.Registry) {
	return func(t *testing.T) (Target, dial.Registry) { return target(t, raw, opts...), nil }
}

// dialFails is a target whose dial fails.
func dialFails(err error) func(t *testing.T) (Target, dial.Registry) {
	return func(t *testing.T) (Target, dial.Registry) { return target(t, "tcp://host:1"), scripted(failing(err)) }
}

// rawPeer is a target that plays handle.
func rawPeer(handle func(net.Conn), opts ...string) func(t *testing.T) (Target, dial.Registry) {
	return func(t *testing.T) (Target, dial.Registry) {
		return target(t, buildkittest.Raw(t, handle), opts...), nil
	}
}

func daemon(o buildkittest.Options, opts ...string) func(t *testing.T) (Target, dial.Registry) {
	return func(t *testing.T) (Target, dial.Registry) {
		return target(t, buildkittest.New(t, o).Endpoint(), opts...), nil
	}
}

func TestClassesOfDialling(t *testing.T) {
	dir, err := os.MkdirTemp("", "berth")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	dead := filepath.Join(dir, "dead.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: dead, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	_ = l.Close()
	// As root, nothing denies access: the dial's error is played, the socket is real.
	denied := func(t *testing.T) (Target, dial.Registry) {
		return target(t, "unix://"+dead), dial.Registry{{Name: "unix", Dial: failing(os.NewSyscallError("connect", syscall.EACCES))}}
	}
	runClasses(t, []classCase{
		{name: "refused", setup: func(t *testing.T) (Target, dial.Registry) { return target(t, "tcp://"+buildkittest.FreeAddr(t)), nil },
			class: Refused, text: "connection refused", hint: "buildkitd --addr tcp://127.0.0.1:"},
		{name: "no socket", setup: at("unix://" + dir + "/none.sock"), class: NoSocket, text: "no such socket", hint: "buildkitd --addr unix://" + dir + "/none.sock"},
		{name: "no folder", setup: at("unix://" + dir + "/no/none.sock"), class: NoSocket, hint: "the folder " + dir + "/no does not exist"},
		{name: "a file, not a socket", setup: at("unix://" + file), class: BadConfig, text: "is a file, not a socket"},
		{name: "a directory, not a socket", setup: at("unix://" + dir), class: BadConfig, text: "is a directory, not a socket"},
		{name: "dead socket", setup: at("unix://" + dead), class: Refused, text: "connection refused", hint: "no daemon listens"},
		{name: "no permission", setup: denied, class: SocketPermission, text: "permission denied on the socket (owner ", hint: "ls -l " + dead},
		{name: "dns: no such host", setup: dialFails(&net.DNSError{Err: "no such host", IsNotFound: true}), class: DNS, text: "no such host: host", hint: "getent hosts host"},
		{name: "dns: no answer", setup: dialFails(&net.DNSError{Err: "i/o timeout", IsTimeout: true}), class: DNS, text: "name server did not answer"},
		{name: "dns: trouble", setup: dialFails(&net.DNSError{Err: "server misbehaving"}), class: DNS, text: "could not answer"},
		{name: "no network", setup: dialFails(os.NewSyscallError("connect", syscall.ENETUNREACH)), class: Unreachable, text: "network is unreachable"},
		{name: "no host", setup: dialFails(os.NewSyscallError("connect", syscall.EHOSTUNREACH)), class: Unreachable, text: "host is unreachable"},
		{name: "kernel's timeout", setup: dialFails(os.NewSyscallError("connect", syscall.ETIMEDOUT)), class: Timeout, text: "no answer to the attempt to connect"},
		{name: "blackhole", setup: func(t *testing.T) (Target, dial.Registry) { return target(t, "tcp://host:1"), scripted(hanging) },
			class: Timeout, text: "no answer to the attempt to connect", hint: "nc -vz host 1", budget: 20 * time.Millisecond},
		{name: "no more files", setup: dialFails(os.NewSyscallError("socket", syscall.EMFILE)), class: ConnectError, text: "too many open files"},
	})
}

func TestClassesOfTLS(t *testing.T) {
	certs := buildkittest.TestCerts(t)
	ca := []string{"cacert", certs.CA.File}
	server := func(p buildkittest.Pair) buildkittest.Options {
		return buildkittest.Options{TLS: &buildkittest.TLS{Server: p}}
	}
	both := func(v uint16) buildkittest.Options {
		return buildkittest.Options{TLS: &buildkittest.TLS{Server: certs.Server, ClientCA: certs.CA.File, MaxVersion: v}}
	}
	with := func(p buildkittest.Pair) []string {
		return []string{"cacert", certs.CA.File, "cert", p.Cert, "key", p.Key}
	}
	cn, err := certs.CA.Issue("only-cn", buildkittest.Leaf{})
	if err != nil {
		t.Fatal(err)
	}
	forClient, err := certs.CA.Issue("for-client", buildkittest.Leaf{Names: []string{"127.0.0.1"}, Client: true})
	if err != nil {
		t.Fatal(err)
	}
	tests := []classCase{
		{name: "other CA", setup: daemon(server(certs.OtherServer), ca...), class: TLSUntrusted, text: "unknown CA (CN=other-ca)", hint: certs.CA.File},
		{name: "system's CAs", setup: daemon(server(certs.Server), "servername", "localhost"), class: TLSUntrusted, text: "unknown CA (CN=ca)", hint: "cacert=CA.pem"},
		{name: "other name", setup: daemon(server(certs.NamedServer), ca...), class: TLSName,
			text: `certificate is for "build.example", "*.build.example", not for "127.0.0.1"`, hint: "servername=build.example tcp://127"},
		{name: "no name", setup: daemon(server(cn), ca...), class: TLSName, text: "no names in it", hint: "subjectAltName"},
		{name: "expired", setup: daemon(server(certs.ExpiredServer), ca...), class: TLSExpired, text: "certificate expired on 20"},
		{name: "not yet", setup: daemon(server(certs.FutureServer), ca...), class: TLSExpired, text: "not valid before 20", hint: "clock"},
		{name: "client's as server's", setup: daemon(server(forClient), ca...), class: TLSUntrusted, text: "not for servers"},
		{name: "plain daemon", setup: daemon(buildkittest.Options{}, ca...), class: NotTLS, text: "the daemon speaks plain HTTP/2, not TLS", hint: "berth create --name b --node n0 --driver remote tcp://127"},
		{name: "HTTP/1 instead of TLS", setup: rawPeer(buildkittest.Say("HTTP/1.1 400 Bad Request\r\n\r\n"), ca...), class: NotTLS, text: "HTTP/1 server"},
		{name: "SSH instead of TLS", setup: rawPeer(buildkittest.Say("SSH-2.0-OpenSSH_9.2p1 Debian\r\n"), ca...), class: NotTLS, text: "SSH server"},
		{name: "silent", setup: rawPeer(buildkittest.Silence, ca...), class: Silent, text: "no answer to the TLS handshake", budget: 100 * time.Millisecond},
		{name: "hangs up", setup: rawPeer(func(c net.Conn) { _, _ = c.Read(make([]byte, 4096)) }, ca...), class: Closed, text: "during the TLS handshake"},
		{name: "no HTTP/2 over it", setup: rawPeer(tlsPeer(t, certs.Server, "http/1.1"), ca...), class: NotHTTP2, text: "no HTTP/2"},
		{name: "SSH inside TLS", setup: rawPeer(tlsPeer(t, certs.Server, "h2"), ca...), class: NotHTTP2, text: `it said "220 hello[31m"`},
		{name: "old TLS", setup: rawPeer(oldTLS(t, certs.Server), ca...), class: TLSHandshake},
		{name: "plain to TLS", setup: daemon(server(certs.Server)), class: TLSRequired, text: "requires TLS", hint: "cacert=CA.pem,cert=CERT.pem,key=KEY.pem"},
		{name: "plain to TLS alert", setup: rawPeer(buildkittest.Say("\x15\x03\x01\x00\x02\x02\x46")), class: TLSRequired, text: "requires TLS"},
		{name: "missing file", setup: at("tcp://127.0.0.1:1", "cacert", filepath.Join(certs.Dir, "none.pem")), class: BadConfig, text: "none.pem: no such file"},
	}
	for v, name := range map[uint16]string{tls.VersionTLS12: "1.2", tls.VersionTLS13: "1.3"} {
		tests = append(tests,
			classCase{name: "no client certificate, " + name, setup: daemon(both(v), ca...), class: TLSClientCert, text: "requires a client certificate", hint: "cert=CERT.pem,key=KEY.pem"},
			classCase{name: "expired client, " + name, setup: daemon(both(v), with(certs.ExpiredClient)...), class: TLSClientCert, text: "refused our client certificate", hint: "we sent " + certs.ExpiredClient.Cert},
			classCase{name: "client of another CA, " + name, setup: daemon(both(v), with(certs.OtherClient)...), class: TLSClientCert, text: "refused our client certificate", hint: "signed by CN=ca"},
		)
	}
	runClasses(t, tests)
}

// tlsPeer shakes hands, offering proto, and says something that is not HTTP/2.
func tlsPeer(t *testing.T, p buildkittest.Pair, proto string) func(net.Conn) {
	cfg := serverConfig(t, p)
	cfg.NextProtos = []string{proto}
	return func(c net.Conn) { buildkittest.Say("220 hello\x1b[31m\r\n")(tls.Server(c, cfg)) }
}

func oldTLS(t *testing.T, p buildkittest.Pair) func(net.Conn) {
	cfg := serverConfig(t, p)
	cfg.MinVersion, cfg.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	return func(c net.Conn) { buildkittest.Silence(tls.Server(c, cfg)) }
}

func serverConfig(t *testing.T, p buildkittest.Pair) *tls.Config {
	t.Helper()
	cfg, err := (&buildkittest.TLS{Server: p}).Config()
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func TestClassesOfPeers(t *testing.T) {
	web := func(code int) func(t *testing.T) (Target, dial.Registry) {
		return func(t *testing.T) (Target, dial.Registry) { return target(t, h2c(t, code)), nil }
	}
	answers := func(c codes.Code) func(t *testing.T) (Target, dial.Registry) {
		return daemon(buildkittest.Options{Err: status.Error(c, "says \x1b[1mwho")})
	}
	goAway := "\x00\x00\x00\x04\x00\x00\x00\x00\x00" + // SETTINGS
		"\x00\x00\x0f\x07\x00\x00\x00\x00\x00" + "\x00\x00\x00\x00\x00\x00\x00\x00closing" // GOAWAY
	runClasses(t, []classCase{
		{name: "HTTP/1", setup: rawPeer(buildkittest.Say("HTTP/1.1 400 Bad Request\r\n\r\n")), class: NotHTTP2, text: "HTTP/1 server"},
		{name: "SSH", setup: rawPeer(buildkittest.Say("SSH-2.0-OpenSSH_9.2p1\r\n")), class: NotHTTP2, text: "SSH server"},
		{name: "mail", setup: rawPeer(buildkittest.Say("220 mail.example ESMTP\r\n")), class: NotHTTP2, text: `it said "220 mail.example ESMTP"`},
		{name: "long banner", setup: rawPeer(buildkittest.Say(strings.Repeat("x", 9000))), class: NotHTTP2, text: "xxxxx"},
		{name: "binary", setup: rawPeer(buildkittest.Say(strings.Repeat("\xff\x00\x01", 20))), class: NotHTTP2, text: "no text"},
		{name: "closes at once", setup: rawPeer(func(net.Conn) {}), class: Closed, text: "without a word", hint: "a proxy"},
		{name: "closes after the greeting", setup: rawPeer(func(c net.Conn) { _, _ = c.Read(make([]byte, 4096)) }), class: Closed},
		{name: "settings, then closes", setup: rawPeer(func(c net.Conn) {
			_, _ = c.Write([]byte(goAway[:9]))
			_, _ = c.Read(make([]byte, 24))
		}), class: Closed, text: "instead of an answer"},
		{name: "going away", setup: rawPeer(func(c net.Conn) {
			_, _ = c.Write([]byte(goAway))
			_, _ = c.Read(make([]byte, 24))
		}), class: Unavailable, text: "going away (closing)"},
		{name: "silent", setup: rawPeer(buildkittest.Silence), class: Silent, text: "nothing answers", budget: 100 * time.Millisecond},
		{name: "settings, then silent", setup: rawPeer(buildkittest.Say(goAway[:9])), class: Silent, text: "speaks HTTP/2", budget: 100 * time.Millisecond},
		{name: "daemon hangs", setup: daemon(buildkittest.Options{Hold: make(chan struct{})}), class: Silent, text: "BuildKit does not answer", budget: 200 * time.Millisecond},
		{name: "does not accept", setup: daemon(buildkittest.Options{Deaf: make(chan struct{})}), class: Silent, text: "nothing answers", budget: 100 * time.Millisecond},
		{name: "another gRPC server", setup: daemon(buildkittest.Options{NoControl: true}), class: NotBuildKit, text: "not BuildKit"},
		{name: "permission denied", setup: answers(codes.PermissionDenied), class: Denied, text: "access denied: says [1mwho"},
		{name: "unauthenticated", setup: answers(codes.Unauthenticated), class: Denied, text: "access denied"},
		{name: "unavailable", setup: answers(codes.Unavailable), class: Unavailable, text: "unavailable: says"},
		{name: "deadline said by the daemon", setup: answers(codes.DeadlineExceeded), class: Silent, text: "BuildKit does not answer in time"},
		{name: "internal error", setup: answers(codes.Internal), class: DaemonError, text: "(Internal): says"},
		{name: "web server", setup: web(200), class: NotBuildKit, text: "a web server"},
		{name: "404", setup: web(404), class: HTTPStatus, text: "HTTP 404 Not Found"},
		{name: "403", setup: web(403), class: Denied, text: "HTTP 403 Forbidden"},
		{name: "503", setup: web(503), class: Unavailable, text: "HTTP 503 Service Unavailable", hint: "is the buildkitd behind it running?"},
	})
}

// h2c is an HTTP/2 server without TLS that answers everything with code and a
// page.
func h2c(t *testing.T, code int) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var p http.Protocols
	p.SetUnencryptedHTTP2(true)
	s := &http.Server{Protocols: &p, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(code)
		_, _ = fmt.Fprint(w, "<html>no</html>")
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close(); <-done })
	return "tcp://" + l.Addr().String()
}

func TestHeals(t *testing.T) {
	for _, c := range []Class{Refused, NoSocket, DNS, Unreachable, Timeout, Silent, Closed, Unavailable} {
		if !heals(c) {
			t.Errorf("%s does not heal", c)
		}
	}
	for _, c := range []Class{
		SocketPermission, TLSUntrusted, TLSName, TLSExpired, TLSClientCert, TLSRequired, TLSHandshake,
		NotTLS, NotHTTP2, HTTPStatus, NotBuildKit, Denied, DaemonError, BadConfig, ConnectError, "",
	} {
		if heals(c) {
			t.Errorf("%s heals", c)
		}
	}
}

// TestFatalEndsAtOnce: what cannot heal is not tried twice.
func TestFatalEndsAtOnce(t *testing.T) {
	cfg := quick()
	_, err := Connect(t.Context(), target(t, buildkittest.New(t, buildkittest.Options{NoControl: true}).Endpoint()), cfg)
	if f := wantFailure(t, err, NotBuildKit, ""); f != nil && f.Tries != 1 {
		t.Errorf("tried %d times", f.Tries)
	}
}

func TestFailureText(t *testing.T) {
	e, err := endpoint.Parse("tcp://h:1")
	if err != nil {
		t.Fatal(err)
	}
	full := Target{Builder: "remote", Node: "remote0", Endpoint: e}
	refused := &cause{class: Refused, text: "connection refused", err: syscall.ECONNREFUSED, tries: []string{"try"}}
	for want, f := range map[string]*Failure{
		"node remote0 of builder remote at tcp://h:1: connection refused (tried 14 times in 20s)": newFailure(full, refused, 20*time.Second, 14),
		"node remote0 of builder remote at tcp://h:1: connection refused (gave up after 5s)":      newFailure(full, refused, 5*time.Second, 1),
		"node remote0 of builder remote at tcp://h:1: connection refused":                         newFailure(full, refused, time.Millisecond, 1),
		"node remote0 at tcp://h:1: connection refused":                                           newFailure(Target{Node: "remote0", Endpoint: e}, refused, 0, 1),
		"tcp://h:1: connection refused":                                                           newFailure(Target{Endpoint: e}, refused, 0, 1),
	} {
		if f.Error() != want {
			t.Errorf("text = %q, want %q", f.Error(), want)
		}
		if !errors.Is(f, syscall.ECONNREFUSED) || errors.Is(f, fs.ErrNotExist) {
			t.Error("the chain is broken")
		}
		if h := hint.Of(f); len(h) != 1 || h[0] != "try" {
			t.Errorf("hints = %q", h)
		}
	}
	w := Waiting{Target: full, Cause: refused, Left: 17800 * time.Millisecond}
	if got, want := w.String(), "waiting for node remote0 at tcp://h:1: connection refused, 18s left"; got != want {
		t.Errorf("waiting = %q, want %q", got, want)
	}
}

// TestRemake: the command of a hint can be pasted as it is.
func TestRemake(t *testing.T) {
	tg := target(t, "tcp://[::1]:1", "cacert", "/a b/ca.pem", "servername", "x")
	for want, set := range map[string]map[string]string{
		`berth create --name b --node n0 --driver remote --driver-opt 'cacert=/a b/ca.pem,servername=y' 'tcp://[::1]:1'`: {"servername": "y"},
		`berth create --name b --node n0 --driver remote 'tcp://[::1]:1'`:                                                {"servername": "", "cacert": ""},
		`berth create --name b --node n0 --driver remote --driver-opt '"cacert=/it'\''s,",servername=x' 'tcp://[::1]:1'`: {"cacert": "/it's,"},
	} {
		if got := remake(tg, set); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

package dockerengine

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/berthbuild/berth/internal/dial"
	"github.com/berthbuild/berth/internal/dial/dialtest"
	"github.com/berthbuild/berth/internal/dockerconfig"
	"github.com/berthbuild/berth/internal/endpoint"
	"github.com/berthbuild/berth/internal/hint"
)

// world is a docker configuration with contexts for engines that tests make.
type world struct {
	dir string
	n   int
}

func newWorld(t testing.TB) *world {
	t.Helper()
	dir, err := os.MkdirTemp("", "berth") // short: it holds sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return &world{dir: dir}
}

func (w *world) env() dial.Env {
	return dial.Env{Docker: func() (*dockerconfig.Config, error) {
		return dockerconfig.Load(dockerconfig.Input{ConfigDir: w.dir})
	}}
}

// context makes a docker context for the host.
func (w *world) context(t testing.TB, host string) endpoint.Endpoint {
	t.Helper()
	w.n++
	name := fmt.Sprintf("ctx%d", w.n)
	sum := sha256.Sum256([]byte(name))
	dir := filepath.Join(w.dir, "contexts", "meta", hex.EncodeToString(sum[:]))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	meta, err := json.Marshal(map[string]any{
		"Name": name, "Metadata": map[string]any{},
		"Endpoints": map[string]any{"docker": map[string]any{"Host": host, "SkipTLSVerify": false}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "meta.json"), meta, 0o600); err != nil {
		t.Fatal(err)
	}
	return endpoint.DockerEngine(name)
}

func (w *world) socket() string {
	w.n++
	return filepath.Join(w.dir, fmt.Sprintf("s%d", w.n))
}

// engine listens, and gives each connection to handle.
func (w *world) engine(t testing.TB, handle func(net.Conn)) endpoint.Endpoint {
	t.Helper()
	path := w.socket()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	dialtest.ServeListener(t, l, handle)
	return w.context(t, "unix://"+path)
}

// upgraded is the connection on the engine's side, after the HTTP.
type upgraded struct {
	*net.UnixConn
	r *bufio.Reader
}

func (u upgraded) Read(p []byte) (int, error) { return u.r.Read(p) }

// speak plays an engine until it has upgraded the connection; then handle has
// it. said gets the upgrade request.
func speak(handle func(net.Conn), said func(*http.Request)) func(net.Conn) {
	return func(c net.Conn) {
		r := bufio.NewReader(c)
		for {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			if req.Method == http.MethodHead {
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nServer: Docker/20.10.99 (test)\r\nContent-Length: 0\r\n\r\n")
				continue
			}
			if said != nil {
				said(req)
			}
			_, _ = io.WriteString(c, "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: "+req.Header.Get("Upgrade")+"\r\n\r\n")
			u, ok := c.(*net.UnixConn)
			if ok {
				handle(upgraded{u, r})
			}
			return
		}
	}
}

func answer(text string) func(net.Conn) {
	return func(c net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
			_, _ = io.WriteString(c, text)
		}
	}
}

func TestConformance(t *testing.T) {
	w := newWorld(t)
	dialtest.Run(t, dialtest.Peer{
		Scheme: Scheme(w.env()),
		Serve: func(t testing.TB, handle func(net.Conn)) endpoint.Endpoint {
			return w.engine(t, speak(handle, nil))
		},
		Refused: func(t testing.TB) endpoint.Endpoint { return w.context(t, "unix://"+w.socket()) },
		Stalled: func(t testing.TB) endpoint.Endpoint {
			return w.engine(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
		},
	})
}

func TestDialTellsTheHost(t *testing.T) {
	w := newWorld(t)
	var path, proto string
	e := w.engine(t, speak(func(c net.Conn) { _, _ = io.WriteString(c, "hello") }, func(r *http.Request) {
		path, proto = r.URL.Path, r.Header.Get("Upgrade")
	}))
	c, err := Scheme(w.env()).Dial(t.Context(), e)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close() //nolint:errcheck // a test's
	if h, ok := c.(dial.Hosted); !ok || h.Host() != "Docker/20.10.99 (test)" {
		t.Errorf("the connection does not tell its host: %v", ok)
	}
	if all, err := io.ReadAll(c); err != nil || string(all) != "hello" {
		t.Errorf("read %q, %v: what came behind the answer is lost", all, err)
	}
	if path != "/grpc" || proto != "h2c" {
		t.Errorf("upgraded %s to %s", path, proto)
	}
}

func TestSession(t *testing.T) {
	w := newWorld(t)
	got := make(chan *http.Request, 1)
	e := w.engine(t, speak(func(c net.Conn) { _, _ = io.Copy(c, c) }, func(r *http.Request) { got <- r }))
	c, err := Scheme(w.env()).Session(t.Context(), e, "h2c", map[string][]string{"x-docker-expose-session-uuid": {"the-id"}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close() //nolint:errcheck // a test's
	r := <-got
	if r.URL.Path != "/session" || r.Header.Get("X-Docker-Expose-Session-Uuid") != "the-id" || r.Header.Get("Upgrade") != "h2c" {
		t.Errorf("the engine was asked %s %v", r.URL, r.Header)
	}
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
}

func TestFailures(t *testing.T) {
	w := newWorld(t)
	closed := w.socket()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: closed, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	_ = l.Close()
	refuse := func(status, body string) func(net.Conn) {
		return func(c net.Conn) {
			r := bufio.NewReader(c)
			if _, err := http.ReadRequest(r); err != nil {
				return
			}
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nServer: Libpod/4.3.1 (linux)\r\n\r\n")
			answer(fmt.Sprintf("HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s", status, len(body), body))(c)
		}
	}
	for _, c := range []struct {
		name  string
		e     endpoint.Endpoint
		class dial.Class
		text  string
		heals bool
	}{
		{"no socket", w.context(t, "unix:///nowhere/docker.sock"), NoEngine, "no Docker engine is running at unix:///nowhere/docker.sock: no such socket", true},
		{"dead socket", w.context(t, "unix://"+closed), NoEngine, "connection refused", true},
		{"no such context", endpoint.DockerEngine("missing"), BadContext, `docker context "missing"`, false},
		{"not http", w.engine(t, answer("SSH-2.0-x\r\n")), NotDocker, "does not speak HTTP", false},
		{"hangs up", w.engine(t, func(net.Conn) {}), NoEngine, "closes the connection", true},
		{"a web server", w.engine(t, answer("HTTP/1.1 404 Not Found\r\nServer: nginx\r\nContent-Length: 0\r\n\r\n")), NotDocker, "(nginx) does not answer as a Docker engine: HTTP 404", false},
		{"an authorization plugin", w.engine(t, answer("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")), NotAllowed, "HTTP 403", false},
		{"starting", w.engine(t, answer("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")), NoEngine, "HTTP 503", true},
		{"no buildkit", w.engine(t, refuse("404 Not Found", `{"message":"page\n\u001b[31mnot found"}`)), NoBuildKit, "Libpod/4.3.1 (linux) at unix://", false},
		{"the engine's words", w.engine(t, refuse("400 Bad Request", `{"message":"page\n\u001b[31mnot found"}`)), NoBuildKit, "(page [31mnot found)", false},
		{"an endless refusal", w.engine(t, refuse("500 No", strings.Repeat("x", 1<<20))), NoBuildKit, "HTTP 500", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn, err := Scheme(w.env()).Dial(t.Context(), c.e)
			if err == nil {
				_ = conn.Close()
				t.Fatal("dialled")
			}
			var e *dial.Error
			if !errors.As(err, &e) {
				t.Fatalf("error = %#v, want a *dial.Error", err)
			}
			if e.Class != c.class || e.Heals != c.heals || !strings.Contains(e.Text, c.text) {
				t.Errorf("%s (heals: %v): %s", e.Class, e.Heals, e.Text)
			}
			if len(e.Text) > 500 {
				t.Errorf("the text is %d bytes long", len(e.Text))
			}
			if len(hint.Of(err)) == 0 {
				t.Error("there is no hint")
			}
		})
	}
}

func TestConfigurationThatCannotBeRead(t *testing.T) {
	broken := errors.New("garbage")
	for _, env := range []dial.Env{{}, {Docker: func() (*dockerconfig.Config, error) { return nil, broken }}} {
		_, err := Scheme(env).Dial(context.Background(), endpoint.DockerEngine("default"))
		var e *dial.Error
		if !errors.As(err, &e) || e.Class != BadContext {
			t.Errorf("error = %v, want one of the class %s", err, BadContext)
		}
	}
}

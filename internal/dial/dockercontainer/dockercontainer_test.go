package dockercontainer

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/berthbuild/berth/internal/buildkittest"
	"github.com/berthbuild/berth/internal/dial"
	"github.com/berthbuild/berth/internal/dial/dialtest"
	"github.com/berthbuild/berth/internal/dial/dockerengine"
	"github.com/berthbuild/berth/internal/dial/stdio"
	"github.com/berthbuild/berth/internal/dockerconfig"
	"github.com/berthbuild/berth/internal/endpoint"
	"github.com/berthbuild/berth/internal/hint"
)

// engine plays a Docker engine with one container, "bk".
type engine struct {
	// run is the exec: it has the streams of the command, and gives the exit
	// code. nil: the command serves handle.
	run    func(c net.Conn) int
	handle func(net.Conn)

	state   func() string // the container's, as JSON; nil: it runs
	create  int           // what creating an exec answers; 0: it works
	late    int           // how often an exec that is over is said to run
	hangs   int           // from which time on asking for an exec has no answer; 0: never
	inspect atomic.Int32  // how often an exec was asked for
	asked   chan string   // each request, where not nil

	mu      sync.Mutex
	running bool
	code    int
}

// stream is the exec's side of the connection: what it writes is framed.
type stream struct {
	net.Conn
	r io.Reader
}

func (s stream) Read(p []byte) (int, error) { return s.r.Read(p) }

func (s stream) Write(p []byte) (int, error) { return len(p), s.frame(streamStdout, p) }

func (s stream) frame(kind byte, p []byte) error {
	for {
		part := p[:min(len(p), 32<<10)]
		header := [headerSize]byte{kind}
		binary.BigEndian.PutUint32(header[4:], uint32(len(part)))
		if _, err := s.Conn.Write(append(header[:], part...)); err != nil {
			return err
		}
		if p = p[len(part):]; len(p) == 0 {
			return nil
		}
	}
}

func (s stream) CloseWrite() error {
	return s.Conn.(interface{ CloseWrite() error }).CloseWrite()
}

func answer(c net.Conn, status int, body string) {
	_, _ = fmt.Fprintf(c, "HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", status, len(body), body)
}

// serve talks on one connection.
func (e *engine) serve(c net.Conn) {
	r := bufio.NewReader(c)
	for {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		body, _ := io.ReadAll(req.Body)
		what := req.Method + " " + req.URL.Path
		if e.asked != nil {
			e.asked <- what + " " + string(body)
		}
		switch what {
		case "POST /containers/bk/exec":
			if e.create != 0 {
				answer(c, e.create, `{"message":"the engine's own\nwords"}`)
				continue
			}
			answer(c, http.StatusCreated, `{"Id":"x1"}`)
		case "POST /exec/x1/start":
			e.start(c, r, req)
			return
		case "GET /exec/x1/json":
			times := int(e.inspect.Add(1))
			if e.hangs > 0 && times >= e.hangs {
				_, _ = io.Copy(io.Discard, r)
				return
			}
			e.mu.Lock()
			running := e.running || times <= e.late
			answer(c, http.StatusOK, fmt.Sprintf(`{"Running":%v,"ExitCode":%d}`, running, e.code))
			e.mu.Unlock()
		case "GET /containers/bk/json":
			state := `{"State":{"Running":true,"Status":"running"}}`
			if e.state != nil {
				state = e.state()
			}
			answer(c, http.StatusOK, state)
		default:
			answer(c, http.StatusNotFound, `{"message":"No such container"}`)
		}
	}
}

func (e *engine) start(c net.Conn, r io.Reader, req *http.Request) {
	if req.Header.Get("Upgrade") != "tcp" {
		answer(c, http.StatusOK, "")
		return
	}
	e.set(true, 0)
	_, _ = io.WriteString(c, "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
	s := stream{c, r}
	if e.run == nil {
		e.handle(s)
		e.set(false, 0)
		return
	}
	e.set(false, e.run(s)) // before the streams end: the caller closes them
}

func (e *engine) set(running bool, code int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.running, e.code = running, code
}

// world is a docker configuration whose engine is at host.
func world(host string, kv ...string) dial.Env {
	return dial.Env{Docker: func() (*dockerconfig.Config, error) {
		return dockerconfig.Load(dockerconfig.Input{ConfigDir: os.TempDir(), Env: func(name string) string {
			if name == "DOCKER_HOST" {
				return host
			}
			for i := 0; i < len(kv); i += 2 {
				if kv[i] == name {
					return kv[i+1]
				}
			}
			return ""
		}})
	}}
}

func socket(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "berth")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return filepath.Join(dir, "d.sock")
}

// up runs the engine and gives the world in which it is the one in force.
func (e *engine) up(t testing.TB) dial.Env {
	t.Helper()
	path := socket(t)
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	dialtest.ServeListener(t, l, e.serve)
	return world("unix://" + path)
}

func parse(t testing.TB, raw string) endpoint.Endpoint {
	t.Helper()
	e, err := endpoint.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// late is a scheme in a world that is made by the test that runs.
func late(env *dial.Env) dial.Scheme {
	return dial.Scheme{Dial: func(ctx context.Context, e endpoint.Endpoint) (net.Conn, error) {
		return Scheme(*env).Dial(ctx, e)
	}}
}

func TestConformance(t *testing.T) {
	var env dial.Env
	dialtest.Run(t, dialtest.Peer{
		Scheme: late(&env),
		Serve: func(t testing.TB, handle func(net.Conn)) endpoint.Endpoint {
			env = (&engine{handle: handle}).up(t)
			return parse(t, "docker-container://bk")
		},
		Refused: func(t testing.TB) endpoint.Endpoint {
			env = (&engine{}).up(t)
			return parse(t, "docker-container://other")
		},
		Stalled: func(t testing.TB) endpoint.Endpoint {
			path := socket(t)
			l, err := net.Listen("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			dialtest.ServeListener(t, l, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
			env = world("unix://" + path)
			return parse(t, "docker-container://bk")
		},
	})
}

// An engine over TCP with mutual TLS carries the streams as well, half-closed.
func TestConformanceOverTLS(t *testing.T) {
	certs := buildkittest.TestCerts(t)
	dir := t.TempDir() // as docker wants them
	for name, path := range map[string]string{"ca.pem": certs.CA.File, "cert.pem": certs.Client.Cert, "key.pem": certs.Client.Key} {
		if err := os.Symlink(path, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	pool := x509.NewCertPool()
	pem, err := os.ReadFile(certs.CA.File)
	if err != nil || !pool.AppendCertsFromPEM(pem) {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(certs.Server.Cert, certs.Server.Key)
	if err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert}
	var env dial.Env
	serve := func(t testing.TB, e *engine) endpoint.Endpoint {
		l, err := tls.Listen("tcp", "127.0.0.1:0", config)
		if err != nil {
			t.Fatal(err)
		}
		dialtest.ServeListener(t, l, e.serve)
		env = world("tcp://"+l.Addr().String(), "DOCKER_TLS_VERIFY", "1", "DOCKER_CERT_PATH", dir)
		return parse(t, "docker-container://bk")
	}
	dialtest.Run(t, dialtest.Peer{
		Scheme:  late(&env),
		Serve:   func(t testing.TB, handle func(net.Conn)) endpoint.Endpoint { return serve(t, &engine{handle: handle}) },
		Refused: func(t testing.TB) endpoint.Endpoint { return serve(t, &engine{create: 404}) },
		Stalled: func(t testing.TB) endpoint.Endpoint { // within the handshake
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			dialtest.ServeListener(t, l, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
			env = world("tcp://"+l.Addr().String(), "DOCKER_TLS_VERIFY", "1", "DOCKER_CERT_PATH", dir)
			return parse(t, "docker-container://bk")
		},
	})
}

func dialOnce(t *testing.T, env dial.Env) (net.Conn, error) {
	t.Helper()
	c, err := Scheme(env).Dial(t.Context(), parse(t, "docker-container://bk"))
	if err == nil {
		t.Cleanup(func() { _ = c.Close() })
		if err := c.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
	}
	return c, err
}

func TestWhatTheEngineIsAsked(t *testing.T) {
	dialtest.NoLeaks(t)
	e := &engine{handle: func(net.Conn) {}, asked: make(chan string, 9)}
	if _, err := dialOnce(t, e.up(t)); err != nil {
		t.Fatal(err)
	}
	create := <-e.asked
	path, body, _ := strings.Cut(create, " {")
	var got map[string]any
	if err := json.Unmarshal([]byte("{"+body), &got); err != nil || path != "POST /containers/bk/exec" {
		t.Fatalf("%s: %v", create, err)
	}
	if fmt.Sprint(got["Cmd"]) != "[buildctl dial-stdio]" || got["Tty"] != nil || got["AttachStdin"] != true {
		t.Errorf("asked for %v", got)
	}
	if start := <-e.asked; start != `POST /exec/x1/start {"Detach":false,"Tty":false}` {
		t.Errorf("asked for %s", start)
	}
}

// The reasons that the engine gives at once.
func TestRefusals(t *testing.T) {
	state := func(s string) func() string { return func() string { return `{"State":{` + s + `}}` } }
	for _, tc := range []struct {
		what  string
		e     *engine
		class dial.Class
		says  string
		heals bool
		tip   string
	}{
		{"no such container", &engine{create: 404}, NoContainer, "no such container in the Docker engine at unix://", true, "docker ps --all"},
		{"stopped", &engine{create: 409, state: state(`"Status":"exited","ExitCode":3`)}, NotRunning, "the container is not running: it ended with code 3", true, "docker start bk"},
		{"created", &engine{create: 409, state: state(`"Status":"created"`)}, NotRunning, "the container has not been started", true, "docker start bk"},
		{"paused", &engine{create: 409, state: state(`"Status":"paused","Running":true,"Paused":true`)}, NotRunning, "the container is paused", true, "docker unpause bk"},
		{"restarting", &engine{create: 409, state: state(`"Status":"restarting","Running":true,"Restarting":true,"ExitCode":1`)}, NotRunning, "the container is restarting; it ended with code 1", true, "docker logs bk"},
		{"a conflict that is over", &engine{create: 409}, Refused, "HTTP 409 (the engine's own words)", true, "docker exec bk"},
		{"a conflict of garbage", &engine{create: 409, state: func() string { return "{" }}, Refused, "HTTP 409", true, "docker exec bk"},
		{"forbidden", &engine{create: 403}, Refused, "HTTP 403 (the engine's own words)", false, "docker exec bk"},
		{"broken", &engine{create: 500}, Refused, "HTTP 500", false, "docker exec bk"},
		{"starting", &engine{create: 503}, Refused, "HTTP 503", true, "docker exec bk"},
		{"not an engine", &engine{create: 200}, dockerengine.NotDocker, "does not answer as a Docker engine", false, ""},
	} {
		t.Run(tc.what, func(t *testing.T) {
			dialtest.NoLeaks(t)
			_, err := dialOnce(t, tc.e.up(t))
			wantError(t, err, tc.class, tc.says, tc.heals, tc.tip)
		})
	}
}

func wantError(t *testing.T, err error, class dial.Class, says string, heals bool, tip string) {
	t.Helper()
	var e *dial.Error
	if !errors.As(err, &e) {
		t.Fatalf("error = %#v, want a *dial.Error", err)
	}
	if e.Class != class || e.Heals != heals || !strings.Contains(e.Text, says) {
		t.Errorf("%s (heals: %v): %q; want %s (%v): %q", e.Class, e.Heals, e.Text, class, heals, says)
	}
	if tips := strings.Join(hint.Of(err), "\n"); !strings.Contains(tips, tip) {
		t.Errorf("hints %q, want %q in them", tips, tip)
	}
}

// The reasons that come with the end of the streams.
func TestEnds(t *testing.T) {
	say := func(kind byte, text string, code int) func(net.Conn) int {
		return func(c net.Conn) int {
			_ = c.(stream).frame(kind, []byte(text))
			return code
		}
	}
	later := func(state func() string) func() string {
		var asked atomic.Int32
		return func() string {
			if asked.Add(1) < 4 {
				return `{"State":{"Running":true}}`
			}
			return state()
		}
	}
	stopped := func() string { return `{"State":{"Status":"exited","ExitCode":137}}` }
	for _, tc := range []struct {
		what  string
		e     *engine
		got   string
		class dial.Class
		says  string
		heals bool
	}{
		{"no daemon", &engine{run: say(streamStderr, "error: dial unix /run/x.sock: no such file", 1)}, "", stdio.HelperFailed, "buildctl says: error: dial unix /run/x.sock: no such file", true},
		{"noted late", &engine{run: say(streamStderr, "no such file", 1), late: 3}, "", stdio.HelperFailed, "buildctl says: no such file", true},
		{"without a word", &engine{run: say(streamStderr, "", 0)}, "", stdio.HelperFailed, "buildctl ended without a word", true},
		{"killed after work", &engine{run: say(streamStdout, "\x00data", 137)}, "\x00data", stdio.HelperFailed, "buildctl ended (exit code 137)", true},
		{"container stopped", &engine{run: say(streamStdout, "\x00data", 137), state: stopped}, "\x00data", NotRunning, "the container is not running: it ended with code 137", true},
		{"container stopping", &engine{run: say(streamStdout, "\x00data", 137), state: later(stopped)}, "\x00data", NotRunning, "the container is not running: it ended with code 137", true},
		{"daemon ending first", &engine{run: say(streamStdout, "\x00data", 0), state: later(stopped)}, "\x00data", NotRunning, "the container is not running: it ended with code 137", true},
		{"a good end", &engine{run: say(streamStdout, "\x00data", 0)}, "\x00data", "", "", false},
		{"an error of the engine's", &engine{run: say(streamSystem, "out of luck", 0)}, "", Refused, "the Docker engine ends the stream: out of luck", false},
		{"another protocol", &engine{run: say(7, "x", 0)}, "", dockerengine.NotDocker, "a stream 7, which does not exist", false},
	} {
		t.Run(tc.what, func(t *testing.T) {
			dialtest.NoLeaks(t)
			c, err := dialOnce(t, tc.e.up(t))
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(c)
			switch {
			case string(got) != tc.got:
				t.Errorf("read %q", got)
			case tc.class != "":
				wantError(t, err, tc.class, tc.says, tc.heals, "")
			case err != nil:
				t.Errorf("error = %v", err)
			}
		})
	}
}

// An engine says on the command's standard output that it cannot run it. It has
// noted the exit by then.
func TestCannotRun(t *testing.T) {
	for code, says := range map[int]string{
		126: `buildctl cannot be run in the container: OCI runtime exec failed: exec: "buildctl": not found`,
		127: `there is no buildctl in the container: OCI runtime exec failed: exec: "buildctl": not found`,
	} {
		dialtest.NoLeaks(t)
		e := &engine{}
		e.run = func(c net.Conn) int {
			e.set(false, code)
			_, _ = io.WriteString(c, "OCI runtime exec failed: exec: \"buildctl\": not found\r\n")
			return code
		}
		c, err := dialOnce(t, e.up(t))
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(c)
		if len(got) != 0 {
			t.Errorf("read %q", got)
		}
		wantError(t, err, stdio.NoBuildctl, says, false, "docker exec bk buildctl --version")
	}
}

// What is running, and begins with something else than HTTP/2, is passed on as
// it is: whose words they are is for others to find out.
func TestBannerIsPassedOn(t *testing.T) {
	dialtest.NoLeaks(t)
	c, err := dialOnce(t, (&engine{handle: func(c net.Conn) { _, _ = io.WriteString(c, "SSH-2.0-x") }}).up(t))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(c); string(got) != "SSH-2.0-x" || err != nil {
		t.Errorf("read %q, %v", got, err)
	}
}

// Close ends it at once, whatever the engine does.
func TestCloseWaitsForNoEngine(t *testing.T) {
	dialtest.NoLeaks(t)
	release := make(chan struct{})
	gone := make(chan struct{})
	e := &engine{handle: func(c net.Conn) {
		_ = c.(stream).frame(streamStderr, []byte("noise"))
		_, _ = io.Copy(io.Discard, c) // ends when the client is gone
		close(gone)
		<-release
	}}
	c, err := dialOnce(t, e.up(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	<-gone
	close(release)
}

func TestContextIsNamedInHints(t *testing.T) {
	x := &execution{container: "bk", context: "far"}
	if got := x.docker("logs bk"); got != "docker --context far logs bk" {
		t.Error(got)
	}
}

func TestNoEngine(t *testing.T) {
	dialtest.NoLeaks(t)
	_, err := dialOnce(t, world("unix:///nowhere/docker.sock"))
	wantError(t, err, dockerengine.NoEngine, "no such socket", true, "DOCKER_HOST")
	_, err = Scheme(world("")).Dial(t.Context(), parse(t, "docker-container://bk?context=missing"))
	wantError(t, err, dockerengine.BadContext, `docker context "missing"`, false, "docker context ls")
	_, err = Scheme(dial.Env{}).Dial(t.Context(), parse(t, "docker-container://bk"))
	wantError(t, err, dockerengine.BadContext, "not available", false, "")
}

package kube

import (
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/spdystream"
	"golang.org/x/net/websocket"

	"github.com/berthbuild/berth/internal/dial"
	"github.com/berthbuild/berth/internal/endpoint"
)

const fakeToken = "the-token"

// fakeAPI is an API server with the objects that a test gives it. Its exec and
// port-forward call the test's functions.
type fakeAPI struct {
	t      testing.TB
	server *httptest.Server
	dir    string

	mu      sync.Mutex
	objects map[string]any // path → what to answer: an object, or a *refusal
	asked   []string       // "GET /path"
	open    map[io.Closer]bool
	over    bool
	wg      sync.WaitGroup

	spdyOnly bool
	exec     func(*fakeProcess)
	forward  func(port string, c net.Conn) (failure string)
}

// refusal is an answer that is no success.
type refusal struct {
	Code            int
	Reason, Message string
}

func (r *refusal) Error() string { return r.Message }

// fakeProcess is a command in a container.
type fakeProcess struct {
	command   []string
	container string
	*fakeConn // its standard input and output
	stderr    func(string)
	tell      func(status []byte)
	exit      []byte // the Status to end with
}

func newFake(t testing.TB) *fakeAPI {
	f := &fakeAPI{t: t, dir: t.TempDir(), objects: map[string]any{}, open: map[io.Closer]bool{}}
	f.server = httptest.NewUnstartedServer(f)
	f.server.Config.ErrorLog = log.New(io.Discard, "", 0)
	f.server.StartTLS()
	t.Cleanup(func() {
		f.mu.Lock()
		f.over = true
		for c := range f.open {
			_ = c.Close()
		}
		f.mu.Unlock()
		f.server.CloseClientConnections()
		f.server.Close()
		f.wg.Wait()
	})
	f.config("config", "token: "+fakeToken)
	return f
}

// config writes a kubeconfig with a user's entry, and gives its path.
func (f *fakeAPI) config(name, user string) string {
	f.t.Helper()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: f.server.Certificate().Raw})
	caFile := filepath.Join(f.dir, "ca.pem")
	path := filepath.Join(f.dir, name)
	text := fmt.Sprintf(`
current-context: here
clusters: [{name: c, cluster: {server: %q, certificate-authority: ca.pem}}]
users: [{name: me, user: {%s}}]
contexts:
- {name: here, context: {cluster: c, user: me, namespace: ns}}
- {name: there, context: {cluster: c, user: me}}
`, f.server.URL, user)
	for p, b := range map[string][]byte{caFile: ca, path: []byte(text)} {
		if err := os.WriteFile(p, b, 0o600); err != nil {
			f.t.Fatal(err)
		}
	}
	return path
}

func (f *fakeAPI) env() dial.Env {
	vars := map[string]string{"KUBECONFIG": filepath.Join(f.dir, "config")}
	return dial.Env{
		Home: f.dir, Dir: f.dir,
		LookupEnv: func(k string) (string, bool) { v, ok := vars[k]; return v, ok },
		Warn:      func(text string) { f.t.Error("unexpected warning:", text) },
	}
}

// put answers GETs of a path, with its query if it has one.
func (f *fakeAPI) put(path string, object any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.objects[path] = object
}

func (f *fakeAPI) requests() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Join(f.asked, "\n")
}

// ServeHTTP implements http.Handler.
func (f *fakeAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.asked = append(f.asked, r.Method+" "+r.URL.Path+" "+r.Header.Get("Upgrade"))
	object := f.objects[r.URL.Path]
	f.mu.Unlock()
	if r.Header.Get("Authorization") != "Bearer "+fakeToken {
		object = &refusal{http.StatusUnauthorized, "Unauthorized", "Unauthorized"}
	}
	if no, ok := object.(*refusal); ok {
		f.refuse(w, no)
		return
	}
	switch filepath.Base(r.URL.Path) {
	case "exec":
		f.upgrade(w, r, "v5.channel.k8s.io", "v4.channel.k8s.io")
		return
	case "portforward":
		f.upgrade(w, r, "SPDY/3.1+portforward.k8s.io", "portforward.k8s.io")
		return
	}
	if object == nil {
		name := filepath.Base(r.URL.Path)
		kind := filepath.Base(filepath.Dir(r.URL.Path))
		f.refuse(w, &refusal{http.StatusNotFound, "NotFound", fmt.Sprintf("%s %q not found", kind, name)})
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(object)
}

func (f *fakeAPI) refuse(w http.ResponseWriter, no *refusal) {
	if no.Reason == "" { // something in between, which is not Kubernetes
		http.Error(w, no.Message, no.Code)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(no.Code)
	_ = json.NewEncoder(w).Encode(map[string]any{"kind": "Status", "status": "Failure", "reason": no.Reason, "message": no.Message})
}

func (f *fakeAPI) upgrade(w http.ResponseWriter, r *http.Request, overWS, overSPDY string) {
	if r.Header.Get("Upgrade") == "websocket" {
		if f.spdyOnly || r.Header.Get("Sec-WebSocket-Protocol") != overWS {
			f.refuse(w, &refusal{http.StatusBadRequest, "BadRequest", "Upgrade request required"})
			return
		}
		websocket.Server{Handler: func(ws *websocket.Conn) { f.overWebSocket(ws, r) }}.ServeHTTP(w, r)
		return
	}
	w.Header().Set("Connection", "Upgrade")
	w.Header().Set("Upgrade", "SPDY/3.1")
	w.Header().Set("X-Stream-Protocol-Version", overSPDY)
	w.WriteHeader(http.StatusSwitchingProtocols)
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		f.t.Error(err)
		return
	}
	f.overSPDY(&hijacked{Conn: conn, r: buffered.Reader}, r)
}

// hijacked has read some of the connection already.
type hijacked struct {
	net.Conn
	r io.Reader
}

// Read implements net.Conn.
func (h *hijacked) Read(b []byte) (int, error) { return h.r.Read(b) }

// track has the connection closed at the end of the test; false when that is
// now.
func (f *fakeAPI) track(c io.Closer) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.over {
		_ = c.Close()
		return false
	}
	f.open[c] = true
	f.wg.Add(1)
	return true
}

func (f *fakeAPI) done(c io.Closer) {
	f.mu.Lock()
	delete(f.open, c)
	f.mu.Unlock()
	_ = c.Close()
	f.wg.Done()
}

func (f *fakeAPI) overWebSocket(ws *websocket.Conn, r *http.Request) {
	if !f.track(ws) {
		return
	}
	defer f.done(ws)
	ws.PayloadType = websocket.BinaryFrame
	if filepath.Base(r.URL.Path) == "portforward" {
		f.serveStreams(ws, r)
		return
	}
	var mu sync.Mutex
	send := func(channel byte, b []byte) error {
		mu.Lock()
		defer mu.Unlock()
		return websocket.Message.Send(ws, append([]byte{channel}, b...))
	}
	in, toIn := io.Pipe()
	go func() {
		for {
			var m []byte
			if err := websocket.Message.Receive(ws, &m); err != nil {
				_ = toIn.CloseWithError(io.ErrUnexpectedEOF)
				return
			}
			switch {
			case len(m) == 2 && m[0] == 255 && m[1] == 0:
				_ = toIn.Close()
			case len(m) > 0 && m[0] == 0:
				_, _ = toIn.Write(m[1:])
			}
		}
	}()
	p := f.process(r, in, func(b []byte) error { return send(1, b) }, func() error { return send(255, []byte{1}) })
	p.stderr = func(text string) { _ = send(2, []byte(text)) }
	p.tell = func(b []byte) { _ = send(3, b) }
	f.exec(p)
	_ = in.Close()
	p.tell(p.exit)
}

func (f *fakeAPI) process(r *http.Request, in io.Reader, write func([]byte) error, end func() error) *fakeProcess {
	q := r.URL.Query()
	return &fakeProcess{
		command: q["command"], container: q.Get("container"), exit: []byte(`{"status":"Success"}`),
		fakeConn: &fakeConn{Reader: in, write: write, end: end},
	}
}

func (f *fakeAPI) overSPDY(conn net.Conn, r *http.Request) {
	if !f.track(conn) {
		return
	}
	defer f.done(conn)
	f.serveStreams(conn, r)
}

// serveStreams speaks SPDY: four streams for exec, two for a port.
func (f *fakeAPI) serveStreams(conn net.Conn, r *http.Request) {
	s, err := spdystream.NewConnection(conn, true)
	if err != nil {
		f.t.Error(err)
		return
	}
	got := make(chan *spdystream.Stream, 4)
	go s.Serve(func(st *spdystream.Stream) {
		_ = st.SendReply(http.Header{}, false)
		got <- st
	})
	want := 4
	if filepath.Base(r.URL.Path) == "portforward" {
		want = 2
	}
	all := map[string]*spdystream.Stream{}
	for range want {
		select {
		case st := <-got:
			all[st.Headers().Get("streamType")] = st
		case <-s.CloseChan():
			return
		}
	}
	if want == 2 {
		data := all["data"]
		c := &fakeConn{Reader: data, write: func(b []byte) error { return data.WriteData(b, false) }, end: data.Close}
		if said := f.forward(data.Headers().Get("port"), c); said != "" {
			_, _ = io.WriteString(all["error"], said)
		}
		_ = all["error"].Close()
		_ = c.CloseWrite()
		return // the kubelet closes the connection when both sides are done
	}
	out := all["stdout"]
	p := f.process(r, all["stdin"], func(b []byte) error { return out.WriteData(b, false) }, out.Close)
	p.stderr = func(text string) { _, _ = io.WriteString(all["stderr"], text) }
	f.exec(p)
	_ = p.CloseWrite()
	_ = all["stderr"].Close()
	_, _ = all["error"].Write(p.exit)
	_ = all["error"].Close()
	for _, st := range all { // free what the client still sends
		go func() { _ = st.Reset() }()
	}
}

// fakeConn is the pod's side as a net.Conn.
type fakeConn struct {
	io.Reader
	write func([]byte) error
	end   func() error
	once  sync.Once
}

// Write implements net.Conn.
func (c *fakeConn) Write(b []byte) (int, error) {
	for sent := 0; sent < len(b); {
		n := min(len(b)-sent, 32<<10)
		if err := c.write(b[sent : sent+n]); err != nil {
			return sent, err
		}
		sent += n
	}
	return len(b), nil
}

// CloseWrite ends the output.
func (c *fakeConn) CloseWrite() (err error) {
	c.once.Do(func() { err = c.end() })
	return err
}

// Close implements net.Conn.
func (c *fakeConn) Close() error                     { return c.CloseWrite() }
func (c *fakeConn) LocalAddr() net.Addr              { return nil }
func (c *fakeConn) RemoteAddr() net.Addr             { return nil }
func (c *fakeConn) SetDeadline(time.Time) error      { return errors.ErrUnsupported }
func (c *fakeConn) SetReadDeadline(time.Time) error  { return errors.ErrUnsupported }
func (c *fakeConn) SetWriteDeadline(time.Time) error { return errors.ErrUnsupported }

// object is a pod that is ready, changed by the given functions.
func object(name string, change ...func(*podObject)) *podObject {
	p := &podObject{}
	p.Metadata.Name, p.Metadata.UID = name, "uid-"+name
	p.Spec.Containers = append(p.Spec.Containers, struct {
		Name string `json:"name"`
	}{"buildkitd"})
	p.Status.Phase = "Running"
	p.Status.Conditions = []condition{{Type: "Ready", Status: "True"}}
	p.Status.Containers = []containerStatus{{Name: "buildkitd", Ready: true, State: containerState{Running: &struct{}{}}}}
	for _, c := range change {
		c(p)
	}
	return p
}

const podsPath = "/api/v1/namespaces/ns/pods"

func mustParse(t testing.TB, text string) endpoint.Endpoint {
	t.Helper()
	e, err := endpoint.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// scheme is one of ours, by the endpoint's name of it.
func scheme(env dial.Env, name string) dial.Scheme {
	for _, s := range Schemes(env) {
		if s.Name == name {
			return s
		}
	}
	return dial.Scheme{}
}

//go:build e2e && linux

package lab

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// EngineWatch stands before an engine: it notes what is asked, and lets a test
// do something in between.
type EngineWatch struct {
	host string
	sent atomic.Int64

	mu    sync.Mutex
	calls []string
}

// Host is its address for DOCKER_HOST.
func (w *EngineWatch) Host() string { return w.host }

// Calls are what was asked since the last time, as "GET /images/json".
func (w *EngineWatch) Calls() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := w.calls
	w.calls = nil
	return all
}

// Sent is how many bytes were sent to the engine as images since the last time.
func (w *EngineWatch) Sent() int64 { return w.sent.Swap(0) }

// Watch puts one before the engine, on a socket. before is called for each
// request, with its path without the version, before the engine has it; it may be
// nil, and may put something else in the place of the body.
func (e *Dockerd) Watch(t testing.TB, before func(call string, r *http.Request)) *EngineWatch {
	t.Helper()
	socket := filepath.Join(Dir(t), "w.sock")
	l, err := new(net.ListenConfig).Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal("lab: ", err)
	}
	return e.watch(t, l, "unix://"+socket, before)
}

// WatchTLS is Watch on a TCP port, with TLS and client certificates.
func (e *Dockerd) WatchTLS(t testing.TB, config *tls.Config) *EngineWatch {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal("lab: ", err)
	}
	return e.watch(t, tls.NewListener(l, config), "tcp://"+l.Addr().String(), nil)
}

func (e *Dockerd) watch(t testing.TB, l net.Listener, host string, before func(string, *http.Request)) *EngineWatch {
	w := &EngineWatch{host: host}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(&url.URL{Scheme: "http", Host: "docker"}) },
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(e.d.dir, "docker.sock"))
			},
			DisableKeepAlives: true,
		},
		FlushInterval: -1,
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		path := r.URL.Path
		if parts := strings.SplitN(path, "/", 3); len(parts) == 3 && strings.HasPrefix(parts[1], "v1.") {
			path = "/" + parts[2]
		}
		call := r.Method + " " + path
		w.mu.Lock()
		w.calls = append(w.calls, call)
		w.mu.Unlock()
		if before != nil {
			before(call, r)
		}
		if call == "POST /images/load" {
			r.Body = countedBody{r.Body, &w.sent}
		}
		proxy.ServeHTTP(rw, r)
	})}
	var done sync.WaitGroup
	done.Go(func() { _ = srv.Serve(l) })
	t.Cleanup(func() {
		_ = srv.Close()
		done.Wait()
	})
	return w
}

// countedBody counts what is read of a request.
type countedBody struct {
	io.ReadCloser
	n *atomic.Int64
}

func (c countedBody) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.n.Add(int64(n))
	return n, err
}

// HoldBody makes a request's body stop after so many bytes, until release is
// closed. reached is closed when it has come to that. The request does not end
// before, whatever becomes of the engine.
func HoldBody(r *http.Request, after int64, reached chan<- struct{}, release <-chan struct{}) {
	r.Body = &heldBody{ReadCloser: r.Body, left: after, reached: reached, release: release}
}

type heldBody struct {
	io.ReadCloser
	left    int64
	once    sync.Once
	reached chan<- struct{}
	release <-chan struct{}
}

func (h *heldBody) Read(p []byte) (int, error) {
	if h.left <= 0 {
		h.once.Do(func() { close(h.reached) })
		<-h.release
		return h.ReadCloser.Read(p)
	}
	n, err := h.ReadCloser.Read(p[:min(int64(len(p)), h.left)])
	h.left -= int64(n)
	return n, err
}

// Start starts an engine again that was killed, with the same images.
func (e *Dockerd) Start(t testing.TB) {
	t.Helper()
	if err := e.containerd.start(e.containerdAnswers); err != nil {
		t.Fatal("lab: ", err)
	}
	if err := e.d.start(e.ping); err != nil {
		t.Fatal("lab: ", err)
	}
}

// Count is how many of the calls begin with a prefix.
func Count(calls []string, prefix string) int {
	return len(slices.DeleteFunc(slices.Clone(calls), func(c string) bool { return !strings.HasPrefix(c, prefix) }))
}

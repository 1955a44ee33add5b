package load

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/moby/moby/client"

	"github.com/berthbuild/berth/internal/hint"
)

// serve starts an engine that answers /images/load with handle, on a unix
// socket, and gives a real client for it.
func serve(t *testing.T, handle http.HandlerFunc) *client.Client {
	t.Helper()
	dir, err := os.MkdirTemp("", "engine") // t.TempDir is too long for a socket on macOS
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost || !strings.HasSuffix(r.URL.Path, "/images/load") {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		handle(w, r)
	}))
	_ = srv.Listener.Close()
	srv.Listener = listener
	srv.Start()
	t.Cleanup(srv.Close)
	return dial(t, socket)
}

func dial(t *testing.T, socket string) *client.Client {
	t.Helper()
	c, err := client.New(client.WithHost("unix://"+socket), client.WithAPIVersion("1.51"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// image is an archive of about size bytes.
func image(t *testing.T, size int) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: "layer", Mode: 0o600, Size: int64(size)}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(make([]byte, size)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// answer reads the image and says lines.
func answer(lines ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		for _, line := range lines {
			_, _ = fmt.Fprintf(w, "%s\r\n", line)
		}
	}
}

func TestDocker(t *testing.T) {
	want := image(t, 3<<20)
	got := make(chan []byte, 1)
	engine := serve(t, func(w http.ResponseWriter, r *http.Request) {
		all, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		got <- all
		answer(`{"status":"Loading layer","progressDetail":{"current":1,"total":2},"id":"abc"}`, `{}`, `{"stream":"Loaded image: test:latest\n"}`)(w, r)
	})
	var seen []Status
	if err := Docker(t.Context(), engine, bytes.NewReader(want), func(s Status) { seen = append(seen, s) }); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(<-got, want) {
		t.Error("the engine got something else")
	}
	wantSeen := []Status{{ID: "abc", Text: "Loading layer", Current: 1, Total: 2}, {Text: "Loaded image: test:latest"}}
	if !reflect.DeepEqual(seen, wantSeen) {
		t.Errorf("status = %+v", seen)
	}
}

func TestDockerFails(t *testing.T) {
	hijack := func(first string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			if first != "" {
				_, _ = io.WriteString(w, first)
				_ = http.NewResponseController(w).Flush()
			}
			panic(http.ErrAbortHandler) // cuts the connection
		}
	}
	for _, tc := range []struct {
		name   string
		handle http.HandlerFunc
		want   string
		engine bool // the engine's own words
		hints  bool
	}{
		{"error line", answer(`{"stream":"x"}`, `{"errorDetail":{"message":"no space left on device"},"error":"no space left on device"}`), "no space left on device", true, false},
		{"error text alone", answer(`{"error":"invalid tar header"}`), "invalid tar header", true, false},
		{"unpacking", answer(`{"stream":"Error unpacking image test: boom\n"}`, `{"stream":"Loaded image: test\n"}`), "Error unpacking image test: boom", true, false},
		{"status", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusInternalServerError)
			_, _ = io.WriteString(w, `{"message":"the store is read-only"}`)
		}, "the store is read-only", false, false},
		{"garbage", answer(`<html>`), "reading its answer", false, false},
		{"cut before the answer", hijack(""), "EOF", false, true},
		{"cut in the answer", hijack(`{"stream":"x"}` + "\r\n"), "unexpected EOF", false, true},
		{"cut in a line", hijack(`{"stre`), "unexpected EOF", false, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			engine := serve(t, tc.handle)
			err := Docker(t.Context(), engine, bytes.NewReader(image(t, 100)), nil)
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range []string{tc.want, engine.DaemonHost()} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not say %q", err, want)
				}
			}
			if errors.Is(err, ErrEngine) != tc.engine || (len(hint.Of(err)) > 0) != tc.hints {
				t.Errorf("error %v: from the engine %v, hints %q", err, errors.Is(err, ErrEngine), hint.Of(err))
			}
		})
	}
	t.Run("nobody there", func(t *testing.T) {
		engine := dial(t, filepath.Join(t.TempDir(), "none.sock"))
		err := Docker(t.Context(), engine, bytes.NewReader(nil), nil)
		if err == nil || !strings.Contains(err.Error(), "none.sock") || len(hint.Of(err)) == 0 {
			t.Errorf("error = %v, hints %q", err, hint.Of(err))
		}
	})
}

func TestDockerCancelled(t *testing.T) {
	reading := make(chan struct{})
	engine := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		close(reading)
		_, _ = io.Copy(io.Discard, r.Body)
	})
	ctx, cancel := context.WithCancel(t.Context())
	pr, pw := io.Pipe()
	defer func() { _ = pw.Close() }()
	go func() {
		<-reading
		cancel()
	}()
	if err := Docker(ctx, engine, pr, nil); !errors.Is(err, context.Canceled) || len(hint.Of(err)) != 0 {
		t.Errorf("error = %v, hints %q", err, hint.Of(err))
	}
}

func FuzzFollow(f *testing.F) {
	for _, s := range []string{"", "{}", `{"stream":"Loaded image: x\n"}`, `{"error":"x"}`, `{"errorDetail":{"message":"x"}}`, "{", "[]", "null", `{"progressDetail":{"current":-1}}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		err := follow(bytes.NewReader(b), func(s Status) {
			if s == (Status{}) {
				t.Error("a status that says nothing")
			}
		})
		if err != nil && err.Error() == "" {
			t.Error("an error that says nothing")
		}
	})
}

package registry

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// A registry may take longer over what it has been sent than over anything else.
func TestSilenceAfterAnUpload(t *testing.T) {
	sent, release := make(chan struct{}, 2), make(chan struct{})
	hold := make(chan struct{})
	client := New(Options{})
	r := repoAt(t, client, serve(t, answers(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		switch {
		case strings.HasSuffix(r.URL.Path, "/ready"):
			_, _ = io.WriteString(w, emptyIndex)
		case r.Method == http.MethodPut:
			sent <- struct{}{}
			<-release
			w.WriteHeader(http.StatusCreated)
		default:
			<-hold
		}
	}))+"/a")
	t.Cleanup(func() { close(hold) }) // ahead of the server's
	raw := []byte(emptyIndex)
	d := describe(ocispecs.MediaTypeImageIndex, raw)
	put := func() error {
		_, err := r.do(t.Context(), request{method: http.MethodPut, kind: "manifests", id: "1", body: bytes.NewReader(raw), size: d.Size, ok: []int{http.StatusCreated}})
		return err
	}
	if _, _, err := r.Get(t.Context(), "ready"); err != nil { // it is logged in
		t.Fatal(err)
	}
	client.times.silence, client.times.commit = time.Second, time.Hour
	done := make(chan error, 1)
	go func() { done <- put() }()
	<-sent
	var silent *Silent
	if _, _, err := r.Get(t.Context(), "1"); !errors.As(err, &silent) { // a silence later
		t.Errorf("%v", err)
	}
	release <- struct{}{}
	if err := <-done; err != nil {
		t.Errorf("an upload that is checked: %v", err)
	}
	client.times.silence, client.times.commit = time.Hour, 20*time.Millisecond
	err := put()
	close(release)
	if !errors.As(err, &silent) || silent.For != client.times.commit {
		t.Errorf("an upload that is checked for ever: %v", err)
	}
}

// An upload that the registry has no time for is begun anew, as everything else is
// asked again.
func TestUploadRefused(t *testing.T) {
	content := strings.Repeat("content", 1000)
	d := describe("x", []byte(content))
	for _, c := range []struct {
		name          string
		status, times int
		after         string
		slept         []time.Duration
		err           string
	}{
		{"seconds", 429, 4, "7", slices.Repeat([]time.Duration{7 * time.Second}, 4), ""},
		{"nothing said", 500, 2, "", []time.Duration{500 * time.Millisecond, 1500 * time.Millisecond}, ""},
		{"for ever", 503, 99, "", []time.Duration{500 * time.Millisecond, 1500 * time.Millisecond}, "503 Service Unavailable"},
		{"too often", 503, 99, "50", []time.Duration{50 * time.Second, 50 * time.Second}, "wants 50s of rest"},
		{"for good", 400, 99, "5", nil, "400 Bad Request"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var world clock
			var asked atomic.Int32
			host := serveFake(t, func(next http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if r.Method == http.MethodPut && int(asked.Add(1)) <= c.times {
						_, _ = io.Copy(io.Discard, r.Body)
						if c.after != "" {
							w.Header().Set("Retry-After", c.after)
						}
						w.WriteHeader(c.status)
						return
					}
					next.ServeHTTP(w, r)
				})
			})
			r := repoAt(t, world.client(Options{}), host+"/a")
			_, err := r.PutBlob(t.Context(), d, nil, opening(content))
			if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
				t.Errorf("%v", err)
			}
			if !slices.Equal(world.slept, c.slept) || int(asked.Load()) != len(c.slept)+1 {
				t.Errorf("slept %v, wanted %v; asked %d times", world.slept, c.slept, asked.Load())
			}
		})
	}
	// What comes ahead of it is not asked more often for that.
	var world clock
	var asked atomic.Int32
	r := repoAt(t, world.client(Options{}), serve(t, answers(func(w http.ResponseWriter, _ *http.Request) { asked.Add(1); w.WriteHeader(http.StatusBadGateway) }))+"/a")
	if _, err := r.PutBlob(t.Context(), d, nil, opening(content)); err == nil || asked.Load() != maxTries {
		t.Errorf("asked %d times: %v", asked.Load(), err)
	}
}

// endless gives zeros until it is closed, and then what a closed answer gives.
type endless struct{ closed atomic.Bool }

func (e *endless) Read(buf []byte) (int, error) {
	if e.closed.Load() {
		return 0, http.ErrBodyReadAfterClose
	}
	return len(buf), nil
}

func (e *endless) Close() error {
	e.closed.Store(true)
	return nil
}

// An upload that is answered before it has been read tells why it was refused.
func TestUploadRefusedEarly(t *testing.T) {
	d := describe("x", []byte("x"))
	d.Size = 1 << 40
	var world clock
	r := repoAt(t, world.client(Options{}), serve(t, answers(func(w http.ResponseWriter, r *http.Request) {
		switch r.Method {
		case http.MethodHead:
			w.WriteHeader(http.StatusNotFound)
		case http.MethodPost:
			w.Header().Set("Location", "/upload")
			w.WriteHeader(http.StatusAccepted)
		case http.MethodPut:
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, `{"errors":[{"code":"DENIED","message":"the quota is used up"}]}`)
		}
	}))+"/a")
	for range 20 {
		_, err := r.PutBlob(t.Context(), d, nil, func(context.Context) (io.ReadCloser, error) { return &endless{}, nil })
		if err == nil || errors.Is(err, http.ErrBodyReadAfterClose) {
			t.Errorf("%v", err)
		}
	}
	// The same without a network, where the order is certain.
	s := &sourceError{ReadCloser: &endless{}}
	_ = s.Close()
	if _, err := s.Read(make([]byte, 1)); err == nil || s.why() != nil {
		t.Errorf("%v, %v", err, s.why())
	}
}

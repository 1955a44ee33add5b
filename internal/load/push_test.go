package load

import (
	"context"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/moby/moby/client"
)

// pushing is a client for an engine that answers a push with handle.
func pushing(t *testing.T, handle http.HandlerFunc) *client.Client {
	t.Helper()
	srv := httptest.NewServer(handle)
	t.Cleanup(srv.Close)
	c, err := client.New(client.WithHost("tcp://"+srv.Listener.Addr().String()), client.WithAPIVersion("1.41"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

const digestLine = `{"progressDetail":{},"aux":{"Tag":"v1","Digest":"sha256:abc","Size":1}}`

func TestPush(t *testing.T) {
	var auth, path string
	c := pushing(t, func(w http.ResponseWriter, r *http.Request) {
		raw, _ := base64.URLEncoding.DecodeString(r.Header.Get("X-Registry-Auth"))
		auth, path = string(raw), r.URL.String()
		_, _ = io.WriteString(w, `{"status":"The push refers to repository"}`+"\n"+
			`{"status":"Pushing","progressDetail":{"current":5,"total":10},"id":"layer"}`+"\n"+digestLine+"\n")
	})
	var seen []Status
	digest, err := Push(t.Context(), c, "localhost:5000/app:v1", Login{User: "u", Password: "p"}, func(s Status) { seen = append(seen, s) })
	if err != nil || digest != "sha256:abc" {
		t.Errorf("digest %q, %v", digest, err)
	}
	if !strings.Contains(path, "/images/localhost:5000/app/push?tag=v1") || !strings.Contains(auth, `"username":"u"`) || !strings.Contains(auth, `"password":"p"`) {
		t.Errorf("asked %s with %s", path, auth)
	}
	if len(seen) != 2 || seen[1].ID != "layer" || seen[1].Current != 5 || seen[1].Total != 10 {
		t.Errorf("progress %+v", seen)
	}
}

func TestPushFails(t *testing.T) {
	for name, handle := range map[string]http.HandlerFunc{
		"denied: requested access": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"errorDetail":{"message":"denied: requested access"},"error":"denied"}`+"\n")
		},
		"only as text": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"error":"only as text"}`+"\n")
		},
		"no such image": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, `{"message":"no such image"}`)
		},
		"reading its answer": func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"status":`) },
	} {
		_, err := Push(t.Context(), pushing(t, handle), "r/a", Login{Password: "hunter2"}, nil)
		if err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "pushing r/a") || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestPushCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	c := pushing(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, `{"status":"Preparing"}`+"\n")
		if f, ok := w.(http.Flusher); ok {
			f.Flush()
		}
		cancel()
		<-r.Context().Done()
	})
	if _, err := Push(ctx, c, "r/a", Login{}, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("error = %v, want context.Canceled", err)
	}
}

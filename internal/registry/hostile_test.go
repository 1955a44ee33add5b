package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthbuild/berth/internal/hint"
)

// What a registry says falsely is found out.
func TestLies(t *testing.T) {
	index := []byte(emptyIndex)
	good := describe(ocispecs.MediaTypeImageIndex, index)
	other := digest.FromString("other").String()
	for name, c := range map[string]struct {
		id     string
		answer http.HandlerFunc
		err    string
	}{
		"another digest in the header": {"1", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Docker-Content-Digest", other)
			_, _ = w.Write(index)
		}, "the registry sent something else: its digest is " + good.Digest.String() + ", and should be " + other},
		"a bad digest in the header": {"1", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Docker-Content-Digest", "sha256:../../x")
			_, _ = w.Write(index)
		}, `gave it the digest "sha256:../../x"`},
		"other content than asked for": {other, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Docker-Content-Digest", other)
			_, _ = w.Write(index)
		}, "the registry sent something else"},
		"no JSON": {"1", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", ocispecs.MediaTypeImageIndex)
			_, _ = io.WriteString(w, "<html>log in first</html>")
		}, "its manifest cannot be read"},
		"nothing": {"1", func(http.ResponseWriter, *http.Request) {}, "its manifest cannot be read"},
		"a list of the wrong type": {"1", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", ocispecs.MediaTypeImageIndex)
			_, _ = io.WriteString(w, `{"manifests":{"a":1}}`)
		}, "its manifest cannot be read"},
		"deep": {"1", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"manifests":`+strings.Repeat("[", 100_000))
		}, "its manifest cannot be read"},
		"both an image and an index": {"1", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", ocispecs.MediaTypeImageIndex)
			_, _ = io.WriteString(w, `{"manifests":[],"layers":[{}]}`)
		}, "an image and an index at the same time"},
		"another type": {"1", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", ocispecs.MediaTypeImageManifest)
			_, _ = w.Write(index)
		}, "and it calls itself"},
		"without end": {"1", func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				if _, err := w.Write(bytes.Repeat([]byte(" "), 1<<16)); err != nil {
					return
				}
			}
		}, "it has more than 4194304 bytes"},
		"cut": {"1", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			_, _ = w.Write(index)
		}, "unexpected EOF"},
		"an error that is long": {"1", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusTeapot)
			_, _ = w.Write(bytes.Repeat([]byte("x"), 10<<20))
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var world clock
			r := repoAt(t, world.client(Options{}), serve(t, answers(c.answer))+"/a")
			_, raw, err := r.Get(t.Context(), c.id)
			if err == nil || raw != nil || !strings.Contains(err.Error(), c.err) || !strings.HasPrefix(err.Error(), r.Name()) {
				t.Errorf("%.300v", err)
			}
			if err != nil && len(err.Error()) > 100_000 {
				t.Errorf("the error has %d bytes", len(err.Error()))
			}
		})
	}
}

func TestBlobLies(t *testing.T) {
	content := strings.Repeat("content", 1000)
	d := describe("x", []byte(content))
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		err    string
	}{
		"other content":  {func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, strings.ToUpper(content)) }, "what was sent is not what its digest says"},
		"another length": {func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "x") }, "it has 1 bytes where 7000 were announced"},
		"less":           {func(w http.ResponseWriter, _ *http.Request) { w.(http.Flusher).Flush(); _, _ = io.WriteString(w, "x") }, "unexpected EOF"},
		"closed early": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "7000")
			_, _ = io.WriteString(w, "x")
		}, "unexpected EOF"},
		"more, and on": {func(w http.ResponseWriter, _ *http.Request) {
			w.(http.Flusher).Flush()
			_, _ = io.WriteString(w, content+"more")
		}, "more was sent than the 7000 bytes"},
		"a ring of calls": {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.Path, http.StatusFound) }, "redirects more than 10 times"},
		"no web": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", "file:///etc/passwd")
			w.WriteHeader(http.StatusFound)
		}, `redirects to "file:"`},
	} {
		t.Run(name, func(t *testing.T) {
			var world clock
			r := repoAt(t, world.client(Options{}), serve(t, answers(c.answer))+"/a")
			_, err := r.Document(t.Context(), d, 1<<20)
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%v", err)
			}
		})
	}
	r := repoAt(t, New(Options{}), serve(t, answers(func(http.ResponseWriter, *http.Request) { t.Error("it was asked for") }))+"/a")
	if _, err := r.Document(t.Context(), d, 10); err == nil || !strings.Contains(err.Error(), "at most 10 was expected") {
		t.Error(err)
	}
	d.Digest = "sha256:../../etc/passwd"
	if _, err := r.Open(t.Context(), d); err == nil {
		t.Error("a bad digest was asked for")
	}
}

// The registry that is redirected to sees no credentials, of any kind.
func TestRedirectsElsewhere(t *testing.T) {
	content := "content"
	d := describe("x", []byte(content))
	var mu sync.Mutex
	var leaked []string
	elsewhere := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if a := r.Header.Get("Authorization"); a != "" {
			leaked = append(leaked, r.Method+" "+a)
		}
		if r.Method == http.MethodPut {
			w.WriteHeader(http.StatusCreated)
			return
		}
		if strings.Contains(r.URL.Path, "manifests") {
			w.Header().Set("Content-Type", ocispecs.MediaTypeImageIndex)
			_, _ = io.WriteString(w, emptyIndex)
			return
		}
		_, _ = io.WriteString(w, content)
	}))
	for _, challenge := range []string{"Basic realm=x", "Bearer"} {
		seen := map[string]string{}
		var self string
		self = serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			seen[r.Method+" "+r.URL.Path] = r.Header.Get("Authorization")
			mu.Unlock()
			switch {
			case r.URL.Path == "/token":
				_, _ = io.WriteString(w, `{"token":"of-the-registry"}`)
			case r.Header.Get("Authorization") == "":
				if challenge == "Bearer" {
					w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+self+`/token",service="x"`)
				} else {
					w.Header().Set("WWW-Authenticate", challenge)
				}
				w.WriteHeader(http.StatusUnauthorized)
			case r.URL.Path == "/v2/":
			case r.Method == http.MethodHead:
				w.WriteHeader(http.StatusNotFound)
			case r.Method == http.MethodPost:
				w.Header().Set("Location", "http://"+elsewhere+"/upload?signature=secret")
				w.WriteHeader(http.StatusAccepted)
			default:
				http.Redirect(w, r, "http://"+elsewhere+r.URL.Path+"?signature=secret", http.StatusTemporaryRedirect)
			}
		}))
		login := Keychain(func(host string) (string, string, string, string, error) {
			if host != self {
				t.Errorf("credentials for %s are asked for", host)
				return "", "", "", "", nil
			}
			return "me", "open sesame", "", "", nil
		})
		r := repoAt(t, New(Options{Keychain: login}), self+"/a")
		if got, err := r.Document(t.Context(), d, 100); err != nil || string(got) != content {
			t.Errorf("%s: %q, %v", challenge, got, err)
		}
		if _, _, err := r.Get(t.Context(), "1"); err != nil {
			t.Errorf("%s: %v", challenge, err)
		}
		if _, err := r.PutBlob(t.Context(), d, nil, opening(content)); err != nil {
			t.Errorf("%s: %v", challenge, err)
		}
		for what, auth := range seen {
			if auth == "" && !strings.HasSuffix(what, "/v2/") {
				t.Errorf("%s: the registry itself saw no credentials with %s", challenge, what)
			}
		}
	}
	if len(leaked) > 0 {
		t.Errorf("it saw %q", leaked)
	}
}

// A registry that speaks HTTPS leads nobody to plain HTTP on its host, on whatever port
// and however it is written.
func TestRedirectsToPlain(t *testing.T) {
	d := describe("x", []byte("content"))
	plain := serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { t.Errorf("%s was asked for by plain HTTP", r.URL) }))
	_, port, _ := strings.Cut(plain, ":")
	for _, to := range []string{"localhost:" + port, "LocalHost:" + port, "localhost.:" + port, "localhost:443", "localhost"} {
		srv := httptest.NewTLSServer(answers(func(w http.ResponseWriter, r *http.Request) {
			switch r.Method {
			case http.MethodHead:
				w.WriteHeader(http.StatusNotFound)
			case http.MethodPost:
				w.Header().Set("Location", "http://"+to+"/upload")
				w.WriteHeader(http.StatusAccepted)
			default:
				http.Redirect(w, r, "http://"+to+"/blob", http.StatusTemporaryRedirect)
			}
		}))
		t.Cleanup(srv.Close)
		_, at, _ := strings.Cut(srv.Listener.Addr().String(), ":")
		r := repoAt(t, New(Options{Default: Host{Plain: PlainNever, Insecure: true}}), "localhost:"+at+"/a")
		var refused *Plaintext
		if _, err := r.Document(t.Context(), d, 100); !errors.As(err, &refused) {
			t.Errorf("%s: %v", to, err)
		}
		if _, err := r.PutBlob(t.Context(), d, nil, opening("content")); !errors.As(err, &refused) {
			t.Errorf("%s: %v", to, err)
		}
	}
}

func TestThrottled(t *testing.T) {
	limited := func(times int, after string) http.Handler {
		var asked atomic.Int32
		return answers(func(w http.ResponseWriter, _ *http.Request) {
			if int(asked.Add(1)) <= times {
				if after != "" {
					w.Header().Set("Retry-After", after)
				}
				w.WriteHeader(http.StatusTooManyRequests)
				_, _ = io.WriteString(w, `{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}`)
				return
			}
			w.Header().Set("Content-Type", ocispecs.MediaTypeImageIndex)
			_, _ = io.WriteString(w, emptyIndex)
		})
	}
	for _, c := range []struct {
		name  string
		times int
		after string
		slept []time.Duration
		err   string
	}{
		{"seconds", 2, "7", []time.Duration{7 * time.Second, 7 * time.Second}, ""},
		{"a date", 1, "Wed, 01 Jan 2020 00:00:30 GMT", []time.Duration{30 * time.Second}, ""},
		{"a date that is over", 1, "Wed, 01 Jan 2019 00:00:30 GMT", []time.Duration{time.Second}, ""},
		{"at once", 1, "0", []time.Duration{time.Second}, ""},
		{"nothing said", 2, "", []time.Duration{500 * time.Millisecond, 1500 * time.Millisecond}, ""},
		{"nothing said, for ever", 99, "", []time.Duration{500 * time.Millisecond, 1500 * time.Millisecond}, "TOOMANYREQUESTS: slow down"},
		{"nonsense", 1, "tomorrow", []time.Duration{500 * time.Millisecond}, ""},
		{"too long", 1, "3600", nil, "wants 1h0m0s of rest"},
		{"too often", 99, "50", []time.Duration{50 * time.Second, 50 * time.Second}, "wants 50s of rest"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var world clock
			h := limited(c.times, c.after)
			r := repoAt(t, world.client(Options{}), serve(t, h)+"/a")
			_, _, err := r.Get(t.Context(), "1")
			if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
				t.Errorf("%v", err)
			}
			if !slices.Equal(world.slept, c.slept) || len(world.waits) != len(c.slept) {
				t.Errorf("slept %v, wanted %v; said %v", world.slept, c.slept, world.waits)
			}
			for _, w := range world.waits {
				if w.Host != r.Host() || !strings.Contains(w.String(), "429 Too Many Requests") {
					t.Errorf("%v", w)
				}
			}
			if c.err != "" && strings.Contains(c.err, "rest") {
				if hints := hint.Of(err); len(hints) != 2 || hints[1] != "a login often has a higher limit: docker login "+r.Host() {
					t.Errorf("%q", hints)
				}
			}
		})
	}
}

// An interrupt ends a wait at once, with its own reason.
func TestInterrupted(t *testing.T) {
	why := errors.New("interrupted")
	ctx, cancel := context.WithCancelCause(t.Context())
	client := New(Options{OnWait: func(Wait) { cancel(why) }})
	r := repoAt(t, client, serve(t, answers(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "100")
		w.WriteHeader(http.StatusTooManyRequests)
	}))+"/a")
	if _, _, err := r.Get(ctx, "1"); !errors.Is(err, why) {
		t.Errorf("waiting: %v", err)
	}

	asked, hold := make(chan struct{}), make(chan struct{})
	ctx, cancel = context.WithCancelCause(t.Context())
	silent := repoAt(t, New(Options{}), serve(t, answers(func(http.ResponseWriter, *http.Request) { close(asked); <-hold }))+"/a")
	t.Cleanup(func() { close(hold) }) // ahead of the server's
	go func() { <-asked; cancel(why) }()
	if _, _, err := silent.Get(ctx, "1"); !errors.Is(err, why) {
		t.Errorf("asking: %v", err)
	}

	ctx, cancel = context.WithCancelCause(t.Context())
	slow := repoAt(t, New(Options{Keychain: Keychain(func(string) (string, string, string, string, error) {
		cancel(why)
		<-hold
		return "", "", "", "", nil
	})}), "registry.invalid/a")
	if _, _, err := slow.Get(ctx, "1"); !errors.Is(err, why) {
		t.Errorf("a helper: %v", err)
	}
}

// Silence has a budget, before the answer and in the middle of it.
func TestSilence(t *testing.T) {
	for name, h := range map[string]func(http.ResponseWriter){
		"no answer":      func(http.ResponseWriter) {},
		"half an answer": func(w http.ResponseWriter) { _, _ = io.WriteString(w, "{"); w.(http.Flusher).Flush() },
	} {
		hold := make(chan struct{})
		client := New(Options{})
		client.times.silence = 20 * time.Millisecond
		r := repoAt(t, client, serve(t, answers(func(w http.ResponseWriter, _ *http.Request) { h(w); <-hold }))+"/a")
		_, _, err := r.Get(t.Context(), "1")
		close(hold)
		var silent *Silent
		if !errors.As(err, &silent) || silent.Host != r.Host() {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What breaks in the middle is begun anew, a few times.
func TestBroken(t *testing.T) {
	content := strings.Repeat("content", 1000)
	d := describe("x", []byte(content))
	for broken := range 4 {
		var world clock
		var asked atomic.Int32
		r := repoAt(t, world.client(Options{}), serve(t, answers(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(len(content)))
			if int(asked.Add(1)) <= broken {
				_, _ = io.WriteString(w, content[:10])
				w.(http.Flusher).Flush()
				panic(http.ErrAbortHandler)
			}
			_, _ = io.WriteString(w, content)
		}))+"/a")
		got, err := r.Document(t.Context(), d, 1<<20)
		if ok := err == nil && string(got) == content; ok != (broken < maxTries) {
			t.Errorf("broken %d times: %v", broken, err)
		}
		// The same while it is being sent on.
		asked.Store(0)
		to := repoAt(t, r.c, serveFake(t, nil)+"/b")
		_, err = to.PutBlob(t.Context(), d, nil, func(ctx context.Context) (io.ReadCloser, error) { return r.Open(ctx, d) })
		if ok := err == nil; ok != (broken < maxTries) {
			t.Errorf("sent on, broken %d times: %v", broken, err)
		}
		if broken == maxTries && (err == nil || !strings.HasPrefix(err.Error(), r.Name()+"@")) {
			t.Errorf("the error does not name the source: %v", err)
		}
	}
	// Servers that stumble, and one that has fallen.
	for status, wanted := range map[int]int{500: maxTries, 502: maxTries, 503: maxTries, 504: maxTries, 404: 1, 400: 1, 501: 1} {
		var world clock
		var asked atomic.Int32
		r := repoAt(t, world.client(Options{}), serve(t, answers(func(w http.ResponseWriter, _ *http.Request) { asked.Add(1); w.WriteHeader(status) }))+"/a")
		if _, _, err := r.Get(t.Context(), "1"); err == nil || int(asked.Load()) != wanted {
			t.Errorf("%d: asked %d times, wanted %d: %v", status, asked.Load(), wanted, err)
		}
	}
}

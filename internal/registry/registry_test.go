package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/distribution/reference"
	"github.com/google/go-containerregistry/pkg/authn"
	fake "github.com/google/go-containerregistry/pkg/registry"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthbuild/berth/internal/hint"
)

// serve starts a registry and gives its host.
func serve(t *testing.T, h http.Handler) string {
	t.Helper()
	srv := httptest.NewServer(h)
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://")
}

func serveFake(t *testing.T, wrap func(http.Handler) http.Handler, opts ...fake.Option) string {
	t.Helper()
	h := fake.New(append(opts, fake.Logger(log.New(io.Discard, "", 0)))...)
	if wrap != nil {
		h = wrap(h)
	}
	return serve(t, h)
}

// answers is a registry that has one thing to say, besides hello.
func answers(f http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v2/" {
			return
		}
		f(w, r)
	})
}

// clock is a world in which waiting takes no time.
type clock struct {
	mu    sync.Mutex
	slept []time.Duration
	waits []Wait
}

func (c *clock) client(o Options) *Client {
	o.OnWait = func(w Wait) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.waits = append(c.waits, w)
	}
	client := New(o)
	client.times.sleep = func(ctx context.Context, d time.Duration) error {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.slept = append(c.slept, d)
		return ctx.Err()
	}
	client.times.now = func() time.Time { return time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC) }
	return client
}

func repoAt(t *testing.T, c *Client, name string) *Repository {
	t.Helper()
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c.Repository(named)
}

func describe(mediaType string, raw []byte) Descriptor {
	return Descriptor{MediaType: mediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw))}
}

const emptyIndex = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`

func opening(raw string) func(context.Context) (io.ReadCloser, error) {
	return func(context.Context) (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(raw)), nil }
}

func TestRoundTrip(t *testing.T) {
	host := serveFake(t, nil)
	c := New(Options{})
	r := repoAt(t, c, host+"/a")
	for _, content := range []string{"hello", ""} {
		blob := describe("x", []byte(content))
		if sent, err := r.PutBlob(t.Context(), blob, nil, opening(content)); err != nil || !sent {
			t.Fatal(sent, err)
		}
		if sent, err := r.PutBlob(t.Context(), blob, nil, opening(content)); err != nil || sent {
			t.Errorf("sent again: %v, %v", sent, err)
		}
		if got, err := r.Document(t.Context(), blob, 10); err != nil || string(got) != content {
			t.Errorf("%q, %v", got, err)
		}
	}
	raw := []byte(emptyIndex)
	d := describe(ocispecs.MediaTypeImageIndex, raw)
	if err := r.PutManifest(t.Context(), "1", d, raw); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"1", d.Digest.String()} {
		got, back, err := r.Get(t.Context(), id)
		if err != nil || got.Digest != d.Digest || got.Size != d.Size || got.MediaType != d.MediaType || !bytes.Equal(back, raw) {
			t.Errorf("%s: %v, %v", id, got, err)
		}
	}
	if has, err := r.HasManifest(t.Context(), d.Digest); !has || err != nil {
		t.Error(has, err)
	}
	if has, err := r.HasManifest(t.Context(), digest.FromString("nosuch")); has || err != nil {
		t.Error(has, err)
	}
	_, _, err := r.Get(t.Context(), "nosuch")
	if !errors.Is(err, ErrNotFound) || err.Error() != host+"/a:nosuch: not found" {
		t.Errorf("%v", err)
	}
	if _, err := r.Document(t.Context(), describe("x", []byte("nosuch")), 10); !errors.Is(err, ErrNotFound) {
		t.Errorf("%v", err)
	}
}

func TestMount(t *testing.T) {
	var mu sync.Mutex
	var uploads []string
	host := serveFake(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			defer mu.Unlock()
			switch {
			case r.Method == http.MethodPost && r.URL.Query().Get("from") == "refused":
				w.WriteHeader(http.StatusBadRequest)
				return
			case r.Method == http.MethodPost && r.URL.Query().Get("mount") != "":
				uploads = append(uploads, r.URL.Query().Get("from"))
				w.WriteHeader(http.StatusCreated)
				return
			case r.Method == http.MethodPut:
				uploads = append(uploads, "sent")
			}
			next.ServeHTTP(w, r)
		})
	})
	other := serveFake(t, nil)
	c := New(Options{})
	to := repoAt(t, c, host+"/to")
	for i, from := range []string{host + "/from", host + "/refused", other + "/from", host + "/to"} {
		content := fmt.Sprint("blob ", i)
		sent, err := to.PutBlob(t.Context(), describe("x", []byte(content)), repoAt(t, c, from), opening(content))
		if err != nil || sent != (i > 0) {
			t.Errorf("%s: %v, %v", from, sent, err)
		}
	}
	if want := []string{"from", "sent", "sent", "sent"}; !slices.Equal(uploads, want) {
		t.Errorf("%q, wanted %q", uploads, want)
	}
}

// A registry that keeps no lists of referrers gets one, which grows.
func TestReferrers(t *testing.T) {
	for _, supported := range []bool{false, true} {
		host := serveFake(t, nil, fake.WithReferrersSupport(supported))
		r := repoAt(t, New(Options{}), host+"/a")
		subject := describe(ocispecs.MediaTypeImageIndex, []byte(emptyIndex))
		if err := r.PutManifest(t.Context(), "1", subject, []byte(emptyIndex)); err != nil {
			t.Fatal(err)
		}
		if all, err := r.Referrers(t.Context(), subject.Digest); err != nil || len(all) != 0 {
			t.Errorf("%v, %v", all, err)
		}
		var want []digest.Digest
		for i := range 2 {
			raw, err := json.Marshal(ocispecs.Manifest{MediaType: ocispecs.MediaTypeImageManifest, ArtifactType: "a/b", Subject: &subject, Annotations: map[string]string{"n": fmt.Sprint(i)}})
			if err != nil {
				t.Fatal(err)
			}
			d := describe(ocispecs.MediaTypeImageManifest, raw)
			want = append(want, d.Digest)
			for range 2 {
				if err := r.PutManifest(t.Context(), d.Digest.String(), d, raw); err != nil {
					t.Fatal(err)
				}
			}
		}
		all, err := r.Referrers(t.Context(), subject.Digest)
		if err != nil || len(all) != 2 {
			t.Fatalf("supported %v: %v, %v", supported, all, err)
		}
		for _, d := range all {
			if !slices.Contains(want, d.Digest) || !supported && d.ArtifactType != "a/b" { // the fake gives that of the configuration
				t.Errorf("supported %v: %v", supported, d)
			}
		}
	}
}

// A registry that wants a login says so, with what to do.
func TestLoginWanted(t *testing.T) {
	for status, says := range map[int]string{401: "wants a login that is allowed to do this", 403: "does not allow it"} {
		host := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(status)
			_, _ = io.WriteString(w, `{"errors":[{"code":"DENIED","message":"no"}]}`)
		}))
		for _, k := range []authn.Keychain{nil, Keychain(func(string) (string, string, string, string, error) { return "me", "hunter2", "", "", nil })} {
			r := repoAt(t, New(Options{Keychain: k}), host+"/a")
			_, _, err := r.Get(t.Context(), "1")
			if err == nil || !strings.Contains(err.Error(), "the registry "+host+" "+says) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%v", err)
			}
			if hints := hint.Of(err); len(hints) != 1 || !strings.HasSuffix(hints[0], "docker login "+host) {
				t.Errorf("%q", hints)
			}
		}
	}
	broken := errors.New("helper not found")
	r := repoAt(t, New(Options{Keychain: Keychain(func(string) (string, string, string, string, error) { return "", "", "", "", broken })}), "127.0.0.1:1/a")
	if _, _, err := r.Get(t.Context(), "1"); !errors.Is(err, broken) {
		t.Error(err)
	}
}

// Plain HTTP is spoken on this machine only, or where that was said; and certificates
// are believed likewise.
func TestSchemes(t *testing.T) {
	h := fake.New(fake.Logger(log.New(io.Discard, "", 0)))
	srv := httptest.NewTLSServer(h)
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	t.Cleanup(srv.Close)
	secure := strings.TrimPrefix(srv.URL, "https://")
	plain := serve(t, h)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	for name, c := range map[string]struct {
		at   string
		host Host
		ok   bool
	}{
		"plain":                  {plain, Host{}, true},
		"plain, not wanted":      {plain, Host{Plain: PlainNever}, false},
		"plain, wanted":          {plain, Host{Plain: PlainAlways}, true},
		"TLS, nobody knows":      {secure, Host{}, false},
		"TLS, never mind":        {secure, Host{Insecure: true}, true},
		"TLS, its own authority": {secure, Host{RootCAs: [][]byte{ca}}, true},
		"TLS, no certificate":    {secure, Host{RootCAs: [][]byte{[]byte("x")}}, false},
	} {
		r := repoAt(t, New(Options{Hosts: map[string]Host{c.at: c.host}}), c.at+"/a")
		_, _, err := r.Get(t.Context(), "1")
		if ok := errors.Is(err, ErrNotFound); ok != c.ok {
			t.Errorf("%s: %v", name, err)
		}
		if name == "TLS, nobody knows" && (!strings.Contains(err.Error(), "certificate signed by unknown authority") || len(hint.Of(err)) != 1) {
			t.Errorf("%s: %v, hints %q", name, err, hint.Of(err))
		}
	}
	for host, want := range map[string][2]bool{
		"localhost:5000": {true, true}, "127.0.0.1": {true, true}, "[::1]:5000": {true, true}, "a.localhost": {true, true},
		"10.0.0.1:5000": {false, true}, "192.168.1.1": {false, true}, "x.local": {false, true},
		"ghcr.io": {false, false}, "8.8.8.8:5000": {false, false}, "localhost.example.com": {false, false},
	} {
		if (Host{}).mayBePlain(host) != want[0] || (Host{Plain: PlainPrivate}).mayBePlain(host) != want[1] {
			t.Errorf("%s", host)
		}
	}
}

// Mirrors are asked first, and written to never.
func TestMirrors(t *testing.T) {
	index := []byte(emptyIndex)
	d := describe(ocispecs.MediaTypeImageIndex, index)
	self, mirror := serveFake(t, nil), serveFake(t, nil)
	put := func(at string) {
		t.Helper()
		if err := repoAt(t, New(Options{}), at).PutManifest(t.Context(), "1", d, index); err != nil {
			t.Fatal(err)
		}
	}
	put(mirror + "/sub/a")
	c := New(Options{Hosts: map[string]Host{self: {Mirrors: []string{"127.0.0.1:1", mirror + "/sub"}}}})
	r := repoAt(t, c, self+"/a")
	if got, _, err := r.Get(t.Context(), "1"); err != nil || got.Digest != d.Digest {
		t.Errorf("%v, %v", got, err)
	}
	if _, _, err := r.Get(t.Context(), "2"); err == nil || err.Error() != self+"/a:2: not found" {
		t.Error(err)
	}
	if err := r.PutManifest(t.Context(), "2", d, index); err != nil {
		t.Fatal(err)
	}
	if _, _, err := repoAt(t, New(Options{}), mirror+"/sub/a").Get(t.Context(), "2"); !errors.Is(err, ErrNotFound) {
		t.Error("the mirror was written to", err)
	}
}

func TestParseConfig(t *testing.T) {
	hosts, err := ParseConfig(map[string][]byte{"buildkitd.toml": []byte(`
debug = true
[worker.oci]
  enabled = false
[registry."plain.example.com"]
  http = true
[registry."docker.io"]
  mirrors = ["mirror.example.com:5000", "other.example.com/proxy"]
[registry."own.example.com"]
  http = false
  insecure = true
  ca = ["/etc/buildkit/certs/own/ca.pem", "/not/here.pem"]
  [[registry."own.example.com".keypair]]
    key = "/not/here.key"
    cert = "/not/here.crt"
`), "certs/own/ca.pem": []byte("PEM")})
	if err != nil {
		t.Fatal(err)
	}
	own, hub := hosts["own.example.com"], hosts["docker.io"]
	if len(hosts) != 3 || hosts["plain.example.com"].Plain != PlainAlways || own.Plain != PlainNever || !own.Insecure ||
		len(own.RootCAs) != 1 || string(own.RootCAs[0]) != "PEM" || len(own.KeyPairs) != 0 || !slices.Equal(hub.Mirrors, []string{"mirror.example.com:5000", "other.example.com/proxy"}) {
		t.Errorf("%+v", hosts)
	}
	if hosts, err := ParseConfig(nil); hosts != nil || err != nil {
		t.Error(hosts, err)
	}
	for _, bad := range []string{"[", "registry = 1", "[registry.x]\nhttp = 7"} {
		if _, err := ParseConfig(map[string][]byte{"buildkitd.toml": []byte(bad)}); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func FuzzParseConfig(f *testing.F) {
	for _, s := range []string{"", "[registry.\"x\"]\nhttp=true\ninsecure=true\nmirrors=[\"a\"]\nca=[\"a\"]", "[[registry.x.keypair]]\nkey=\"a\"\ncert=\"a\""} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(_ *testing.T, raw []byte) {
		_, _ = ParseConfig(map[string][]byte{"buildkitd.toml": raw, "a": raw})
	})
}

func FuzzDocument(f *testing.F) {
	for _, s := range []string{"", "null", "[]", emptyIndex, `{"config":{},"layers":[]}`, `{"fsLayers":[]}`, `{"mediaType":1}`, `{"subject":{"digest":"x"}}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		kind := DetectMediaType(raw)
		if checkDocument(raw, kind) == nil && kind == "" && IsManifest(kind) {
			t.Fatal("nothing is a manifest")
		}
		if s, err := readSubject(raw); err == nil && s.Subject != nil && s.Subject.Digest.Validate() != nil {
			t.Fatalf("the subject %q was taken", s.Subject.Digest)
		}
	})
}

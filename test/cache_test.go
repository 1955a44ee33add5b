//go:build e2e && linux

package test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/berthbuild/berth/test/lab"
)

// onceContext is a context whose result is another one each time that it is
// really built, as /id. A second daemon that has the same /id found the cache.
func onceContext(t *testing.T) string {
	t.Helper()
	return lab.ShellContext(t, "RUN cat /proc/sys/kernel/random/uuid > /id\nFROM scratch\nCOPY --from=0 /id /id\n", nil)
}

// emptyBuilder is a builder on a daemon that has built nothing yet.
func emptyBuilder(t *testing.T, berth *lab.CLI, name string) {
	t.Helper()
	berth.OK("create", "--name", name, lab.BuildKit(t, lab.BuildKitOpts{}).UnixAddr())
}

// id builds on a builder, and gives what is in /id and what was shown.
func id(t *testing.T, berth *lab.CLI, builder, dir string, flags ...string) (id, shown string) {
	t.Helper()
	out := t.TempDir()
	r := build(t, berth, dir, append(flags, "--builder", builder, "--progress", "plain", "-o", out)...)
	return read(t, join(out, "id")), r.Stderr
}

// hit sees that a daemon which starts empty gets the result from the cache.
func hit(t *testing.T, berth *lab.CLI, dir, want string, flags ...string) {
	t.Helper()
	emptyBuilder(t, berth, "empty")
	got, shown := id(t, berth, "empty", dir, flags...)
	if got != want {
		t.Errorf("%q: the step ran again: %q, want %q\n%s", flags, got, want, shown)
	}
	has(t, "progress", shown, "CACHED")
	berth.OK("rm", "empty")
}

func TestRegistryCache(t *testing.T) {
	registry := lab.Registry(t, lab.RegistryOpts{User: "u", Password: "registry-password"})
	berth, _ := shared(t)
	login(t, berth, registry.Addr(), "u", "registry-password")
	dir := onceContext(t)
	ref := registry.Addr() + "/app:cache"
	first, shown := id(t, berth, "b", dir, "--cache-from", ref, "--cache-to", "type=registry,mode=max,ref="+ref) // the first of all has nothing to read
	hasNot(t, "output", shown, "registry-password")
	hit(t, berth, dir, first, "--cache-from", ref)
	hit(t, berth, dir, first, "--cache-from", "type=registry,ref="+registry.Addr()+"/app:nosuch", "--cache-from", "type=registry,ref="+ref)
	// The short form writes, too.
	id(t, berth, "b", dir, "--cache-to", registry.Addr()+"/app:short")
	if status, _, _ := registry.Get(t, "/v2/app/manifests/short"); status != 200 {
		t.Errorf("the short form of --cache-to: the registry answers %d", status)
	}
}

func TestLocalCache(t *testing.T) {
	berth, _ := shared(t)
	dir := onceContext(t)
	flags := []string{"--cache-from", "type=local,src=cache", "--cache-to", "type=local,dest=cache,mode=max"}
	first, shown := id(t, berth, "b", dir, flags...) // there is no cache yet, which is no error
	has(t, "progress", shown, "local cache import at "+join(dir, "cache"), "WARNING: skipped: there is no cache yet")
	hasNot(t, "progress", shown, "level=warning", "verity")
	index := read(t, join(dir, "cache", "index.json"))
	has(t, "index", index, `"org.opencontainers.image.ref.name":"latest"`)
	hit(t, berth, dir, first, "--cache-from", "type=local,src=cache")
	// It can be moved and named by an absolute path, and written next to others.
	moved := join(t.TempDir(), "x")
	if err := os.Rename(join(dir, "cache"), moved); err != nil {
		t.Fatal(err)
	}
	hit(t, berth, dir, first, "--cache-from", "type=local,src="+moved)
	id(t, berth, "b", dir, "--cache-to", "type=local,tag=other,mode=max,dest="+moved, "--cache-to", "type=inline")
	has(t, "index", read(t, join(moved, "index.json")), `"latest"`, `"other"`)
	hit(t, berth, dir, first, "--cache-from", "type=local,tag=other,src="+moved)

	// A build that fails leaves the cache as it was, and no new folder.
	before := read(t, join(moved, "index.json"))
	failing := lab.ShellContext(t, "RUN exit 1\n", nil)
	r := berth.Cmd("build", "--cache-to", "type=local,dest="+moved, "--cache-to", "type=local,dest=new/folder", ".").Dir(failing).Run()
	if r.Code != 1 || read(t, join(moved, "index.json")) != before || exists(join(failing, "new")) {
		t.Errorf("%s\nin the context: %q", r, names(t, failing))
	}
	r = berth.Cmd("build", "--cache-to", "type=local,dest=sh", ".").Dir(dir).Run()
	if r.Code != 1 {
		t.Fatal(r)
	}
	has(t, "a file", lastLine(r.Stderr), "--cache-to type=local,dest="+join(dir, "sh")+": it is a file")
}

// A daemon that has all of a build, and its context by name, exports the cache of it
// none the less: also of a target whose base exports none.
func TestCacheOfAnUnchangedContext(t *testing.T) {
	berth, _ := shared(t)
	dir := onceContext(t)
	first, _ := id(t, berth, "b", dir)
	_, shown := id(t, berth, "b", dir)
	has(t, "progress", shown, "context unchanged")
	id(t, berth, "b", dir, "--cache-to", "type=local,dest=cache,mode=max")
	hit(t, berth, dir, first, "--cache-from", "type=local,src=cache")

	if err := os.WriteFile(join(dir, "docker-bake.hcl"), []byte(`
target "base" { output = ["base"] }
target "app" {
  contexts          = { base = "target:base" }
  dockerfile-inline = "FROM base\n"
  cache-to          = ["type=local,dest=linked,mode=max"]
  output            = ["app"]
}
`), 0o644); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if r := berth.Cmd("bake", "base", "app").Dir(dir).Run(); r.Code != 0 {
			t.Fatal(r)
		}
	}
	made := read(t, join(dir, "app", "id"))
	for _, d := range []string{"base", "app"} { // they are in the context
		if err := os.RemoveAll(join(dir, d)); err != nil {
			t.Fatal(err)
		}
	}
	hit(t, berth, dir, made, "--cache-from", "type=local,src=linked")
}

func TestInlineCache(t *testing.T) {
	registry := lab.Registry(t)
	berth, _ := shared(t)
	dir := onceContext(t)
	for flag, value := range map[string]string{"--cache-to": "type=inline", "--build-arg": "BUILDKIT_INLINE_CACHE=1"} {
		ref := registry.Addr() + "/inline:" + strings.Trim(flag, "-")
		// The image has the steps of its own stage only, so that the step is in the last one.
		dir := lab.ShellContext(t, "RUN cat /proc/sys/kernel/random/uuid > /id\n", nil)
		build(t, berth, dir, "--builder", "b", flag, value, "-t", ref, "--push")
		first, _ := id(t, berth, "b", dir, flag, value)
		hit(t, berth, dir, first, "--cache-from", ref)
	}
	// Without it there is nothing to find in an image.
	ref := registry.Addr() + "/inline:none"
	build(t, berth, dir, "--builder", "b", "-t", ref, "--push")
	first, _ := id(t, berth, "b", dir)
	emptyBuilder(t, berth, "empty")
	if got, _ := id(t, berth, "empty", dir, "--cache-from", ref); got == first {
		t.Error("a cache was found in an image that has none")
	}
}

// standIn is a server that takes the part of a cloud's storage and notes what a
// daemon asks it for. Objects that are put can be got again.
type standIn struct {
	*httptest.Server
	mu      sync.Mutex
	seen    []string // METHOD PATH
	auth    map[string]bool
	tokens  map[string]bool // X-Amz-Security-Token
	objects map[string][]byte
}

func newStandIn(t *testing.T) *standIn {
	t.Helper()
	s := &standIn{auth: map[string]bool{}, tokens: map[string]bool{}, objects: map[string][]byte{}}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

// ServeHTTP is S3 as far as BuildKit's cache goes. Whatever else asks, is told
// that there is nothing.
func (s *standIn) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = append(s.seen, r.Method+" "+r.URL.Path)
	s.auth[r.Header.Get("Authorization")] = true
	s.tokens[r.Header.Get("X-Amz-Security-Token")] = true
	object, there := s.objects[r.URL.Path]
	switch {
	case err != nil:
		w.WriteHeader(http.StatusBadRequest)
	case r.Method == http.MethodPut && r.Header.Get("X-Amz-Copy-Source") == "":
		if strings.Contains(r.Header.Get("Content-Encoding"), "aws-chunked") {
			body = unchunk(body)
		}
		s.objects[r.URL.Path] = body
	case (r.Method == http.MethodGet || r.Method == http.MethodHead) && there:
		http.ServeContent(w, r, "", time.Unix(1, 0), bytes.NewReader(object))
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

// unchunk takes the frames of AWS's signed chunks off: SIZE;chunk-signature=…
// before each, and trailers after the last, of size 0.
func unchunk(body []byte) []byte {
	var out []byte
	for {
		head, rest, ok := bytes.Cut(body, []byte("\r\n"))
		size, _, _ := strings.Cut(string(head), ";")
		n, err := strconv.ParseInt(size, 16, 64)
		if !ok || err != nil || n <= 0 || n > int64(len(rest)) {
			return out
		}
		out = append(out, rest[:n]...)
		body = bytes.TrimPrefix(rest[n:], []byte("\r\n"))
	}
}

// authorized tells whether somebody came with a header that has all parts.
func (s *standIn) authorized(parts ...string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for a := range s.auth {
		all := true
		for _, p := range parts {
			all = all && strings.Contains(a, p)
		}
		if all {
			return true
		}
	}
	return false
}

func (s *standIn) log() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.seen, "\n")
}

func TestS3Cache(t *testing.T) {
	cloud := newStandIn(t)
	berth, _ := shared(t)
	dir := onceContext(t)
	flag := "type=s3,bucket=lab,region=eu-lab-1,use_path_style=true,name=app,endpoint_url=" + cloud.URL
	keys := berth.With("AWS_ACCESS_KEY_ID=LABKEY", "AWS_SECRET_ACCESS_KEY=lab-secret", "AWS_SESSION_TOKEN=lab-session")
	first, shown := id(t, keys, "b", dir, "--cache-to", flag+",mode=max")
	hasNot(t, "output", shown, "lab-secret", "lab-session")
	if !cloud.authorized("Credential=LABKEY/", "/eu-lab-1/s3/") || !cloud.tokens["lab-session"] {
		t.Errorf("the storage was asked without our keys: %v, %v", cloud.auth, cloud.tokens)
	}
	has(t, "requests", cloud.log(), "PUT /lab/manifests/app", "PUT /lab/blobs/")
	hit(t, keys, dir, first, "--cache-from", flag)
	// AWS's own files do as well.
	aws := join(berth.Home, ".aws", "credentials")
	if err := os.MkdirAll(filepath.Dir(aws), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(aws, []byte("[default]\naws_access_key_id = FILEKEY\naws_secret_access_key = file-secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, shown = id(t, berth, "b", dir, "--cache-from", flag)
	if !cloud.authorized("Credential=FILEKEY/") {
		t.Errorf("the storage was asked without the keys of AWS's file\n%s", shown)
	}
	hasNot(t, "output", shown, "file-secret")
}

func TestGitHubCache(t *testing.T) {
	cloud := newStandIn(t)
	berth, _ := shared(t)
	dir := onceContext(t)
	part := func(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }
	token := part(`{"alg":"none"}`) + "." + part(`{"ac":"[{\"Scope\":\"refs/heads/main\",\"Permission\":3}]","exp":4102444800,"nbf":1}`) + "."
	runner := berth.With("ACTIONS_CACHE_URL="+cloud.URL+"/", "ACTIONS_RUNTIME_TOKEN="+token)
	_, shown := id(t, runner, "b", dir, "--cache-from", "type=gha,scope=lab")
	if !cloud.authorized("Bearer " + token) {
		t.Errorf("the cache service was asked without the token: %v\n%s\n%s", cloud.auth, cloud.log(), shown)
	}
	has(t, "requests", cloud.log(), "GET /_apis/artifactcache/cache")
	hasNot(t, "output", shown, token)
	newer := newStandIn(t)
	runner = runner.With("ACTIONS_CACHE_SERVICE_V2=1", "ACTIONS_RESULTS_URL="+newer.URL+"/")
	_, shown = id(t, runner, "b", dir, "--cache-from", "type=gha,scope=lab")
	if !newer.authorized("Bearer " + token) {
		t.Errorf("the newer cache service was asked without the token: %v\n%s\n%s", newer.auth, newer.log(), shown)
	}
	// Outside of a runner the same line builds without a cache.
	before := cloud.log()
	_, shown = id(t, berth, "b", dir, "--cache-from", "type=gha", "--cache-to", "type=gha,mode=max")
	hasNot(t, "progress", shown, "gha")
	if cloud.log() != before {
		t.Error("the cache service was asked by somebody outside")
	}
}

func TestAzureCache(t *testing.T) {
	cloud := newStandIn(t)
	berth, _ := shared(t)
	key := base64.StdEncoding.EncodeToString([]byte("lab-secret"))
	_, shown := id(t, berth, "b", onceContext(t), "--cache-from",
		fmt.Sprintf("type=azblob,account_url=%s,account_name=lab,container=cache,name=app,secret_access_key=%s", cloud.URL, key))
	if !cloud.authorized("SharedKey lab:") {
		t.Errorf("the storage was asked without the key: %v\n%s\n%s", cloud.auth, cloud.log(), shown)
	}
	has(t, "requests", cloud.log(), " /cache")
	hasNot(t, "output", shown, key)
}

// A Docker engine with a graph driver has the inline cache and no other, and an
// engine knows the address of its machine.
func TestEngineCachesAndHosts(t *testing.T) {
	engine := lab.DockerWithNetwork(t)
	berth := lab.Berth(t).WithDocker(engine)
	dir := lab.HelloContext(t)
	out := join(t.TempDir(), "cache")
	for _, c := range []struct {
		flags []string
		want  []string
	}{
		{[]string{"--cache-to", "type=local,dest=" + out}, []string{"Cache export is not supported for the docker driver", "containerd image store"}},
		{[]string{"--annotation", "a=b", "-t", "x"}, []string{"an annotation needs an engine with the containerd image store"}},
		{[]string{"--add-host", "h=host-gateway"}, []string{"host-gateway is not supported by Docker/"}},
		{[]string{"--resource", "memory=1g"}, []string{"--resource needs BuildKit v0.31", "the BuildKit of Docker/"}},
	} {
		r := berth.Cmd(append(append([]string{"build"}, c.flags...), ".")...).Dir(dir).Run()
		if r.Code != 1 {
			t.Errorf("%q: %s", c.flags, r)
		}
		has(t, strings.Join(c.flags, " "), lastLine(r.Stderr), c.want...)
		has(t, strings.Join(c.flags, " "), r.Stderr, "hint: ")
	}
	if exists(out) {
		t.Error("a folder was made for the cache")
	}
	build(t, berth, dir, "--cache-to", "type=inline", "--cache-from", "type=local,src="+out, "-t", "x")
}

func TestModernEngineCachesAndHosts(t *testing.T) {
	for _, store := range lab.Stores() {
		t.Run(string(store), func(t *testing.T) {
			engine := lab.ModernEngine(t, lab.ModernOpts{Store: store, Network: true})
			berth := lab.Berth(t).WithDocker(engine)
			hosts := ran(t, berth, "RUN cat /etc/hosts > /out", "--add-host", "gw=host-gateway", "--add-host", "other=10.9.8.7")
			has(t, "/etc/hosts", hosts, "\tgw\n", "10.9.8.7\tother\n")
			hasNot(t, "/etc/hosts", hosts, "host-gateway")
			has(t, "limit", ran(t, berth, "RUN ulimit -n > /out", "--ulimit", "nofile=77"), "77\n")
			dir, cache := onceContext(t), join(t.TempDir(), "cache")
			r := berth.Cmd("build", "--cache-to", "type=local,dest="+cache, "-t", "x", "--annotation", "k=v", ".").Dir(dir).Run()
			if store == lab.StoreGraph {
				if r.Code != 1 || exists(cache) {
					t.Errorf("a graph driver: %s", r)
				}
				return
			}
			if r.Code != 0 || !exists(join(cache, "index.json")) {
				t.Fatalf("the containerd store: %s", r)
			}
			var image struct{ Descriptor struct{ Digest string } }
			engine.Get(t, "/v1.48/images/x/json", &image)
			if image.Descriptor.Digest == "" {
				t.Errorf("the engine has no image: %+v", image)
			}
			emptyBuilder(t, berth, "empty")
			_, shown := id(t, berth, "empty", dir, "--cache-from", "type=local,src="+cache)
			has(t, "progress", shown, "CACHED")
		})
	}
}

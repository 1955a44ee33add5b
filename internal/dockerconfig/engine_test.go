package dockerconfig

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	clicontext "github.com/docker/cli/cli/context"
	"github.com/docker/cli/cli/context/docker"
	"github.com/docker/cli/cli/context/store"

	"github.com/berthbuild/berth/internal/hint"
)

const envSocket = "BERTH_TEST_SSH_SOCKET"

// TestMain makes the test binary stand in for ssh: it connects its standard
// input and output with a socket.
func TestMain(m *testing.M) {
	path := os.Getenv(envSocket)
	if path == "" {
		os.Exit(m.Run())
	}
	conn, err := net.Dial("unix", path)
	if err != nil {
		panic(err)
	}
	go io.Copy(conn, os.Stdin) //nolint:errcheck // ends with the process
	_, _ = io.Copy(os.Stdout, conn)
}

// requests collects what a server was asked.
type requests struct {
	mu  sync.Mutex
	all []*http.Request
}

func (r *requests) add(req *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, req)
}

// first fails the test when nothing was asked.
func (r *requests) first(t *testing.T) *http.Request {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.all) == 0 {
		t.Fatal("the server was not asked")
	}
	return r.all[0]
}

// engine answers /_ping as an engine of API 1.47 does.
func engine(t *testing.T, seen *requests) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if seen != nil {
			seen.add(r)
		}
		if !strings.HasSuffix(r.URL.Path, "/_ping") {
			t.Errorf("asked for %s", r.URL)
		}
		w.Header().Set("Api-Version", "1.47")
		w.Header().Set("Ostype", "linux")
		_, _ = io.WriteString(w, "OK")
	})
}

func unixEngine(t *testing.T, seen *requests) (host string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "e") // short: the path of a socket must be
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(engine(t, seen))
	_ = srv.Listener.Close()
	srv.Listener = l
	srv.Start()
	t.Cleanup(srv.Close)
	return "unix://" + path
}

func ping(t *testing.T, c *Config, contextName string) error {
	t.Helper()
	e, err := c.Engine(contextName)
	if err != nil {
		return err
	}
	cli, err := e.Client(t.Context())
	if err != nil {
		return err
	}
	if v := cli.ClientVersion(); v != "1.47" {
		t.Errorf("agreed on API %s", v)
	}
	return cli.Close()
}

func TestUnixEngine(t *testing.T) {
	// Nothing of this may reach the client: it was not given to Load.
	t.Setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
	t.Setenv("DOCKER_API_VERSION", "1.99")
	t.Setenv("DOCKER_TLS_VERIFY", "1")
	t.Setenv("DOCKER_CERT_PATH", "/nonexistent")
	var seen requests
	host := unixEngine(t, &seen)
	dir := t.TempDir()
	write(t, filepath.Join(dir, "config.json"), `{"HttpHeaders":{"X-Berth":"yes"}}`)
	if err := ping(t, load(t, Input{ConfigDir: dir, Env: env("DOCKER_HOST", host)}), ""); err != nil {
		t.Fatal(err)
	}
	if seen.first(t).Header.Get("X-Berth") != "yes" {
		t.Error("the configured header is missing")
	}
	c := load(t, Input{ConfigDir: dir, Env: env("DOCKER_HOST", host, "DOCKER_API_VERSION", "1.46", "DOCKER_TLS_VERIFY", "1")})
	e, err := c.Engine("")
	if err != nil || e.TLS != nil {
		t.Fatal(e.TLS, err)
	}
	cli, err := e.Client(t.Context())
	if err != nil || cli.ClientVersion() != "1.46" {
		t.Errorf("DOCKER_API_VERSION was not followed: %v", err)
	}
	_ = cli.Close()
}

func TestEngineThatIsNotThere(t *testing.T) {
	c := load(t, Input{ConfigDir: t.TempDir(), Host: "unix:///nonexistent/docker.sock"})
	err := ping(t, c, "")
	if err == nil || !strings.Contains(err.Error(), "/nonexistent/docker.sock") || len(hint.Of(err)) == 0 {
		t.Errorf("no socket: %v", err)
	}
	cause := errors.New("pressed Ctrl-C")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	e, err := c.Engine("")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Client(ctx); !errors.Is(err, cause) {
		t.Errorf("cancelled: %v", err)
	}
}

// contextWith stores a context as docker does.
func contextWith(t *testing.T, dir, name string, ep docker.EndpointMeta, data *clicontext.TLSData) {
	t.Helper()
	s := store.New(filepath.Join(dir, "contexts"), store.NewConfig(func() any { return &map[string]any{} }))
	err := s.CreateOrUpdate(store.Metadata{Name: name, Endpoints: map[string]any{docker.DockerEndpoint: ep}})
	if err == nil && data != nil {
		err = s.ResetEndpointTLSMaterial(name, docker.DockerEndpoint, data.ToStoreTLSData())
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestContexts(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "config.json"), `{"currentContext":"stored"}`)
	contextWith(t, dir, "stored", docker.EndpointMeta{Host: unixEngine(t, nil)}, nil)
	c := load(t, Input{ConfigDir: dir})
	for _, name := range []string{"", "stored"} {
		if err := ping(t, c, name); err != nil {
			t.Errorf("context %q: %v", name, err)
		}
	}
	if e, err := c.Engine("default"); err != nil || e.Host != "unix:///var/run/docker.sock" || e.Name != "default" {
		t.Errorf("the default engine is %+v, %v", e, err)
	}
	_, err := c.Engine("missing")
	if err == nil || !strings.Contains(err.Error(), `"missing"`) || !strings.Contains(strings.Join(hint.Of(err), ""), "docker context ls") {
		t.Errorf("a missing context: %v", err)
	}
	contextWith(t, dir, "secret", docker.EndpointMeta{Host: "ssh://me:hunter2@h"}, nil)
	if _, err := c.Engine("secret"); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("a password in a context: %v", err)
	}
	meta := filepath.Join(store.New(filepath.Join(dir, "contexts"), store.NewConfig(nil)).GetStorageInfo("stored").MetadataPath, "meta.json")
	for _, bad := range []string{"", "garbage", "[]", "{}", `{"Endpoints":{"docker":null}}`, `{"Endpoints":{"docker":{"Host":1}}}`, `{"Name":"`, strings.Repeat("x", 11<<20)} {
		write(t, meta, bad)
		_, err := c.Engine("stored")
		if err == nil || !strings.Contains(err.Error(), "stored") && !strings.Contains(err.Error(), meta) || len(err.Error()) > 1000 {
			t.Errorf("meta.json %.40q: %v", bad, err)
		}
	}
}

func tlsEngine(t *testing.T) (host, ca string) {
	t.Helper()
	srv := httptest.NewTLSServer(engine(t, nil))
	srv.Config.ErrorLog = nil
	t.Cleanup(srv.Close)
	return "tcp://" + srv.Listener.Addr().String(), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}))
}

func TestTLSEngine(t *testing.T) {
	host, ca := tlsEngine(t)
	certs := t.TempDir()
	write(t, filepath.Join(certs, "ca.pem"), ca)
	with := func(kv ...string) *Config {
		return load(t, Input{ConfigDir: t.TempDir(), Env: env(append(kv, "DOCKER_HOST", host)...)})
	}
	if err := ping(t, with("DOCKER_TLS_VERIFY", "1", "DOCKER_CERT_PATH", certs), ""); err != nil {
		t.Errorf("verified: %v", err)
	}
	if err := ping(t, with("DOCKER_TLS", "1"), ""); err != nil {
		t.Errorf("not verified: %v", err)
	}
	if err := ping(t, with("DOCKER_CERT_PATH", certs), ""); err == nil {
		t.Error("TLS is on without having been asked for")
	}
	if e, err := with("DOCKER_TLS", "1").Engine(""); err != nil || !e.SkipVerify || !e.TLS.InsecureSkipVerify {
		t.Errorf("DOCKER_TLS alone: %+v, %v", e, err)
	}
	_, err := with("DOCKER_TLS_VERIFY", "1", "DOCKER_CERT_PATH", "/nonexistent").Engine("")
	if err == nil || !strings.Contains(err.Error(), filepath.Join("/nonexistent", "ca.pem")) {
		t.Errorf("no ca.pem: %v", err)
	}
	for name, content := range map[string]string{"ca.pem": "garbage", "cert.pem": ca, "key.pem": "garbage"} {
		bad := t.TempDir()
		write(t, filepath.Join(bad, "ca.pem"), ca)
		write(t, filepath.Join(bad, name), content)
		if _, err := with("DOCKER_TLS_VERIFY", "1", "DOCKER_CERT_PATH", bad).Engine(""); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("bad %s: %v", name, err)
		}
	}
}

func TestTLSContext(t *testing.T) {
	host, ca := tlsEngine(t)
	dir := t.TempDir()
	contextWith(t, dir, "good", docker.EndpointMeta{Host: host}, &clicontext.TLSData{CA: []byte(ca)})
	contextWith(t, dir, "nocheck", docker.EndpointMeta{Host: host, SkipTLSVerify: true}, nil)
	contextWith(t, dir, "plain", docker.EndpointMeta{Host: host}, nil)
	contextWith(t, dir, "garbage", docker.EndpointMeta{Host: host}, &clicontext.TLSData{CA: []byte("x")})
	c := load(t, Input{ConfigDir: dir})
	for name, good := range map[string]bool{"good": true, "nocheck": true, "plain": false, "garbage": false} {
		if err := ping(t, c, name); (err == nil) != good {
			t.Errorf("context %s: %v", name, err)
		}
	}
	e, err := c.Engine("good")
	if err != nil {
		t.Fatal(err)
	}
	e.TLS = e.TLS.Clone()
	e.TLS.RootCAs = x509.NewCertPool() // trusts nobody
	var unknown x509.UnknownAuthorityError
	if _, err := e.Client(t.Context()); err == nil || !errors.As(err, &unknown) {
		t.Errorf("an unknown CA: %v", err)
	}
}

func TestProxyComesFromTheGivenEnvironment(t *testing.T) {
	t.Setenv("HTTP_PROXY", "http://wrong.example:1")
	var seen requests
	srv := httptest.NewServer(engine(t, &seen))
	defer srv.Close()
	c := load(t, Input{ConfigDir: t.TempDir(), Host: "tcp://engine.example:2375", Env: env("http_proxy", srv.URL)})
	if err := ping(t, c, ""); err != nil {
		t.Fatal(err)
	}
	if got := seen.first(t).URL.Host; got != "engine.example:2375" {
		t.Errorf("the proxy was asked for %q", got)
	}
}

func TestSSHEngine(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("stands in for ssh by a shell script")
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	write(t, filepath.Join(bin, "ssh"), "#!/bin/sh\nprintf '%s\\n' \"$@\" > '"+bin+"/args'\nexec '"+exe+"'\n")
	if err := os.Chmod(filepath.Join(bin, "ssh"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1") // must not be asked for what goes through ssh
	host := unixEngine(t, nil)
	t.Setenv(envSocket, strings.TrimPrefix(host, "unix://"))
	if err := ping(t, load(t, Input{ConfigDir: t.TempDir(), Host: "ssh://me@build.example"}), ""); err != nil {
		t.Fatal(err)
	}
	args, err := os.ReadFile(filepath.Join(bin, "args"))
	if err != nil || !strings.Contains(string(args), "build.example") || !strings.Contains(string(args), "dial-stdio") {
		t.Errorf("ssh was called with %q, %v", args, err)
	}
}

//go:build e2e && linux

package lab

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// RegistryOpts says what kind of registry to start. The zero value speaks
// plain HTTP and lets everybody push.
type RegistryOpts struct {
	User, Password string // basic auth when User is set
	TLS            *Certs // HTTPS with the server certificate
}

// RegistryServer is a running registry.
type RegistryServer struct {
	d      *daemon
	opts   RegistryOpts
	port   int
	client *http.Client
}

// Registry starts Debian's docker-registry and ends it with the test.
func Registry(t testing.TB, opts ...RegistryOpts) *RegistryServer {
	t.Helper()
	Need(t, "docker-registry")
	dir := newDir(t)
	t.Cleanup(func() { removeDir(t, dir) })
	r := &RegistryServer{client: &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}}
	if len(opts) > 0 {
		r.opts = opts[0]
	}
	port, err := freePort()
	if err != nil {
		t.Fatal("lab: ", err)
	}
	r.port = port
	config, err := r.config(dir)
	if err != nil {
		t.Fatal("lab: ", err)
	}
	r.d = newDaemon("docker-registry", dir, "docker-registry", "serve", config)
	r.d.logOnFailure(t)
	t.Cleanup(r.Stop)
	if err := r.d.start(r.answers); err != nil {
		t.Fatal("lab: ", err)
	}
	return r
}

// config writes the registry's configuration and gives its path.
func (r *RegistryServer) config(dir string) (string, error) {
	at := func(name string) string { return filepath.Join(dir, name) }
	var b strings.Builder
	fmt.Fprintf(&b, "version: 0.1\nlog: {accesslog: {disabled: false}}\n")
	fmt.Fprintf(&b, "storage: {filesystem: {rootdirectory: %q}, delete: {enabled: true}}\n", at("data"))
	fmt.Fprintf(&b, "http:\n  addr: %s\n", r.Addr())
	if c := r.opts.TLS; c != nil {
		fmt.Fprintf(&b, "  tls: {certificate: %q, key: %q}\n", c.Server.Cert, c.Server.Key)
	}
	if r.opts.User != "" {
		fmt.Fprintf(&b, "auth: {htpasswd: {realm: lab, path: %q}}\n", at("htpasswd"))
		hash, err := bcrypt.GenerateFromPassword([]byte(r.opts.Password), bcrypt.MinCost)
		if err != nil {
			return "", err
		}
		line := fmt.Sprintf("%s:%s\n", r.opts.User, hash)
		if err := os.WriteFile(at("htpasswd"), []byte(line), 0o600); err != nil {
			return "", err
		}
	}
	return at("config.yml"), os.WriteFile(at("config.yml"), []byte(b.String()), 0o600)
}

func (r *RegistryServer) answers(ctx context.Context) error {
	if r.opts.TLS != nil {
		return tlsAnswers(ctx, r.Addr())
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+r.Addr()+"/v2/", nil)
	if err != nil {
		return err
	}
	resp, err := r.client.Do(req) // 401 is an answer too
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// Addr is host:port, to begin an image's name with; BuildKit and Docker speak
// plain HTTP to a loopback address without being told.
func (r *RegistryServer) Addr() string { return loopback(r.port) }

// Stop ends the registry.
func (r *RegistryServer) Stop() { r.d.stop() }

// Log is what the registry wrote so far, each request included.
func (r *RegistryServer) Log() string { return r.d.log() }

// Get asks for a path such as /v2/NAME/manifests/TAG, as the user when the
// registry has one, and gives the answer; it fails the test only when there is
// none. Registries with TLS are not for it.
func (r *RegistryServer) Get(t testing.TB, path string) (status int, header http.Header, body []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+r.Addr()+path, nil)
	if err != nil {
		t.Fatal("lab: ", err)
	}
	req.Header.Set("Accept", "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, "+
		"application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json, */*")
	if r.opts.User != "" {
		req.SetBasicAuth(r.opts.User, r.opts.Password)
	}
	resp, err := r.client.Do(req)
	if err != nil {
		t.Fatal("lab: ", err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err = io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal("lab: ", err)
	}
	return resp.StatusCode, resp.Header, body
}

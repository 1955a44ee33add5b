package dockerconfig

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"github.com/docker/cli/cli/connhelper"
	clicontext "github.com/docker/cli/cli/context"
	"github.com/docker/cli/cli/context/docker"
	"github.com/docker/cli/cli/context/store"
	"github.com/docker/go-connections/sockets"
	"github.com/moby/moby/client"
	"golang.org/x/net/http/httpproxy"

	"github.com/berthbuild/berth/internal/hint"
)

// Engine is a Docker engine and how to reach it. Nothing is connected before
// Client.
type Engine struct {
	Name       string      // the context's
	Host       string      // unix://, npipe://, tcp:// or ssh://; it holds no password
	TLS        *tls.Config // nil for plain connections; not to be changed
	SkipVerify bool        // the engine's certificate is not verified

	apiVersion string
	headers    map[string]string
	proxy      func(*url.URL) (*url.URL, error)
}

// Engine finds the engine of a context, "" being the one in force. It reads
// the context's files and certificates; the error names the context.
func (c *Config) Engine(contextName string) (Engine, error) {
	if contextName == "" {
		contextName = c.ContextName()
	}
	find := c.storedEndpoint
	if contextName == DefaultContext {
		find = c.defaultEndpoint
	}
	ep, err := find(contextName)
	if err != nil {
		return Engine{}, err
	}
	e := Engine{
		Name:       contextName,
		Host:       ep.Host,
		apiVersion: c.in.Env("DOCKER_API_VERSION"),
		headers:    c.file.HTTPHeaders,
		proxy:      c.proxy(),
	}
	if err := checkHost(e.Host); err != nil {
		return Engine{}, hint.Wrap(err, fmt.Sprintf("docker context %q", contextName), "docker context inspect "+contextName)
	}
	if strings.HasPrefix(e.Host, "tcp://") {
		if e.TLS, err = tlsConfig(ep); err != nil {
			return Engine{}, hint.Wrap(err, fmt.Sprintf("TLS of docker context %q", contextName))
		}
		e.SkipVerify = ep.SkipTLSVerify
	}
	return e, nil
}

// storedEndpoint reads a context that "docker context create" made.
func (c *Config) storedEndpoint(name string) (docker.Endpoint, error) {
	contexts := store.New(filepath.Join(c.dir, "contexts"), store.NewConfig(
		func() any { return &map[string]any{} },
		store.EndpointTypeGetter(docker.DockerEndpoint, func() any { return &docker.EndpointMeta{} }),
	))
	doing := fmt.Sprintf("docker context %q", name)
	// The store reads whatever is there; look first that it is bearable.
	path := filepath.Join(contexts.GetStorageInfo(name).MetadataPath, "meta.json")
	switch _, err := readBounded(path, maxConfig); {
	case errors.Is(err, fs.ErrNotExist):
		return docker.Endpoint{}, hint.Wrap(errors.New("there is no such context"), doing, "docker context ls")
	case err != nil:
		return docker.Endpoint{}, hint.Wrap(err, doing+": "+path, "docker context ls")
	}
	meta, err := contexts.GetMetadata(name)
	if err != nil {
		return docker.Endpoint{}, hint.Wrap(err, "reading docker's contexts", "docker context ls")
	}
	epMeta, err := docker.EndpointFromContext(meta)
	if err != nil {
		return docker.Endpoint{}, hint.Wrap(err, doing, "docker context inspect "+name)
	}
	if !strings.HasPrefix(epMeta.Host, "tcp://") {
		return docker.Endpoint{EndpointMeta: epMeta}, nil
	}
	ep, err := docker.WithTLSData(contexts, name, epMeta)
	return ep, hint.Wrap(err, doing)
}

// defaultEndpoint is what the flags and the environment say.
func (c *Config) defaultEndpoint(string) (docker.Endpoint, error) {
	host, err := c.defaultHost()
	if err != nil {
		return docker.Endpoint{}, err
	}
	ep := docker.Endpoint{EndpointMeta: docker.EndpointMeta{Host: host}}
	if !c.tlsOn() || !strings.HasPrefix(host, "tcp://") {
		return ep, nil
	}
	ep.SkipTLSVerify = c.in.Env("DOCKER_TLS_VERIFY") == ""
	dir := c.in.Env("DOCKER_CERT_PATH")
	if dir == "" {
		dir = c.dir
	}
	data := &clicontext.TLSData{}
	for _, f := range []struct {
		name     string
		into     *[]byte
		optional bool
	}{
		{"ca.pem", &data.CA, ep.SkipTLSVerify},
		{"cert.pem", &data.Cert, true},
		{"key.pem", &data.Key, true},
	} {
		path := filepath.Join(dir, f.name)
		pem, err := readBounded(path, maxPEM)
		if errors.Is(err, fs.ErrNotExist) && f.optional {
			continue
		}
		if err != nil {
			return docker.Endpoint{}, hint.Wrap(err, "reading "+path, "DOCKER_CERT_PATH is the folder with ca.pem, cert.pem and key.pem",
				"without TLS: unset DOCKER_TLS_VERIFY DOCKER_TLS")
		}
		*f.into = pem
	}
	ep.TLSData = data
	return ep, nil
}

// tlsConfig is nil for an endpoint that has neither certificates nor the wish
// to go without their verification.
func tlsConfig(ep docker.Endpoint) (*tls.Config, error) {
	if ep.TLSData == nil && !ep.SkipTLSVerify {
		return nil, nil
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: ep.SkipTLSVerify} //nolint:gosec // only when the user's context says so
	data := ep.TLSData
	if data == nil {
		return cfg, nil
	}
	if data.CA != nil {
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(data.CA) {
			return nil, errors.New("ca.pem holds no certificate")
		}
	}
	if (data.Cert == nil) != (data.Key == nil) {
		return nil, errors.New("cert.pem and key.pem must be there both, or none")
	}
	if data.Cert != nil {
		pair, err := tls.X509KeyPair(data.Cert, data.Key)
		if err != nil {
			return nil, fmt.Errorf("cert.pem and key.pem: %w", err)
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	return cfg, nil
}

// checkHost refuses what Client could not reach, and a password.
func checkHost(host string) error {
	scheme, rest, _ := strings.Cut(host, "://")
	switch scheme {
	case "unix", "npipe":
		if rest == "" {
			return fmt.Errorf("the host %q has no path", host)
		}
		return nil
	case "tcp", "ssh":
	default:
		return fmt.Errorf("the host %q is not of a kind that is known", redact(host))
	}
	u, err := url.Parse(host)
	if err != nil || u.Host == "" {
		return fmt.Errorf("the host %q is not a URL", redact(host)) // the cause repeats all of it
	}
	if _, has := u.User.Password(); has {
		return fmt.Errorf("the host %q has a password, which is not supported", redact(host))
	}
	return nil
}

// proxy is the environment's choice of a proxy for an engine on TCP.
func (c *Config) proxy() func(*url.URL) (*url.URL, error) {
	env := func(name string) string {
		if v := c.in.Env(name); v != "" {
			return v
		}
		return c.in.Env(strings.ToLower(name))
	}
	cfg := httpproxy.Config{HTTPProxy: env("HTTP_PROXY"), HTTPSProxy: env("HTTPS_PROXY"), NoProxy: env("NO_PROXY")}
	return cfg.ProxyFunc()
}

// Client connects to the engine and agrees on a version of its API. The
// caller closes the client. The error names the engine.
func (e Engine) Client(ctx context.Context) (*client.Client, error) {
	doing := fmt.Sprintf("docker engine of context %q at %s", e.Name, redact(e.Host))
	tr, host, err := e.transport()
	if err != nil {
		return nil, hint.Wrap(err, doing)
	}
	// The transport goes in after the host, which would give it a proxy out
	// of the process's environment.
	c, err := client.New(
		client.WithHost(host),
		client.WithHTTPClient(&http.Client{Transport: tr, CheckRedirect: client.CheckRedirect}),
		client.WithHTTPHeaders(e.headers),
		client.WithAPIVersion(e.apiVersion),
	)
	if err != nil {
		return nil, hint.Wrap(err, doing)
	}
	if _, err := c.Ping(ctx, client.PingOptions{NegotiateAPIVersion: true}); err != nil {
		_ = c.Close()
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return nil, hint.Wrap(err, doing, "see whether it runs: docker version", "another engine is chosen with DOCKER_HOST or docker context use NAME")
	}
	return c, nil
}

// transport gives what carries requests, and the host to name in them.
func (e Engine) transport() (*http.Transport, string, error) {
	tr := &http.Transport{MaxIdleConns: 6, IdleConnTimeout: 30 * time.Second}
	scheme, addr, _ := strings.Cut(e.Host, "://")
	switch scheme {
	case "ssh":
		helper, err := connhelper.GetConnectionHelper(e.Host)
		if err != nil {
			return nil, "", err
		}
		tr.DialContext = helper.Dialer
		return tr, helper.Host, nil
	case "unix", "npipe":
		return tr, e.Host, sockets.ConfigureTransport(tr, scheme, addr)
	case "tcp":
		tr.DialContext = (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext
		if e.TLS != nil {
			tr.TLSClientConfig = e.TLS.Clone()
		}
		if e.proxy != nil {
			tr.Proxy = func(r *http.Request) (*url.URL, error) { return e.proxy(r.URL) }
		}
		return tr, e.Host, nil
	}
	return nil, "", fmt.Errorf("the host %q is not of a kind that is known", redact(e.Host))
}

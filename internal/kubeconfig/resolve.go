package kubeconfig

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// resolve makes a Config out of a context that exists.
func resolve(m *merged, name string) (*Config, error) {
	ctx := m.contexts[name]
	c := &Config{Context: name, Namespace: ctx.Namespace, Files: m.files, Warnings: m.warnings, User: ctx.User}
	if c.Namespace == "" {
		c.Namespace = "default"
	}
	wrong := func(err error) error {
		return &FileError{Path: strings.Join(m.files, ", "), Err: fmt.Errorf("context %q: %w", name, err)}
	}
	cl, ok := m.clusters[ctx.Cluster]
	if !ok {
		return nil, wrong(fmt.Errorf("there is no cluster %q", ctx.Cluster))
	}
	u, ok := m.users[ctx.User]
	if !ok && ctx.User != "" {
		return nil, wrong(fmt.Errorf("there is no user %q", ctx.User))
	}
	if err := c.setCluster(&cl); err != nil {
		return nil, wrong(fmt.Errorf("cluster %q: %w", ctx.Cluster, err))
	}
	if err := c.setUser(&u); err != nil {
		return nil, wrong(fmt.Errorf("user %q: %w", ctx.User, err))
	}
	if u.Exec != nil && c.identified() == 0 {
		p, err := newPlugin(&u, &cl, c.CA)
		if err != nil {
			return nil, wrong(fmt.Errorf("user %q: %w", ctx.User, err))
		}
		c.Plugin = p
	}
	return c, nil
}

func (c *Config) setCluster(cl *cluster) error {
	u, err := serverURL(cl.Server)
	if err != nil {
		return err
	}
	c.Server, c.ServerName, c.Insecure = u, cl.TLSServerName, cl.Insecure
	if c.CA, err = dataOrFile(cl.CAData, cl.CA, cl.dir); err != nil {
		return fmt.Errorf("certificate-authority: %w", err)
	}
	if len(c.CA) > 0 && c.Insecure {
		return errors.New("has a certificate authority and insecure-skip-tls-verify, which exclude each other")
	}
	if cl.ProxyURL == "" {
		return nil
	}
	c.Proxy, err = url.Parse(cl.ProxyURL)
	if err != nil || c.Proxy.Host == "" || !slices.Contains([]string{"http", "https", "socks5"}, c.Proxy.Scheme) {
		return errors.New("the proxy-url is none of http, https or socks5") // it may hold a password
	}
	return nil
}

// serverURL reads an API server's address; without a scheme it is a host.
func serverURL(server string) (*url.URL, error) {
	if server == "" {
		return nil, errors.New("has no server")
	}
	if !strings.Contains(server, "://") {
		server = "http://" + server
	}
	u, err := url.Parse(server)
	if err != nil || u.Host == "" || u.User != nil || u.Scheme != "http" && u.Scheme != "https" {
		return nil, errors.New("the server is not an https:// address")
	}
	u.RawQuery, u.Fragment = "", ""
	u.Path = strings.TrimSuffix(u.Path, "/")
	return u, nil
}

func (c *Config) setUser(u *user) error {
	if c.Server.Scheme != "https" { // credentials are not sent in the clear
		return nil
	}
	if u.AuthProvider != nil && u.Exec == nil && u.Token == "" {
		return fmt.Errorf("the auth-provider %q is not supported; Kubernetes replaced them by exec plugins", clip(u.AuthProvider.Name))
	}
	var err error
	if c.Cert, err = dataOrFile(u.CertData, u.Cert, u.dir); err != nil {
		return fmt.Errorf("client-certificate: %w", err)
	}
	if c.Key, err = dataOrFile(u.KeyData, u.Key, u.dir); err != nil {
		return fmt.Errorf("client-key: %w", err)
	}
	switch {
	case len(c.Cert) > 0 && len(c.Key) == 0:
		return errors.New("has a client certificate without a key")
	case len(c.Cert) == 0:
		c.Key = nil
	}
	c.Token, c.Username, c.Password = u.Token, u.Username, u.Password
	if c.Token == "" && u.TokenFile != "" {
		data, err := dataOrFile(nil, u.TokenFile, u.dir)
		if err != nil {
			return fmt.Errorf("tokenFile: %w", err)
		}
		c.Token = strings.TrimSpace(string(data))
	}
	if c.Token != "" && (c.Username != "" || c.Password != "") {
		return errors.New("has a token and a password, which exclude each other")
	}
	c.Impersonate = Impersonate{User: u.As, UID: u.AsUID, Groups: u.AsGroups, Extra: u.AsExtra}
	if u.As == "" && (u.AsUID != "" || len(u.AsGroups) > 0 || len(u.AsExtra) > 0) {
		return errors.New("says as which group or id to act, but not as which user")
	}
	return nil
}

// identified counts the ways in which we say who we are. Where there is one, a
// credential plugin is not asked.
func (c *Config) identified() int {
	n := 0
	for _, has := range []bool{len(c.Cert) > 0, c.Token != "", c.Username != "" || c.Password != ""} {
		if has {
			n++
		}
	}
	return n
}

// dataOrFile gives what stands in the kubeconfig itself, else in the file that
// it names.
func dataOrFile(data []byte, path, dir string) ([]byte, error) {
	if len(data) > 0 || path == "" {
		return data, nil
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(dir, path)
	}
	data, _, err := readBounded(path)
	if err != nil {
		return nil, &FileError{Path: path, Err: plain(err)}
	}
	return data, nil
}

// TLS is the configuration for a connection to the server, nil where it is
// http://. Credentials are what Credentials gave.
func (c *Config) TLS(cred Credentials) (*tls.Config, error) {
	if c.Server.Scheme != "https" {
		return nil, nil
	}
	t := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.ServerName, InsecureSkipVerify: c.Insecure}
	if len(c.CA) > 0 {
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(c.CA) {
			return nil, errors.New("the certificate authority of the cluster is not a PEM certificate")
		}
	}
	if len(cred.Cert) > 0 {
		pair, err := tls.X509KeyPair(cred.Cert, cred.Key)
		if err != nil {
			return nil, fmt.Errorf("the client certificate of user %q: %w", c.User, err)
		}
		t.Certificates = []tls.Certificate{pair}
	}
	return t, nil
}

// serviceAccount is where Kubernetes mounts a pod's credentials.
const serviceAccount = "/var/run/secrets/kubernetes.io/serviceaccount"

// inCluster is the Config within a pod, nil where we are in none.
func (s Source) inCluster() (*Config, error) {
	host, port := s.getenv("KUBERNETES_SERVICE_HOST"), s.getenv("KUBERNETES_SERVICE_PORT")
	dir := s.ServiceAccount
	if dir == "" {
		dir = serviceAccount
	}
	tokenFile := filepath.Join(dir, "token")
	if st, err := os.Stat(tokenFile); host == "" || port == "" || err != nil || st.IsDir() {
		return nil, nil //nolint:nilerr // we are in no pod, or it has no credentials
	}
	c := &Config{Namespace: s.getenv("POD_NAMESPACE"), Files: []string{dir}, User: "the pod's service account"}
	c.Server = &url.URL{Scheme: "https", Host: net.JoinHostPort(host, port)}
	token, _, err := readBounded(tokenFile)
	if err != nil {
		return nil, &FileError{Path: tokenFile, Err: plain(err)}
	}
	if c.Token = strings.TrimSpace(string(token)); c.Token == "" {
		return nil, &FileError{Path: tokenFile, Err: errors.New("is empty")}
	}
	// Without a CA file the system's authorities count, as for client-go.
	c.CA, _, _ = readBounded(filepath.Join(dir, "ca.crt"))
	if c.Namespace == "" {
		ns, _, _ := readBounded(filepath.Join(dir, "namespace"))
		c.Namespace = strings.TrimSpace(string(ns))
	}
	if c.Namespace == "" {
		c.Namespace = "default"
	}
	return c, nil
}

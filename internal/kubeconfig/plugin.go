package kubeconfig

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode"
)

const (
	// execInfo is the variable in which a plugin is told what is wanted.
	execInfo = "KUBERNETES_EXEC_INFO"
	// clusterExtension is the cluster's part of a plugin's configuration.
	clusterExtension = "client.authentication.k8s.io/exec"
	// maxCredential bounds what a plugin may answer, in bytes.
	maxCredential = 1 << 20
	// early is how long before its end a credential is not used any more.
	early = 10 * time.Second
	// lastWords is how long the output of a plugin that ended may stay open.
	lastWords = 500 * time.Millisecond
)

// apiVersions are those of the plugins' protocol.
func apiVersions() []string {
	return []string{"client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1"}
}

// Credentials are what the server is shown.
type Credentials struct {
	Token     string
	Cert, Key []byte // PEM; nil for none
}

// Plugin is a program that gives credentials.
type Plugin struct {
	path    string // the program
	args    []string
	env     []string // besides our own
	input   []byte   // an ExecCredential
	version string
	hint    string // how to install it
	key     string // tells plugins apart
}

// PluginError is a plugin that gave no credentials.
type PluginError struct {
	Command string
	Missing bool   // there is no such program
	Stderr  string // the end of what it said, on one line
	Install string // the kubeconfig's hint how to install it
	Err     error
}

// Error is in the plugin's own words where it had any.
func (e *PluginError) Error() string {
	switch {
	case e.Missing:
		return fmt.Sprintf("there is no credential plugin %s", e.Command)
	case e.Stderr != "":
		return fmt.Sprintf("the credential plugin %s says: %s", e.Command, e.Stderr)
	}
	return fmt.Sprintf("the credential plugin %s: %v", e.Command, e.Err)
}

// Unwrap gives the cause.
func (e *PluginError) Unwrap() error { return e.Err }

// credential is the plugins' protocol.
type credential struct {
	Kind       string            `json:"kind"`
	APIVersion string            `json:"apiVersion"`
	Spec       credentialSpec    `json:"spec"`
	Status     *credentialStatus `json:"status,omitempty"`
}

type credentialSpec struct {
	Cluster     *credentialCluster `json:"cluster,omitempty"`
	Interactive bool               `json:"interactive"`
}

type credentialCluster struct {
	Server             string          `json:"server"`
	TLSServerName      string          `json:"tls-server-name,omitempty"`
	Insecure           bool            `json:"insecure-skip-tls-verify,omitempty"`
	CAData             []byte          `json:"certificate-authority-data,omitempty"`
	ProxyURL           string          `json:"proxy-url,omitempty"`
	DisableCompression bool            `json:"disable-compression,omitempty"`
	Config             json.RawMessage `json:"config"`
}

type credentialStatus struct {
	Expires *time.Time `json:"expirationTimestamp,omitempty"`
	Token   string     `json:"token,omitempty"`
	Cert    string     `json:"clientCertificateData,omitempty"`
	Key     string     `json:"clientKeyData,omitempty"`
}

func newPlugin(u *user, cl *cluster, ca []byte) (*Plugin, error) {
	e := u.Exec
	switch {
	case e.Command == "":
		return nil, errors.New("its exec plugin has no command")
	case !slices.Contains(apiVersions(), e.APIVersion):
		return nil, fmt.Errorf("its exec plugin speaks %q, not %s", clip(e.APIVersion), apiVersions()[0])
	}
	mode := e.InteractiveMode
	if mode == "" && e.APIVersion == apiVersions()[1] {
		mode = "IfAvailable"
	}
	if !slices.Contains([]string{"Never", "IfAvailable", "Always"}, mode) {
		return nil, errors.New("its exec plugin has no interactiveMode out of Never, IfAvailable and Always")
	}
	if mode == "Always" {
		return nil, fmt.Errorf("its exec plugin %s wants to talk to a terminal, which berth does not give it; log in with it first, "+
			"and use a plugin that keeps the login", clip(e.Command))
	}
	p := &Plugin{path: e.Command, args: e.Args, version: e.APIVersion, hint: oneLine(e.InstallHint)}
	if strings.ContainsRune(p.path, filepath.Separator) && !filepath.IsAbs(p.path) {
		p.path = filepath.Join(u.dir, p.path)
	}
	for _, v := range e.Env {
		p.env = append(p.env, v.Name+"="+v.Value)
	}
	in := credential{Kind: "ExecCredential", APIVersion: e.APIVersion}
	if e.ProvideClusterInfo {
		in.Spec.Cluster = pluginCluster(cl, ca)
	}
	var err error
	if p.input, err = json.Marshal(in); err != nil {
		return nil, err
	}
	p.key = strings.Join(slices.Concat([]string{p.path}, p.args, p.env, []string{string(p.input)}), "\x00")
	return p, nil
}

func pluginCluster(cl *cluster, ca []byte) *credentialCluster {
	c := &credentialCluster{
		Server: cl.Server, TLSServerName: cl.TLSServerName, Insecure: cl.Insecure, CAData: ca,
		ProxyURL: cl.ProxyURL, DisableCompression: cl.DisableCompression, Config: json.RawMessage("null"),
	}
	for _, x := range cl.Extensions {
		if x.Name == clusterExtension {
			c.Config = x.Extension
		}
	}
	return c
}

// run asks the program. The times of what it gives are wall-clock.
func (p *Plugin) run(ctx context.Context) (*credentialStatus, error) {
	cmd := exec.CommandContext(ctx, p.path, p.args...)
	stdout, stderr := &bounded{most: maxCredential}, &bounded{most: 4 << 10}
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = stdout, stderr, lastWords
	cmd.Env = append(append(cmd.Environ(), p.env...), execInfo+"="+string(p.input))
	fail := func(err error) (*credentialStatus, error) {
		return nil, &PluginError{Command: p.path, Err: err, Stderr: oneLine(string(stderr.kept)), Install: p.hint}
	}
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return nil, &PluginError{Command: p.path, Err: fmt.Errorf("did not answer in time: %w", context.Cause(ctx))}
		}
		var missing *exec.Error
		if errors.As(err, &missing) || errors.Is(err, fs.ErrNotExist) {
			return nil, &PluginError{Command: p.path, Missing: true, Err: err, Install: p.hint}
		}
		return fail(err)
	}
	var out credential
	if err := json.Unmarshal(stdout.kept, &out); err != nil || stdout.cut {
		return fail(errors.New("its answer is not an ExecCredential")) // and may hold a secret
	}
	switch st := out.Status; {
	case out.APIVersion != p.version || out.Kind != "ExecCredential":
		return fail(fmt.Errorf("its answer is a %q of %q, wanted an ExecCredential of %q", clip(out.Kind), clip(out.APIVersion), p.version))
	case st == nil || st.Token == "" && st.Cert == "" && st.Key == "":
		return fail(errors.New("it gives neither a token nor a certificate"))
	case (st.Cert == "") != (st.Key == ""):
		return fail(errors.New("it gives a certificate without a key, or the other way round"))
	}
	return out.Status, nil
}

// Cache keeps what plugins gave until it expires, so that a plugin is asked once
// and not at each attempt. It may be used concurrently.
type Cache struct {
	turn chan struct{} // holds one value: who has it may look at kept
	kept map[string]*credentialStatus
}

// NewCache is an empty cache.
func NewCache() *Cache {
	k := &Cache{turn: make(chan struct{}, 1), kept: map[string]*credentialStatus{}}
	k.turn <- struct{}{}
	return k
}

// Credentials are the Config's own, or those that its plugin gives. The error
// is a *PluginError.
func (k *Cache) Credentials(ctx context.Context, c *Config) (Credentials, error) {
	if c.Plugin == nil {
		return Credentials{Token: c.Token, Cert: c.Cert, Key: c.Key}, nil
	}
	select { // one at a time: a plugin may write files of its own
	case <-k.turn:
		defer func() { k.turn <- struct{}{} }()
	case <-ctx.Done():
		return Credentials{}, &PluginError{Command: c.Plugin.path, Err: context.Cause(ctx)}
	}
	st := k.kept[c.Plugin.key]
	if st == nil || st.Expires != nil && time.Now().Add(early).After(*st.Expires) {
		var err error
		if st, err = c.Plugin.run(ctx); err != nil {
			return Credentials{}, err
		}
		k.kept[c.Plugin.key] = st
	}
	return Credentials{Token: st.Token, Cert: []byte(st.Cert), Key: []byte(st.Key)}, nil
}

// Forget drops what the Config's plugin gave, because the server refused it. It
// tells whether asking again may help.
func (k *Cache) Forget(c *Config) bool {
	if c.Plugin == nil {
		return false
	}
	<-k.turn
	defer func() { k.turn <- struct{}{} }()
	delete(k.kept, c.Plugin.key)
	return true
}

// bounded keeps the beginning of what is written, and takes everything.
type bounded struct {
	kept []byte
	most int
	cut  bool
}

// Write implements io.Writer.
func (b *bounded) Write(p []byte) (int, error) {
	n := min(len(p), b.most-len(b.kept))
	b.kept = append(b.kept, p[:n]...)
	b.cut = b.cut || n < len(p)
	return len(p), nil
}

// oneLine makes foreign text fit for a message.
func oneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return ' '
		}
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, ""))
	return strings.Join(strings.Fields(s), " ")
}

// Command is the program and its arguments, as a person would type them.
func (p *Plugin) Command() []string { return append([]string{p.path}, p.args...) }

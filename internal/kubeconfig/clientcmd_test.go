package kubeconfig

import (
	"bytes"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// kubectl reads the files as client-go does. It reads the environment by
// itself, so the files are named here.
func kubectl(files []string, context string) (*rest.Config, string, error) {
	rules := &clientcmd.ClientConfigLoadingRules{Precedence: files}
	cc := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: context})
	c, err := cc.ClientConfig()
	if err != nil {
		return nil, "", err
	}
	ns, _, err := cc.Namespace()
	return c, ns, err
}

// data is what stands in the field, or in the file.
func data(t *testing.T, inline []byte, path string) []byte {
	t.Helper()
	if len(inline) > 0 || path == "" {
		return inline
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Each set of files is read as kubectl reads it, context by context: refused
// where it refuses, and with the same server, credentials and namespace.
func TestAsKubectl(t *testing.T) {
	user := func(entry string) string { return strings.Replace(simple, "{token: tok}", entry, 1) }
	cluster := func(entry string) string {
		return strings.Replace(simple, `{server: "https://c.example:6443/path/"}`, entry, 1)
	}
	const exec = "{exec: {command: %, apiVersion: client.authentication.k8s.io/v1, interactiveMode: Never, args: [a], env: [{name: a, value: b}]}}"
	for name, files := range map[string][]string{
		"simple":           {simple},
		"JSON":             {`{"current-context":"one","clusters":[{"name":"c","cluster":{"server":"https://j"}}],"contexts":[{"name":"one","context":{"cluster":"c"}}]}`},
		"empty":            {""},
		"two, first wins":  {simple, strings.ReplaceAll(simple, "c.example", "other") + "\n"},
		"parts":            {"current-context: one", simple, "current-context: two"},
		"other contexts":   {"contexts: [{name: one, context: {cluster: d, user: u, namespace: m}}]\nclusters: [{name: d, cluster: {server: 'https://d'}}]", simple},
		"unknown fields":   {simple + "\nextensions: []\nunknown: 1"},
		"duplicate":        {simple + "\n- {name: one, context: {cluster: c, user: u}}"},
		"CA file":          {cluster("{server: 'https://x', certificate-authority: ca.pem}")},
		"CA data":          {cluster("{server: 'https://x', certificate-authority-data: Y2EtZGF0YQ==}")},
		"CA missing":       {cluster("{server: 'https://x', certificate-authority: nowhere}")},
		"server name":      {cluster("{server: 'https://x', tls-server-name: y, insecure-skip-tls-verify: true}")},
		"proxy":            {cluster("{server: 'https://x', proxy-url: 'socks5://p:1'}")},
		"bad proxy":        {cluster("{server: 'https://x', proxy-url: 'nonsense'}")},
		"plain http":       {cluster("{server: 'http://x:8080'}")},
		"certificate":      {user("{client-certificate: ca.pem, client-key: key.pem}")},
		"certificate data": {user("{client-certificate-data: YQ==, client-key-data: Yg==}")},
		"no key":           {user("{client-certificate-data: YQ==}")},
		"token file":       {user("{tokenFile: token}")},
		"both tokens":      {user("{token: a, tokenFile: token}")},
		"password":         {user("{username: a, password: b}")},
		"token, password":  {user("{token: a, username: b}")},
		"impersonate":      {user("{token: a, as: b, as-uid: c, as-groups: [d, e], as-user-extra: {f: [g]}}")},
		"group, no user":   {user("{token: a, as-groups: [d]}")},
		"plugin":           {user(strings.Replace(exec, "%", "plugin", 1))},
		"plugin, relative": {user(strings.Replace(exec, "%", "./bin/plugin", 1))},
		"plugin, token":    {user(strings.Replace(strings.Replace(exec, "%", "plugin", 1), "}}", "}, token: a}", 1))},
		"plugin, no mode":  {user(strings.Replace(strings.Replace(exec, "%", "plugin", 1), "interactiveMode: Never, ", "", 1))},
		"plugin, beta":     {user("{exec: {command: p, apiVersion: client.authentication.k8s.io/v1beta1}}")},
		"YAML anchors":     {"x: &t {token: tok}\n" + user("*t")},
	} {
		t.Run(name, func(t *testing.T) {
			dir := write(t, map[string]string{"ca.pem": "CA", "key.pem": "KEY", "token": "tok"})
			var paths []string
			for i, text := range files {
				p := filepath.Join(dir, string(rune('a'+i)))
				if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
				paths = append(paths, p)
			}
			for _, context := range []string{"", "one", "two", "nobody", "none"} {
				s := source(dir, "KUBECONFIG="+strings.Join(paths, string(filepath.ListSeparator)))
				s.Context = context
				got, err := Load(s)
				want, ns, werr := kubectl(paths, context)
				if (err == nil) != (werr == nil) {
					t.Errorf("context %q: %v; kubectl: %v", context, err, werr)
				}
				if err == nil && werr == nil {
					same(t, got, want, ns)
				}
			}
		})
	}
}

func same(t *testing.T, got *Config, want *rest.Config, ns string) {
	t.Helper()
	check := func(what string, a, b any) {
		t.Helper()
		if !reflect.DeepEqual(a, b) {
			t.Errorf("context %q: %s is %q; kubectl's: %q", got.Context, what, a, b)
		}
	}
	check("namespace", got.Namespace, ns)
	check("server", got.Server.String(), strings.TrimSuffix(want.Host, "/"))
	check("server name", got.ServerName, want.ServerName)
	check("insecure", got.Insecure, want.Insecure)
	check("username", got.Username+":"+got.Password, want.Username+":"+want.Password)
	check("token", got.Token, want.BearerToken)
	check("impersonate", got.Impersonate, Impersonate{want.Impersonate.UserName, want.Impersonate.UID, want.Impersonate.Groups, want.Impersonate.Extra})
	if got.Server.Scheme == "https" {
		check("CA", string(got.CA), string(data(t, want.CAData, want.CAFile)))
	}
	check("certificate", string(got.Cert), string(data(t, want.CertData, want.CertFile)))
	check("key", string(got.Key), string(data(t, want.KeyData, want.KeyFile)))
	if (got.Proxy != nil) != (want.Proxy != nil) {
		t.Errorf("proxy is %v", got.Proxy)
	} else if want.Proxy != nil {
		u, _ := want.Proxy(&http.Request{})
		check("proxy", got.Proxy.String(), u.String())
	}
	// client-go asks a plugin only where nothing else says who we are.
	asks := want.ExecProvider != nil && want.BearerToken == "" && want.Username == "" && len(want.CertData) == 0 && want.CertFile == ""
	if (got.Plugin != nil) != asks {
		t.Errorf("context %q: plugin %+v; kubectl's: %+v", got.Context, got.Plugin, want.ExecProvider)
	} else if asks {
		check("plugin", got.Plugin.path, want.ExecProvider.Command)
		check("its arguments", got.Plugin.args, want.ExecProvider.Args)
		check("its version", got.Plugin.version, want.ExecProvider.APIVersion)
		check("its environment", len(got.Plugin.env), len(want.ExecProvider.Env))
	}
}

// No file that kubectl takes is read differently, and none that it refuses for
// its form is taken.
func FuzzAsKubectl(f *testing.F) {
	f.Add(simple)
	f.Add(strings.Replace(simple, "one", "two", 3))
	dir := f.TempDir()
	path := filepath.Join(dir, "config")
	f.Fuzz(func(t *testing.T, text string) {
		if strings.ContainsAny(text, "%\\") || bytes.ContainsRune([]byte(text), 0) {
			t.Skip("escapes")
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := Load(source(dir, "KUBECONFIG="+path))
		want, ns, werr := kubectl([]string{path}, "")
		if err == nil && werr == nil && want.AuthProvider == nil {
			same(t, got, want, ns)
		}
	})
}

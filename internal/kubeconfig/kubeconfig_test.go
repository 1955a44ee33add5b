package kubeconfig

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// write makes files in a folder and gives its path.
func write(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// source looks in dir, with the given environment ("K=V").
func source(dir string, env ...string) Source {
	return Source{Home: dir, Dir: dir, ServiceAccount: filepath.Join(dir, "sa"), Getenv: func(k string) string {
		for _, kv := range env {
			if key, v, _ := strings.Cut(kv, "="); key == k {
				return v
			}
		}
		return ""
	}}
}

const simple = `
apiVersion: v1
kind: Config
current-context: one
clusters: [{name: c, cluster: {server: "https://c.example:6443/path/"}}]
users: [{name: u, user: {token: tok}}]
contexts:
- {name: one, context: {cluster: c, user: u, namespace: ns}}
- {name: two, context: {cluster: c, user: u}}
- {name: no-cluster, context: {cluster: x, user: u}}
- {name: no-user, context: {cluster: c, user: x}}
- {name: nobody, context: {cluster: c}}
`

func TestLoad(t *testing.T) {
	dir := write(t, map[string]string{".kube/config": simple})
	c, err := Load(source(dir))
	if err != nil {
		t.Fatal(err)
	}
	if c.Context != "one" || c.Namespace != "ns" || c.Token != "tok" || c.Server.String() != "https://c.example:6443/path" || len(c.Warnings) != 0 {
		t.Errorf("%+v", c)
	}
	s := source(dir)
	s.Context = "two"
	if c, err = Load(s); err != nil || c.Namespace != "default" {
		t.Errorf("%+v, %v", c, err)
	}
	s.Context = "nobody"
	if c, err = Load(s); err != nil || c.Token != "" {
		t.Errorf("%+v, %v", c, err)
	}
}

// What the first file says is right, and relative paths are relative to the
// file that has them.
func TestLoadList(t *testing.T) {
	dir := write(t, map[string]string{
		"a/config": `
clusters: [{name: c, cluster: {server: "https://a", certificate-authority: ca}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
`,
		"b/config": `
current-context: x
clusters: [{name: c, cluster: {server: "https://b"}}]
users: [{name: u, user: {tokenFile: tok}}]
contexts: [{name: x, context: {cluster: other, user: other}}]
`,
		"a/ca": "A", "b/tok": "T\n",
	})
	list := strings.Join([]string{"a/config", "missing", "b/config", "a/config"}, string(filepath.ListSeparator))
	c, err := Load(source(dir, "KUBECONFIG="+list))
	if err != nil {
		t.Fatal(err)
	}
	if c.Server.Host != "a" || string(c.CA) != "A" || c.Token != "T" || len(c.Files) != 2 {
		t.Errorf("%+v", c)
	}
}

func TestRefused(t *testing.T) {
	user := func(entry string) string {
		return strings.Replace(simple, "{token: tok}", entry, 1)
	}
	cluster := func(entry string) string {
		return strings.Replace(simple, `{server: "https://c.example:6443/path/"}`, entry, 1)
	}
	for name, tc := range map[string]struct{ text, context, says string }{
		"garbage":            {"\x00\x01", "", "it cannot be read as YAML"},
		"not a mapping":      {"- a", "", "it is not a YAML mapping"},
		"a list as a word":   {"clusters: hunter2", "", `"clusters" is a string there`},
		"a wrong type":       {"users: [{name: [hunter2]}]", "", `"users.name" is a array there`},
		"another object":     {"kind: Pod\napiVersion: v1", "", `it is a "Pod"`},
		"twice":              {simple + "- {name: one, context: {}}", "", `two contexts named "one"`},
		"no such context":    {simple, "x", `no context "x"`},
		"lists contexts":     {simple, "x", "there are: no-cluster, no-user, nobody, one, two"},
		"no current context": {strings.Replace(simple, "current-context: one", "", 1), "", "has no current context"},
		"empty":              {"", "", "has no current context; there is none"},
		"no such cluster":    {simple, "no-cluster", `there is no cluster "x"`},
		"no such user":       {simple, "no-user", `there is no user "x"`},
		"no server":          {cluster("{}"), "", "has no server"},
		"a bad server":       {cluster("{server: 'ftp://hunter2@x'}"), "", "not an https:// address"},
		"a bad proxy":        {cluster("{server: 'https://x', proxy-url: 'hunter2'}"), "", "proxy-url"},
		"CA and insecure":    {cluster("{server: 'https://x', insecure-skip-tls-verify: true, certificate-authority-data: YQ==}"), "", "exclude each other"},
		"no CA file":         {cluster("{server: 'https://x', certificate-authority: nowhere}"), "", "nowhere: no such file"},
		"bad base64":         {cluster("{server: 'https://x', certificate-authority-data: '%hunter2'}"), "", "is not a kubeconfig"},
		"no key":             {user("{client-certificate-data: YQ==}"), "", "without a key"},
		"token and password": {user("{token: hunter2, username: a, password: hunter2}"), "", "exclude each other"},
		"group without user": {user("{token: hunter2, as-groups: [g]}"), "", "not as which user"},
		"auth provider":      {user("{auth-provider: {name: gcp, config: {access-token: hunter2}}}"), "", `"gcp" is not supported`},
		"old plugin":         {user("{exec: {command: a, apiVersion: client.authentication.k8s.io/v1alpha1}}"), "", "v1alpha1"},
		"nameless plugin":    {user("{exec: {apiVersion: client.authentication.k8s.io/v1, interactiveMode: Never}}"), "", "no command"},
		"no mode":            {user("{exec: {command: a, apiVersion: client.authentication.k8s.io/v1}}"), "", "no interactiveMode"},
		"interactive":        {user("{exec: {command: a, interactiveMode: Always, apiVersion: client.authentication.k8s.io/v1}}"), "", "wants to talk to a terminal"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := write(t, map[string]string{".kube/config": tc.text})
			s := source(dir)
			s.Context = tc.context
			_, err := Load(s)
			if err == nil {
				t.Fatal("accepted")
			}
			if text := err.Error(); !strings.Contains(text, tc.says) || strings.Contains(text, "hunter2") || !strings.Contains(text, dir) {
				t.Errorf("says %q, want %q in it, the file's name, and no secret", text, tc.says)
			}
		})
	}
}

func TestNone(t *testing.T) {
	dir := t.TempDir()
	_, err := Load(source(dir))
	if !errors.Is(err, ErrNone) || !strings.Contains(err.Error(), filepath.Join(dir, ".kube", "config")) {
		t.Error(err)
	}
	s := source(dir)
	s.File = "nowhere"
	var file *FileError
	if _, err := Load(s); !errors.As(err, &file) || file.Path != filepath.Join(dir, "nowhere") || !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	s.File = dir
	if _, err := Load(s); !errors.As(err, &file) || !strings.Contains(err.Error(), "is not a file") {
		t.Error(err)
	}
}

func TestInCluster(t *testing.T) {
	dir := write(t, map[string]string{"sa/token": "tok\n", "sa/ca.crt": "CA", "sa/namespace": "ns"})
	env := []string{"KUBERNETES_SERVICE_HOST=fd00::1", "KUBERNETES_SERVICE_PORT=443"}
	c, err := Load(source(dir, env...))
	if err != nil {
		t.Fatal(err)
	}
	if c.Server.String() != "https://[fd00::1]:443" || c.Token != "tok" || string(c.CA) != "CA" || c.Namespace != "ns" || c.Context != "" {
		t.Errorf("%+v", c)
	}
	if c, err = Load(source(dir, append(env, "POD_NAMESPACE=other")...)); err != nil || c.Namespace != "other" {
		t.Errorf("%+v, %v", c, err)
	}
	// A kubeconfig comes before the pod, unless it chooses nothing.
	if err := os.MkdirAll(filepath.Join(dir, ".kube"), 0o700); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, ".kube", "config")
	for text, context := range map[string]string{simple: "one", strings.Replace(simple, "current-context: one", "", 1): ""} {
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if c, err = Load(source(dir, env...)); err != nil || c.Context != context {
			t.Errorf("%+v, %v", c, err)
		}
	}
	s := source(t.TempDir(), env...)
	if _, err = Load(s); !errors.Is(err, ErrNone) {
		t.Error(err)
	}
	s = source(dir, env...)
	s.Context = "x"
	var noContext *ContextError
	if _, err = Load(s); !errors.As(err, &noContext) {
		t.Error(err)
	}
}

func TestWarnsOfReadableSecrets(t *testing.T) {
	dir := write(t, map[string]string{".kube/config": simple})
	p := filepath.Join(dir, ".kube", "config")
	for mode, want := range map[os.FileMode]int{0o600: 0, 0o640: 0, 0o644: 1} {
		if err := os.Chmod(p, mode); err != nil {
			t.Fatal(err)
		}
		c, err := Load(source(dir))
		if err != nil || len(c.Warnings) != want {
			t.Errorf("%o: %q, %v", mode, c.Warnings, err)
		}
	}
}

// plugin is a Config whose credentials a shell script gives.
func plugin(t *testing.T, script, more string) *Config {
	t.Helper()
	dir := write(t, map[string]string{
		"plugin": "#!/bin/sh\n" + script,
		".kube/config": strings.Replace(simple, "{token: tok}",
			"{exec: {command: ../plugin, args: [a, b c], interactiveMode: Never, apiVersion: client.authentication.k8s.io/v1, env: [{name: X, value: why}]"+more+"}}", 1),
	})
	c, err := Load(source(dir))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

const answer = `{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1","status":`

func TestPlugin(t *testing.T) {
	c := plugin(t, `
test "$1/$2/$X" = "a/b c/why" || { echo "$1/$2/$X" >&2; exit 1; }
echo "$KUBERNETES_EXEC_INFO" >"$0.info"
echo x >>"$0.calls"
cat <<E
`+answer+`{"token":"T","clientCertificateData":"C","clientKeyData":"K","expirationTimestamp":"2999-01-01T00:00:00Z"}}
E
`, ", provideClusterInfo: true")
	cache := NewCache()
	for range 2 {
		cred, err := cache.Credentials(t.Context(), c)
		if err != nil || cred.Token != "T" || string(cred.Cert) != "C" || string(cred.Key) != "K" {
			t.Fatalf("%+v, %v", cred, err)
		}
	}
	if calls, err := os.ReadFile(c.Plugin.path + ".calls"); err != nil || string(calls) != "x\n" {
		t.Errorf("calls %q, %v", calls, err)
	}
	info, err := os.ReadFile(c.Plugin.path + ".info")
	if err != nil {
		t.Fatal(err)
	}
	var got credential
	if err := json.Unmarshal(info, &got); err != nil || got.Spec.Cluster == nil || got.Spec.Cluster.Server != "https://c.example:6443/path/" {
		t.Errorf("%s, %v", info, err)
	}
	if !cache.Forget(c) || cache.Forget(&Config{}) {
		t.Error("Forget says whether there is a plugin to ask again")
	}
	if _, err := cache.Credentials(t.Context(), c); err != nil {
		t.Error(err)
	}
}

func TestPluginExpires(t *testing.T) {
	c := plugin(t, `echo x >>"$0.calls"; echo '`+answer+`{"token":"T","expirationTimestamp":"2000-01-01T00:00:00Z"}}'`, "")
	cache := NewCache()
	for range 2 {
		if _, err := cache.Credentials(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	if calls, _ := os.ReadFile(c.Plugin.path + ".calls"); string(calls) != "x\nx\n" {
		t.Errorf("calls %q", calls)
	}
}

func TestPluginFails(t *testing.T) {
	for script, says := range map[string]string{
		`echo "please log in" >&2; exit 3`: "plugin says: please log in",
		`exit 3`:                           "exit status 3",
		`echo hunter2`:                     "its answer is not an ExecCredential",
		`echo '` + answer + `{}}'`:         "neither a token nor a certificate",
		`echo '` + answer + `{"clientKeyData":"hunter2"}}'`:  "without a key, or the other way round",
		`echo '{"kind":"ExecCredential","apiVersion":"v9"}'`: `of "v9"`,
		`yes hunter2 | head -c 3000000`:                      "its answer is not an ExecCredential",
		`yes log in | head -c 3000000 >&2; exit 1`:           "log in log in",
	} {
		c := plugin(t, script, "")
		_, err := NewCache().Credentials(t.Context(), c)
		var p *PluginError
		if !errors.As(err, &p) || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "hunter2") || len(err.Error()) > 8000 {
			t.Errorf("%s: %d bytes: %.300v", script, len(err.Error()), err)
		}
	}
	c := plugin(t, "sleep 60", "")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := NewCache().Credentials(ctx, c); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	c.Plugin.path = "/nowhere/plugin"
	var p *PluginError
	if _, err := NewCache().Credentials(t.Context(), c); !errors.As(err, &p) || !p.Missing {
		t.Error(err)
	}
}

func TestTLS(t *testing.T) {
	dir := write(t, map[string]string{".kube/config": simple})
	c, err := Load(source(dir))
	if err != nil {
		t.Fatal(err)
	}
	c.CA = []byte("no PEM")
	if _, err := c.TLS(Credentials{}); err == nil {
		t.Error("a CA that is no PEM was accepted")
	}
	c.CA = nil
	if _, err := c.TLS(Credentials{Cert: []byte("x"), Key: []byte("y")}); err == nil {
		t.Error("a certificate that is no PEM was accepted")
	}
	if tc, err := c.TLS(Credentials{}); err != nil || tc == nil || tc.InsecureSkipVerify {
		t.Errorf("%+v, %v", tc, err)
	}
	c.Server.Scheme = "http"
	if tc, err := c.TLS(Credentials{}); err != nil || tc != nil {
		t.Errorf("%+v, %v", tc, err)
	}
}

// Whatever is in the file, the answer is a Config or an error without a panic.
func FuzzLoad(f *testing.F) {
	f.Add(simple)
	f.Add("current-context: a\ncontexts: [{name: a, context: {cluster: b}}]\nclusters: [{name: b, cluster: {server: x, proxy-url: 'socks5://p'}}]")
	f.Add("users: [{name: u, user: {exec: {command: x, env: [{name: a}]}}}]")
	f.Add("a: &a [*a]")
	dir := f.TempDir()
	path := filepath.Join(dir, "config")
	f.Fuzz(func(t *testing.T, text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := Load(source(dir, "KUBECONFIG="+path))
		if (c == nil) == (err == nil) {
			t.Errorf("%+v, %v", c, err)
		}
		if c != nil && (c.Server == nil || c.Server.Host == "" || c.Namespace == "") {
			t.Errorf("%+v", c)
		}
	})
}

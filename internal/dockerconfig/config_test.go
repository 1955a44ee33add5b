package dockerconfig

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/berthbuild/berth/internal/hint"
)

// env is an environment; what is not in it is unset.
func env(kv ...string) func(string) string {
	m := make(map[string]string)
	for i := 0; i+1 < len(kv); i += 2 {
		m[kv[i]] = kv[i+1]
	}
	return func(name string) string { return m[name] }
}

func write(t *testing.T, path, content string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func load(t *testing.T, in Input) *Config {
	t.Helper()
	c, err := Load(in)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestPrecedence(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "config.json"), `{"currentContext":"from-file"}`)
	empty := t.TempDir()
	for _, tc := range []struct {
		what      string
		in        Input
		name, key string
	}{
		{"nothing", Input{ConfigDir: empty}, "default", "unix:///var/run/docker.sock"},
		{"config.json", Input{ConfigDir: dir}, "from-file", "from-file"},
		{"DOCKER_CONTEXT", Input{ConfigDir: dir, Env: env("DOCKER_CONTEXT", "from-env")}, "from-env", "from-env"},
		{"DOCKER_CONTEXT=default", Input{ConfigDir: dir, Env: env("DOCKER_CONTEXT", "default")}, "default", "unix:///var/run/docker.sock"},
		{"DOCKER_HOST", Input{ConfigDir: dir, Env: env("DOCKER_CONTEXT", "from-env", "DOCKER_HOST", "tcp://h:1")}, "default", "tcp://h:1"},
		{"--context", Input{ConfigDir: dir, Context: "flag", Env: env("DOCKER_CONTEXT", "from-env", "DOCKER_HOST", "tcp://h:1")}, "flag", "flag"},
		{"--context default", Input{ConfigDir: dir, Context: "default", Env: env("DOCKER_HOST", "tcp://h:1")}, "default", "tcp://h:1"},
		{"--host", Input{ConfigDir: dir, Host: "tcp://flag:2", Env: env("DOCKER_CONTEXT", "from-env", "DOCKER_HOST", "tcp://h:1")}, "default", "tcp://flag:2"},
		{"short hosts", Input{ConfigDir: dir, Host: "flag"}, "default", "tcp://flag:2375"},
		{"unix", Input{ConfigDir: dir, Host: "unix:///a b"}, "default", "unix:///a b"},
		{"TLS default", Input{ConfigDir: empty, Env: env("DOCKER_TLS_VERIFY", "1", "DOCKER_HOST", "tcp://h:2376")}, "default", "tcp://h:2376"},
	} {
		c := load(t, tc.in)
		key, err := c.CurrentKey()
		if c.ContextName() != tc.name || key != tc.key || err != nil {
			t.Errorf("%s: context %q, key %q, %v; want %q, %q", tc.what, c.ContextName(), key, err, tc.name, tc.key)
		}
	}
	if _, err := Load(Input{ConfigDir: dir, Host: "tcp://h:1", Context: "x"}); err == nil {
		t.Error("--host and --context together were accepted")
	}
}

func TestDir(t *testing.T) {
	for _, tc := range []struct {
		in   Input
		want string
	}{
		{Input{Home: "/h"}, "/h/.docker"},
		{Input{Home: "/h", Env: env("DOCKER_CONFIG", "/d")}, "/d"},
		{Input{Home: "/h", ConfigDir: "/c", Env: env("DOCKER_CONFIG", "/d")}, "/c"},
	} {
		if c := load(t, tc.in); c.Dir() != filepath.FromSlash(tc.want) {
			t.Errorf("Dir of %+v = %q, want %q", tc.in, c.Dir(), tc.want)
		}
	}
	if _, err := Load(Input{}); err == nil || len(hint.Of(err)) == 0 {
		t.Errorf("without a home: %v", err)
	}
}

func TestFileHoldsCredentials(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "config.json"), `{"auths":{"registry.example":{"auth":"bWU6aHVudGVyMg=="}},"credHelpers":{"other.example":"none"}}`)
	f := load(t, Input{ConfigDir: dir}).File()
	got, err := f.GetAuthConfig("registry.example")
	if err != nil || got.Username != "me" || got.Password != "hunter2" {
		t.Errorf("credentials %+v, %v", got, err)
	}
	if f := load(t, Input{ConfigDir: t.TempDir()}).File(); f == nil {
		t.Error("no file is nil")
	}
}

// The secrets are where a decoder's error would repeat them.
func TestGarbageIsNamedWithoutItsContent(t *testing.T) {
	for _, tc := range []struct{ what, content, says string }{
		{"garbage", "hunter2", "not valid JSON"},
		{"binary", "\x00\xffhunter2", "not valid JSON"},
		{"truncated", `{"auths":{"r":{"auth":"hunter2`, "EOF"},
		{"wrong type", `{"auths":{"r":{"auth":4242424242}}}`, "wrong type"},
		{"list", `["hunter2"]`, "wrong type"},
		{"character after value", `{"auths":{"r":{"auth":"x"ß}}}`, "not valid JSON"},
		{"not base64", `{"auths":{"r":{"auth":"hunter2!"}}}`, "base64"},
		{"no colon", `{"auths":{"r":{"auth":"aHVudGVyMg=="}}}`, "invalid auth"},
		{"too long", `{"x":"` + strings.Repeat("hunter2", 2<<20) + `"}`, "longer than 10485760 bytes"},
	} {
		dir := t.TempDir()
		path := write(t, filepath.Join(dir, "config.json"), tc.content)
		_, err := Load(Input{ConfigDir: dir})
		if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), tc.says) || len(hint.Of(err)) == 0 {
			t.Errorf("%s: %v; want %q about %s", tc.what, err, tc.says, path)
			continue
		}
		for _, secret := range []string{"hunter2", "aHVudGVyMg", "4242", "ß"} {
			if strings.Contains(err.Error(), secret) {
				t.Errorf("%s: repeats %q: %v", tc.what, secret, err)
			}
		}
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "config.json"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(Input{ConfigDir: dir}); err == nil || !strings.Contains(err.Error(), "is a directory") {
		t.Errorf("a directory: %v", err)
	}
	// docker takes an empty file for an empty configuration.
	dir = t.TempDir()
	write(t, filepath.Join(dir, "config.json"), "")
	load(t, Input{ConfigDir: dir})
}

func TestBadHosts(t *testing.T) {
	for _, host := range []string{"gopher://h", "tcp://user:hunter2@h:x:y", "http://me:hunter2@h", "tcp://h:hunter2@\x7f"} {
		c := load(t, Input{ConfigDir: t.TempDir(), Host: host})
		_, err := c.CurrentKey()
		if err == nil || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), "--host") {
			t.Errorf("CurrentKey with %q: %v", host, err)
		}
		if _, err := c.Engine(""); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("Engine with %q: %v", host, err)
		}
	}
	for _, host := range []string{"ssh://me:hunter2@h", "ssh://", "fd://3"} {
		if _, err := load(t, Input{ConfigDir: t.TempDir(), Host: host}).Engine(""); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("Engine with %q: %v", host, err)
		}
	}
}

func FuzzConfigFile(f *testing.F) {
	for _, seed := range []string{"", "{}", "null", `{"auths":{"r":{"auth":"bWU6eA=="}},"currentContext":"c"}`, `{"auths":null}`, `{"HttpHeaders":{"a":1}}`} {
		f.Add([]byte(seed))
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, data []byte) {
		path := write(t, filepath.Join(dir, "config.json"), string(data))
		c, err := Load(Input{ConfigDir: dir})
		if err != nil {
			if !strings.Contains(err.Error(), path) {
				t.Fatalf("%q: %v", data, err)
			}
			return
		}
		if c.ContextName() == "" || c.File() == nil {
			t.Fatalf("%q: no context", data)
		}
	})
}

package dockerconfig

import (
	"maps"
	"path/filepath"
	"testing"

	"github.com/docker/cli/cli/context/docker"
)

func TestBuildProxies(t *testing.T) {
	dir, empty := t.TempDir(), t.TempDir()
	write(t, filepath.Join(dir, "config.json"), `{"proxies":{
		"default": {"httpProxy":"http://p:1","noProxy":"localhost"},
		"tcp://engine:2375": {"httpsProxy":"http://own:1","ftpProxy":"f","allProxy":"a"},
		"tcp://none:2375": {}}}`)
	contextWith(t, dir, "stored", docker.EndpointMeta{Host: "tcp://engine:2375"}, nil)
	for _, tc := range []struct {
		what string
		in   Input
		want map[string]string
	}{
		{"no configuration", Input{ConfigDir: empty}, map[string]string{}},
		{"the default engine", Input{ConfigDir: dir}, map[string]string{"HTTP_PROXY": "http://p:1", "NO_PROXY": "localhost"}},
		{"an engine with proxies of its own", Input{ConfigDir: dir, Env: env("DOCKER_HOST", "tcp://engine:2375")}, map[string]string{"HTTPS_PROXY": "http://own:1", "FTP_PROXY": "f", "ALL_PROXY": "a"}},
		{"an engine without proxies", Input{ConfigDir: dir, Host: "tcp://none:2375"}, map[string]string{}},
		{"a context", Input{ConfigDir: dir, Context: "stored"}, map[string]string{"HTTPS_PROXY": "http://own:1", "FTP_PROXY": "f", "ALL_PROXY": "a"}},
		{"a context that is not there", Input{ConfigDir: dir, Context: "nosuch"}, map[string]string{"HTTP_PROXY": "http://p:1", "NO_PROXY": "localhost"}},
		{"a host that is none", Input{ConfigDir: dir, Host: "nonsense://\x00"}, map[string]string{"HTTP_PROXY": "http://p:1", "NO_PROXY": "localhost"}},
	} {
		if got := load(t, tc.in).BuildProxies(); !maps.Equal(got, tc.want) {
			t.Errorf("%s: %v, want %v", tc.what, got, tc.want)
		}
	}
}

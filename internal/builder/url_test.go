package builder

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/berthbuild/berth/internal/builderfile"
	"github.com/berthbuild/berth/internal/dockerconfig"
	"github.com/berthbuild/berth/internal/endpoint"
)

func TestURL(t *testing.T) {
	s, dir := service(t)
	s.Dir, s.Home = "/work", "/home/me"
	for _, c := range []struct{ url, name, want string }{
		{"tcp://BuildKitd:1234", "tcp-buildkitd-1234", "tcp://buildkitd:1234"},
		{"tcp://[::1]:1234", "tcp-1-1234", "tcp://[::1]:1234"},
		{"tcp://h:1?tlsdir=certs", "tcp-h-1", "tlsdir=/work/certs"},
		{"tcp://h:1?cacert=~/ca.pem&connect-timeout=5s", "tcp-h-1", "cacert=/home/me/ca.pem connect-timeout=5s"},
		{"unix:///run/buildkit/buildkitd.sock?default-load=true", "unix-run-buildkit-buildkitd.sock", "default-load=true"},
		{"ssh://me@host/run/b.sock", "ssh-host-run-b.sock-", "ssh://me@host/run/b.sock"},
		{"exec://?cmd=login+--token+hunter2", "exec-", "exec://?cmd=login+--token+hunter2"},
		{"kube-pod://p?namespace=ci&connect-timeout=3s", "kube-pod-p-", "kube-pod://p?namespace=ci connect-timeout=3s"},
		{"docker-container://b?context=x&default-load=1", "docker-container-b-", "docker-container://b?context=x default-load=true"},
	} {
		b := find(t, s, c.url)
		again := find(t, s, c.url)
		if !strings.HasPrefix(b.Name, c.name) || b.Name != again.Name || strings.HasSuffix(c.name, "-") == (b.Name == c.name) || strings.Contains(b.Name, "hunter2") {
			t.Errorf("%s is called %s", c.url, b.Name)
		}
		if err := builderfile.ValidName(b.Name); err != nil {
			t.Errorf("%s: %v", c.url, err)
		}
		target, err := b.Nodes[0].Target()
		if err != nil || b.Source != OfURL || b.KeepsRecords() || b.Driver != DriverRemote || target.Node != "" {
			t.Errorf("%s: %+v %v", c.url, b, err)
		}
		shown := target.Endpoint.String()
		for _, k := range endpoint.OptionNames() {
			if v := target.Options.Map()[k]; v != "" {
				shown += " " + k + "=" + filepath.ToSlash(v)
			}
		}
		if !strings.Contains(shown, c.want) {
			t.Errorf("%s: %s", c.url, shown)
		}
	}
	for url, want := range map[string]string{
		"tcp://h:1?tls=1": `"tls" is unknown`, "tcp://h": "port is missing", "tcp://u:hunter2@h:1?tlsdir=x": "user name or password",
		"tcp://h:1?servername=a&servername=b": "given twice", "tcp://h:1?servername=": "is empty", "tcp://h:1?a=%zz": "cannot be read",
		"tcp://h:1?tlsdir=a#b": "cannot be read", "unix:///a?ca=system": "is for TLS", "kube-pod://p?nonsense=1": "nonsense",
		"gopher://x": "unknown", "tcp://h:1?hunter2@x=1": "unknown",
	} {
		_, err := s.Find(t.Context(), url)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", url, err)
		}
	}
	if got := files(t, dir); len(got) != 0 {
		t.Errorf("stored: %v", got)
	}
}

// TLS comes from the environment where the URL says nothing about it.
func TestURLTakesTLSFromTheEnvironment(t *testing.T) {
	s, _ := service(t)
	create(t, s, CreateOptions{Name: "stored", Endpoint: "tcp://h:1"})
	s.TLS = func() (endpoint.Options, error) {
		return endpoint.TLSFromEnv(func(name string) string {
			return map[string]string{endpoint.EnvDir: "/certs", endpoint.EnvServerName: "name.example"}[name]
		})
	}
	for url, want := range map[string]string{"tcp://h:1": "/certs", "tcp://h:1?tlsdir=/own": "/own", "unix:///a": "", "tcp://h:1?servername=x": "/certs"} {
		target := mustTarget(t, s, url)
		if target.Options.TLSDir != want {
			t.Errorf("%s: %+v", url, target.Options)
		}
	}
	if target := mustTarget(t, s, "stored"); target.Options.TLS() {
		t.Errorf("a stored builder takes TLS from the environment: %+v", target.Options)
	}
	s.TLS = func() (endpoint.Options, error) { return endpoint.Options{}, errors.New("contradiction") }
	if _, err := s.Find(t.Context(), "tcp://h:1"); err == nil {
		t.Error("no error")
	}
}

// BUILDKIT_HOST is used when nothing else was said.
func TestHost(t *testing.T) {
	s, _ := service(t)
	s.Host, s.HostFrom = "tcp://h:1", "BUILDKIT_HOST"
	config := dockerConfig(t)
	s.Docker = func() (*dockerconfig.Config, error) { return config, nil }
	if b := find(t, s, ""); b.Source != OfURL || b.Name != "tcp-h-1" {
		t.Errorf("%+v", b)
	}
	if all, err := s.List(t.Context()); err != nil || len(all) != 1 || all[0].Current {
		t.Errorf("the docker context is marked: %+v %v", all[0], err)
	}
	if _, err := s.Create(t.Context(), CreateOptions{Append: true, Endpoint: "unix:///a"}); err == nil || !strings.Contains(err.Error(), "no builder is chosen") {
		t.Errorf("append: %v", err)
	}
	create(t, s, CreateOptions{Name: "chosen", Endpoint: "unix:///a", Use: true})
	if b := find(t, s, ""); b.Name != "chosen" {
		t.Errorf("%+v", b)
	}
	if b := find(t, s, "default"); b.Source != OfDocker {
		t.Errorf("%+v", b)
	}
	if err := s.Remove(t.Context(), "chosen"); err != nil {
		t.Fatal(err)
	}
	s.Host = "h:1"
	if _, err := s.Find(t.Context(), ""); err == nil || !strings.HasPrefix(err.Error(), "BUILDKIT_HOST: ") {
		t.Errorf("%v", err)
	}
}

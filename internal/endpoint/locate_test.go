package endpoint

import (
	"maps"
	"strings"
	"testing"
)

func TestLocate(t *testing.T) {
	for _, c := range []struct {
		raw, want string
		options   map[string]string
	}{
		{"tcp://h:1", "tcp://h:1", nil},
		{"tcp://h:1?", "tcp://h:1", nil},
		{"tcp://h:1?tlsdir=/a%20b&connect-timeout=5s", "tcp://h:1", map[string]string{"tlsdir": "/a b", "connect-timeout": "5s"}},
		{"unix:///run/b.sock?default-load=true", "unix:///run/b.sock", map[string]string{"default-load": "true"}},
		{"ssh://me@h/run/b.sock?connect-timeout=1m", "ssh://me@h/run/b.sock", map[string]string{"connect-timeout": "1m"}},
		{"KUBE-POD://p?namespace=ci&default-load=1", "kube-pod://p?namespace=ci", map[string]string{"default-load": "1"}},
		{"docker-container://c?context=x&connect-timeout=1s", "docker-container://c?context=x", map[string]string{"connect-timeout": "1s"}},
		{"exec://?cmd=a+b&connect-timeout=1s", "exec://?cmd=a+b", map[string]string{"connect-timeout": "1s"}},
		{"tcp://h:1?proxy=http%3A%2F%2Fu%3Ap%40proxy%3A80", "tcp://h:1", map[string]string{"proxy": "http://u:p@proxy:80"}},
	} {
		e, options, err := Locate(c.raw)
		if err != nil || e.String() != c.want || !maps.Equal(options, c.options) {
			t.Errorf("%s: %s %v %v", c.raw, e, options, err)
		}
	}
	for raw, want := range map[string]string{
		"": "is empty", "tcp://h:1?x=1": `"x" is unknown`, "tcp://h:1#tlsdir=x": "query or fragment", "tcp://h:1?tlsdir=%zz": "cannot be read",
		"tcp://h:1?tlsdir=a;b": "cannot be read", "tcp://h:1?tlsdir=a&tlsdir=a": "given twice", "podman-container://c?context=x": `"context" is unknown`,
		"kube-pod://p?contxt=x": "contxt", "tcp://h:1?u:hunter2@x=1": "unknown", "tcp://u:hunter2@h:1?tlsdir=a": "user name or password",
		"h:1?tlsdir=a": "scheme is missing", "nonsense://h?tlsdir=a": "unknown",
	} {
		if e, _, err := Locate(raw); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %s %v", raw, e, err)
		}
	}
}

func TestIsURL(t *testing.T) {
	for text, want := range map[string]bool{"tcp://h:1": true, "x://": true, "://": false, "remote": false, "h:1": false, "": false, "unix:/a": false, "b/n://x": false} {
		if IsURL(text) != want {
			t.Errorf("%q: %v", text, !want)
		}
	}
}

// What Locate takes has an endpoint that Parse takes, and options of known
// names; what it refuses is refused in a bearable length.
func FuzzLocate(f *testing.F) {
	for _, seed := range []string{"tcp://h:1?tlsdir=/a", "kube-pod://p?namespace=x&default-load=1", "exec://?cmd=a+b", "unix:///a?ca=system", "tcp://h:1?a=%zz", "?", "x://?=", "tcp://h:1?proxy=env#x"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		e, options, err := Locate(raw)
		if err != nil {
			if len(err.Error()) > 2000 {
				t.Fatalf("an error of %d bytes", len(err.Error()))
			}
			return
		}
		if again, err := Parse(e.String()); err != nil || again != e {
			t.Fatalf("%q gives %v, read again %v %v", raw, e, again, err)
		}
		for k := range options {
			if _, err := ParseOptions(e, map[string]string{k: ""}); err == nil || strings.Contains(err.Error(), "unknown") {
				t.Fatalf("%q gives the option %q: %v", raw, k, err)
			}
		}
	})
}

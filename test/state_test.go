//go:build e2e && linux

package test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/berthbuild/berth/test/lab"
)

// Fifty processes at once lose nothing.
func TestFiftyProcesses(t *testing.T) {
	berth := lab.Berth(t)
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			name := fmt.Sprintf("p%d", i)
			for _, args := range [][]string{
				{"create", "--name", name, "--driver", "remote", "--use", fmt.Sprintf("unix:///nowhere/%d.sock", i)},
				{"create", "--name", "everyone", "--driver", "remote", "--append", "--node", "of-" + name, fmt.Sprintf("unix:///nowhere/e%d.sock", i)},
				{"use", name},
			} {
				if i == 0 && slices.Contains(args, "everyone") {
					continue // that one is there already
				}
				if r := berth.Run(args...); r.Code != 0 {
					t.Errorf("%q: %s", args, r)
				}
			}
			if i%2 == 1 {
				if r := berth.Run("rm", name); r.Code != 0 {
					t.Errorf("rm %s: %s", name, r)
				}
			}
		})
		if i == 0 {
			berth.OK("create", "--name", "everyone", "--driver", "remote", "--node", "of-p0", "unix:///nowhere/e0.sock")
		}
	}
	wg.Wait()
	ls := berth.OK("ls", "--format", "{{.Name}}").Stdout
	for i := range 50 {
		if got, want := strings.Contains(ls, fmt.Sprintf(` \_ p%d0`+"\n", i)), i%2 == 0; got != want {
			t.Errorf("builder p%d listed: %v, wanted %v", i, got, want)
		}
	}
	if got := strings.Count(read(t, join(berth.BuildxConfig, "instances", "everyone")), `"Endpoint"`); got != 50 {
		t.Errorf("everyone has %d nodes, wanted 50", got)
	}
}

// A damaged file is named, and hides no other builder.
func TestDamagedState(t *testing.T) {
	berth, bk := shared(t)
	instances := join(berth.BuildxConfig, "instances")
	for name, text := range map[string]string{
		"garbage": "\x00\xff{", "empty": "", "truncated": `{"Name":"truncated","Dri`, "huge": strings.Repeat("x", 10<<20), "liar": `{"Name":"b","Driver":"remote"}`,
	} {
		if err := os.WriteFile(join(instances, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(join(instances, "folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	r := berth.OK("ls")
	has(t, "ls", r.Stdout, bk.UnixAddr(), "running", "garbage", "folder")
	has(t, "stderr", r.Stderr, join(instances, "garbage"), join(instances, "truncated"), join(instances, "huge"), join(instances, "liar"))
	r = berth.Fail("inspect", "garbage")
	has(t, "last line", lastLine(r.Stderr), join(instances, "garbage"))
	r = berth.Cmd("build", "--builder", "truncated", ".").Dir(lab.HelloContext(t)).Run()
	if r.Code != 1 {
		t.Errorf("build on a damaged builder: %s", r)
	}
	berth.OK("rm", "garbage", "empty", "truncated", "huge", "liar")
	if err := os.WriteFile(join(berth.BuildxConfig, "current"), []byte("\x00garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := berth.Run("inspect", "b"); r.Code != 0 {
		t.Errorf("a builder that is named does not need the choice: %s", r)
	}
}

// A docker configuration that cannot be read is named, and stops only what
// needs it.
func TestDamagedDockerConfig(t *testing.T) {
	berth, _ := shared(t)
	for _, text := range []string{"\x00garbage secret-token", "", `{"auths":`, `{"auths":{"x":{"auth":"c2VjcmV0LXRva2Vu"`, strings.Repeat("x", 11<<20)} {
		if err := os.WriteFile(join(berth.DockerConfig, "config.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		r := berth.Cmd("build", "--builder", "b", ".").Dir(lab.HelloContext(t)).Run()
		if text == "" {
			continue // docker takes an empty file for no configuration
		}
		if r.Code != 1 {
			t.Errorf("build with a garbage config.json: %s", r)
		}
		has(t, "last line", lastLine(r.Stderr), "config.json")
		hasNot(t, "output", r.Stderr, "secret-token", "c2VjcmV0LXRva2Vu")
	}
}

// Endpoints that cannot be are refused when created, and nothing is kept.
func TestCreateRefusals(t *testing.T) {
	berth := lab.Berth(t)
	for _, c := range []struct{ endpoint, want string }{
		{"tcp://host", "port"},
		{"tcp://host:0", "port"},
		{"tcp://:1234", "host"},
		{"unix://", "path"},
		{"unix://rel/sock", "relative"},
		{"tcp://u:hunter2@host:1", "password"},
		{"http://host:1", "http"},
		{"host:1234", "scheme"},
		{"/run/x.sock", "scheme"},
		{"ssh://u:hunter2@host", "password"},
		{"ssh://host/a;b", "socket path"},
		{"ssh://host?key=x", "is for TLS"},
		{"kube-pod://", "pod"},
		{"docker-container://c;id", "contains ';'"},
		{"docker-container://c?contxt=x", "contxt"},
		{"exec://?cmd=a | b", "shell"},
		{"tcp://[::1:1", "IPv6"},
		{"tcp://host:1/path", "path"},
		{"unix:///a\x01b", "control"},
		{"nonsense://x", "nonsense"},
		{"", "endpoint"},
	} {
		r := berth.Fail("create", "--name", "bad", "--driver", "remote", c.endpoint)
		if got := lastLine(r.Stderr); !strings.Contains(got, c.want) || strings.Contains(r.Stderr, "hunter2") {
			t.Errorf("create %q: %s", c.endpoint, r)
		}
	}
	for _, args := range [][]string{
		{"--name", "default", "unix:///x.sock"},
		{"--name", "a/b", "unix:///x.sock"},
		{"--name", "../x", "unix:///x.sock"},
		{"--driver", "kubernetes"},
		{"--driver", "nosuch", "unix:///x.sock"},
		{"--leave", "--name", "x"},
		{"--append", "--name", "nosuch", "unix:///x.sock"},
		{"--platform", "what/is/this/now", "unix:///x.sock"},
		{"--buildkitd-flags", "--debug", "unix:///x.sock"},
		{"--timeout", "-1s", "unix:///x.sock"},
	} {
		berth.Fail(append([]string{"create"}, args...)...)
	}
	if exists(join(berth.BuildxConfig, "instances")) {
		t.Errorf("something was kept: %q", names(t, join(berth.BuildxConfig, "instances")))
	}
}

// IPv6, and an endpoint from the environment.
func TestCreateVariants(t *testing.T) {
	berth := lab.Berth(t)
	berth.OK("create", "--name", "six", "tcp://[::1]:1234")
	has(t, "inspect", berth.OK("inspect", "six").Stdout, "tcp://[::1]:1234")
	r := berth.With("BUILDKIT_HOST=unix:///from/env.sock").OK("create")
	name := strings.TrimSpace(r.Stdout)
	has(t, "inspect", berth.OK("inspect", name).Stdout, "unix:///from/env.sock")
	r = berth.Fail("create", "--name", "SIX", "unix:///x.sock")
	has(t, "stderr", r.Stderr, `existing instance for "six" but no append mode`)
	berth.OK("create", "--name", "six", "--node", "six0", "unix:///changed.sock")
	has(t, "inspect", berth.OK("inspect", "six").Stdout, "unix:///changed.sock")
	r = berth.Fail("rm", "nosuch", "six")
	has(t, "stderr", r.Stderr, `failed to remove nosuch: no builder "nosuch" found`, "six removed")
	if got := lastLine(r.Stderr); got != "ERROR: failed to remove one or more builders" {
		t.Errorf("last line: %q", got)
	}
}

// rm --all-inactive keeps what lives.
func TestRmAllInactive(t *testing.T) {
	berth, _ := shared(t)
	berth.OK("create", "--name", "dead1", "unix:///nowhere/1.sock")
	berth.OK("create", "--name", "dead2", "tcp://"+lab.FreeAddr(t))
	r := berth.Fail("rm", "--all-inactive")
	has(t, "stderr", r.Stderr, "--force")
	berth.OK("rm", "--all-inactive", "--force")
	ls := berth.OK("ls", "--format", "{{.Name}}").Stdout
	has(t, "ls", ls, "b")
	hasNot(t, "ls", ls, "dead1", "dead2")
}

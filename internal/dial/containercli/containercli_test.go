//go:build unix

package containercli

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/berthbuild/berth/internal/dial"
	"github.com/berthbuild/berth/internal/dial/dialtest"
	"github.com/berthbuild/berth/internal/dial/stdio"
	"github.com/berthbuild/berth/internal/endpoint"
	"github.com/berthbuild/berth/internal/hint"
)

func TestMain(m *testing.M) { dialtest.Main(m) }

// standIn puts a shell script of that name on PATH, before anything else.
func standIn(t testing.TB, name, script string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+string(filepath.ListSeparator)+os.Getenv("PATH"))
}

func TestConformance(t *testing.T) {
	for program, scheme := range map[string]dial.Scheme{"podman": Podman(dial.Env{}), "nerdctl": Nerdctl(dial.Env{})} {
		t.Run(program, func(t *testing.T) {
			dialtest.Run(t, dialtest.Peer{
				Scheme: scheme,
				Serve: func(t testing.TB, handle func(net.Conn)) endpoint.Endpoint {
					standIn(t, program, `[ "$*" = "exec -i b-K.1 buildctl dial-stdio" ] || { echo "called with $*" >&2; exit 1; }; exec '`+dialtest.Relay(t, handle)+`'`)
					return endpoint.Endpoint{Scheme: scheme.Name, Host: "b-K.1"}
				},
				Refused: func(t testing.TB) endpoint.Endpoint {
					t.Setenv("PATH", t.TempDir())
					return endpoint.Endpoint{Scheme: scheme.Name, Host: "b"}
				},
			})
		})
	}
}

func TestFailures(t *testing.T) {
	for _, tc := range []struct {
		script string
		class  dial.Class
		says   string
		heals  bool
		tip    string
	}{
		{"echo 'Error: no such container b' >&2; exit 125", stdio.HelperFailed, "podman says: Error: no such container b", true, "podman ps --all; podman logs b"},
		{"echo 'Error: crun: no buildctl' >&2; exit 127", stdio.NoBuildctl, "podman says: Error: crun: no buildctl", false, "podman exec b buildctl --version"},
		{"exit 126", stdio.NoBuildctl, "podman ended (exit status 126)", false, "moby/buildkit"},
		{"echo 'error: dial unix /run/x.sock: no such file' >&2; exit 1", stdio.HelperFailed, "podman says: error: dial unix /run/x.sock: no such file", true, "buildkitd in it"},
	} {
		standIn(t, "podman", tc.script)
		c, err := Podman(dial.Env{}).Dial(t.Context(), endpoint.Endpoint{Scheme: "podman-container", Host: "b"})
		if err != nil {
			t.Fatal(err)
		}
		_, err = io.ReadAll(c)
		_ = c.Close()
		var e *dial.Error
		if !errors.As(err, &e) || e.Class != tc.class || e.Text != tc.says || e.Heals != tc.heals {
			t.Errorf("%s: %#v", tc.script, err)
		}
		if tips := strings.Join(hint.Of(err), "\n"); !strings.Contains(tips, tc.tip) {
			t.Errorf("%s: hints %q", tc.script, tips)
		}
	}
}

package cli

import (
	"context"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/berthbuild/berth/internal/buildkittest"
	"github.com/berthbuild/berth/internal/dial/dialtest"
	"github.com/rogpeppe/go-internal/testscript"
)

var update = flag.Bool("update", false, "rewrite the expectations in the scripts")

// TestMain makes this test binary the program itself when a script calls it.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"berth":         func() { os.Exit(Main(os.Args)) },
		"docker-buildx": func() { os.Exit(Main(os.Args)) },
	})
}

// TestScripts runs the command line as users type it, as processes of its own,
// against daemons in this process: one on a unix socket, one on TCP, one on TCP
// with mutual TLS. Their addresses are in the scripts' environment.
func TestScripts(t *testing.T) {
	certs := buildkittest.TestCerts(t)
	solve := func(_ context.Context, b *buildkittest.Build) (map[string]string, error) {
		b.Step("[1/1] COPY . /")
		return map[string]string{
			"containerimage.digest":        "sha256:1111111111111111111111111111111111111111111111111111111111111111",
			"containerimage.config.digest": "sha256:2222222222222222222222222222222222222222222222222222222222222222",
		}, nil
	}
	unix := buildkittest.New(t, buildkittest.Options{Network: "unix", Solve: solve})
	plain := buildkittest.New(t, buildkittest.Options{Solve: solve})
	tls := buildkittest.New(t, buildkittest.Options{Solve: solve, TLS: &buildkittest.TLS{Server: certs.Server, ClientCA: certs.CA.File}})
	old := buildkittest.New(t, buildkittest.Options{Solve: solve, NoInfo: true, Version: "v0.10.6"})
	arm := buildkittest.New(t, buildkittest.Options{Solve: solve, Workers: []buildkittest.Worker{{ID: "arm", Platforms: []string{"linux/arm64", "linux/arm/v7"}}}})
	stuck := buildkittest.Raw(t, buildkittest.Silence)
	proxy := dialtest.Proxy(t, dialtest.ProxyOpts{
		User: "me", Password: "hunter2", Hosts: map[string]string{"daemon.example:1234": strings.TrimPrefix(tls.Endpoint(), "tcp://")},
	})
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "script"),
		UpdateScripts:       *update,
		RequireExplicitExec: true,
		Cmds:                map[string]func(*testscript.TestScript, bool, []string){"cmptimes": cmpTimes},
		Setup: func(e *testscript.Env) error {
			home := filepath.Join(e.WorkDir, "home")
			if err := os.Mkdir(home, 0o700); err != nil {
				return err
			}
			for k, v := range map[string]string{
				"HOME": home, "BUILDX_CONFIG": filepath.Join(e.WorkDir, "state"), "DOCKER_CONFIG": filepath.Join(home, ".docker"),
				"DOCKER_HOST": "unix:///no/docker.sock",
				"UNIX":        unix.Endpoint(), "PLAIN": plain.Endpoint(), "TLS": tls.Endpoint(), "OLD": old.Endpoint(), "ARM": arm.Endpoint(),
				"STUCK": stuck, "FREE": "tcp://" + buildkittest.FreeAddr(t),
				"PROXY": proxy.Addr,
				"CA":    certs.CA.File, "CERT": certs.Client.Cert, "KEY": certs.Client.Key,
				"OTHERCA": certs.OtherCA.File, "OTHERKEY": certs.OtherClient.Key,
			} {
				e.Setenv(k, v)
			}
			return nil
		},
	})
}

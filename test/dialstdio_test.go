//go:build e2e && linux

package test

import (
	"context"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/moby/buildkit/client"
	"github.com/tonistiigi/fsutil"

	"github.com/berthbuild/berth/internal/dial/stdio"
	"github.com/berthbuild/berth/test/lab"
)

// throughStdio is BuildKit's own client on the standard input and output of
// `berth dial-stdio`.
func throughStdio(t *testing.T, call *lab.Cmd) *client.Client {
	t.Helper()
	conn, err := stdio.Command(call.Exec(), nil)
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New(t.Context(), "passthrough:///berth", client.WithContextDialer(
		func(context.Context, string) (net.Conn, error) { return conn, nil }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// solve exports the context's files through the client.
func solve(t *testing.T, c *client.Client, dir string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	source, err := fsutil.NewFS(dir)
	if err != nil {
		t.Fatal(err)
	}
	out := t.TempDir()
	statuses := make(chan *client.SolveStatus)
	go func() {
		for range statuses { //nolint:revive // drained
		}
	}()
	_, err = c.Solve(ctx, nil, client.SolveOpt{
		Frontend: "dockerfile.v0", FrontendAttrs: map[string]string{"filename": "Dockerfile"},
		LocalMounts: map[string]fsutil.FS{"context": source, "dockerfile": source},
		Exports:     []client.ExportEntry{{Type: client.ExporterLocal, OutputDir: out}},
	}, statuses)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Other clients build through berth: BuildKit's own on a plain daemon, on one
// behind mutual TLS, and on a Docker engine; the node is chosen by platform.
func TestDialStdio(t *testing.T) {
	certs := lab.NewCerts(t, "localhost", "127.0.0.1")
	bk := lab.BuildKit(t, lab.BuildKitOpts{Unix: true, TCP: true, TLS: certs})
	arm := lab.BuildKit(t, lab.BuildKitOpts{Unix: true, Platforms: []string{"linux/arm64"}})
	engine := lab.Docker(t)
	berth := lab.Berth(t).WithDocker(engine)
	berth.OK("create", "--name", "plain", bk.UnixAddr())
	berth.OK("create", "--name", "secure", "--driver-opt", certs.DriverOpt("localhost"), bk.TCPAddr())
	berth.OK("create", "--name", "two", bk.UnixAddr())
	berth.OK("create", "--name", "two", "--append", arm.UnixAddr())
	dir := lab.Context(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY data /\n", "data": strings.Repeat("x", 3<<20)})
	for _, name := range []string{"plain", "secure", "default"} {
		t.Run(name, func(t *testing.T) {
			out := solve(t, throughStdio(t, berth.Cmd("dial-stdio", "--builder", name)), dir)
			if got := read(t, join(out, "data")); len(got) != 3<<20 {
				t.Errorf("%d bytes arrived", len(got))
			}
		})
	}
	c := throughStdio(t, berth.Cmd("dial-stdio", "--builder", "two", "--platform", "linux/arm64"))
	ws, err := c.ListWorkers(t.Context())
	if err != nil || len(ws) == 0 || ws[0].Platforms[0].Architecture != "arm64" {
		t.Errorf("--platform linux/arm64 reached %+v, %v", ws, err)
	}
	r := berth.Fail("dial-stdio", "--builder", "two", "--platform", "linux/riscv64")
	if r.Stdout != "" {
		t.Errorf("an error went to stdout: %q", r.Stdout)
	}
}

// buildctl itself, whose docker-container:// runs `docker exec … dial-stdio`;
// here that docker is berth.
func TestBuildctlThroughDialStdio(t *testing.T) {
	berth, _ := shared(t)
	bin := t.TempDir()
	script := "#!/bin/sh\nexec '" + berth.Bin + "' dial-stdio --builder b --progress plain\n"
	if err := os.WriteFile(join(bin, "docker"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(lab.Tool(t, "buildctl"), "--addr", "docker-container://any", "debug", "workers")
	cmd.Env = berth.With("PATH=" + bin + ":" + os.Getenv("PATH")).Cmd().Exec().Env
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("buildctl: %v: %s", err, out)
	}
	has(t, "buildctl debug workers", string(out), "linux/amd64")
}

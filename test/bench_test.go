//go:build e2e && bench && linux

package test

import (
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/berthbuild/berth/test/lab"
)

// benchPeer is what the program in bench/ reads of a daemon behind a scheme.
type benchPeer struct {
	Scheme, Endpoint string
	Env              []string
	Path             string
	Context          bool
}

// TestBench is `make bench`: it starts a daemon behind each scheme and runs the
// program in bench/, whose flags are in BERTH_BENCH. It measures, and judges
// nothing. With a cluster only where that is built (see benchKube).
func TestBench(t *testing.T) {
	flags := os.Getenv("BERTH_BENCH")
	if flags == "" {
		t.Fatal("BERTH_BENCH is empty: this is run by `make bench`")
	}
	bk := lab.Shared(t)
	peers := append([]benchPeer{{Scheme: "unix", Endpoint: bk.UnixAddr(), Context: true}, benchSSH(t, bk), benchContainer(t)}, benchKube(t)...)
	text, err := json.MarshalIndent(peers, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	file := join(t.TempDir(), "peers.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	engines := join(t.TempDir(), "engines.json")
	if err := os.WriteFile(engines, benchEngines(t), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", append([]string{"run", ".", "-peers", file, "-engines", engines}, strings.Fields(flags)...)...)
	cmd.Dir = join(lab.ModuleRoot(t), "bench")
	cmd.Env = append(os.Environ(), lab.Mark(lab.Dir(t)))
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
}

// benchSSH reaches the daemon by ssh; buildx wants the program, and buildctl on
// the other side.
func benchSSH(t *testing.T, bk *lab.BuildKitd) benchPeer {
	t.Helper()
	far, near, home := t.TempDir(), t.TempDir(), t.TempDir()
	if err := os.Symlink(lab.Tool(t, "buildctl"), join(far, "buildctl")); err != nil {
		t.Fatal(err)
	}
	s := lab.SSH(t, lab.SSHDOpts{Path: far + ":/usr/bin:/bin"})
	s.Program(t, near)
	if err := os.Mkdir(join(home, ".ssh"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"id_ed25519": read(t, s.Key), "known_hosts": s.HostKey(t, "ed25519")} {
		if err := os.WriteFile(join(home, ".ssh", name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return benchPeer{Scheme: "ssh", Endpoint: s.Endpoint(bk.UnixAddr()), Env: []string{"HOME=" + home}, Path: near, Context: true}
}

func benchContainer(t *testing.T) benchPeer {
	t.Helper()
	engine := lab.Docker(t)
	engine.Images(t)
	engine.BuildKit(t, "buildkitd")
	return benchPeer{Scheme: "docker-container", Endpoint: "docker-container://buildkitd", Env: []string{"DOCKER_HOST=" + engine.Host()}}
}

// benchEngines are those that images are loaded into: with a graph driver, and
// with containerd's store.
func benchEngines(t *testing.T) []byte {
	t.Helper()
	text, err := json.Marshal([]struct{ Name, Host string }{
		{"Docker 20.10 (graph driver)", lab.Docker(t).Host()},
		{"a modern engine (containerd store)", lab.ModernEngine(t, lab.ModernOpts{}).Host()},
	})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

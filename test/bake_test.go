//go:build e2e && linux

package test

import (
	"crypto/rand"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/berthbuild/berth/test/lab"
)

// bakeContext is a folder with a shell, some files and a definition.
func bakeContext(t *testing.T, definition string, files map[string]string) string {
	t.Helper()
	all := map[string]string{"docker-bake.hcl": definition, "f.txt": "file\n"}
	for name, text := range files {
		all[name] = text
	}
	return lab.ShellContext(t, "COPY f.txt /f.txt\n", all)
}

const linkedDefinition = `
variable "SUFFIX" { default = "none" }
group "default" { targets = ["app", "tool"] }
target "base" {
  dockerfile-inline = "FROM scratch\nCOPY sh /bin/sh\nCOPY f.txt /f.txt\nENV FROMBASE=yes\nRUN echo built >> /log\n"
}
target "app" {
  contexts = { base = "target:base" }
  dockerfile-inline = "FROM base\nRUN echo $FROMBASE ${SUFFIX} > /env\nFROM scratch\nCOPY --from=0 /env /log /\n"
  output = ["type=local,dest=out/app"]
}
target "tool" {
  contexts = { base = "target:base" }
  dockerfile-inline = "FROM base\nRUN cat /log /f.txt > /tool\nFROM scratch\nCOPY --from=0 /tool /\n"
  output = ["type=local,dest=out/tool"]
}
`

// Targets are built at once, those that others stand on once, and the results
// are told by target.
func TestBakeLinks(t *testing.T) {
	berth, _ := shared(t)
	dir := bakeContext(t, linkedDefinition, nil)
	md := filepath.Join(t.TempDir(), "md.json")
	r := berth.With("SUFFIX=from-env").Cmd("bake", "--metadata-file", md).Dir(dir).Run()
	if r.Code != 0 {
		t.Fatal(r)
	}
	if got := read(t, join(dir, "out", "app", "env")); got != "yes from-env\n" {
		t.Errorf("app: %q", got)
	}
	if got := read(t, join(dir, "out", "tool", "tool")); got != "built\nfile\n" {
		t.Errorf("tool: %q", got)
	}
	var all map[string]map[string]any
	if err := json.Unmarshal([]byte(read(t, md)), &all); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"app", "tool", "base"} {
		if ref, _ := all[name]["buildx.build.ref"].(string); !strings.HasPrefix(ref, "b/b0/") {
			t.Errorf("%s: %v", name, all[name])
		}
	}
	if r := berth.Cmd("bake", "tool", "--set", "tool.output=type=local,dest=other").Dir(dir).Run(); r.Code != 0 || !exists(join(dir, "other", "tool")) {
		t.Errorf("--set: %s", r)
	}
}

// A folder that many targets want crosses the wire once, and not at all when it has
// not changed.
func TestBakeSendsOnce(t *testing.T) {
	bk := lab.BuildKit(t, lab.BuildKitOpts{TCP: true})
	relay := lab.NewRelay(t, "127.0.0.1", bk.TCPAddr())
	berth := lab.Berth(t)
	berth.OK("create", "--use", "--name", "b", relay.Addr())
	const size = 8 << 20
	data := make([]byte, size)
	_, _ = rand.Read(data) // never fails
	dir := bakeContext(t, `
target "default" {
  name = "t${n}"
  matrix = { n = range(20) }
  args = { N = n }
  dockerfile-inline = "FROM scratch\nARG N\nCOPY data /data-$N\n"
  output = ["type=cacheonly"]
}
`, map[string]string{"data": string(data)})
	for _, most := range []int64{size * 5 / 4, size / 4} {
		before := relay.Passed()
		if r := berth.Cmd("bake").Dir(dir).Run(); r.Code != 0 {
			t.Fatal(r)
		}
		if sent := relay.Passed() - before; sent > most || sent < most-size/2 && most > size {
			t.Errorf("%d bytes were sent of a context of %d", sent, size)
		}
	}
}

// One target that fails ends the others and is named.
func TestBakeFailure(t *testing.T) {
	berth, _ := shared(t)
	dir := bakeContext(t, `
group "default" { targets = ["good", "bad"] }
target "good" { dockerfile-inline = "FROM scratch\nCOPY f.txt /\n" }
target "bad" { dockerfile-inline = "FROM scratch\nCOPY nosuch /\n" }
`, nil)
	r := berth.Cmd("bake").Dir(dir).Run()
	if r.Code != 1 || !strings.HasPrefix(lastLine(r.Stderr), "ERROR: target bad: failed to solve: ") {
		t.Error(r)
	}
}

// A definition gets nothing of this machine that was not granted.
func TestBakeRights(t *testing.T) {
	berth, _ := shared(t)
	outside := lab.Context(t, map[string]string{"secret": "s"})
	dir := bakeContext(t, `
target "read" { context = "`+outside+`" }
target "link" { context = "link" }
target "write" {
  dockerfile-inline = "FROM scratch\nCOPY f.txt /\n"
  output = ["type=local,dest=`+join(outside, "out")+`"]
}
target "ssh" {
  dockerfile-inline = "FROM scratch\n"
  ssh = ["default=`+join(outside, "key")+`"]
}
target "host" {
  dockerfile-inline = "FROM scratch\n"
  entitlements = ["network.host"]
}
`, nil)
	if err := os.Symlink(outside, join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for target, right := range map[string]string{
		"read": "fs.read=" + outside, "link": "fs.read=" + outside, "write": "fs.write=" + join(outside, "out"),
		"ssh": "fs.read=" + join(outside, "key"), "host": "network.host",
	} {
		r := berth.Cmd("bake", target).Dir(dir).Run()
		if r.Code != 1 || lastLine(r.Stderr) != "ERROR: additional privileges requested" || !strings.Contains(r.Stderr, "--allow "+right) {
			t.Errorf("%s: %s", target, r)
		}
	}
	if r := berth.Cmd("bake", "write", "--allow", "fs.write="+outside).Dir(dir).Run(); r.Code != 0 || !exists(join(outside, "out", "f.txt")) {
		t.Error(r)
	}
	hostile := berth.Cmd("bake", "write", "--allow", "everything").Dir(dir).Run()
	if hostile.Code != 1 || !strings.Contains(hostile.Stderr, "there is no such right") {
		t.Error(hostile)
	}
}

// The real Compose builds with berth as docker's plugin.
func TestComposeBuild(t *testing.T) {
	engine := lab.Docker(t)
	bk := lab.Shared(t)
	berth := lab.Berth(t)
	berth.OK("create", "--name", "p", "--driver", "remote", "--use", bk.UnixAddr())
	dir := lab.Context(t, map[string]string{
		"compose.yaml":   "services:\n  one:\n    build: {context: one, args: {WHO: compose}}\n    image: one-image\n  two:\n    build: {context: two, dockerfile: Other}\n    image: two-image\n",
		"one/Dockerfile": "FROM scratch\nARG WHO\nLABEL who=$WHO\nCOPY a /\n", "one/a": "1",
		"two/Other": "FROM scratch\nCOPY b /\n", "two/b": "2",
	})
	plugins := join(berth.DockerConfig, "cli-plugins")
	if err := os.MkdirAll(plugins, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, bin := range map[string]string{"docker-buildx": berth.Bin, "docker-compose": lab.Tool(t, "docker-compose")} {
		if err := os.Symlink(bin, join(plugins, name)); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("docker", "compose", "build")
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + berth.Home, "DOCKER_CONFIG=" + berth.DockerConfig,
		"DOCKER_HOST=" + engine.Host(), "BUILDX_CONFIG=" + berth.BuildxConfig, "BUILDX_BUILDER=p"}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("docker compose build: %v\n%s", err, out)
	}
	if who := engine.CLI(t, "image", "inspect", "--format", "{{.Config.Labels.who}}", "one-image"); who != "compose\n" {
		t.Errorf("one-image: %q\n%s", who, out)
	}
	imageID(t, engine, "two-image")
}

//go:build e2e && linux

package test

import (
	"archive/tar"
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/berthbuild/berth/test/lab"
)

// loadEngines are the engines that images are loaded into: Debian's, and a modern
// one with either image store.
func loadEngines() []string { return []string{"20.10", "overlay2", "containerd"} }

func loadEngine(t *testing.T, kind string) *lab.Dockerd {
	t.Helper()
	if kind == "20.10" {
		return lab.Docker(t)
	}
	return lab.ModernEngine(t, lab.ModernOpts{Store: lab.Store(kind)})
}

// layersIn is how many layers the images of layered have.
const layersIn = 6

// layered is a context whose image has layersIn layers: the lowest is the
// largest, the highest a few bytes.
func layered(t *testing.T) string {
	t.Helper()
	text := "FROM scratch\nLABEL com.example.load=yes\nENTRYPOINT [\"/l0\"]\n"
	for i := range layersIn {
		text += fmt.Sprintf("COPY l%d /l%d\n", i, i)
	}
	dir := lab.Context(t, map[string]string{"Dockerfile": text})
	for i := range layersIn {
		change(t, dir, i)
	}
	return dir
}

// change gives a layer new content that does not compress.
func change(t *testing.T, dir string, layer int) {
	t.Helper()
	size := 100_000
	switch layer {
	case 0:
		size = 3_000_000
	case layersIn - 1:
		size = 50
	}
	data := make([]byte, size)
	_, _ = rand.Read(data)
	if err := os.WriteFile(join(dir, fmt.Sprintf("l%d", layer)), data, 0o755); err != nil {
		t.Fatal(err)
	}
}

// buildx is the peer: it loads what the same daemon has built.
func buildx(t *testing.T, bk *lab.BuildKitd, engine *lab.Dockerd, dir string, args ...string) {
	t.Helper()
	home := t.TempDir()
	run := func(args ...string) {
		t.Helper()
		cmd := exec.Command(lab.Tool(t, "buildx"), args...)
		cmd.Dir = dir
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "BUILDX_CONFIG=" + join(home, "buildx"), "DOCKER_CONFIG=" + home, "DOCKER_HOST=" + engine.Host(),
			"BUILDX_NO_DEFAULT_ATTESTATIONS=" + noAttestations(args)}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("buildx %q: %v\n%s", args, err, out)
		}
	}
	run("create", "--name", "peer", "--driver", "remote", bk.UnixAddr())
	run(append(append([]string{"--builder", "peer", "build", "--load"}, args...), ".")...)
}

// createdAt is when an image was sent, which the containerd store keeps.
var createdAt = regexp.MustCompile(`"org.opencontainers.image.created":"[^"]*",?`)

// noAttestations: an index of several platforms would have some, and be another
// one each time.
func noAttestations(args []string) string {
	if slices.Contains(args, "--platform") {
		return "1"
	}
	return "0"
}

// sums are the digests of a tar archive's files, by name.
func sums(t *testing.T, data []byte) map[string]string {
	t.Helper()
	all := map[string]string{}
	for r := tar.NewReader(bytes.NewReader(data)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if h.Name == "index.json" {
			text = createdAt.ReplaceAll(text, nil)
		}
		all[h.Name] = fmt.Sprintf("%s %o %s %x", string(h.Typeflag), h.Mode, h.Linkname, sha256.Sum256(text))
	}
}

// saved is what docker save writes of an image.
func saved(t *testing.T, engine *lab.Dockerd, name string) map[string]string {
	t.Helper()
	file := join(t.TempDir(), "saved.tar")
	engine.CLI(t, "save", "-o", file, name)
	return sums(t, []byte(read(t, file)))
}

// exported are the files of a container of an image.
func exported(t *testing.T, engine *lab.Dockerd, name string) map[string]string {
	t.Helper()
	file := join(t.TempDir(), "exported.tar")
	id := strings.TrimSpace(engine.CLI(t, "create", "--network", "none", name))
	defer engine.CLI(t, "rm", id)
	engine.CLI(t, "export", "-o", file, id)
	return sums(t, []byte(read(t, file)))
}

func same(t *testing.T, what string, got, want map[string]string) {
	t.Helper()
	if len(got) == 0 || !maps.Equal(got, want) {
		t.Errorf("%s differs from buildx's: %d files and %d", what, len(got), len(want))
		for name, sum := range want {
			if got[name] != sum {
				t.Logf("%s: %q, want %q", name, got[name], sum)
			}
		}
	}
}

// forget removes all images of an engine.
func forget(t *testing.T, engine *lab.Dockerd) {
	t.Helper()
	if ids := strings.Fields(engine.CLI(t, "images", "-aq")); len(ids) > 0 {
		slices.Sort(ids)
		engine.CLI(t, append([]string{"rmi", "-f"}, slices.Compact(ids)...)...)
	}
}

var loading = regexp.MustCompile(`loading (\d+) of (\d+) layers, \S+ \S?B of \S+ MB`)

// sentLayers is what a build's progress says of the load: how many layers went,
// -1 for an image that the engine had.
func sentLayers(t *testing.T, r lab.Result) int {
	t.Helper()
	if strings.Contains(r.Stderr, "unchanged: the engine has the image") || strings.Contains(r.Stderr, "the engine has the image under another name") {
		return -1
	}
	m := loading.FindStringSubmatch(r.Stderr)
	if m == nil || strings.Count(r.Stderr, "importing to docker") == 0 || strings.Contains(r.Stderr, "sending") {
		t.Fatalf("the progress does not say what was sent: %s", r.Stderr)
	}
	var n int
	_, _ = fmt.Sscan(m[1], &n)
	return n
}

// TestLoadMatrix: whatever changed and whatever the engine has, only that is
// sent which it lacks, and it has then what buildx's load gives it.
func TestLoadMatrix(t *testing.T) {
	bk := lab.Shared(t)
	for _, kind := range loadEngines() {
		t.Run(kind, func(t *testing.T) {
			engine, peer := loadEngine(t, kind), loadEngine(t, kind)
			berth := lab.Berth(t).WithDocker(engine)
			berth.OK("create", "--use", "--name", "own", bk.UnixAddr())
			for _, tags := range [][]string{{"one"}, {"a:1", "b:2", "localhost:5000/c/d:3"}} {
				if kind == "overlay2" && len(tags) == 1 {
					continue // as 20.10
				}
				t.Run(fmt.Sprint(len(tags), " tags"), func(t *testing.T) {
					loadMatrix(t, bk, berth, engine, peer, kind == "containerd", tags)
				})
			}
		})
	}
}

func loadMatrix(t *testing.T, bk *lab.BuildKitd, berth *lab.CLI, engine, peer *lab.Dockerd, blobs bool, tags []string) {
	dir := layered(t)
	for _, c := range []struct {
		name    string
		prepare func()
		sent    int // to a graph driver
		blobs   int // to containerd's store
	}{
		{"cold", func() {}, layersIn, layersIn},
		{"unchanged", func() {}, -1, -1},
		{"last", func() { change(t, dir, layersIn-1) }, 1, 1},
		{"middle", func() { change(t, dir, 3) }, layersIn - 3, 1},
		{"base", func() { change(t, dir, 0) }, layersIn, 1},
		{"new tag", func() { tags = append(tags, "new/tag:x") }, -1, -1},
		{"engine empty", func() { forget(t, engine) }, layersIn, layersIn},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.prepare()
			args := []string{}
			for _, tag := range tags {
				args = append(args, "-t", tag)
			}
			iid := join(t.TempDir(), "iid")
			r := build(t, berth, dir, append(args, "--load", "--iidfile", iid)...)
			buildx(t, bk, peer, dir, append(args, "--iidfile", iid+"-peer")...)
			want := c.sent
			if blobs {
				want = c.blobs
			}
			if got := sentLayers(t, r); got != want {
				t.Errorf("%d layers were sent, want %d: %s", got, want, r.Stderr)
			}
			if got, want := read(t, iid), read(t, iid+"-peer"); got != want {
				t.Errorf("--iidfile holds %q, buildx's %q", got, want)
			}
			for _, tag := range tags {
				got, want := imageID(t, engine, tag), imageID(t, peer, tag)
				if got != want || got != read(t, iid) {
					t.Errorf("%s is %s, buildx's %s", tag, got, want)
				}
			}
			inspect := func(e *lab.Dockerd) string {
				return e.CLI(t, "inspect", "-f", "{{json .Config}} {{json .RootFS}} {{.Created}} {{.Architecture}}", tags[0]) + e.CLI(t, "history", "--no-trunc", "-H=false", tags[0])
			}
			if got, want := inspect(engine), inspect(peer); got != want || !strings.Contains(got, "com.example.load") {
				t.Errorf("the image is\n%s\nand buildx's\n%s", got, want)
			}
			same(t, "docker save", saved(t, engine, tags[0]), saved(t, peer, tags[0]))
			same(t, "docker export", exported(t, engine, tags[0]), exported(t, peer, tags[0]))
			if left := berth.TempFiles(); len(left) > 0 {
				t.Errorf("temporary files: %q", left)
			}
		})
	}
}

func sum(text string) [sha256.Size]byte { return sha256.Sum256([]byte(text)) }

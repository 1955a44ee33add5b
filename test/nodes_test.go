//go:build e2e && linux

package test

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/berthbuild/berth/test/lab"
)

// Two nodes for two platforms: the build is split, a push makes one index, and
// a local export gets a folder a platform.
func TestNodesOfDifferentPlatforms(t *testing.T) {
	amd := lab.BuildKit(t, lab.BuildKitOpts{Platforms: []string{"linux/amd64"}})
	arm := lab.BuildKit(t, lab.BuildKitOpts{Platforms: []string{"linux/arm64"}})
	registry := lab.Registry(t)
	berth := lab.Berth(t)
	berth.OK("create", "--use", "--name", "two", amd.UnixAddr())
	berth.OK("create", "--name", "two", "--append", "--platform", "linux/arm64", arm.UnixAddr())
	has(t, "ls", berth.OK("ls").Stdout, `\_ two0`, `\_ two1`, "linux/arm64*")

	dir := lab.Context(t, map[string]string{
		"Dockerfile": "FROM scratch\nARG TARGETARCH\nCOPY file-$TARGETARCH /file\n",
		"file-amd64": "for amd64", "file-arm64": "for arm64",
	})
	ref := registry.Addr() + "/multi:v1"
	md := join(t.TempDir(), "md")
	r := build(t, berth, dir, "--platform", "linux/amd64,linux/arm64", "-t", ref, "-t", registry.Addr()+"/multi:v2", "--push", "--metadata-file", md)
	has(t, "progress", r.Stderr, "linux/amd64", "linux/arm64")
	status, header, body := registry.Get(t, "/v2/multi/manifests/v1")
	if status != 200 {
		t.Fatalf("registry answers %d", status)
	}
	has(t, "metadata", read(t, md), header.Get("Docker-Content-Digest"))
	var index struct {
		Manifests []struct {
			Platform    struct{ Architecture string }
			Annotations map[string]string
		}
	}
	if err := json.Unmarshal(body, &index); err != nil {
		t.Fatal(err)
	}
	var archs []string
	for _, m := range index.Manifests {
		if m.Annotations["vnd.docker.reference.type"] == "" {
			archs = append(archs, m.Platform.Architecture)
		}
	}
	slices.Sort(archs)
	if !slices.Equal(archs, []string{"amd64", "arm64"}) {
		t.Errorf("the index is for %q: %s", archs, body)
	}
	_, other, _ := registry.Get(t, "/v2/multi/manifests/v2")
	if other.Get("Docker-Content-Digest") != header.Get("Docker-Content-Digest") {
		t.Error("two tags, two indexes")
	}

	out := t.TempDir()
	build(t, berth, dir, "--platform", "linux/amd64,linux/arm64", "-o", out)
	for arch, want := range map[string]string{"amd64": "for amd64", "arm64": "for arm64"} {
		if got := read(t, join(out, "linux_"+arch, "file")); got != want {
			t.Errorf("%s: %q", arch, got)
		}
	}
	out = t.TempDir()
	build(t, berth, dir, "--platform", "linux/arm64", "-o", out)
	if got := read(t, join(out, "file")); got != "for arm64" {
		t.Errorf("arm64 alone: %q", got)
	}

	r = berth.Cmd("build", "--platform", "linux/amd64,linux/arm64", "-o", "type=oci,dest="+join(out, "x"), ".").Dir(dir).Run()
	if r.Code != 1 {
		t.Errorf("one archive from two nodes: %s", r)
	}
	has(t, "stderr", r.Stderr, "type=oci", "hint: ")

	// One failing platform fails the build, and says which.
	bad := lab.Context(t, map[string]string{"Dockerfile": "FROM scratch\nARG TARGETARCH\nCOPY only-$TARGETARCH /\n", "only-amd64": ""})
	r = berth.Cmd("build", "--platform", "linux/amd64,linux/arm64", ".").Dir(bad).Run()
	if r.Code != 1 {
		t.Errorf("a missing file for one platform: %s", r)
	}
	has(t, "last line", lastLine(r.Stderr), "only-arm64")

	berth.OK("create", "--name", "two", "--leave", "--node", "two1")
	hasNot(t, "ls", berth.OK("ls").Stdout, "two1")
	r = berth.Fail("create", "--name", "two", "--leave", "--node", "two0")
	has(t, "stderr", r.Stderr, "last node")
}

// A multi-platform build on one node is one index too.
func TestPlatformsOnOneNode(t *testing.T) {
	berth, _ := shared(t)
	registry := lab.Registry(t)
	dir := lab.Context(t, map[string]string{"Dockerfile": "FROM scratch\nARG TARGETARCH\nCOPY f-$TARGETARCH /f\n", "f-amd64": "1", "f-arm64": "2"})
	build(t, berth, dir, "--platform", "linux/amd64,linux/arm64", "-t", registry.Addr()+"/one", "--push")
	_, _, body := registry.Get(t, "/v2/one/manifests/latest")
	has(t, "index", string(body), `"arm64"`, `"amd64"`)
	r := berth.Cmd("build", "--platform", "linux/amd64,linux/arm64", "-t", "x", "--load", ".").Dir(dir).Run()
	if r.Code != 1 {
		t.Errorf("two platforms into one engine: %s", r)
	}
	has(t, "stderr", r.Stderr, "type=docker", "hint: ")
}

//go:build e2e && linux

package test

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	controlapi "github.com/moby/buildkit/api/services/control"

	"github.com/berthbuild/berth/test/lab"
)

// twoNodes is the builder "two" on two daemons, each for its platform.
func twoNodes(t *testing.T) (berth *lab.CLI, amd, arm *lab.BuildKitd) {
	t.Helper()
	amd = lab.BuildKit(t, lab.BuildKitOpts{Platforms: []string{"linux/amd64"}})
	arm = lab.BuildKit(t, lab.BuildKitOpts{Platforms: []string{"linux/arm64"}})
	berth = lab.Berth(t)
	berth.OK("create", "--use", "--name", "two", amd.UnixAddr())
	berth.OK("create", "--name", "two", "--append", "--platform", "linux/arm64", arm.UnixAddr())
	return berth, amd, arm
}

// Two nodes for two platforms: the build is split, a push makes one index, and
// a local export gets a folder a platform.
func TestNodesOfDifferentPlatforms(t *testing.T) {
	berth, _, _ := twoNodes(t)
	registry := lab.Registry(t)
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

// What two nodes export is what one daemon exports that builds for both: archives
// in files and on the standard output, byte for byte, layouts and folders.
func TestNodesExportTogether(t *testing.T) {
	berth, _, _ := twoNodes(t)
	both := lab.BuildKit(t, lab.BuildKitOpts{Platforms: []string{"linux/amd64", "linux/arm64"}})
	berth.OK("create", "--name", "one", both.UnixAddr())
	berth = berth.With("SOURCE_DATE_EPOCH=1700000000")
	dir := lab.Context(t, map[string]string{
		// The folder bin is copied: one that COPY makes has the time of its making.
		"Dockerfile":           "FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /\nCOPY shared /\nFROM scratch AS apart\nARG TARGETARCH\nCOPY $TARGETARCH /\n",
		"amd64/bin/only-amd64": "for amd64", "arm64/bin/only-arm64": "for arm64", "shared": "for both",
	})
	out := t.TempDir()
	for _, more := range [][]string{{"--provenance=false"}, {"--provenance=mode=max"}} {
		made := map[string]map[string]string{}
		for _, builder := range []string{"one", "two"} {
			at := func(name string) string { return join(out, builder, name) }
			md := at("md")
			args := append([]string{
				"--builder", builder, "--target", "", "--platform", "linux/arm64,linux/amd64", "-t", "example.com/x:1", "-t", "y", "--metadata-file", md,
				"-o", "type=oci,dest=" + at("x.oci"), "-o", "type=tar,dest=" + at("x.tar"), "-o", "type=oci,tar=false,dest=" + at("layout"),
				"-o", "type=local,dest=" + at("folder"), "-o", "type=oci,dest=-",
			}, more...)
			if err := os.MkdirAll(join(out, builder), 0o755); err != nil {
				t.Fatal(err)
			}
			r := build(t, berth, dir, args...)
			if r.Stdout != read(t, at("x.oci")) {
				t.Errorf("%s: what goes to the standard output is not what goes into a file", builder)
			}
			var m map[string]any
			if err := json.Unmarshal([]byte(read(t, md)), &m); err != nil {
				t.Fatal(err)
			}
			made[builder] = map[string]string{
				"oci": r.Stdout, "tar": read(t, at("x.tar")), "folder": snapshot(t, at("folder")), "layout": read(t, join(at("layout"), "index.json")),
				"blobs": strings.Join(names(t, join(at("layout"), "blobs", "sha256")), "\n"),
				"name":  fmt.Sprint(m["image.name"]), "digest": fmt.Sprint(m["containerimage.digest"]), "descriptor": fmt.Sprint(m["containerimage.descriptor"]),
			}
			if got := strings.Join(names(t, join(out, builder)), " "); got != "folder layout md x.oci x.tar" {
				t.Errorf("%s: there is %s", builder, got)
			}
			if digest := made[builder]["digest"]; !strings.Contains(read(t, join(at("layout"), "index.json")), digest) {
				t.Errorf("%s: the layout has not %s", builder, digest)
			}
			if err := os.RemoveAll(join(out, builder)); err != nil {
				t.Fatal(err)
			}
		}
		attested := more[0] != "--provenance=false"
		for what, one := range made["one"] {
			if two := made["two"][what]; one != two && !attested {
				t.Errorf("%s: one daemon makes\n%s\nand two make\n%s", what, one, two)
			}
		}
		if attested { // what they attest is about each build by itself
			for _, builder := range []string{"one", "two"} {
				shape := indexShape(t, []byte(made[builder]["oci"]))
				if shape != "arm64 amd64 attests:0 attests:1" {
					t.Errorf("%s: the index has %s", builder, shape)
				}
				has(t, builder, made[builder]["folder"], "linux_amd64/provenance.json", "linux_arm64/provenance.json")
			}
		}
	}

	// Without a folder for each platform, as long as no file is in both.
	dest := join(out, "plain")
	put(t, dest, map[string]string{"bin/stale": ""})
	build(t, berth, dir, "--platform", "linux/arm64,linux/amd64", "--target", "apart", "--allow", "buildx.local.delete", "-o", "type=local,platform-split=false,mode=delete,dest="+dest)
	if got := strings.Join(names(t, join(dest, "bin")), " "); got != "only-amd64 only-arm64" {
		t.Errorf("there is %s", got)
	}
	want := snapshot(t, dest)
	r := berth.Cmd("build", "--platform", "linux/arm64,linux/amd64", "-f", "-", "-o", "type=local,platform-split=false,dest="+dest, ".").
		Dir(dir).Stdin(strings.NewReader("FROM scratch\nCOPY shared /\n")).Run()
	if r.Code != 1 || snapshot(t, dest) != want {
		t.Errorf("one file in both: %s", r)
	}
	has(t, "last line", lastLine(r.Stderr), "shared was sent by node two0 and by node two1")
}

// indexShape is what the image index in an OCI archive lists: architectures, and
// which of them an attestation is about.
func indexShape(t *testing.T, archive []byte) string {
	t.Helper()
	type index struct {
		Manifests []struct {
			Digest      string
			Platform    struct{ Architecture string }
			Annotations map[string]string
		}
	}
	files := map[string][]byte{}
	for r := tar.NewReader(bytes.NewReader(archive)); ; {
		h, err := r.Next()
		if err != nil {
			break
		}
		if files[h.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
	var top, list index
	if err := json.Unmarshal(files["index.json"], &top); err != nil || len(top.Manifests) == 0 {
		t.Fatalf("index.json: %v", err)
	}
	if err := json.Unmarshal(files["blobs/sha256/"+strings.TrimPrefix(top.Manifests[0].Digest, "sha256:")], &list); err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, m := range list.Manifests {
		if files["blobs/sha256/"+strings.TrimPrefix(m.Digest, "sha256:")] == nil {
			t.Errorf("%s is missing", m.Digest)
		}
		if m.Annotations["vnd.docker.reference.type"] == "" {
			all = append(all, m.Platform.Architecture)
			continue
		}
		for i, image := range list.Manifests {
			if image.Digest == m.Annotations["vnd.docker.reference.digest"] {
				all = append(all, fmt.Sprint("attests:", i))
			}
		}
	}
	return strings.Join(all, " ")
}

// A platform that no node offers is refused, with what each of them offers, and
// nothing is built. One node alone is asked all the same: it may cross-build.
func TestNodesOfferNothing(t *testing.T) {
	berth, amd, arm := twoNodes(t)
	dir := lab.Context(t, map[string]string{"Dockerfile": "FROM scratch\nARG TARGETARCH\nCOPY f-$TARGETARCH /f\n", "f-amd64": "1", "f-s390x": "2"})
	out := join(t.TempDir(), "out")
	r := berth.Cmd("build", "--platform", "linux/amd64,linux/s390x", "-o", out, ".").Dir(dir).Run()
	if r.Code != 1 || exists(out) {
		t.Error(r)
	}
	has(t, "last line", lastLine(r.Stderr), "no node of builder two offers linux/s390x: two0 offers linux/amd64", "; two1 offers linux/arm64") // and perhaps what they emulate
	has(t, "hints", r.Stderr, "berth create --append --name two --platform linux/s390x ENDPOINT", "berth create --append --name two --node two0 --platform linux/s390x "+amd.UnixAddr())
	for _, bk := range []*lab.BuildKitd{amd, arm} {
		records, err := bk.Client(t).ControlClient().ListenBuildHistory(t.Context(), &controlapi.BuildHistoryRequest{EarlyExit: true})
		if err != nil {
			t.Fatal(err)
		}
		if ev, err := records.Recv(); !errors.Is(err, io.EOF) {
			t.Errorf("something was built: %v, %v", ev, err)
		}
	}
	// As the second hint says.
	berth.OK("create", "--append", "--name", "two", "--node", "two0", "--platform", "linux/s390x", amd.UnixAddr())
	build(t, berth, dir, "--platform", "linux/amd64,linux/s390x", "-o", out)
	if got := read(t, join(out, "linux_amd64", "f")) + read(t, join(out, "linux_s390x", "f")); got != "12" {
		t.Errorf("%q", got)
	}

	berth.OK("create", "--use", "--name", "single", amd.UnixAddr())
	alone := t.TempDir()
	build(t, berth, dir, "--platform", "linux/s390x", "-o", alone)
	if got := read(t, join(alone, "f")); got != "2" {
		t.Errorf("%q", got)
	}
}

// A multi-platform build on one node is one index too.
func TestPlatformsOnOneNode(t *testing.T) {
	berth, _ := shared(t)
	registry := lab.Registry(t)
	dir := lab.Context(t, map[string]string{"Dockerfile": "FROM scratch\nARG TARGETARCH\nCOPY f-$TARGETARCH /f\n", "f-amd64": "1", "f-arm64": "2"})
	build(t, berth, dir, "--platform", "linux/amd64,linux/arm64", "-t", registry.Addr()+"/one", "--push")
	_, _, body := registry.Get(t, "/v2/one/manifests/latest")
	has(t, "index", string(body), `"arm64"`, `"amd64"`)
	r := berth.Cmd("build", "--platform", "linux/amd64,linux/arm64", "-t", "x", "-o", "type=docker,dest=x.tar", ".").Dir(dir).Run()
	if r.Code != 1 {
		t.Errorf("two platforms in one docker archive: %s", r)
	}
	has(t, "stderr", r.Stderr, "type=docker", "hint: ")
}

//go:build e2e && linux

package test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/berthbuild/berth/test/lab"
)

// A named context stands in for a stage, for an image, and for nothing that was
// there before; a folder's own .dockerignore counts.
func TestNamedContexts(t *testing.T) {
	berth, _ := shared(t)
	registry := lab.Registry(t)
	base := lab.Context(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY f /from-image\n", "f": "image"})
	build(t, berth, base, "-t", registry.Addr()+"/base:v1", "--push")
	web := t.TempDir()
	if err := os.WriteFile(join(web, "file.txt"), []byte("web"), 0o644); err != nil {
		t.Fatal(err)
	}
	other := lab.Context(t, map[string]string{"f": "folder", "ignored": "", "sub/g": "", ".dockerignore": "ignored\n"})
	if err := os.Symlink(other, join(web, "link")); err != nil {
		t.Fatal(err)
	}
	dir := lab.Context(t, map[string]string{"Dockerfile": `FROM busybox AS image
FROM scratch AS replaced
COPY nosuch /
FROM scratch
COPY --from=image /from-image /
COPY --from=replaced f /from-folder
COPY --from=linked . /linked/
COPY --from=download context /from-web
COPY --from=context f /from-named-context
COPY f /from-main
`, "f": "main"})
	out := t.TempDir()
	build(t, berth, dir, "-o", out,
		"--build-context", "docker.io/library/busybox:latest=docker-image://"+registry.Addr()+"/base:v1",
		"--build-context", "replaced="+other, "--build-context", "linked="+join(web, "link"),
		"--build-context", "download="+serve(t, web)+"/file.txt", "--build-context", "context="+other)
	for name, want := range map[string]string{
		"from-image": "image", "from-folder": "folder", "linked/f": "folder", "from-web": "web", "from-named-context": "folder", "from-main": "main",
	} {
		if got := read(t, join(out, name)); got != want {
			t.Errorf("%s: %q, wanted %q", name, got, want)
		}
	}
	if exists(join(out, "linked", "ignored")) || !exists(join(out, "linked", "sub", "g")) {
		t.Errorf("the folder's .dockerignore: %q", names(t, join(out, "linked")))
	}
	// Relative to the working directory, not to the main context.
	out = t.TempDir()
	r := berth.Cmd("build", "-o", out, "--build-context", "x="+filepath.Base(other), "-f", "-", dir).Dir(filepath.Dir(other)).
		Stdin(strings.NewReader("FROM scratch\nCOPY --from=x f /f\n")).Run()
	if r.Code != 0 || read(t, join(out, "f")) != "folder" {
		t.Error(r)
	}
}

// Images out of OCI layouts, as berth writes them and as others may; nothing is
// written into the layout.
func TestNamedContextLayouts(t *testing.T) {
	berth, _ := shared(t)
	src := lab.Context(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY f /f\n", "f": "layout"})
	layout := join(t.TempDir(), "lay")
	build(t, berth, src, "-t", "example.com/app:v1", "-o", "type=oci,tar=false,dest="+layout)
	var index struct{ Manifests []struct{ Digest string } }
	if err := json.Unmarshal([]byte(read(t, join(layout, "index.json"))), &index); err != nil || len(index.Manifests) != 1 {
		t.Fatal(err, index)
	}
	digest := index.Manifests[0].Digest
	before := strings.Join(names(t, layout), " ") + strings.Join(names(t, join(layout, "blobs", "sha256")), " ")
	// As on a medium that cannot be written to.
	for _, d := range []string{layout, join(layout, "blobs"), join(layout, "blobs", "sha256")} {
		if err := os.Chmod(d, 0o555); err != nil {
			t.Fatal(err)
		}
	}
	dir := lab.Context(t, map[string]string{"Dockerfile": "FROM base\nCOPY --from=base f /copied\n"})
	for _, source := range []string{layout, layout + ":v1", layout + "@" + digest, layout + ":v1@" + digest} {
		out := t.TempDir()
		build(t, berth, dir, "-o", out, "--build-context", "base=oci-layout://"+source)
		if read(t, join(out, "f")) != "layout" || read(t, join(out, "copied")) != "layout" {
			t.Errorf("%s: %q", source, names(t, out))
		}
	}
	if after := strings.Join(names(t, layout), " ") + strings.Join(names(t, join(layout, "blobs", "sha256")), " "); after != before {
		t.Errorf("the layout holds %s, before it held %s", after, before)
	}
	for source, want := range map[string]string{
		layout + ":v2": `no image has the tag "v2"; there are v1`,
		layout + "@sha256:" + strings.Repeat("0", 64): "has no image sha256:0000",
		src:             "is no OCI layout: it has no index.json",
		layout + "-not": "no such folder",
	} {
		r := berth.Cmd("build", "--build-context", "base=oci-layout://"+source, ".").Dir(dir).Run()
		if r.Code != 1 || !strings.Contains(lastLine(r.Stderr), want) {
			t.Errorf("%s: wanted %q: %s", source, want, r)
		}
	}
}

// The daemon keeps copies of folders, and compares size and time only. Another
// folder under the same name is never taken for the one before, whatever its
// files look like: not the main one, and not a named one.
func TestFoldersAreNotMixedUp(t *testing.T) {
	berth, _ := shared(t)
	at := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	folder := func(text string) string {
		dir := join(t.TempDir(), "same")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for name, content := range map[string]string{"f": text, "Dockerfile": "FROM scratch\nCOPY f /main\nCOPY --from=n f /named\n"} {
			if err := os.WriteFile(join(dir, name), []byte(content), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := os.Chtimes(join(dir, name), at, at); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Chtimes(dir, at, at); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	a, b := folder("aaaa"), folder("bbbb")
	for _, c := range [][2]string{{a, a}, {a, b}, {b, a}, {b, b}} {
		out := t.TempDir()
		build(t, berth, c[0], "-o", out, "--build-context", "n="+c[1])
		for name, from := range map[string]string{"main": c[0], "named": c[1]} {
			if got, want := read(t, join(out, name)), read(t, join(from, "f")); got != want {
				t.Errorf("%s of %q: %q, wanted %q", name, c, got, want)
			}
		}
	}
}

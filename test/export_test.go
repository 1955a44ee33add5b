//go:build e2e && linux

package test

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/berthbuild/berth/test/lab"
)

// snapshot is all that is in a folder, with contents, modes, and the times of what
// is no folder.
func snapshot(t *testing.T, dir string) string {
	t.Helper()
	var all strings.Builder
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		what, when := "", fi.ModTime().UnixNano()
		switch {
		case d.IsDir():
			when = 0
		case d.Type().IsRegular():
			what = read(t, path)
		case d.Type() == fs.ModeSymlink:
			what, _ = os.Readlink(path)
		}
		fmt.Fprintf(&all, "%s %v %d %s\n", rel, fi.Mode(), when, what)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}

// put writes files below a folder.
func put(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		if err := os.MkdirAll(filepath.Dir(join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// Whatever happens in the middle of an export, the destination is as it was, and
// nothing that was staged is left.
func TestExportBreaks(t *testing.T) {
	dir := lab.ShellContext(t, "RUN head -c 40000000 /dev/urandom > /big; echo new > /a\nFROM scratch\nCOPY --from=0 /big /a /\n", nil)
	bk := lab.BuildKit(t, lab.BuildKitOpts{TCP: true, Unix: true})
	berth := lab.Berth(t)
	berth.OK("create", "--use", "--name", "direct", bk.TCPAddr())
	build(t, berth, dir) // only the export is left to do
	for fault, c := range map[string]struct {
		strike func(*lab.Relay, *lab.Process)
		code   int
		says   string
	}{
		"killed": {func(relay *lab.Relay, _ *lab.Process) {
			bk.Kill()
			relay.Silence(false)
			bk.Start(t)
			build(t, berth, dir, "--builder", "direct")
		}, 1, "lost"},
		"cut":    {func(relay *lab.Relay, _ *lab.Process) { relay.Cut() }, 1, "lost"},
		"ctrl-c": {func(_ *lab.Relay, p *lab.Process) { p.Interrupt() }, 130, "canceled"},
	} {
		for name, out := range map[string]string{
			"folder": "type=local,dest=", "old folder": "type=local,dest=", "old mirror": "type=local,mode=delete,dest=",
			"old layout": "type=oci,tar=false,dest=", "file": "type=tar,dest=",
		} {
			t.Run(fault+" "+name, func(t *testing.T) {
				relay := lab.NewRelay(t, "127.0.0.1", bk.TCPAddr())
				berth.OK("create", "--use", "--name", "b", "--driver-opt", "retries=0", relay.Addr())
				defer berth.OK("rm", "b")
				above, err := os.MkdirTemp(t.TempDir(), "")
				if err != nil {
					t.Fatal(err)
				}
				dest := join(above, "new", "out")
				if strings.Contains(name, "old") {
					put(t, dest, map[string]string{"a": "old", "stale/x": "old", "index.json": "{}"})
				}
				want := snapshot(t, above)
				held := relay.StopAfter(0, 8_000_000)
				p := berth.Cmd("build", "--allow", "buildx.local.delete", "--progress", "plain", "-o", out+dest, ".").Dir(dir).Start()
				select {
				case <-held:
				case <-p.Done():
					t.Fatal(p.Wait())
				}
				c.strike(relay, p)
				r := p.Wait()
				if r.Code != c.code {
					t.Errorf("exit %d: %s", r.Code, r)
				}
				has(t, "last line", lastLine(r.Stderr), "ERROR: ", c.says)
				if got := snapshot(t, above); got != want {
					t.Errorf("the destination was\n%sand is\n%s", want, got)
				}
			})
		}
	}
}

// An export into a folder that exists: files are replaced and folders merged, a
// thing of another kind gives way, and links are not followed. The folder is the
// build context, too, and what is staged in it is not seen by the build.
func TestExportMerges(t *testing.T) {
	berth, _ := shared(t)
	dir := lab.Context(t, map[string]string{
		"Dockerfile": "FROM scratch AS all\nCOPY . /\nFROM scratch\nCOPY out /\n",
		"out/a":      "new", "out/d/b": "new", "out/kind/x": "new", "out/linked/y": "new", "out/.hidden": "new",
	})
	dest := t.TempDir()
	put(t, dest, map[string]string{"a": "old", "d/kept": "old", "kind": "old", "elsewhere/y": "old", "stale": "old"})
	if err := os.Symlink("elsewhere", join(dest, "linked")); err != nil {
		t.Fatal(err)
	}
	build(t, berth, dir, "-o", dest)
	for name, want := range map[string]string{"a": "new", "d/b": "new", "d/kept": "old", "kind/x": "new", "linked/y": "new", "elsewhere/y": "old", "stale": "old", ".hidden": "new"} {
		if got := read(t, join(dest, name)); got != want {
			t.Errorf("%s: %q", name, got)
		}
	}
	// The same, and what is not exported goes.
	build(t, berth, dir, "--allow", "buildx.local.delete", "-o", "type=local,mode=delete,dest="+dest)
	if got := strings.Join(names(t, dest), " "); got != ".hidden a d kind linked" {
		t.Errorf("mode=delete left %s", got)
	}
	if exists(join(dest, "d", "kept")) {
		t.Error("mode=delete left d/kept")
	}
	// Behind a link, into the working directory, and into a folder of the context:
	// twice, and the second time all is cached.
	if err := os.Symlink(dest, join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	build(t, berth, dir, "-o", "link", "--target", "all")
	if fi, err := os.Lstat(join(dir, "link")); err != nil || fi.Mode()&fs.ModeSymlink == 0 || !exists(join(dest, "Dockerfile")) {
		t.Errorf("the link is now %v, %v", fi, err)
	}
	build(t, berth, dir, "-o", ".")
	build(t, berth, dir, "-o", "into", "--target", "all")
	for _, name := range append(names(t, dir), names(t, join(dir, "into"))...) {
		if strings.HasPrefix(name, ".berth") {
			t.Errorf("%s was left", name)
		}
	}
	iid := func(out string) string {
		md := join(t.TempDir(), "md")
		build(t, berth, dir, "-o", out, "-t", "x", "--target", "all", "--metadata-file", md)
		var m struct {
			Digest string `json:"containerimage.config.digest"`
		}
		if err := json.Unmarshal([]byte(read(t, md)), &m); err != nil || m.Digest == "" {
			t.Fatal(err, m)
		}
		return m.Digest
	}
	other := t.TempDir()
	if one, two := iid("type=oci,dest="+join(other, "one")), iid("type=oci,dest="+join(other, "two")); one != two {
		t.Errorf("%s, then %s", one, two)
	}
	put(t, dir, map[string]string{".dockerignore": "*.tar\n"})
	if one, two := iid("type=oci,dest=one.tar"), iid("type=oci,dest=two.tar"); one != two {
		t.Errorf("with the result beside the context's files: %s, then %s", one, two)
	}
}

// Another file system that is mounted in the destination gets its part, and a file
// that cannot be replaced costs nothing that was there.
func TestExportOverMounts(t *testing.T) {
	berth, _ := shared(t)
	dir := lab.Context(t, map[string]string{
		"Dockerfile": "FROM scratch\nCOPY out /\n",
		"out/a":      "new", "out/m/b": "new", "out/m/d/c": "new", "out/z": "new",
	})
	dest := t.TempDir()
	put(t, dest, map[string]string{"a": "old", "m/under": "", "stale": "old", "z": "old"})
	mount := func(from, to, kind string, flags uintptr) {
		t.Helper()
		if err := syscall.Mount(from, to, kind, flags, ""); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = syscall.Unmount(to, 0) })
	}
	mount("berth-test", join(dest, "m"), "tmpfs", 0)
	put(t, dest, map[string]string{"m/b": "old", "m/stale": "old", "m/d": "old"})
	build(t, berth, dir, "-o", dest)
	for name, want := range map[string]string{"a": "new", "m/b": "new", "m/d/c": "new", "m/stale": "old", "stale": "old", "z": "new"} {
		if got := read(t, join(dest, name)); got != want {
			t.Errorf("%s: %q", name, got)
		}
	}
	if got := strings.Join(append(names(t, dest), names(t, join(dest, "m"))...), " "); got != "a m stale z b d stale" {
		t.Errorf("there is now %s", got)
	}
	build(t, berth, dir, "--allow", "buildx.local.delete", "-o", "type=local,mode=delete,dest="+dest)
	if got := strings.Join(append(names(t, dest), names(t, join(dest, "m"))...), " "); got != "a m z b d" {
		t.Errorf("mode=delete: there is now %s", got)
	}

	// The last file of all is a mount itself, and nothing can be renamed over it.
	put(t, dest, map[string]string{"a": "old", "m/b": "old", "stale": "old"})
	mount(join(dest, "z"), join(dest, "z"), "", syscall.MS_BIND)
	want := snapshot(t, dest)
	for _, mode := range []string{"copy", "delete"} {
		r := berth.Cmd("build", "--allow", "buildx.local.delete", "-o", "type=local,mode="+mode+",dest="+dest, ".").Dir(dir).Run()
		if r.Code != 1 {
			t.Errorf("mode=%s: %s", mode, r)
		}
		has(t, "last line", lastLine(r.Stderr), "writing to "+dest, join(dest, "z"), "busy")
		if got := snapshot(t, dest); got != want {
			t.Errorf("mode=%s: the destination was\n%sand is\n%s", mode, want, got)
		}
	}
}

// Several outputs of one build.
func TestSeveralOutputs(t *testing.T) {
	berth, bk := shared(t)
	registry, engine := lab.Registry(t), lab.Docker(t)
	berth = berth.WithDocker(engine).With("BUILDX_BUILDER=b")
	dir := lab.HelloContext(t)
	out := t.TempDir()
	at := func(name string) string { return join(out, "new", name) }
	iid, md := join(out, "iid"), join(out, "md")
	one, two := registry.Addr()+"/one:v1", registry.Addr()+"/two"
	r := build(t, berth, dir, "-t", one, "-t", two, "--push", "--load",
		"-o", at("folder"), "-o", "type=local,dest="+at("other"), "-o", "type=tar,dest="+at("x.tar"), "-o", "type=oci,dest="+at("x.oci"), "-o", "type=docker,dest=-",
		"--iidfile", iid, "--metadata-file", md)
	for _, folder := range []string{"folder", "other"} {
		if read(t, join(at(folder), "hello")) != read(t, lab.HelloBinary(t)) {
			t.Errorf("%s/hello is another program", folder)
		}
	}
	has(t, "tar", strings.Join(tarNames(t, []byte(read(t, at("x.tar")))), " "), "hello")
	has(t, "oci", strings.Join(tarNames(t, []byte(read(t, at("x.oci")))), " "), "index.json", "oci-layout")
	has(t, "docker", strings.Join(tarNames(t, []byte(r.Stdout)), " "), "manifest.json")
	if got := strings.Join(names(t, join(out, "new")), " "); got != "folder other x.oci x.tar" {
		t.Errorf("there is %s", got)
	}
	id := imageID(t, engine, one)
	if id != read(t, iid) || id != imageID(t, engine, two) {
		t.Errorf("the engine has %s, --iidfile %s", id, read(t, iid))
	}
	var m struct {
		Digest string `json:"containerimage.digest"`
		Config string `json:"containerimage.config.digest"`
		Names  string `json:"image.name"`
	}
	if err := json.Unmarshal([]byte(read(t, md)), &m); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/v2/one/manifests/v1", "/v2/two/manifests/latest"} {
		if status, header, _ := registry.Get(t, path); status != 200 || header.Get("Docker-Content-Digest") != m.Digest {
			t.Errorf("%s: %d, %v; metadata %+v", path, status, header, m)
		}
	}
	if m.Config != id || m.Names != one+","+two {
		t.Errorf("metadata %+v, image %s", m, id)
	}

	// One that cannot be written costs all others nothing, and nothing is contacted.
	calls := len(bk.Log())
	for _, bad := range []string{"type=tar,dest=" + at("folder"), "type=local,dest=" + at("x.tar"), "type=tar,dest=" + at("x.tar") + "/below"} {
		r := berth.Cmd("build", "-o", "type=local,dest="+at("third"), "-o", bad, ".").Dir(dir).Run()
		if r.Code != 1 || exists(at("third")) {
			t.Errorf("%s: %s", bad, r)
		}
		has(t, "last line", lastLine(r.Stderr), "ERROR: ", "output f")
	}
	if len(bk.Log()) != calls {
		t.Errorf("the daemon was asked: %s", bk.Log()[calls:])
	}
}

// A layout folder collects images: a second build adds one, and a build that has
// it all already sends nothing.
func TestLayoutFolder(t *testing.T) {
	berth, _ := shared(t)
	dest := join(t.TempDir(), "layout")
	dir := lab.Context(t, map[string]string{"Dockerfile": "FROM scratch\nARG WHAT=1\nLABEL what=$WHAT\nCOPY Dockerfile /\n"})
	list := func() string {
		var index struct {
			Manifests []struct {
				Digest      string
				Annotations map[string]string
			}
		}
		if err := json.Unmarshal([]byte(read(t, join(dest, "index.json"))), &index); err != nil {
			t.Fatal(err)
		}
		var all []string
		for _, m := range index.Manifests {
			all = append(all, m.Annotations["org.opencontainers.image.ref.name"])
			if !exists(join(dest, "blobs", "sha256", strings.TrimPrefix(m.Digest, "sha256:"))) {
				t.Errorf("%s is missing", m.Digest)
			}
		}
		return strings.Join(all, " ")
	}
	build(t, berth, dir, "-o", "type=oci,tar=false,dest="+dest, "-t", "x:1", "--provenance=false")
	blobs := names(t, join(dest, "blobs", "sha256"))
	if got := list(); got != "1" || len(blobs) != 3 {
		t.Errorf("%q, %d blobs", got, len(blobs))
	}
	build(t, berth, dir, "-o", "type=oci,tar=false,dest="+dest, "-t", "x:2", "--build-arg", "WHAT=2", "--provenance=false")
	if got := list(); got != "1 2" || len(names(t, join(dest, "blobs", "sha256"))) != 5 {
		t.Errorf("%q, %d blobs", got, len(names(t, join(dest, "blobs", "sha256"))))
	}
	build(t, berth, dir, "-o", "type=oci,tar=false,dest="+dest, "-t", "x:1", "--provenance=false")
	if got := list(); got != "1 2" && got != "2 1" {
		t.Errorf("%q", got)
	}
	if got := strings.Join(names(t, dest), " "); got != "blobs index.json oci-layout" {
		t.Errorf("there is %s", got)
	}
}

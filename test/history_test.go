//go:build e2e && linux

package test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/berthbuild/berth/internal/rendezvous"
	"github.com/berthbuild/berth/test/lab"
)

// history is a world with the builder "b" of two daemons, and buildx in the same
// world.
func historyWorld(t *testing.T) (berth, buildx *lab.CLI, one, two *lab.BuildKitd) {
	t.Helper()
	both := []string{"linux/amd64", "linux/386"} // not every kernel runs programs for the second
	one, two = lab.BuildKit(t, lab.BuildKitOpts{Platforms: both}), lab.BuildKit(t, lab.BuildKitOpts{TCP: true, Platforms: both})
	berth = lab.Berth(t)
	berth.OK("create", "--name", "b", "--use", one.UnixAddr())
	berth.OK("create", "--name", "b", "--append", two.TCPAddr())
	berth.OK("create", "--name", "one", one.UnixAddr())
	berth.OK("create", "--name", "two", two.TCPAddr())
	x := *berth
	x.Bin = lab.Tool(t, "buildx")
	return berth, &x, one, two
}

// onFirst is the flag that has a build on the first of the nodes, wherever its
// context is.
func onFirst(nodes ...string) string {
	for i := 0; ; i++ {
		if key := fmt.Sprint("key-", i); rendezvous.Order(key, nodes)[0] == 0 {
			return "--affinity=" + key
		}
	}
}

// fillHistory leaves records of several kinds, on both daemons.
func fillHistory(t *testing.T, berth *lab.CLI, registry string) {
	t.Helper()
	good := lab.ShellContext(t, "RUN echo hello > /h\nARG FOO\nRUN echo $FOO >&2\n", nil)
	first := onFirst("b0", "b1")
	bad := lab.ShellContext(t, "RUN echo before\nRUN echo failing; exit 7\n", nil)
	build(t, berth, good, "--builder", "b", first, "--build-arg", "FOO=<bar>", "--label", "l=1", "--provenance", "mode=max", "-t", registry+"/x:1", "--push")
	build(t, berth, good, "--builder", "b", first, "--platform", "linux/amd64,linux/386", "-t", registry+"/y:1", "--push")
	berth.Fail("build", "--builder", "b", first, bad)
	build(t, berth, good, "--builder", "b", first, "--no-cache", "--add-host", "h:1.2.3.4", "--build-context", "other="+bad)
	build(t, berth, good, "--builder", "two", "--build-arg", "BUILDKIT_BUILD_NAME=named")
	build(t, berth, lab.Context(t, map[string]string{"sub/Other": "FROM scratch\nCOPY sub /\n"}), "--builder", "b", first, "-f", "sub/Other")
}

func refsOf(t *testing.T, berth *lab.CLI, args ...string) []string {
	t.Helper()
	return strings.Fields(berth.OK(append([]string{"history", "ls", "--format", "{{.Ref}}"}, args...)...).Stdout)
}

// sameText leaves out what two runs, and two programs, cannot have in common.
func sameText(text string) string {
	text = regexp.MustCompile(` {2,}`).ReplaceAllString(withoutAges(text), "  ")
	text = regexp.MustCompile(`(?m)^(Print build logs|View build in Docker Desktop|hint): .*\n`).ReplaceAllString(text, "")
	return regexp.MustCompile(`(?m)^ +"Stack": .*\n`).ReplaceAllString(text, "")
}

// What scripts read of the records, beside buildx.
func TestHistoryBesideBuildx(t *testing.T) {
	registry := lab.Registry(t)
	berth, buildx, _, _ := historyWorld(t)
	compare := func(args ...string) {
		t.Helper()
		ours, theirs := berth.Run(append([]string{"history"}, args...)...), buildx.Run(append([]string{"history"}, args...)...)
		if ours.Code != theirs.Code || sameText(ours.Stdout) != sameText(theirs.Stdout) || sameText(ours.Stderr) != sameText(theirs.Stderr) {
			t.Errorf("history %q: berth\n%s\nbuildx\n%s", args, ours, theirs)
		}
	}
	for _, args := range [][]string{{"ls"}, {"inspect"}, {"logs"}, {"rm", "--all"}, {"rm"}} { // nothing yet
		compare(args...)
	}
	fillHistory(t, berth, registry.Addr())
	for _, args := range [][]string{
		{"ls"}, {"ls", "--no-trunc"}, {"ls", "--format", "json"}, {"ls", "--format", "table {{.Ref}}\t{{.Name}}"},
		{"ls", "--format", "{{.Ref}} {{.Name}} {{.Status}} {{.CreatedAt}} {{.Duration}} {{.Link}}"},
		{"ls", "--filter", "startedAt>1h"}, {"ls", "--filter", "startedAt<1h"}, {"ls", "--filter", "x=y"}, {"ls", "--filter", "status"}, {"ls", "--filter", "status>error"}, {"ls", "--filter", "duration=1s"}, {"ls", "--filter", "duration>x"},
		{"inspect"}, {"inspect", "^1"}, {"inspect", "nosuch"}, {"inspect", "^1", "--format", "{{.Ref}} {{.Status}} {{.NumTotalSteps}} {{.Config}}"},
		{"inspect", "attachment"}, {"inspect", "attachment", "nosuch", "--type", "index"}, {"logs", "nosuch"}, {"rm", "--all", "x"}, {"export", "--all", "x"},
	} {
		compare(args...)
	}
	for _, f := range [][]string{ // buildx's filters of texts fail where a builder has several nodes
		{"status=error"}, {"status!=error"}, {"status=running"}, {"ref=a"}, {"repository=x"}, {"duration>0.1s", "status=completed"},
	} {
		args := []string{"ls", "--builder", "one"}
		for _, one := range f {
			args = append(args, "--filter", one)
		}
		compare(args...)
	}
	all := refsOf(t, berth)
	if len(all) < 6 {
		t.Fatalf("%d records", len(all))
	}
	for _, ref := range all {
		compare("inspect", ref)
		compare("inspect", ref, "--format", "json")
		compare("logs", ref)
	}
	if r := berth.OK("history", "ls", "--builder", "one", "--limit", "1", "--format", "{{.Ref}}"); len(strings.Fields(r.Stdout)) != 1 || !strings.Contains(r.Stderr, "there are more") {
		t.Errorf("of one daemon the newest: %s", r)
	}
	images := refsOf(t, berth, "--filter", "status=completed")
	images = images[len(images)-2:] // those that were pushed
	for _, args := range [][]string{
		{"logs", images[0], "--progress", "rawjson"}, {"inspect", "attachment", images[1], "--type", "provenance"},
		{"inspect", "attachment", images[0], "--type", "index"}, {"inspect", "attachment", images[0], "--type", "manifest"},
		{"inspect", "attachment", images[0], "--platform", "linux/386"}, {"inspect", "attachment", images[0], "--type", "sbom"},
	} {
		compare(args...)
	}
	failed := refsOf(t, berth, "--filter", "status=error")[0]
	has(t, "the error", berth.OK("history", "inspect", "attachment", failed, "--type", "error").Stdout,
		"exit code: 7", ">>> RUN echo failing; exit 7", "> => [3/3] RUN echo failing; exit 7:\n> failing\n")
	// The whole reference, its beginning, and docker's plugin.
	short := failed[:12]
	for _, ref := range []string{"b/b0/" + failed, "one/one0/" + failed, short, "b/b0/" + short} {
		if got := berth.OK("history", "inspect", ref, "--format", "{{.Ref}}").Stdout; got != failed+"\n" {
			t.Errorf("%s: %q", ref, got)
		}
	}
	has(t, "the plugin", berth.As("docker-buildx").OK("buildx", "history", "inspect", failed).Stdout, "Print build logs: docker buildx history logs "+failed)
	// Removing: what was named before anything goes.
	berth.OK("history", "rm", "^0", "^2")
	if left := refsOf(t, berth); !slices.Equal(left, append([]string{all[1]}, all[3:]...)) {
		t.Errorf("left %q of %q", left, all)
	}
	has(t, "rm", berth.OK("history", "rm", all[0]).Stderr, "no record found")
	berth.OK("history", "rm", "--all")
	if left := refsOf(t, berth); len(left) != 0 {
		t.Errorf("left %q", left)
	}
}

// A build of another client is listed, followed to its end, and followed no
// longer when the follower is interrupted, which the build does not notice.
func TestHistoryFollow(t *testing.T) {
	berth, _, _, _ := historyWorld(t)
	release := make(chan struct{})
	held := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	t.Cleanup(held.Close)
	dir := lab.ShellContext(t, "COPY sh /bin/wget\nRUN echo begun; wget -q -O /dev/null "+held.URL+"; echo ended\n", nil)
	client := berth.Start("build", "--builder", "one", "--progress", "plain", dir)
	client.WaitFor(" begun\n")
	has(t, "ls", berth.OK("history", "ls", "--filter", "status=running").Stdout, "Running", "s+ ")
	has(t, "inspect", berth.OK("history", "inspect").Stdout, "(running)")
	has(t, "trace", berth.Fail("history", "trace").Stderr, "still runs")
	has(t, "rm", berth.Fail("history", "rm", "^0").Stderr, "still runs")
	stopped := berth.Start("history", "logs")
	stopped.WaitFor(" begun\n")
	stopped.Interrupt()
	if r := stopped.Wait(); r.Code != 130 {
		t.Errorf("Ctrl-C: %s", r)
	}
	follower := berth.Start("--builder", "one", "history", "logs")
	follower.WaitFor(" begun\n")
	close(release)
	r := follower.Wait()
	has(t, "the log", r.Stderr, " begun\n", " ended\n", "DONE")
	if r.Code != 0 {
		t.Error(r)
	}
	if r := client.Wait(); r.Code != 0 {
		t.Error(r)
	}
}

// One of two daemons is down: the other's records are there.
func TestHistoryWithANodeDown(t *testing.T) {
	berth, _, _, two := historyWorld(t)
	build(t, berth, lab.HelloContext(t), "--builder", "one")
	two.Kill()
	r := berth.Fail("history", "ls", "--timeout", "1s")
	has(t, "stdout", r.Stdout, "Completed")
	has(t, "last line", lastLine(r.Stderr), "ERROR: node b1 of builder b at "+two.TCPAddr())
	r = berth.OK("history", "inspect", "--timeout", "1s")
	has(t, "inspect", r.Stderr, "WARNING: node b1 of builder b at")
	ref := refsOf(t, berth, "--builder", "one")[0]
	if r := berth.OK("history", "inspect", ref); r.Stderr != "" { // its daemon lives
		t.Error(r)
	}
	has(t, "export", berth.Fail("history", "export", "--all", "--timeout", "1s").Stderr, "node b1 of builder b")
}

// What a build is called and prints cannot work on the terminal.
func TestHistoryOfHostileBuilds(t *testing.T) {
	berth, _, _, _ := historyWorld(t)
	dir := lab.ShellContext(t, "RUN printf 'a\\033[2Jb\\033]0;title\\007c\\n'; yes x | head -c 1500000 | tr -d '\\n'; echo; exit 3\n", nil)
	berth.Fail("build", "--builder", "one", "--progress", "quiet", "--target", "", "--label", "l=\x1b[2Jx", "--build-arg", "BUILDKIT_BUILD_NAME=n\x1b[2Jame", dir)
	for _, args := range [][]string{{"ls"}, {"inspect"}, {"logs"}, {"inspect", "attachment", "--type", "error"}} {
		r := berth.OK(append([]string{"--builder", "one", "history"}, args...)...)
		hasNot(t, strings.Join(args, " "), r.Stdout+r.Stderr, "\x1b[2J", "\x1b]0;", "\a")
	}
	if r := berth.OK("--builder", "one", "history", "inspect"); len(r.Stdout) > 1<<20 {
		t.Errorf("%d bytes", len(r.Stdout))
	}
}

// desktop stands in for Docker Desktop, to which buildx gives bundles.
func desktop(t *testing.T, home string) <-chan []byte {
	t.Helper()
	dir := filepath.Join(home, ".docker", "desktop")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(dir, "docker-desktop-build.sock"))
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan []byte, 1)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		data, err := io.ReadAll(r.Body)
		if err != nil || r.URL.Path != "/upload" {
			t.Errorf("%s: %v", r.URL, err)
		}
		got <- data
		_, _ = io.WriteString(w, `["imported"]`)
	})}
	go server.Serve(l) //nolint:errcheck // ends with the test
	t.Cleanup(func() { _ = server.Close() })
	return got
}

// unzipped is the archive in a bundle: two programs compress differently.
func unzipped(t *testing.T, bundle []byte) []byte {
	t.Helper()
	zip, err := gzip.NewReader(bytes.NewReader(bundle))
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(zip)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// contents are the files of a bundle.
func contents(t *testing.T, bundle []byte) map[string]string {
	t.Helper()
	all := map[string]string{}
	archive := tar.NewReader(bytes.NewReader(unzipped(t, bundle)))
	for {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		all[h.Name] = string(data)
	}
}

// Bundles of buildx and berth are the same, byte for byte once unzipped, and each
// takes the other's.
func TestHistoryBundlesBesideBuildx(t *testing.T) {
	registry := lab.Registry(t)
	berth, buildx, _, _ := historyWorld(t)
	fillHistory(t, berth, registry.Addr())
	all := refsOf(t, berth)
	for _, ref := range all {
		berth.OK("history", "export", "--finalize", ref, "-o", "final") // the traces are there
	}
	export := func(c *lab.CLI, args ...string) []byte {
		t.Helper()
		file := filepath.Join(t.TempDir(), "bundle")
		c.OK(append([]string{"history", "export", "-o", file}, args...)...)
		return []byte(read(t, file))
	}
	var parts [][]string
	for _, ref := range all {
		parts = append(parts, []string{ref})
	}
	for _, args := range append(parts, all[:2], []string{"--all"}) {
		ours, theirs := export(berth, args...), export(buildx, args...)
		if bytes.Equal(unzipped(t, ours), unzipped(t, theirs)) {
			continue
		}
		// buildx lists the layers of several platforms in an order that changes.
		for name, text := range contents(t, theirs) {
			if _, same := contents(t, ours)[name]; !same && !strings.Contains(text, `"manifests"`) && !strings.Contains(text, `"layers"`) {
				t.Errorf("export %q: berth has no %s:\n%.3000s", args, name, text)
			}
		}
	}

	// buildx, and what stands in for Docker Desktop, takes berth's as it is.
	uploads := desktop(t, berth.Home)
	bundle := export(berth, "--all")
	file := filepath.Join(t.TempDir(), "ours.dockerbuild")
	if err := os.WriteFile(file, bundle, 0o600); err != nil {
		t.Fatal(err)
	}
	// What it would open then is a page of Docker Desktop's.
	browser := t.TempDir()
	if err := os.WriteFile(filepath.Join(browser, "xdg-open"), []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	buildx.With("PATH="+browser+":"+os.Getenv("PATH")).OK("history", "import", "-f", file)
	if got := <-uploads; !bytes.Equal(got, bundle) {
		t.Errorf("buildx has passed on %d bytes of %d", len(got), len(bundle))
	}

	// berth takes buildx's, on a machine that knows nothing of the builds.
	elsewhere := lab.Berth(t)
	theirs := filepath.Join(t.TempDir(), "theirs.dockerbuild")
	buildx.OK("history", "export", "--all", "-o", theirs)
	imported := strings.Fields(elsewhere.OK("history", "import", "-f", theirs).Stdout)
	var want []string
	for _, ref := range all {
		want = append(want, ".imported/_/"+ref)
	}
	if !slices.Equal(imported, want) {
		t.Fatalf("imported %q, want %q", imported, want)
	}
	onlyPlace := strings.NewReplacer("b/b0/", "", "b/b1/", "", ".imported/_/", "")
	for _, c := range [][]string{{"ls"}, {"ls", "--format", "json"}} {
		a, b := berth.OK(append([]string{"history"}, c...)...).Stdout, elsewhere.OK(append([]string{"--builder", ".imported", "history"}, c...)...).Stdout
		if sameText(onlyPlace.Replace(a)) != sameText(onlyPlace.Replace(b)) {
			t.Errorf("%q: there\n%s\nhere\n%s", c, a, b)
		}
	}
	for i, ref := range all[:3] {
		for _, c := range [][]string{{"inspect"}, {"inspect", "--format", "json"}, {"logs"}, {"logs", "--progress", "rawjson"}, {"trace"}} {
			call := func(cli *lab.CLI, ref string) string {
				r := cli.Cmd(append(append([]string{"history"}, c...), ref)...).Dir("/").Run()
				return sameText(r.Stdout + r.Stderr)
			}
			a, b := call(berth, ref), call(elsewhere, imported[i])
			if a != b && !strings.Contains(b, "it is not in the bundle") {
				t.Errorf("%q %s: there\n%.2000s\nhere\n%.2000s", c, ref, a, b)
			}
		}
	}
	// And written again it is what it was.
	again := filepath.Join(t.TempDir(), "again.dockerbuild")
	elsewhere.OK("history", "export", imported[0], "-o", again)
	if !bytes.Equal(unzipped(t, []byte(read(t, again))), unzipped(t, export(berth, all[0]))) {
		t.Error("written again, a bundle has other content")
	}
	if n := len(elsewhere.TempFiles()); n != 0 {
		t.Errorf("%d temporary files are left", n)
	}
	var doc struct{ ResourceSpans []any }
	if err := json.Unmarshal([]byte(elsewhere.OK("history", "trace", "--compare", imported[1], imported[0]).Stdout), &doc); err != nil || len(doc.ResourceSpans) == 0 {
		t.Errorf("trace: %v, %d", err, len(doc.ResourceSpans))
	}
	elsewhere.OK("--builder", ".imported", "history", "rm", "--all")
	if left := names(t, filepath.Join(elsewhere.BuildxConfig, "imported")); len(left) != 0 {
		t.Errorf("left: %q", left)
	}
}

// Only the builds of the repository that the working directory is in.
func TestHistoryLocal(t *testing.T) {
	berth, buildx, _, _ := historyWorld(t)
	lab.Need(t, "git")
	dir := lab.Context(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY a /\n", "a": "a"})
	for _, args := range [][]string{
		{"init", "-q"}, {"remote", "add", "origin", "https://user:secret@git.example/o/r.git"}, {"add", "."},
		{"-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "x"},
	} {
		cmd := exec.Command("git", args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %q: %v\n%s", args, err, out)
		}
	}
	build(t, berth, dir, "--builder", "one")
	build(t, berth, lab.HelloContext(t), "--builder", "one")
	list := func(c *lab.CLI, dir string) lab.Result {
		return c.Cmd("--builder", "one", "history", "ls", "--local", "--format", "{{.Ref}}").Dir(dir).Run()
	}
	ours := list(berth, dir)
	if n := len(strings.Fields(ours.Stdout)); ours.Code != 0 || n != 1 {
		t.Error(ours)
	}
	if theirs := list(buildx, dir); theirs.Code != 0 {
		t.Error(theirs)
	}
	has(t, "elsewhere", list(berth, t.TempDir()).Stderr, "no remote URL found")
	hasNot(t, "inspect", berth.OK("--builder", "one", "history", "inspect", "^1").Stdout, "secret")
}

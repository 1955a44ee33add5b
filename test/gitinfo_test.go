//go:build e2e && linux

package test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/berthbuild/berth/test/lab"
)

// gitRepo makes a folder a repository with one commit, and gives that.
func gitRepo(t *testing.T, dir string) string {
	t.Helper()
	lab.Need(t, "git")
	git(t, dir, "init", "-q", "-b", "main")
	git(t, dir, "add", "-A")
	git(t, dir, "-c", "user.name=n", "-c", "user.email=n@example.com", "commit", "-q", "-m", "one")
	git(t, dir, "remote", "add", "origin", "https://me:hunter2@git.example/o/r.git")
	return git(t, dir, "rev-parse", "HEAD")
}

func git(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir(), "GIT_CONFIG_NOSYSTEM=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %q: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// origin is what a build's provenance says of its context's origin.
func origin(t *testing.T, berth *lab.CLI, dir string, args ...string) map[string]any {
	t.Helper()
	md := join(t.TempDir(), "md")
	r := build(t, berth.With("BUILDX_METADATA_PROVENANCE=max"), dir, append([]string{"-o", "type=cacheonly", "--metadata-file", md}, args...)...)
	hasNot(t, "what berth writes", r.Stderr+read(t, md), "hunter2", "me@")
	vcs, _ := at(metadata(t, md), "buildx.build.provenance", "metadata", "https://mobyproject.org/buildkit@v1#metadata", "vcs").(map[string]any)
	return vcs
}

// The provenance says which commit was built.
func TestGitProvenance(t *testing.T) {
	berth, _ := shared(t)
	dir := lab.Context(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY file /\n", "file": "x", "deep/Dockerfile": "FROM scratch\nCOPY file /\n"})
	commit := gitRepo(t, dir)
	const url = "https://git.example/o/r.git"
	check := func(what string, vcs map[string]any, revision, source, context, dockerfile string) {
		t.Helper()
		for key, want := range map[string]string{"revision": revision, "source": source, "localdir:context": context, "localdir:dockerfile": dockerfile} {
			if got, _ := vcs[key].(string); got != want {
				t.Errorf("%s: %s is %q, want %q", what, key, got, want)
			}
		}
	}
	check("a clean folder", origin(t, berth.With("BUILDX_GIT_CHECK_DIRTY=1"), dir), commit, url, ".", ".")
	check("a Dockerfile elsewhere", origin(t, berth, dir, "-f", "deep/Dockerfile"), commit, url, ".", "deep")
	if err := os.WriteFile(join(dir, "file"), []byte("changed"), 0o644); err != nil {
		t.Fatal(err)
	}
	check("a changed one", origin(t, berth.With("BUILDX_GIT_CHECK_DIRTY=1"), dir), commit+"-dirty", url, ".", ".")
	check("not looked at", origin(t, berth, dir), commit, url, ".", ".")
	check("off", origin(t, berth.With("BUILDX_GIT_INFO=0"), dir), "", "", "", "")
	none := lab.Context(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY file /\n", "file": "x"})
	check("no repository", origin(t, berth, none), "", "", "", "")

	registry := lab.Registry(t)
	build(t, berth, dir, "-t", registry.Addr()+"/app", "--push", "--provenance=max")
	vcs, _ := at(only(t, pushed(t, registry, "app", "latest"), slsaV1).Predicate, "runDetails", "metadata", "buildkit_metadata", "vcs").(map[string]any)
	check("on the image", vcs, commit, url, ".", ".")
}

func TestGitLabels(t *testing.T) {
	berth, _ := shared(t)
	dir := lab.Context(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY file /\n", "file": "x"})
	commit := gitRepo(t, dir)
	labels := func(berth *lab.CLI, args ...string) map[string]string {
		t.Helper()
		out := join(t.TempDir(), "out")
		build(t, berth, dir, append(args, "--provenance=false", "-o", "type=oci,tar=false,dest="+out)...)
		blob := func(digest string) []byte {
			return []byte(read(t, join(out, "blobs", "sha256", strings.TrimPrefix(digest, "sha256:"))))
		}
		var index manifest
		decode(t, []byte(read(t, join(out, "index.json"))), &index)
		var m struct{ Config manifest }
		decode(t, blob(index.Manifests[0].Digest), &m)
		var config struct {
			Config struct{ Labels map[string]string }
		}
		decode(t, blob(m.Config.Digest), &config)
		return config.Config.Labels
	}
	if got := labels(berth); len(got) > 0 {
		t.Errorf("without being asked: %v", got)
	}
	for _, env := range [][]string{{"BUILDX_GIT_LABELS=1"}, {"BUILDX_GIT_LABELS=full", "BUILDX_GIT_INFO=0"}} {
		got, err := json.Marshal(labels(berth.With(env...), "--label", "own=1"))
		if err != nil {
			t.Fatal(err)
		}
		want := `{"com.docker.image.source.entrypoint":"Dockerfile","org.opencontainers.image.revision":"` + commit + `","org.opencontainers.image.source":"https://git.example/o/r.git","own":"1"}`
		if string(got) != want {
			t.Errorf("%q: %s", env, got)
		}
	}
	mine := labels(berth.With("BUILDX_GIT_LABELS=1"), "--label", "org.opencontainers.image.source=mine")
	if mine["org.opencontainers.image.source"] != "mine" || mine["org.opencontainers.image.revision"] != commit {
		t.Errorf("a label of the user's own: %v", mine)
	}
}

// A repository that would start programs starts none, and one that git cannot
// speak of is a warning and not a failure.
func TestHostileAndForeignRepositories(t *testing.T) {
	berth, _ := shared(t)
	dir := lab.Context(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY file /\n", "file": "x", ".gitattributes": "* filter=evil\n"})
	commit := gitRepo(t, dir)
	mark := join(t.TempDir(), "mark")
	evil := join(dir, ".git", "evil")
	if err := os.WriteFile(evil, []byte("#!/bin/sh\necho ran >> "+mark+"\ncat\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"core.fsmonitor", "filter.evil.clean", "core.pager", "core.sshCommand"} {
		git(t, dir, "config", key, evil)
	}
	if err := os.WriteFile(join(dir, "file"), []byte("y"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := origin(t, berth.With("BUILDX_GIT_CHECK_DIRTY=1"), dir)["revision"]; got != commit+"-dirty" {
		t.Errorf("%v", got)
	}
	if exists(mark) {
		t.Error("a program of the repository ran")
	}
	git(t, dir, "-c", "safe.directory=*", "status")
	if !exists(mark) {
		t.Error("nothing would have run by plain git either")
	}

	const warning = "WARNING: current commit information was not captured by the build: "
	none := t.TempDir()
	r := build(t, berth.With("PATH="+none), dir, "-o", "type=cacheonly")
	has(t, "stderr", r.Stderr, warning+`exec: "git": executable file not found`)
	r = build(t, berth.With("PATH="+none), dir, "-q", "-o", "type=cacheonly")
	hasNot(t, "stderr with -q", r.Stderr, "WARNING")
	r = build(t, berth.With("PATH="+none, "BUILDX_GIT_INFO=0"), dir, "-o", "type=cacheonly")
	hasNot(t, "stderr with it off", r.Stderr, "WARNING")
	if err := os.Chown(dir, 12345, -1); err != nil {
		t.Fatal(err)
	}
	r = build(t, berth, dir, "-o", "type=cacheonly")
	has(t, "stderr", r.Stderr, warning+"detected dubious ownership in repository at '"+dir+"'")

	for what, file := range map[string]string{"leads nowhere": "gitdir: /no/such/folder\n", "is garbage": "\x00\xff"} {
		dir := lab.Context(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n", ".git": file})
		r := build(t, berth, dir, "-o", "type=cacheonly")
		if what == "leads nowhere" {
			hasNot(t, what, r.Stderr, "WARNING")
		}
	}
}

// What history shows of a build's sources, as buildx writes it.
func TestReferences(t *testing.T) {
	berth, _ := shared(t)
	dir := lab.Context(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY file /\n", "file": "x", "sub/D": "FROM scratch\nCOPY file /\n", "sub/file": "y"})
	link := join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	md := join(t.TempDir(), "md")
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"."}, `{"Target":"default","LocalPath":"` + dir + `","DockerfilePath":""}`},
		{[]string{"--target", "", link}, `{"Target":"default","LocalPath":"` + link + `","DockerfilePath":""}`},
		{[]string{"-f", "Dockerfile", "."}, `{"Target":"default","LocalPath":"` + dir + `","DockerfilePath":"` + dir + `/Dockerfile"}`},
		{[]string{"-f", "sub/D", "sub"}, `{"Target":"default","LocalPath":"` + dir + `/sub","DockerfilePath":"` + dir + `/sub/D"}`},
		{[]string{"-f", "-", "."}, `{"Target":"default","LocalPath":"` + dir + `","DockerfilePath":"-"}`},
	} {
		r := berth.Cmd(append([]string{"build", "-o", "type=cacheonly", "--metadata-file", md}, c.args...)...).
			Dir(dir).Stdin(strings.NewReader("FROM scratch\nCOPY file /\n")).Run()
		if r.Code != 0 {
			t.Fatal(r)
		}
		ref, _ := metadata(t, md)["buildx.build.ref"].(string)
		path := join(berth.BuildxConfig, "refs", ref)
		if got := read(t, path); got != c.want {
			t.Errorf("%q: %s, want %s", c.args, got, c.want)
		}
		if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o644 {
			t.Errorf("%v, %v", fi.Mode(), err)
		}
	}
	// A build that fails has started, and one that is refused has not.
	count := func() int {
		all, err := filepath.Glob(join(berth.BuildxConfig, "refs", "b", "b0", "*"))
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	before := count()
	if r := berth.Cmd("build", "--target", "nosuch", ".").Dir(dir).Run(); r.Code != 1 || count() != before+1 {
		t.Errorf("%d references after %d: %s", count(), before, r)
	}
	if r := berth.Cmd("build", "--sbom", "x", ".").Dir(dir).Run(); r.Code != 1 || count() != before+1 {
		t.Errorf("refused: %d references after %d: %s", count(), before, r)
	}
	if got := read(t, join(berth.BuildxConfig, "refs", "version")); got != "2" {
		t.Errorf("version %q", got)
	}
	berth.OK("rm", "b")
	if exists(join(berth.BuildxConfig, "refs", "b")) {
		t.Error("the references outlive their builder")
	}
}

//go:build e2e && linux

package test

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/berthbuild/berth/test/lab"
)

// build runs a build of dir on the shared daemon, and fails the test when it
// fails.
func build(t *testing.T, berth *lab.CLI, dir string, args ...string) lab.Result {
	t.Helper()
	r := berth.Cmd(append([]string{"build"}, append(args, ".")...)...).Dir(dir).Run()
	if r.Code != 0 {
		t.Fatalf("build %q: %s", args, r)
	}
	return r
}

func TestBuildWithoutOutputWarns(t *testing.T) {
	berth, _ := shared(t)
	r := build(t, berth, lab.HelloContext(t))
	has(t, "stderr", r.Stderr, "WARNING: No output specified with remote driver. Build result will only remain in the build cache. To push result image into registry use --push or to load image into docker use --load")
	if r.Stdout != "" {
		t.Errorf("stdout has %q", r.Stdout)
	}
}

func TestBuildFiles(t *testing.T) {
	berth, _ := shared(t)
	dir := lab.ShellContext(t, "COPY . /in/\nRUN ls /in > /list\nFROM scratch\nCOPY --from=0 /list /list\n", map[string]string{
		"a.txt": "a", "b.log": "b", "c.txt": "c", ".dockerignore": "*.log\n",
	})
	out := join(t.TempDir(), "new", "folder")
	build(t, berth, dir, "-o", out)
	if list := read(t, join(out, "list")); strings.Contains(list, "b.log") || !strings.Contains(list, "a.txt") {
		t.Errorf(".dockerignore did not hold: %q", list)
	}

	file := join(t.TempDir(), "sub", "out.tar")
	build(t, berth, dir, "-o", "type=tar,dest="+file)
	if got := tarNames(t, []byte(read(t, file))); !slices.Contains(got, "list") {
		t.Errorf("tar has %q", got)
	}
	r := build(t, berth, dir, "-o", "-")
	if got := tarNames(t, []byte(r.Stdout)); !slices.Contains(got, "list") {
		t.Errorf("tar on stdout has %q", got)
	}
	for _, kind := range []string{"oci", "docker"} {
		file := join(t.TempDir(), kind+".tar")
		build(t, berth, dir, "-t", "x", "-o", "type="+kind+",dest="+file)
		if got := tarNames(t, []byte(read(t, file))); !slices.Contains(got, "index.json") {
			t.Errorf("%s archive has %q", kind, got)
		}
	}
}

func tarNames(t *testing.T, data []byte) []string {
	t.Helper()
	var all []string
	for r := tar.NewReader(bytes.NewReader(data)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatalf("not a tar archive: %v", err)
		}
		all = append(all, strings.Trim(h.Name, "./"))
	}
}

func TestBuildDockerfileAnywhere(t *testing.T) {
	berth, _ := shared(t)
	dir := lab.Context(t, map[string]string{
		"data":                           "in the context",
		"sub/Other.file":                 "FROM scratch\nCOPY data /inside\n",
		"x.Dockerfile":                   "FROM scratch\nCOPY data /own-ignore\n",
		"y.Dockerfile":                   "FROM scratch\nCOPY . /\n",
		"y.Dockerfile" + ".dockerignore": "data\n",
	})
	outside := lab.Context(t, map[string]string{"D": "FROM scratch\nCOPY data /outside\n"})
	for _, c := range []struct {
		file, stdin, want string
	}{
		{"sub/Other.file", "", "inside"},
		{"x.Dockerfile", "", "own-ignore"},
		{join(outside, "D"), "", "outside"},
		{"-", "FROM scratch\nCOPY data /stdin\n", "stdin"},
	} {
		out := t.TempDir()
		r := berth.Cmd("build", "-f", c.file, "-o", out, ".").Dir(dir).Stdin(strings.NewReader(c.stdin)).Run()
		if r.Code != 0 {
			t.Fatal(r)
		}
		if got := read(t, join(out, c.want)); got != "in the context" {
			t.Errorf("-f %s: %q", c.file, got)
		}
	}
	out := t.TempDir()
	build(t, berth, dir, "-f", "y.Dockerfile", "-o", out)
	if exists(join(out, "data")) {
		t.Error("<Dockerfile>.dockerignore was not honoured")
	}
}

func TestBuildArgumentsLabelsTarget(t *testing.T) {
	engine := lab.Docker(t)
	berth, _ := shared(t)
	berth = berth.WithDocker(engine)
	berth.OK("use", "b")
	dir := lab.ShellContext(t, `ARG ONE=unset
ARG TWO=unset
ARG THREE=unset
RUN echo "$ONE,$TWO,$THREE" > /args
FROM scratch AS wanted
COPY --from=0 /args /args
LABEL own=1
FROM scratch AS other
COPY nosuch /x
`, nil)
	out := t.TempDir()
	build(t, berth.With("TWO=from env", "THREE"), dir, "--target", "wanted",
		"--build-arg", "ONE=a=b,c", "--build-arg", "TWO", "--build-arg", "THREE", "-o", out)
	if got := read(t, join(out, "args")); got != "a=b,c,from env,unset\n" {
		t.Errorf("build args: %q", got)
	}
	build(t, berth, dir, "--target", "wanted", "--label", "k=v w", "--label", "bare", "-t", "one", "-t", "two:v2", "--load")
	labels := engine.CLI(t, "image", "inspect", "--format", "{{json .Config.Labels}}", "two:v2")
	has(t, "labels", labels, `"k":"v w"`, `"bare":""`, `"own":"1"`)
	if imageID(t, engine, "one") != imageID(t, engine, "two:v2") {
		t.Error("two tags, two images")
	}
}

func TestBuildSecretsAndSSH(t *testing.T) {
	berth, _ := shared(t)
	dir := lab.ShellContext(t, `RUN --mount=type=secret,id=f --mount=type=secret,id=e --mount=type=secret,id=BARE \
  cat /run/secrets/f /run/secrets/e /run/secrets/BARE | md5sum > /sum
FROM scratch
COPY --from=0 /sum /sum
`, nil)
	secret := join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("from-file;"), 0o600); err != nil {
		t.Fatal(err)
	}
	out := t.TempDir()
	r := build(t, berth.With("TOKEN=from-env;", "BARE=bare"), dir, "--no-cache",
		"--secret", "id=f,src="+secret, "--secret", "id=e,env=TOKEN", "--secret", "id=BARE", "-o", out)
	// md5 of "from-file;from-env;bare"
	if got := strings.Fields(read(t, join(out, "sum")))[0]; got != "519fbfbd7c0e8e3fd37c57a0f1196e50" {
		t.Errorf("the secrets that arrived have the sum %s", got)
	}
	hasNot(t, "output", r.Stdout+r.Stderr, "from-file", "from-env")

	denied := lab.ShellContext(t, "RUN --mount=type=secret,id=other,required=true cat /run/secrets/other\n", nil)
	r = berth.Cmd("build", "--secret", "id=f,src="+secret, ".").Dir(denied).Run()
	if r.Code != 1 || !strings.Contains(r.Stderr, "other") {
		t.Errorf("a secret that was not granted: %s", r)
	}
	r = berth.Cmd("build", "--ssh", "default", ".").Dir(denied).Run()
	if r.Code != 1 {
		t.Fatal(r)
	}
	has(t, "stderr", r.Stderr, "SSH_AUTH_SOCK", "hint: ")
}

func TestBuildIDsAndMetadata(t *testing.T) {
	engine := lab.Docker(t)
	berth, _ := shared(t)
	berth = berth.WithDocker(engine)
	berth.OK("use", "b")
	dir := lab.HelloContext(t)
	iid, md := join(t.TempDir(), "iid"), join(t.TempDir(), "md.json")
	r := build(t, berth, dir, "-q", "-t", "quiet", "--load", "--iidfile", iid, "--metadata-file", md)
	id := imageID(t, engine, "quiet")
	if r.Stdout != id+"\n" || read(t, iid) != id {
		t.Errorf("id: engine has %s, -q printed %q, --iidfile holds %q", id, r.Stdout, read(t, iid))
	}
	if r.Stderr != "" {
		t.Errorf("-q wrote to stderr: %q", r.Stderr)
	}
	var m map[string]any
	if err := json.Unmarshal([]byte(read(t, md)), &m); err != nil {
		t.Fatal(err)
	}
	if m["containerimage.config.digest"] != id || m["image.name"] != "docker.io/library/quiet:latest" {
		t.Errorf("metadata: %v", m)
	}
	ref, _ := m["buildx.build.ref"].(string)
	if parts := strings.Split(ref, "/"); len(parts) != 3 || parts[0] != "b" || parts[1] != "b0" {
		t.Errorf("buildx.build.ref is %q", ref)
	}
	kept := read(t, join(berth.BuildxConfig, "refs", ref))
	has(t, "reference", kept, `"LocalPath":"`+dir)
	if desc, ok := m["containerimage.descriptor"].(map[string]any); !ok || desc["digest"] != m["containerimage.digest"] {
		t.Errorf("descriptor: %v", m["containerimage.descriptor"])
	}
}

func TestBuildPush(t *testing.T) {
	registry := lab.Registry(t, lab.RegistryOpts{User: "u", Password: "registry-password"})
	berth, _ := shared(t)
	dir := lab.HelloContext(t)
	ref := registry.Addr() + "/app:v1"
	r := berth.Cmd("build", "-t", ref, "--push", ".").Dir(dir).Run()
	if r.Code != 1 {
		t.Fatalf("pushed without credentials: %s", r)
	}
	has(t, "stderr", r.Stderr, registry.Addr())
	login(t, berth, registry.Addr(), "u", "registry-password")
	md := join(t.TempDir(), "md")
	r = build(t, berth, dir, "-t", ref, "--push", "--metadata-file", md)
	hasNot(t, "output", r.Stdout+r.Stderr, "registry-password")
	status, header, _ := registry.Get(t, "/v2/app/manifests/v1")
	if status != 200 {
		t.Fatalf("registry answers %d", status)
	}
	has(t, "metadata", read(t, md), header.Get("Docker-Content-Digest"))
	build(t, berth, dir, "-t", registry.Addr()+"/app:v2", "-o", "type=image,push=true")
	if status, _, _ := registry.Get(t, "/v2/app/manifests/v2"); status != 200 {
		t.Errorf("type=image,push=true: registry answers %d", status)
	}
}

// login writes docker's configuration with a credential helper, so that
// helpers are run too.
func login(t *testing.T, berth *lab.CLI, host, user, password string) {
	t.Helper()
	bin := t.TempDir()
	helper := "#!/bin/sh\nread host\nprintf '{\"ServerURL\":\"%s\",\"Username\":\"" + user + "\",\"Secret\":\"" + password + "\"}' \"$host\"\n"
	if err := os.WriteFile(join(bin, "docker-credential-lab"), []byte(helper), 0o755); err != nil {
		t.Fatal(err)
	}
	config := `{"credHelpers":{"` + host + `":"lab"}}`
	if err := os.WriteFile(join(berth.DockerConfig, "config.json"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	*berth = *berth.With("PATH=" + bin + ":" + os.Getenv("PATH"))
}

func TestBuildProgressModes(t *testing.T) {
	berth, _ := shared(t)
	dir := lab.HelloContext(t)
	r := build(t, berth, dir, "--progress", "rawjson")
	for _, line := range strings.Split(strings.TrimSpace(r.Stderr), "\n") {
		if strings.HasPrefix(line, "WARNING: ") {
			continue // as buildx mixes it in, too
		}
		var s map[string]any
		if err := json.Unmarshal([]byte(line), &s); err != nil {
			t.Fatalf("rawjson: %q: %v", line, err)
		}
	}
	r = berth.Cmd("build", "--progress", "tty", ".").Dir(dir).TTY().Run()
	has(t, "terminal", r.Stdout, "[+] Building", "FINISHED")
	r = build(t, berth.With("BUILDKIT_PROGRESS=plain"), dir)
	has(t, "plain", r.Stderr, "#1 [internal]")
	r = berth.Cmd("build", "--progress", "tty", ".").Dir(dir).Run()
	if r.Code != 1 {
		t.Errorf("--progress tty without a terminal: %s", r)
	}
}

func TestBuildNoCacheAndDefaultLoad(t *testing.T) {
	engine := lab.Docker(t)
	bk := lab.Shared(t)
	berth := lab.Berth(t).WithDocker(engine)
	berth.OK("create", "--use", "--name", "dl", "--driver-opt", "default-load=true", bk.UnixAddr())
	dir := lab.ShellContext(t, "RUN cat /proc/sys/kernel/random/uuid > /id\n", nil)
	build(t, berth, dir, "-t", "dl")
	first := imageID(t, engine, "dl")
	build(t, berth, dir, "-t", "dl")
	if got := imageID(t, engine, "dl"); got != first {
		t.Error("a cached build made another image")
	}
	build(t, berth, dir, "-t", "dl", "--no-cache", "--pull")
	if got := imageID(t, engine, "dl"); got == first {
		t.Error("--no-cache used the cache")
	}
}

func TestBuildFailureShowsWhere(t *testing.T) {
	berth, _ := shared(t)
	dir := lab.ShellContext(t, "RUN echo before; echo the-reason >&2; exit 7\n", nil)
	r := berth.Cmd("build", "-t", "x", ".").Dir(dir).Run()
	if r.Code != 1 {
		t.Fatal(r)
	}
	has(t, "stderr", r.Stderr, "the-reason", "Dockerfile:3", ">>> RUN echo before")
	if got := lastLine(r.Stderr); !strings.HasPrefix(got, "ERROR: failed to build: failed to solve: process") || !strings.Contains(got, "exit code: 7") {
		t.Errorf("last line: %q", got)
	}
	hasNot(t, "stderr", r.Stderr, "Usage:")
}

// Strange .dockerignore files end in a build or in an error, never in a hang or
// a crash.
func TestStrangeDockerignore(t *testing.T) {
	berth, _ := shared(t)
	for name, text := range map[string]string{
		"empty": "", "garbage": "\x00\xff\xfe[[[", "10 MB": strings.Repeat("a-pattern-that-matches-nothing\n", 10<<20/31), "everything": "**\n",
	} {
		dir := lab.Context(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n", ".dockerignore": text})
		r := berth.Cmd("build", ".").Dir(dir).Run()
		if r.Code != 0 && (r.Code != 1 || !strings.HasPrefix(lastLine(r.Stderr), "ERROR: failed to build")) {
			t.Errorf("%s: %s", name, r)
		}
		hasNot(t, name, r.Stderr, "panic", "goroutine ")
	}
}

func TestBuildRefusals(t *testing.T) {
	berth, _ := shared(t)
	dir := lab.HelloContext(t)
	big := lab.Context(t, map[string]string{"Dockerfile": strings.Repeat("# garbage\n", 1<<20)})
	garbage := lab.Context(t, map[string]string{"Dockerfile": "\x00\xff\xfe garbage\x01", ".dockerignore": "\x00[[["})
	empty := lab.Context(t, map[string]string{"Dockerfile": ""})
	for _, c := range []struct {
		dir  string
		args []string
		want string
	}{
		{dir, []string{"--build-arg", "=X", "."}, `ERROR: invalid key-value pair "=X": empty key`},
		{dir, []string{"--label", "=X", "."}, `ERROR: invalid key-value pair "=X": empty key`},
		{dir, []string{"--push", "."}, "tag is needed when pushing to registry"},
		{dir, []string{"-t", "x/UPPER", "."}, "x/UPPER"},
		{dir, []string{"--platform", "nonsense/", "."}, "nonsense/"},
		{dir, []string{"-o", "type=nosuch", "."}, "nosuch"},
		{dir, []string{"--progress", "loud", "."}, "loud"},
		{dir, []string{"--secret", "id=a,src=/no/such/file", "."}, "/no/such/file"},
		{dir, []string{"--iidfile", "/no/such/folder/iid", "."}, "--iidfile"},
		{dir, []string{"--metadata-file", "/", "."}, "--metadata-file"},
		{dir, []string{"-f", "nosuch", "."}, "nosuch"},
		{dir, []string{"-f", ".", "."}, "directory"},
		{dir, []string{"nosuch-folder"}, "nosuch-folder"},
		{dir, []string{}, "build context"},
		{dir, []string{".", "extra"}, "extra"},
		{dir, []string{"--no-such-flag", "."}, "--no-such-flag"},
		{dir, []string{"--target", "nosuch", "."}, "nosuch"},
		{big, []string{"."}, "ERROR: failed to build"},
		{garbage, []string{"."}, "ERROR: failed to build"},
		{empty, []string{"."}, "empty"},
	} {
		r := berth.Cmd(append([]string{"build"}, c.args...)...).Dir(c.dir).Run()
		if r.Code != 1 || !strings.Contains(lastLine(r.Stderr), c.want) {
			t.Errorf("build %q: wanted exit 1 and %q in the last line\n%s", c.args, c.want, r)
		}
		hasNot(t, strings.Join(c.args, " "), r.Stderr, "Usage:", "panic", "goroutine ")
	}
}

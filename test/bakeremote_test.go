//go:build e2e && linux

package test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/berthbuild/berth/test/lab"
)

// repositoryOf is the folder that has a bare repository r.git with these files on
// its branch master.
func repositoryOf(t *testing.T, files map[string]string) string {
	t.Helper()
	lab.Need(t, "git")
	work, dir := lab.Context(t, files), lab.Dir(t)
	commitAll(t, work, dir)
	return dir
}

// commitAll makes the repository r.git in dir of what is in the folder work.
func commitAll(t *testing.T, work, dir string) {
	t.Helper()
	for _, args := range [][]string{
		{"-C", work, "init", "-q", "-b", "master"}, {"-C", work, "add", "."}, {"-C", work, "commit", "-q", "-m", "1"},
		{"clone", "-q", "--bare", work, join(dir, "r.git")}, {"-C", join(dir, "r.git"), "update-server-info"},
	} {
		cmd := exec.Command("git", args...)
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "GIT_CONFIG_NOSYSTEM=1",
			"GIT_AUTHOR_NAME=n", "GIT_AUTHOR_EMAIL=e", "GIT_COMMITTER_NAME=n", "GIT_COMMITTER_EMAIL=e"}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %q: %v\n%s", args, err, out)
		}
	}
}

// The first example of the guide of the remote driver: certificates for a daemon,
// by a definition in a repository's folder.
func TestBakeGuide(t *testing.T) {
	berth, _ := shared(t)
	work := lab.Context(t, map[string]string{
		"examples/create-certs/docker-bake.hcl": `
variable "SAN" { default = "127.0.0.1" }
target "default" {
  args = { SAN = SAN }
  output = ["type=local,dest=.certs"]
}
`,
		"examples/create-certs/Dockerfile": "FROM scratch AS gen\nARG SAN\nCOPY sh /bin/sh\nCOPY createcerts /bin/createcerts\n" +
			"RUN /bin/createcerts /certs $SAN\nFROM scratch\nCOPY --from=gen /certs /\n",
	})
	build := exec.Command("go", "build", "-o", join(work, "examples", "create-certs", "createcerts"), "./testdata/createcerts")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	shell, err := os.ReadFile(lab.Busybox(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(join(work, "examples", "create-certs", "sh"), shell, 0o755); err != nil {
		t.Fatal(err)
	}
	dir := lab.Dir(t)
	commitAll(t, work, dir)
	here := t.TempDir()
	r := berth.With("SAN=localhost 127.0.0.1").Cmd("bake", serve(t, dir)+"/r.git#master:examples/create-certs").Dir(here).Run()
	if r.Code != 0 {
		t.Fatal(r)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(read(t, join(here, ".certs", "client", "ca.pem")))) {
		t.Fatal("no CA")
	}
	for kind, usage := range map[string]x509.ExtKeyUsage{"daemon": x509.ExtKeyUsageServerAuth, "client": x509.ExtKeyUsageClientAuth} {
		pair, err := tls.LoadX509KeyPair(join(here, ".certs", kind, "cert.pem"), join(here, ".certs", kind, "key.pem"))
		if err != nil {
			t.Fatal(kind, err)
		}
		for _, name := range map[string][]string{"daemon": {"localhost", "127.0.0.1"}, "client": {""}}[kind] {
			if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: pool, DNSName: name, KeyUsages: []x509.ExtKeyUsage{usage}}); err != nil {
				t.Error(kind, name, err)
			}
		}
	}
}

const scratchCopy = "FROM scratch\nCOPY . /\n"

// remoteFiles is a repository with definitions of every kind.
func remoteFiles() map[string]string {
	return map[string]string{
		"docker-bake.hcl": `
target "default" { output = ["out"] }
target "sub" {
  context = "sub"
  output = ["out"]
}
target "named" {
  dockerfile-inline = "FROM scratch\nCOPY --from=more f /more\nCOPY --from=all f /all\n"
  contexts = { more = "sub", all = "." }
  output = ["out"]
}
target "cmd" {
  context = BAKE_CMD_CONTEXT
  output = ["out"]
}
`,
		"f": "root", "Dockerfile": scratchCopy, "sub/f": "sub", "sub/Dockerfile": scratchCopy,
		"sub/docker-bake.hcl":   "target \"default\" {\n  context = \"..\"\n  output = [\"out\"]\n}\ntarget \"here\" {\n  output = [\"out\"]\n}\n",
		"other/x.hcl":           "target \"default\" {\n  context = \"sub\"\n  output = [\"out\"]\n}\n",
		"services/compose.yaml": "services:\n  web: {build: {context: ./web, x-bake: {output: out}}}\n",
		"services/web/f":        "web", "services/web/Dockerfile": scratchCopy,
	}
}

// baked is what a bake's first file holds.
func baked(t *testing.T, berth *lab.CLI, file string, args ...string) string {
	t.Helper()
	here := t.TempDir()
	r := berth.Cmd(append([]string{"bake"}, args...)...).Dir(here).Run()
	if r.Code != 0 {
		t.Errorf("bake %q: %s", args, r)
		return ""
	}
	return read(t, join(here, "out", file))
}

// Definitions are read in a repository, at a ref, in a folder, and paths in them
// are of there.
func TestBakeRemoteGit(t *testing.T) {
	berth, _ := shared(t)
	web := serve(t, repositoryOf(t, remoteFiles()))
	url := web + "/r.git"
	other := serve(t, repositoryOf(t, map[string]string{"f": "command", "Dockerfile": scratchCopy})) + "/r.git"
	for _, c := range []struct {
		file, want string
		args       []string
	}{
		{"f", "root", []string{url}}, {"f", "root", []string{url + "#master"}}, {"f", "root", []string{url + "?ref=master"}},
		{"f", "sub", []string{url, "sub"}}, {"f", "sub", []string{url + "?branch=master", "sub"}}, {"more", "sub", []string{url, "named"}}, {"all", "root", []string{url, "named"}},
		{"f", "root", []string{url + "#master:sub"}}, {"f", "sub", []string{url + "#:sub", "here"}}, {"f", "sub", []string{url + "?subdir=sub", "here"}},
		{"f", "sub", []string{url, "-f", "other/x.hcl"}}, {"f", "web", []string{url + "#:services"}}, {"f", "command", []string{url, other, "cmd"}},
		{"f", "sub", []string{"--set", "default.context=sub", url}},
	} {
		if got := baked(t, berth, c.file, c.args...); got != c.want {
			t.Errorf("%q: %q, wanted %q", c.args, got, c.want)
		}
	}
	// What is of this machine goes over it.
	here := lab.Context(t, map[string]string{
		"my.hcl": "target \"default\" {\n  context = \"cwd://mine\"\n  dockerfile = \"cwd://mine/Dockerfile\"\n}\n",
		"mine/f": "mine", "mine/Dockerfile": scratchCopy,
	})
	r := berth.Cmd("bake", "-f", "docker-bake.hcl", "-f", "cwd://my.hcl", "--allow", "fs.read=.", url).Dir(here).Run()
	if r.Code != 0 || read(t, join(here, "out", "f")) != "mine" {
		t.Error(r)
	}
	r = berth.Cmd("bake", url+"#:services/web").Dir(here).Run()
	if r.Code != 1 || !strings.Contains(lastLine(r.Stderr), "couldn't find a bake definition in "+url) {
		t.Error(r)
	}
	r = berth.Cmd("bake", "-f", "cwd://my.hcl", "--allow", "fs.read=.", url+"#:services/web").Dir(here).Run()
	if r.Code != 0 {
		t.Error(r)
	}
	for _, bad := range []string{url + "#nosuch", web + "/nosuch.git", "http://127.0.0.1:1/x.git"} {
		r = berth.Cmd("bake", bad).Dir(here).Run()
		if r.Code != 1 || !strings.Contains(r.Stderr, "\nERROR: definition "+bad+" (node b0 of builder b, unix://") || !strings.Contains(r.Stderr, "hint: ") {
			t.Error(r)
		}
	}
}

// A download is the definition itself, or an archive with one.
func TestBakeRemoteHTTP(t *testing.T) {
	berth, _ := shared(t)
	web := t.TempDir()
	plain := tarOf(t, lab.Context(t, remoteFiles()))
	for name, data := range map[string][]byte{"c.tar": plain, "c.tgz": packed(t, plain, "gzip", "-c"), "x.hcl": []byte(remoteFiles()["other/x.hcl"])} {
		if err := os.WriteFile(join(web, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	url := serve(t, web)
	for _, c := range []struct {
		file, want string
		args       []string
	}{
		{"f", "root", []string{url + "/c.tar"}}, {"f", "sub", []string{url + "/c.tgz", "sub"}}, {"more", "sub", []string{url + "/c.tgz", "named"}},
		{"all", "root", []string{url + "/c.tgz", "named"}}, {"f", "sub", []string{url + "/c.tar", "-f", "other/x.hcl"}},
	} {
		if got := baked(t, berth, c.file, c.args...); got != c.want {
			t.Errorf("%q: %q, wanted %q", c.args, got, c.want)
		}
	}
	here := lab.Context(t, map[string]string{"sub/f": "local", "sub/Dockerfile": scratchCopy})
	r := berth.Cmd("bake", url+"/x.hcl").Dir(here).Run()
	if r.Code != 1 || !strings.Contains(r.Stderr, "--allow fs.read="+join(here, "sub")) {
		t.Errorf("a definition alone has its paths here, and must be granted them: %s", r)
	}
	r = berth.Cmd("bake", "--allow", "fs.read=sub", url+"/x.hcl").Dir(here).Run()
	if r.Code != 0 || read(t, join(here, "out", "f")) != "local" {
		t.Error(r)
	}
	if r := berth.Cmd("bake", url+"/nosuch.hcl").Dir(here).Run(); r.Code != 1 || !strings.Contains(lastLine(r.Stderr), "404") {
		t.Error(r)
	}
}

// A definition from elsewhere gets nothing of this machine that was not granted.
func TestBakeRemoteRights(t *testing.T) {
	berth, _ := shared(t)
	here := lab.Context(t, map[string]string{"secret": "s", "Dockerfile": scratchCopy, "private/compose.yaml": "services: {a: {build: .}}", "env": "S=1"})
	for body, allow := range map[string]string{
		`context = "cwd://"` + "\ndockerfile-inline = \"FROM scratch\"": "fs.read=" + here,
		`dockerfile = "cwd://Dockerfile"`:                               "fs.read=" + join(here, "Dockerfile"),
		`secret = ["id=x,src=secret"]`:                                  "fs.read=" + join(here, "secret"),
		`secret = ["id=secret"]`:                                        "fs.read=" + join(here, "secret"),
		`secret = ["id=x,src=/etc/passwd"]`:                             "fs.read=/etc/passwd",
		`secret = ["id=x,env=TOKEN"]`:                                   "env=TOKEN",
		`secret = ["id=TOKEN"]`:                                         "env=TOKEN",
		`ssh = ["default=secret"]`:                                      "ssh",
		`contexts = { x = "cwd://private" }`:                            "fs.read=" + join(here, "private"),
		`contexts = { x = "cwd:///etc" }`:                               "fs.read=/etc",
		`cache-from = ["type=local,src=private"]`:                       "fs.read=" + join(here, "private"),
		`output = ["type=local,dest=/elsewhere"]`:                       "fs.write=/elsewhere",
	} {
		url := serve(t, repositoryOf(t, map[string]string{"docker-bake.hcl": "target \"default\" {\n" + body + "\n}\n", "Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"})) + "/r.git"
		r := berth.With("TOKEN=t").Cmd("bake", url).Dir(here).Run()
		if r.Code != 1 || lastLine(r.Stderr) != "ERROR: additional privileges requested" || !strings.Contains(r.Stderr, "--allow "+allow+"\n") {
			t.Errorf("%s: wanted %s: %s", body, allow, r)
		}
	}
	// Paths without cwd:// are of there, wherever they seem to lead.
	url := serve(t, repositoryOf(t, map[string]string{"docker-bake.hcl": "target \"default\" {\n  context = \"/etc\"\n  output = [\"out\"]\n}\n", "etc/Dockerfile": scratchCopy, "etc/passwd": "theirs"})) + "/r.git"
	if got := baked(t, berth, "passwd", url); got != "theirs" {
		t.Errorf("/etc: %q", got)
	}
	url = serve(t, repositoryOf(t, map[string]string{"docker-bake.hcl": "target \"default\" {\n  context = \"cwd://\"\n  dockerfile = \"cwd://Dockerfile\"\n  output = [\"out\"]\n}\n"})) + "/r.git"
	if r := berth.With("BAKE_ALLOW_REMOTE_FS_ACCESS=1").Cmd("bake", url).Dir(here).Run(); r.Code != 0 || !exists(join(here, "out", "secret")) {
		t.Errorf("trusted: %s", r)
	}
	for text, want := range map[string]string{
		"services: {a: {build: ., extends: {service: a, file: private/compose.yaml}}}": "reads no file of this machine",
		"include: [private/compose.yaml]":                                              "reads no file of this machine",
	} {
		url := serve(t, repositoryOf(t, map[string]string{"compose.yaml": text, "Dockerfile": scratchCopy})) + "/r.git"
		if r := berth.Cmd("bake", "--print", url).Dir(here).Run(); r.Code != 1 || !strings.Contains(r.Stderr, want) {
			t.Errorf("%s: %s", text, r)
		}
	}
	url = serve(t, repositoryOf(t, map[string]string{"compose.yaml": "services: {a: {env_file: env, build: {context: ., args: [S, HOME]}}}", "Dockerfile": scratchCopy})) + "/r.git"
	if r := berth.Cmd("bake", "--print", url).Dir(here).Run(); r.Code != 0 || strings.Contains(r.Stdout, `"S"`) {
		t.Error(r)
	}
}

// What a repository that is not public is fetched with is given to its daemon
// for the definition, and for the contexts in it.
func TestBakeRemoteAuthentication(t *testing.T) {
	berth, _ := shared(t)
	files := http.FileServer(http.Dir(repositoryOf(t, remoteFiles())))
	token := "Basic " + base64.StdEncoding.EncodeToString([]byte("x-access-token:hunter2"))
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if got := r.Header.Get("Authorization"); !strings.EqualFold(got, token) && got != "Bearer hunter3" {
			w.Header().Set("WWW-Authenticate", "Basic")
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		files.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	url := s.URL + "/r.git"
	for _, env := range []string{"BUILDX_BAKE_GIT_AUTH_TOKEN=hunter2", "BUILDX_BAKE_GIT_AUTH_HEADER=Bearer hunter3"} {
		if got := baked(t, berth.With(env), "f", url, "sub"); got != "sub" {
			t.Errorf("%s: %q", env, got)
		}
	}
	r := berth.Cmd("bake", url).Dir(t.TempDir()).Run()
	if r.Code != 1 || !strings.Contains(r.Stderr, "\nERROR: definition "+url) {
		t.Error(r)
	}
}

// Over ssh a definition is fetched with the agent or a key; its builds use it
// only when that is granted, since their steps could, too.
func TestBakeRemoteOverSSH(t *testing.T) {
	lab.Need(t, "ssh")
	berth, _ := shared(t)
	dir := repositoryOf(t, remoteFiles())
	server := lab.SSH(t, lab.SSHDOpts{})
	url := fmt.Sprintf("ssh://root@127.0.0.1:%s%s/r.git", server.Port, dir)
	withAgent := berth.With("SSH_AUTH_SOCK=" + newAgent(t, server))
	if got := baked(t, withAgent, "f", "--allow", "ssh", url, "sub"); got != "sub" {
		t.Errorf("with an agent: %q", got)
	}
	if got := baked(t, berth.With("BUILDX_BAKE_GIT_SSH="+server.Key), "f", "--allow", "ssh", url); got != "root" {
		t.Errorf("with a key: %q", got)
	}
	r := withAgent.Cmd("bake", url).Dir(t.TempDir()).Run()
	if r.Code != 1 || !strings.Contains(r.Stderr, "--allow ssh\n") {
		t.Errorf("without a grant: %s", r)
	}
	if r := berth.Cmd("bake", url).Dir(t.TempDir()).Run(); r.Code != 1 || !strings.Contains(lastLine(r.Stderr), "SSH_AUTH_SOCK is not set") {
		t.Errorf("without an agent: %s", r)
	}
}

// A server that never answers is not waited for after an interrupt.
func TestBakeRemoteInterrupted(t *testing.T) {
	berth, _ := shared(t)
	came, over := make(chan struct{}, 100), make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		came <- struct{}{}
		<-over
	}))
	t.Cleanup(s.Close)
	t.Cleanup(func() { close(over) })
	for _, name := range []string{"/r.git", "/x.hcl"} {
		p := berth.Cmd("bake", s.URL+name).Dir(t.TempDir()).Start()
		<-came
		start := time.Now()
		p.Interrupt()
		if r := p.Wait(); r.Code != 130 || time.Since(start) > 3*time.Second {
			t.Errorf("%s: after %v: %s", name, time.Since(start), r)
		}
	}
}

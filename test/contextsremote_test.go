//go:build e2e && linux

package test

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/berthbuild/berth/test/lab"
)

// repository is a bare Git repository with a branch main, whose file f says
// "two" (and "sub" in the folder sub), and a tag v1, where it says "one".
type repository struct {
	dir string // that it is in
	one string // the commit of v1
}

func newRepository(t *testing.T) repository {
	t.Helper()
	lab.Need(t, "git")
	dir := lab.Dir(t)
	work := join(dir, "work")
	git := func(in string, args ...string) string {
		t.Helper()
		cmd := exec.Command("git", args...)
		cmd.Dir = in
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "GIT_CONFIG_NOSYSTEM=1",
			"GIT_AUTHOR_NAME=n", "GIT_AUTHOR_EMAIL=e", "GIT_COMMITTER_NAME=n", "GIT_COMMITTER_EMAIL=e"}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("git %q: %v\n%s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	write := func(name, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(join(work, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(join(work, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	git(dir, "init", "-q", "-b", "main", work)
	for name, text := range map[string]string{
		"Dockerfile": "FROM scratch\nCOPY f /f\n", "Other": "FROM scratch\nCOPY f /other\n", "f": "one",
		"sub/Dockerfile": "FROM scratch\nCOPY f /f\n", "sub/f": "sub",
	} {
		write(name, text)
	}
	git(work, "add", ".")
	git(work, "commit", "-q", "-m", "1")
	git(work, "tag", "v1")
	one := git(work, "rev-parse", "HEAD")
	write("f", "two")
	git(work, "commit", "-q", "-a", "-m", "2")
	git(dir, "clone", "-q", "--bare", work, join(dir, "r.git"))
	git(join(dir, "r.git"), "update-server-info") // for plain HTTP
	return repository{dir, one}
}

// serve is a web server with the folder's files.
func serve(t *testing.T, dir string) string {
	t.Helper()
	s := httptest.NewServer(http.FileServer(http.Dir(dir)))
	t.Cleanup(s.Close)
	return s.URL
}

// copies is what a build's first file holds.
func copies(t *testing.T, berth *lab.CLI, name string, args ...string) string {
	t.Helper()
	out := t.TempDir()
	r := berth.Cmd(append([]string{"build", "-o", out}, args...)...).Run()
	if r.Code != 0 {
		t.Errorf("build %q: %s", args, r)
		return ""
	}
	return read(t, join(out, name))
}

func TestContextGit(t *testing.T) {
	berth, _ := shared(t)
	repo := newRepository(t)
	url := serve(t, repo.dir) + "/r.git"
	for suffix, want := range map[string]string{
		"": "two", "#v1": "one", "#main:sub": "sub", "#:sub": "sub", "#" + repo.one: "one",
		"?tag=v1": "one", "?branch=main&subdir=sub": "sub", "?ref=v1": "one", "?tag=v1&checksum=" + repo.one: "one", "?keep-git-dir=true": "two",
	} {
		if got := copies(t, berth, "f", url+suffix); got != want {
			t.Errorf("%s: %q, wanted %q", suffix, got, want)
		}
		if !strings.Contains(suffix, "?") {
			continue
		}
		if got := copies(t, berth.With("BUILDX_SEND_GIT_QUERY_AS_INPUT=1"), "f", url+suffix); got != want {
			t.Errorf("as an input, %s: %q, wanted %q", suffix, got, want)
		}
	}
	for _, as := range []string{"0", "1"} {
		r := berth.With("BUILDX_SEND_GIT_QUERY_AS_INPUT="+as).Run("build", url+"?tag=v1&checksum="+strings.Repeat("0", 40))
		if r.Code != 1 || !strings.Contains(lastLine(r.Stderr), "expected checksum to match") {
			t.Errorf("another checksum: %s", r)
		}
	}
	r := berth.Run("build", url+"#nosuch")
	if r.Code != 1 || !strings.Contains(r.Stderr, "nosuch") {
		t.Errorf("no such ref: %s", r)
	}
}

// The Dockerfile may be elsewhere: in the repository, here, on standard input,
// on the web.
func TestContextGitDockerfile(t *testing.T) {
	berth, _ := shared(t)
	repo := newRepository(t)
	url := serve(t, repo.dir)
	here := lab.Context(t, map[string]string{"Mine": "FROM scratch\nCOPY f /mine\n"})
	if err := os.WriteFile(join(repo.dir, "Web"), []byte("FROM scratch\nCOPY f /web\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, env := range []string{"BUILDX_SEND_GIT_QUERY_AS_INPUT=", "BUILDX_SEND_GIT_QUERY_AS_INPUT=true"} {
		berth, url := berth.With(env), url+"/r.git?tag=v1"
		if got := copies(t, berth, "other", "-f", "Other", url); got != "one" {
			t.Errorf("-f Other: %q", got)
		}
		if got := copies(t, berth, "mine", "-f", join(here, "Mine"), url); got != "one" {
			t.Errorf("-f of this machine: %q", got)
		}
		out := t.TempDir()
		r := berth.Cmd("build", "-o", out, "-f", "-", url).Stdin(strings.NewReader("FROM scratch\nCOPY f /stdin\n")).Run()
		if r.Code != 0 || read(t, join(out, "stdin")) != "one" {
			t.Errorf("-f -: %s", r)
		}
	}
	if got := copies(t, berth, "web", "-f", url+"/Web", url+"/r.git#v1"); got != "one" {
		t.Errorf("-f of the web: %q", got)
	}
	if got := copies(t, berth, "web", "-f", url+"/Web", lab.Context(t, map[string]string{"f": "local"})); got != "local" {
		t.Errorf("-f of the web, a folder: %q", got)
	}
	r := berth.Cmd("build", "-f", "Mine", url+"/r.git").Dir(here).Run() // a file here, but not there
	if r.Code != 1 || !strings.Contains(lastLine(r.Stderr), "failed to read dockerfile") {
		t.Error(r)
	}
}

// git:// is Git's own protocol.
func TestContextGitDaemon(t *testing.T) {
	berth, _ := shared(t)
	repo := newRepository(t)
	addr := lab.FreeAddr(t)
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("git", "daemon", "--listen="+host, "--port="+port, "--export-all", "--reuseaddr", "--base-path="+repo.dir, repo.dir)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), lab.Mark(repo.dir), "HOME=" + repo.dir}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for limit := time.Now().Add(30 * time.Second); ; {
		if c, err := net.Dial("tcp", addr); err == nil {
			_ = c.Close()
			break
		} else if time.Now().After(limit) {
			t.Fatal(err)
		}
	}
	if got := copies(t, berth, "f", "git://"+addr+"/r.git#v1"); got != "one" {
		t.Errorf("%q", got)
	}
}

// newAgent is an ssh agent that has the server's key, at a socket.
func newAgent(t *testing.T, s *lab.SSHD) string {
	t.Helper()
	key, err := ssh.ParseRawPrivateKey([]byte(read(t, s.Key)))
	if err != nil {
		t.Fatal(err)
	}
	ring := agent.NewKeyring()
	if err := ring.Add(agent.AddedKey{PrivateKey: key}); err != nil {
		t.Fatal(err)
	}
	socket := join(lab.Dir(t), "agent.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_ = agent.ServeAgent(ring, c)
				_ = c.Close()
			}()
		}
	}()
	return socket
}

// Git over ssh uses the user's agent without being told, as with buildx, or the
// key that --ssh names.
func TestContextGitOverSSH(t *testing.T) {
	lab.Need(t, "ssh")
	berth, _ := shared(t)
	repo := newRepository(t)
	server := lab.SSH(t, lab.SSHDOpts{})
	url := fmt.Sprintf("ssh://root@127.0.0.1:%s%s/r.git", server.Port, repo.dir)
	withAgent := berth.With("SSH_AUTH_SOCK=" + newAgent(t, server))
	for suffix, want := range map[string]string{"": "two", "#v1": "one", "?branch=main&subdir=sub": "sub", "?tag=v1&checksum=" + repo.one: "one"} {
		if got := copies(t, withAgent, "f", url+suffix); got != want {
			t.Errorf("%s: %q", suffix, got)
		}
	}
	if got := copies(t, berth, "f", "--ssh", "default="+server.Key, url+"#v1"); got != "one" {
		t.Errorf("with a key: %q", got)
	}
	r := berth.Run("build", url)
	if r.Code != 1 || !strings.Contains(lastLine(r.Stderr), "SSH_AUTH_SOCK is not set") {
		t.Errorf("without an agent: %s", r)
	}
	// As a named context, in a form that frontends do not know.
	dir := lab.Context(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY --from=repo f /named\n"})
	if got := copies(t, withAgent, "named", "--build-context", "repo="+url+"#main:sub", dir); got != "sub" {
		t.Errorf("named: %q", got)
	}
}

func TestContextHTTP(t *testing.T) {
	berth, _ := shared(t)
	web := t.TempDir()
	plain := tarOf(t, simple(t))
	for name, data := range map[string][]byte{
		"c.tar": plain, "c.tgz": packed(t, plain, "gzip", "-c"), "c.zst": packed(t, plain, "zstd", "-c", "-q"),
		"Dockerfile": []byte("FROM scratch\nCOPY <<EOF /made\nhere\nEOF\n"),
	} {
		if err := os.WriteFile(join(web, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	url := serve(t, web)
	for _, name := range []string{"c.tar", "c.tgz", "c.zst", "c.tar?a=b"} {
		if got := copies(t, berth, "default", url+"/"+name); got != "text" {
			t.Errorf("%s: %q", name, got)
		}
	}
	if got := copies(t, berth, "other", "-f", "Other", url+"/c.tar"); got != "text" {
		t.Errorf("-f: %q", got)
	}
	if got := copies(t, berth, "made", url+"/Dockerfile"); got != "here\n" {
		t.Errorf("a Dockerfile: %q", got)
	}
	r := berth.Run("build", url+"/nosuch.tar")
	if r.Code != 1 || !strings.Contains(lastLine(r.Stderr), "404") {
		t.Errorf("not there: %s", r)
	}
	r = berth.Run("build", strings.Replace(url, "http://", "http://me:hunter2@", 1)+"/nosuch.tar")
	if r.Code != 1 {
		t.Error(r)
	}
	hasNot(t, "last line", lastLine(r.Stderr), "hunter2")
}

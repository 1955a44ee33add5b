//go:build e2e && linux

package test

import (
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/berthbuild/berth/test/lab"
)

// tree lists what is in a folder, with modes and sizes; the lock is no state.
func tree(t *testing.T, dir string) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Name() == ".lock" {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		size := info.Size()
		if d.IsDir() {
			size = 0 // a folder's grows with what comes and goes
		}
		all = append(all, fmt.Sprintf("%s %v %d", rel, info.Mode(), size))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// tlsDir is a folder with a client's certificates by the names of tlsdir.
func tlsDir(t *testing.T, certs *lab.Certs, dir string) string {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, from := range map[string]string{"ca.pem": certs.CA, "cert.pem": certs.Client.Cert, "key.pem": certs.Client.Key} {
		if err := os.WriteFile(join(dir, name), []byte(read(t, from)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// What a CI pod does: an endpoint and certificates, no create, and nothing is
// left in the state folder.
func TestBuildWithoutCreate(t *testing.T) {
	bk := lab.Shared(t)
	certs := tlsDir(t, bk.Certs(), join(t.TempDir(), "certs"))
	berth := lab.Berth(t)
	before := tree(t, berth.BuildxConfig)
	pem := func(name string) string { return read(t, join(certs, name)) }
	local := fmt.Sprintf("tcp-localhost-%s", bk.LocalhostAddr()[strings.LastIndex(bk.LocalhostAddr(), ":")+1:])
	for _, c := range []struct {
		name string
		env  []string
		args []string
	}{
		{"--builder with tlsdir", nil, []string{"--builder", bk.LocalhostAddr() + "?tlsdir=" + certs}},
		{"relative", nil, []string{"--builder", bk.LocalhostAddr() + "?cacert=ca.pem&cert=cert.pem&key=key.pem"}},
		{"BUILDX_BUILDER", []string{"BUILDX_BUILDER=" + bk.LocalhostAddr() + "?tlsdir=."}, nil},
		{"BUILDKIT_HOST, files", []string{"BUILDKIT_HOST=" + bk.LocalhostAddr(), "BERTH_TLS_CACERT=ca.pem", "BERTH_TLS_CERT=cert.pem", "BERTH_TLS_KEY=" + join(certs, "key.pem")}, nil},
		{"BUILDKIT_HOST, folder", []string{"BUILDKIT_HOST=" + bk.LocalhostAddr(), "BERTH_TLS_DIR=" + certs}, nil},
		{"BUILDKIT_HOST, texts", []string{"BUILDKIT_HOST=" + bk.LocalhostAddr(), "BERTH_TLS_CACERT_PEM=" + pem("ca.pem"), "BERTH_TLS_CERT_PEM=" + pem("cert.pem"), "BERTH_TLS_KEY_PEM=" + pem("key.pem")}, nil},
	} {
		out := join(t.TempDir(), "out")
		meta := join(t.TempDir(), "meta.json")
		args := append(append([]string{"build"}, c.args...), "-o", out, "--metadata-file", meta, lab.HelloContext(t))
		r := berth.Cmd(args...).Env(c.env...).Dir(certs).Run()
		if r.Code != 0 || !exists(join(out, "hello")) {
			t.Errorf("%s: %s", c.name, r)
			continue
		}
		has(t, c.name, r.Stderr, `building with "`+local+`" instance`)
		has(t, c.name, read(t, meta), `"buildx.build.ref": "`+local+`/`+local+`/`)
		hasNot(t, c.name, r.Stderr+read(t, meta), "BEGIN", certs)
		if after := tree(t, berth.BuildxConfig); !slices.Equal(before, after) {
			t.Errorf("%s: the state folder was %q and is %q", c.name, before, after)
		}
	}
	// The other commands know it, too.
	url := bk.LocalhostAddr() + "?tlsdir=" + certs
	has(t, "inspect", berth.OK("inspect", "--bootstrap", url).Stdout, "running", "tlsdir=")
	has(t, "doctor", berth.OK("doctor", url).Stdout, bk.LocalhostAddr())
	has(t, "dial-stdio", berth.Cmd("--builder", url, "dial-stdio").Stdin(strings.NewReader("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")).Run().Stdout, "\x04")
	r := berth.Fail("build", "--timeout", "5s", "--builder", bk.LocalhostAddr(), lab.HelloContext(t))
	has(t, "without certificates", r.Stderr, "hint: ", bk.LocalhostAddr())
	hasNot(t, "without certificates", lastLine(r.Stderr), "node ")
	if after := tree(t, berth.BuildxConfig); !slices.Equal(before, after) {
		t.Errorf("the state folder was %q and is %q", before, after)
	}
}

// A builder goes into a file, is forgotten, and comes back as it was: by its
// files, and elsewhere by the file alone.
func TestBuilderTravels(t *testing.T) {
	bk := lab.Shared(t)
	berth := lab.Berth(t)
	tlsDir(t, bk.Certs(), join(berth.Work, "certs"))
	berth.OK("create", "--name", "team", "--driver-opt", "tlsdir=certs", "--platform", "linux/amd64", bk.LocalhostAddr())
	berth.OK("create", "--name", "team", "--append", bk.UnixAddr())
	instance := join(berth.BuildxConfig, "instances", "team")
	before := read(t, instance)
	berth.OK("export", "-o", "team.yaml", "team")
	embedded := berth.OK("export", "--embed-certs", "team")
	hasNot(t, "team.yaml", read(t, join(berth.Work, "team.yaml")), "BEGIN", berth.Work)
	berth.OK("rm", "team")
	if r := berth.OK("create", "--from", "team.yaml", "--bootstrap"); r.Stdout != "team\n" {
		t.Errorf("create --from: %s", r)
	}
	if after := read(t, instance); after != before {
		t.Errorf("before %s\nafter  %s", before, after)
	}
	berth.OK("build", "--builder", "team", lab.HelloContext(t))

	// Another machine has neither the certificates nor the state.
	other := lab.Berth(t)
	r := other.Cmd("create", "--from", "-").Stdin(strings.NewReader(embedded.Stdout)).Run()
	if r.Code != 0 {
		t.Fatal(r)
	}
	other.OK("build", "--builder", "team", lab.HelloContext(t))
	key := join(other.BuildxConfig, "certs", "team", "team0", "key.pem")
	if info, err := os.Stat(key); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info, err)
	}
	other.OK("rm", "team")
	if exists(key) {
		t.Error("the key stays when its builder is removed")
	}
}

// stranger is a daemon of somebody else's: it counts who comes.
func stranger(t *testing.T) (string, *atomic.Int32) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var came atomic.Int32
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			came.Add(1)
			_ = c.Close()
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	return "tcp://" + l.Addr().String(), &came
}

// A checked-out repository cannot steer a build to a stranger's daemon, nor run
// anything, whatever its berth.yaml says and whatever command is called in it.
func TestHostileRepository(t *testing.T) {
	berth, bk := shared(t)
	evil, came := stranger(t)
	canary := join(t.TempDir(), "ran")
	repo := lab.HelloContext(t)
	file := func(text string) {
		t.Helper()
		if err := os.WriteFile(join(repo, "berth.yaml"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	node := func(name, endpoint string) string {
		return fmt.Sprintf("  - name: %s\n    nodes:\n      - endpoint: \"%s\"\n", name, endpoint)
	}
	hostile := "version: 1\nbuilders:\n" + node("b", evil) + node("team", evil) + node("tool", "exec://?cmd=touch+"+canary)
	file(hostile)
	in := func(args ...string) lab.Result { return berth.Cmd(args...).Dir(repo).Run() }
	for _, args := range [][]string{
		{"build", "."}, {"build", "--builder", "b", "."}, {"ls"}, {"ls", "--format", "json"}, {"inspect"}, {"inspect", "b"},
		{"__complete", "inspect", ""}, {"__complete", "build", "--builder", ""}, {"trust", "--list"},
	} {
		if r := in(args...); r.Code != 0 {
			t.Errorf("%q: %s", args, r)
		}
	}
	has(t, "whose b it is", in("build", "--builder", "b", ".").Stderr, "the stored one of that name is used")
	has(t, "whose b it is", in("inspect", "b").Stdout, bk.UnixAddr())
	for _, args := range [][]string{
		{"build", "--builder", "team", "."}, {"build", "--builder", "tool", "."}, {"inspect", "team"}, {"inspect", "--bootstrap", "tool"},
		{"doctor", "team"}, {"dial-stdio", "--builder", "tool"}, {"use", "team"}, {"rm", "team"}, {"export", "team"}, {"create", "--append", "--name", "team", evil},
	} {
		if r := in(args...); r.Code != 1 {
			t.Errorf("%q: %s", args, r)
		}
	}
	has(t, "team", in("build", "--builder", "team", ".").Stderr, "nobody has agreed yet", "hint: read it, and agree to what it says now: berth trust "+join(repo, "berth.yaml"))

	// Nothing is chosen any more: still it is not the default.
	berth.OK("rm", "b")
	r := berth.Cmd("build", "--timeout", "1s", ".").Dir(repo).Env("BERTH_FILE=" + join(repo, "berth.yaml")).Run()
	if r.Code != 1 {
		t.Errorf("without a builder: %s", r)
	}
	has(t, "without a builder", r.Stderr, "no builder is chosen")
	if r := in("build", "--builder", "b", "."); r.Code != 1 {
		t.Errorf("b is the file's now: %s", r)
	}

	// Files that are no files, that are huge, that do not end.
	for name, text := range map[string]string{
		"garbage": "\x00\xff\x00", "huge": strings.Repeat("- ", 1<<20), "deep": strings.Repeat("[", 500_000),
		"bomb": "a: &a [x,x]\nb: &b [*a,*a]\nbuilders: *b\n", "reserved": "version: 1\nbuilders:\n" + node("default", evil),
	} {
		file(text)
		if r := in("ls"); r.Code != 0 || len(r.Stderr) > 4000 {
			t.Errorf("%s: ls: %.4000s", name, r)
		}
		if r := in("inspect", "team"); r.Code != 1 || len(r.Stderr) > 4000 {
			t.Errorf("%s: inspect: %.4000s", name, r)
		}
	}
	if n := came.Load(); n != 0 {
		t.Errorf("the stranger was visited %d times", n)
	}
	if exists(canary) {
		t.Error("a command of the file was run")
	}
}

// On a terminal the file is shown and asked about, before anything is contacted.
func TestTrustAtATerminal(t *testing.T) {
	bk := lab.Shared(t)
	berth := lab.Berth(t)
	evil, came := stranger(t)
	repo := lab.HelloContext(t)
	path := join(repo, "berth.yaml")
	tlsDir(t, bk.Certs(), join(repo, "certs"))
	text := "version: 1\nbuilders:\n  - name: team\n    nodes:\n      - endpoint: " + bk.LocalhostAddr() + "?tlsdir=certs\n" +
		"  - name: tool\n    nodes:\n      - endpoint: " + evil + "\n      - endpoint: exec://?cmd=false\n      - endpoint: ssh://host.example\n"
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(path, 12345, -1); err != nil {
		t.Fatal(err)
	}
	const question = "Use the builders of this file, until it changes? [y/N]"
	ask := func(answer string, args ...string) lab.Result {
		t.Helper()
		p := berth.Cmd(args...).Dir(repo).TTY().Start()
		p.WaitFor(question)
		p.Type(answer)
		return p.Wait()
	}
	build := []string{"build", "--builder", "team", "--progress", "plain", "."}
	for _, no := range []string{"\n", "n\n", "maybe\n", "\x04"} {
		r := ask(no, build...)
		if r.Code != 1 {
			t.Errorf("after %q: %s", no, r)
		}
		has(t, "the prompt", r.Stdout, path+" has builders that nobody has agreed to use yet:", "node team0 at "+bk.LocalhostAddr(), "tlsdir=certs",
			"node tool0 at "+evil, "! is not encrypted", "! node tool1 runs a command: false", "! node tool2 logs in on host.example",
			"belongs to another user: user 12345", "nobody has agreed yet")
	}
	p := berth.Cmd(build...).Dir(repo).TTY().Start()
	p.WaitFor(question)
	p.Interrupt()
	if r := p.Wait(); r.Code != 130 {
		t.Errorf("after an interrupt: %s", r)
	}
	if exists(join(berth.BuildxConfig, "trust")) {
		t.Error("something was agreed to")
	}
	if r := ask("yes\n", build...); r.Code != 0 {
		t.Errorf("after a yes: %s", r)
	}
	// Agreed once, it is not asked again, with a terminal or without.
	if r := berth.Cmd(build...).Dir(repo).TTY().Run(); r.Code != 0 || strings.Contains(r.Stdout, question) {
		t.Errorf("asked again: %s", r)
	}
	if r := berth.Cmd(build...).Dir(join(repo, "certs")).Run(); r.Code != 1 || !strings.Contains(r.Stderr, "Dockerfile") {
		t.Errorf("in a folder below: %s", r)
	}
	if err := os.WriteFile(path, []byte(text+"# changed\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if r := berth.Cmd(build...).Dir(repo).Run(); r.Code != 1 || !strings.Contains(r.Stderr, "has changed since you agreed to it") {
		t.Errorf("changed: %s", r)
	}
	r := ask("y\n", build...)
	has(t, "the prompt", r.Stdout, "HAS CHANGED since you agreed")
	if r.Code != 0 {
		t.Errorf("after a second yes: %s", r)
	}
	for _, line := range tree(t, berth.BuildxConfig) {
		if !strings.HasPrefix(line, ".") && !strings.HasPrefix(line, "trust") {
			t.Errorf("kept besides the agreement: %s", line)
		}
	}
	if n := came.Load(); n != 0 {
		t.Errorf("another builder of the file was visited %d times", n)
	}
}

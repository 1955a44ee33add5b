//go:build e2e && linux

package test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/berthbuild/berth/test/lab"
)

// step is one command of a guide and what it should print.
type step struct {
	line    int
	command string
	want    []string
}

// console reads the steps of a guide's ```console blocks.
func console(t *testing.T, path string) []step {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // only read
	var steps []step
	inside := false
	scan := bufio.NewScanner(f)
	for n := 1; scan.Scan(); n++ {
		text := scan.Text()
		command, isCommand := strings.CutPrefix(text, "$ ")
		switch {
		case strings.HasPrefix(text, "```"):
			inside = text == "```console"
		case !inside:
		case isCommand:
			steps = append(steps, step{line: n, command: command})
		case len(steps) == 0:
			t.Fatalf("%s:%d: output before any command", path, n)
		default:
			last := &steps[len(steps)-1]
			last.want = append(last.want, text)
		}
	}
	if err := scan.Err(); err != nil {
		t.Fatal(err)
	}
	return steps
}

// matches holds output against what a guide shows: "…" stands for anything, on
// a line of its own for any lines; runs of spaces are one. That berth waits for a
// daemon that is just starting is said on a slow machine only.
func matches(want []string, got string) bool {
	got = regexp.MustCompile(`(?m)^waiting for node .* left\n`).ReplaceAllString(got, "")
	if len(want) == 0 {
		return strings.TrimSpace(got) == ""
	}
	var re strings.Builder
	re.WriteString(`\A`)
	for _, line := range want {
		if line == "…" {
			re.WriteString(`(.*\n)*`)
			continue
		}
		parts := strings.Split(strings.Join(strings.Fields(line), " "), "…")
		for i, p := range parts {
			parts[i] = regexp.QuoteMeta(p)
		}
		re.WriteString(" ?" + strings.Join(parts, ".*") + ` ?\n`)
	}
	re.WriteString(`\z`)
	var lines []string
	for _, line := range strings.Split(strings.TrimRight(got, "\n"), "\n") {
		lines = append(lines, strings.Join(strings.Fields(line), " "))
	}
	return regexp.MustCompile(re.String()).MatchString(strings.Join(lines, "\n") + "\n")
}

func TestMatches(t *testing.T) {
	for _, c := range []struct {
		want []string
		got  string
		ok   bool
	}{
		{[]string{"a  b…d"}, "a b c d\n", true},
		{[]string{"a"}, "b\n", false},
		{[]string{"a"}, "a\nb\n", false},
		{[]string{"a", "…"}, "a\nb\nc\n", true},
		{[]string{"…", "c"}, "a\nb\nc\n", true},
		{[]string{"a"}, "waiting for node a0 at unix:///s: refused, 19s left\na\n", true},
		{nil, "", true},
		{nil, "unexpected\n", false},
	} {
		if matches(c.want, c.got) != c.ok {
			t.Errorf("%q against %q: wanted %v", c.got, c.want, c.ok)
		}
	}
}

// Every guide runs as written, in one shell, in a copy of the examples.
func TestGuides(t *testing.T) {
	guides, err := filepath.Glob(join(lab.ModuleRoot(t), "docs", "guides", "*.md"))
	if err != nil || len(guides) == 0 {
		t.Fatalf("no guides: %v", err)
	}
	for _, guide := range guides {
		if strings.Contains(read(t, guide), "\n<!-- needs: kube -->\n") {
			continue // TestKubeGuide runs it, with `make test-kube`
		}
		t.Run(strings.TrimSuffix(filepath.Base(guide), ".md"), func(t *testing.T) { runGuide(t, guide) })
	}
}

func runGuide(t *testing.T, path string) {
	lab.Need(t, "runc", "openssl")
	steps := console(t, path)
	if len(steps) == 0 {
		t.Fatal("the guide has no console blocks")
	}
	berth := lab.Berth(t)
	root := lab.ModuleRoot(t)
	work := lab.Dir(t)
	for _, name := range []string{"go.mod", "go.sum", "examples"} {
		if out, err := exec.Command("cp", "-r", join(root, name), work).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	bin := t.TempDir()
	for name, target := range map[string]string{"berth": berth.Bin, "buildkitd": lab.Tool(t, "buildkitd")} {
		if err := os.Symlink(target, join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	goEnv, err := exec.Command("go", "env", "GOMODCACHE", "GOCACHE").Output()
	if err != nil {
		t.Fatal(err)
	}
	caches := strings.Fields(string(goEnv))
	sh := newShell(t, work, append(needs(t, path, work, bin), []string{
		"PATH=" + bin + ":" + os.Getenv("PATH"), "HOME=" + work, "BUILDX_CONFIG=" + berth.BuildxConfig,
		"DOCKER_CONFIG=" + berth.DockerConfig, "GOMODCACHE=" + caches[0], "GOCACHE=" + caches[1], "GOFLAGS=-buildvcs=false", "GORACE=" + lab.GoRace,
	}...))
	for _, s := range steps {
		out, code := sh.run(s.command)
		if code != 0 {
			t.Fatalf("%s:%d: %s: exit %d\n%s", path, s.line, s.command, code, out)
		}
		if !matches(s.want, out) {
			t.Errorf("%s:%d: %s\nwanted:\n%s\ngot:\n%s", path, s.line, s.command, strings.Join(s.want, "\n"), out)
		}
	}
}

// needs provides what a guide asks for in a line `<!-- needs: … -->`, and gives
// the environment for it. home is the shell's, bin a folder on its PATH.
func needs(t *testing.T, guide, home, bin string) []string {
	t.Helper()
	var env []string
	if strings.Contains(read(t, guide), "\n<!-- needs: sshd -->\n") {
		s := lab.SSH(t, lab.SSHDOpts{})
		env = append(env, "SSH_PORT="+s.Port, "USER=root")
		if err := os.Mkdir(join(home, ".ssh"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(join(home, ".ssh", "id_ed25519"), []byte(read(t, s.Key)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if strings.Contains(read(t, guide), "\n<!-- needs: registry -->\n") {
		env = append(env, "REGISTRY="+lab.Registry(t).Addr())
	}
	if strings.Contains(read(t, guide), "\n<!-- needs: docker -->\n") {
		engine := lab.Docker(t)
		engine.Images(t)
		engine.CLI(t, "tag", lab.BuildKitImage, "moby/buildkit:latest")
		env = append(env, "DOCKER_HOST="+engine.Host())
	}
	if strings.Contains(read(t, guide), "\n<!-- needs: docker-network -->\n") {
		env = append(env, "DOCKER_HOST="+lab.DockerWithNetwork(t).Host())
	}
	if strings.Contains(read(t, guide), "\n<!-- needs: kube -->\n") {
		env = append(env, needsKube(t, bin)...)
	}
	return env
}

// shell is a bash that runs one command after the other.
type shell struct {
	t     *testing.T
	stdin interface{ Write([]byte) (int, error) }
	lines chan string
	n     int
}

func newShell(t *testing.T, dir string, env []string) *shell {
	t.Helper()
	cmd := exec.Command("bash", "--noprofile", "--norc")
	cmd.Dir, cmd.Env = dir, env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = w, w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	s := &shell{t: t, stdin: stdin, lines: make(chan string)}
	go func() {
		defer close(s.lines)
		for scan := bufio.NewScanner(r); scan.Scan(); {
			s.lines <- scan.Text()
		}
	}()
	t.Cleanup(func() {
		_, _ = stdin.Write([]byte("kill $(jobs -p) 2>/dev/null; wait; exit\n"))
		for range s.lines { //nolint:revive // drained until the shell and its jobs are gone
		}
		_ = cmd.Wait()
		_ = r.Close()
	})
	return s
}

// run gives a command's output, standard error included, and its exit code.
func (s *shell) run(command string) (string, int) {
	s.t.Helper()
	s.n++
	mark := fmt.Sprintf("--- end of command %d ", s.n)
	if _, err := fmt.Fprintf(s.stdin, "%s\ncode=$?\necho; echo '%s'$code\n", command, mark); err != nil {
		s.t.Fatal(err)
	}
	var out []string
	limit := time.After(3 * time.Minute)
	for {
		select {
		case line, open := <-s.lines:
			if !open {
				s.t.Fatalf("the shell ended in %q:\n%s", command, strings.Join(out, "\n"))
			}
			if code, isEnd := strings.CutPrefix(line, mark); isEnd {
				var n int
				if _, err := fmt.Sscan(code, &n); err != nil {
					s.t.Fatal(err)
				}
				return strings.TrimRight(strings.Join(out, "\n"), "\n") + "\n", n
			}
			out = append(out, line)
		case <-limit:
			s.t.Fatalf("%q has not ended; so far:\n%s", command, strings.Join(out, "\n"))
		}
	}
}

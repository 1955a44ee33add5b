//go:build e2e && linux

package test

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/berthbuild/berth/test/lab"
)

// failing prints thirty lines and the reason, and fails.
const failing = `RUN i=0; while [ $i -lt 30 ]; do i=$((i+1)); echo line $i; done; echo the-reason; exit 7
`

// failure is what every failed build ends with; the texts are those of docker's
// own command.
const failure = `Dockerfile:3
--------------------
   1 |     FROM scratch
   2 |     COPY sh /bin/sh
   3 | >>> RUN i=0; while [ $i -lt 30 ]; do i=$((i+1)); echo line $i; done; echo the-reason; exit 7
   4 |     
--------------------
ERROR: failed to build: failed to solve: process "/bin/sh -c i=0; while [ $i -lt 30 ]; do i=$((i+1)); echo line $i; done; echo the-reason; exit 7" did not complete successfully: exit code: 7
`

// A failing step shows its name, its last words and its lines in the
// Dockerfile, whichever way progress is shown.
func TestDisplayOfFailure(t *testing.T) {
	berth, _ := shared(t)
	dir := lab.ShellContext(t, failing, nil)
	step := regexp.MustCompile(`(?s)------\r?\n > \[2/2\] RUN i=0; while .* exit 7:\r?\n.*[0-9.]+ line 30\r?\n[0-9.]+ the-reason\r?\n------\r?\n`)
	for _, mode := range []string{"plain", "quiet", "none", "tty"} {
		cmd := berth.Cmd("build", "--progress", mode, ".").Dir(dir)
		if mode == "tty" {
			cmd = cmd.TTY()
		}
		r := cmd.Run()
		text := strings.ReplaceAll(r.Stdout+r.Stderr, "\r\n", "\n") // a terminal has both
		if r.Code != 1 || !strings.HasSuffix(text, failure) {
			t.Errorf("%s: it does not end with\n%s\n%s", mode, failure, r)
		}
		if at := step.FindAllStringIndex(text, -1); len(at) != 1 || at[0][1] != len(text)-len(failure) {
			t.Errorf("%s: the step's last words are not right before that, once: %s", mode, r)
		}
		if mode == "quiet" || mode == "none" {
			has(t, mode, r.Stderr, " line 1\n")
			if r.Stdout != "" || !strings.HasPrefix(r.Stderr, "------\n") {
				t.Errorf("%s: %s", mode, r)
			}
		}
	}
	r := berth.Cmd("build", "--progress", "rawjson", ".").Dir(dir).Run()
	if !strings.HasSuffix(r.Stderr, failure) {
		t.Errorf("rawjson: %s", r)
	}
	for line := range strings.Lines(strings.TrimSuffix(r.Stderr, failure)) {
		if !json.Valid([]byte(line)) {
			t.Errorf("rawjson: before the failure comes %q", line)
		}
	}
}

// Of two nodes it is said which one failed, and where.
func TestDisplayOfFailureOnOneOfTwoNodes(t *testing.T) {
	berth, _, _ := twoNodes(t)
	dir := lab.ShellContext(t, "ARG TARGETARCH\nRUN if [ $TARGETARCH = arm64 ]; then echo the-reason; exit 3; fi\n", nil)
	for _, mode := range []string{"plain", "quiet"} {
		r := berth.Cmd("build", "--progress", mode, "--platform", "linux/amd64,linux/arm64", ".").Dir(dir).Run()
		if r.Code != 1 {
			t.Error(r)
		}
		has(t, mode, r.Stderr, "------\n > [linux/arm64 2/2] RUN if [", " the-reason\n------\nDockerfile:4\n")
		hasNot(t, mode, r.Stderr, " > [linux/amd64")
		has(t, mode+": last line", lastLine(r.Stderr), "ERROR: failed to build: linux/arm64 on node two1: failed to solve: process ")
	}
}

// sequences are the control sequences in a text, each once.
func sequences(text string) []string {
	all := regexp.MustCompile(`\x1b(\[[0-?]*[ -/]*[@-~]|.)?`).FindAllString(text, -1)
	slices.Sort(all)
	return slices.Compact(all)
}

// Two nodes at once, on a terminal and in a file: every step says whose it is.
func TestDisplayOfTwoNodes(t *testing.T) {
	berth, _, _ := twoNodes(t)
	dir := lab.ShellContext(t, "ARG TARGETARCH\nRUN echo built for $TARGETARCH\n", nil)
	args := []string{"build", "--no-cache", "--platform", "linux/amd64,linux/arm64", "-o", "type=cacheonly", "."}
	r := berth.Cmd(args...).Dir(dir).Run()
	if r.Code != 0 || !strings.HasPrefix(r.Stderr, "#0 building with \"two\" instance using remote driver\n\n#1 [") {
		t.Fatal(r)
	}
	if got := sequences(r.Stderr); len(got) > 0 {
		t.Errorf("what is redirected has %q", got)
	}
	own := map[string]string{} // number of a step → its platform
	for _, m := range regexp.MustCompile(`(?m)^(#[0-9]+) \[(linux/[a-z0-9]+|internal)`).FindAllStringSubmatch(r.Stderr, -1) {
		own[m[1]] = m[2]
	}
	for _, arch := range []string{"amd64", "arm64"} {
		m := regexp.MustCompile(`(?m)^(#[0-9]+) [0-9.]+ built for ` + arch).FindStringSubmatch(r.Stderr)
		if m == nil || own[m[1]] != "linux/"+arch {
			t.Errorf("the output of %s is under %v: %s", arch, m, r)
		}
	}

	r = berth.Cmd(args...).Dir(dir).TTYOf(lab.Size{Columns: 90, Lines: 40}).Run()
	if r.Code != 0 {
		t.Fatal(r)
	}
	last := r.Stdout[strings.LastIndex(r.Stdout, "[+] Building"):]
	has(t, "last frame", last, "FINISHED", "remote:two", " => [linux/amd64 2/2] RUN echo built for amd64", " => [linux/arm64 2/2] RUN echo built for arm64", "[linux/arm64 internal] load build definition")
	for line := range strings.Lines(regexp.MustCompile(`\x1b\[[0-9;?]*[a-zA-Z]`).ReplaceAllString(last, "")) {
		if n := len(strings.TrimRight(line, "\r\n")); n > 90 {
			t.Errorf("a line of %d columns on a terminal of 90: %q", n, line)
		}
	}
}

// The size of the terminal is honoured, also when it changes while a step says
// nothing; so are the variables that set colours and the lines of a log.
func TestDisplayOnTerminal(t *testing.T) {
	berth, _ := shared(t)
	// Slowly: BuildKit keeps six lines of what comes before a step is first drawn, and
	// whenever two things are said between two drawings.
	dir := lab.ShellContext(t, "COPY sh /bin/sleep\nRUN i=0; while [ $i -lt 16 ]; do i=$((i+1)); echo line $i; sleep 0.25; done; sleep 1000\n", nil)
	start := func(env ...string) *lab.Process {
		return berth.With(env...).Cmd("build", "--no-cache", ".").Dir(dir).TTYOf(lab.Size{Columns: 100, Lines: 40}).Start()
	}
	width := func(p *lab.Process, columns int) {
		for from := 0; ; {
			out := p.Stdout()
			for line := range strings.SplitSeq(out[from:], "\r\n") {
				if i := strings.Index(line, "[+] Building"); i >= 0 && len(line)-i == columns-1 && strings.HasSuffix(line, "remote:b") {
					return
				}
			}
			p.WaitForMore(len(out))
			from = max(0, len(out)-4096)
		}
	}
	p := start("BUILDKIT_TTY_LOG_LINES=20")
	p.WaitFor("=> => # line 16")
	width(p, 100)
	p.Resize(lab.Size{Columns: 70, Lines: 30})
	width(p, 70)
	p.Resize(lab.Size{Columns: 130, Lines: 50})
	width(p, 130)
	out := p.Stdout()
	if n := strings.Count(out[strings.LastIndex(out[:strings.LastIndex(out, "[+] Building")], "[+] Building"):], " => => # line "); n <= 6 { // what is shown without the variable
		t.Errorf("%d lines of the log are shown: %q", n, out)
	}
	has(t, "colours", out, "\x1b[34m")
	p.Interrupt()
	if r := p.Wait(); r.Code != 130 || !strings.HasSuffix(r.Stdout, "ERROR: canceled\r\n") {
		t.Errorf("Ctrl-C: %s", r)
	}
	for env, colour := range map[string]string{"NO_COLOR=1": "", "BUILDKIT_COLORS=run=green:cancel=cyan": "\x1b[32m"} {
		p := start(env)
		p.WaitFor("=> => # line 16")
		p.Interrupt()
		r := p.Wait()
		has(t, env, r.Stdout, colour)
		hasNot(t, env, r.Stdout, "\x1b[34m")
		if env == "NO_COLOR=1" && regexp.MustCompile(`\x1b\[[349][0-9]`).MatchString(r.Stdout) {
			t.Errorf("%s: %q", env, sequences(r.Stdout))
		}
	}
}

// What a Dockerfile and its programs say cannot take over the terminal.
func TestDisplayOfHostileText(t *testing.T) {
	berth, _ := shared(t)
	dir := lab.ShellContext(t, "", nil)
	hostile := "\x1b[2J\x1b[H\x1b[?1049h\x1b]0;owned\x07\x1b]52;c;aGk=\x07\x1bc\x1b[31mred\x1b[0m \u009b2J \xff\xfe \x00end"
	script := "printf '" + strings.NewReplacer("\x1b", `\033`, "\x07", `\007`, "\x00", `\000`, "\xff", `\377`, "\xfe", `\376`).Replace(hostile) + "\\n'"
	// A daemon lets two megabytes of one step through.
	text := "FROM scratch\nCOPY sh /bin/sh\nCOPY sh /bin/yes\nCOPY sh /bin/tr\nCOPY sh /bin/head\nARG N=\"\x1b]0;owned\x07name\x1b[2J\"\n" +
		"RUN : $N; " + script + "; yes | tr -d '\\n' | head -c 1500000; echo; echo all said; exit 5 # \x1b[2J\n"
	if err := os.WriteFile(join(dir, "Dockerfile"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []string{"plain", "tty", "quiet"} {
		cmd := berth.Cmd("build", "--progress", mode, ".").Dir(dir)
		if mode == "tty" {
			cmd = cmd.TTY()
		}
		r := cmd.Run()
		all := r.Stdout + r.Stderr
		if r.Code != 1 {
			t.Fatalf("%s: %d, %.3000s", mode, r.Code, all)
		}
		has(t, mode, all[max(0, len(all)-3000):], "all said", "ERROR: failed to build: ")
		for _, seq := range sequences(all) {
			if !regexp.MustCompile(`^\x1b\[([0-9;]*m|[0-9]*[ABG]|\?25[lh])$`).MatchString(seq) || mode != "tty" && !strings.HasSuffix(seq, "m") {
				t.Errorf("%s: the terminal gets %q", mode, seq)
			}
		}
		if i := strings.IndexAny(all, "\x00\x07\u009b"); i >= 0 {
			t.Errorf("%s: the terminal gets %q", mode, all[i:i+1])
		}
		if !strings.Contains(all, "red\x1b[0m") {
			t.Errorf("%s: a colour was lost", mode)
		}
	}
}

// What the Dockerfile's frontend finds is listed after the build, each thing
// once, coloured on a terminal only; --debug shows the lines.
func TestDisplayOfFindings(t *testing.T) {
	berth, _ := shared(t)
	dir := lab.Context(t, map[string]string{"Dockerfile": "FROM scratch as x\nCOPY Dockerfile /\nENV mode fast\n"})
	list := " - FromAsCasing: 'as' and 'FROM' keywords' casing do not match (line 1)\n" +
		" - LegacyKeyValueFormat: \"ENV key=value\" should be used instead of legacy \"ENV key value\" format (line 3)\n"
	r := build(t, berth, dir, "--platform", "linux/amd64,linux/arm64")
	if want := "\n\n 2 warnings found (use docker --debug to expand):\n" + list; !strings.HasSuffix(r.Stderr, want) {
		t.Errorf("wanted %s at the end of\n%s", want, r)
	}
	r = berth.Cmd("--debug", "build", ".").Dir(dir).Run()
	if want := ` 2 warnings found:
 - FromAsCasing: 'as' and 'FROM' keywords' casing do not match (line 1)
The 'as' keyword should match the case of the 'from' keyword
More info: https://docs.docker.com/go/dockerfile/rule/from-as-casing/
Dockerfile:1
--------------------
   1 | >>> FROM scratch as x
   2 |     COPY Dockerfile /
   3 |     ENV mode fast
--------------------

 - LegacyKeyValueFormat: "ENV key=value" should be used instead of legacy "ENV key value" format (line 3)
Legacy key/value format with whitespace separator should not be used
More info: https://docs.docker.com/go/dockerfile/rule/legacy-key-value-format/
Dockerfile:3
--------------------
   1 |     FROM scratch as x
   2 |     COPY Dockerfile /
   3 | >>> ENV mode fast
   4 |     
--------------------

`; !strings.HasSuffix(r.Stderr, want) {
		t.Errorf("wanted %s at the end of\n%s", want, r)
	}
	r = berth.Cmd("build", ".").Dir(dir).TTY().Run()
	has(t, "terminal", r.Stdout, "\r\n \x1b[33m2 warnings found (use docker --debug to expand):\x1b[0m\r\n"+strings.ReplaceAll(list, "\n", "\r\n"))
	r = berth.With("NO_COLOR=1").Cmd("build", ".").Dir(dir).TTY().Run()
	has(t, "terminal", r.Stdout, "\r\n 2 warnings found (use docker --debug to expand):\r\n")

	md := join(t.TempDir(), "md")
	build(t, berth.With("BUILDX_METADATA_WARNINGS=true"), dir, "-q", "--metadata-file", md)
	var meta struct {
		Warnings []struct {
			Short, URL string
			Detail     [][]byte
			SourceInfo struct {
				Filename string
				Data     []byte
			}
			Range []struct{ Start struct{ Line int } }
		} `json:"buildx.build.warnings"`
	}
	if err := json.Unmarshal([]byte(read(t, md)), &meta); err != nil {
		t.Fatal(err)
	}
	if w := meta.Warnings; len(w) != 2 || w[1].Range[0].Start.Line != 3 || w[0].SourceInfo.Filename != "Dockerfile" || !strings.HasPrefix(string(w[0].SourceInfo.Data), "FROM scratch as x\n") {
		t.Errorf("metadata: %s", read(t, md))
	}
}

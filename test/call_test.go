//go:build e2e && linux

package test

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/berthbuild/berth/test/lab"
)

// callDockerfile has something for every call. The texts that are expected of
// it below are those of docker's own command on the same file and daemon.
const callDockerfile = `# base is what the rest is built on
FROM scratch AS base
# NAME is who is greeted
ARG NAME=you
COPY Dockerfile /
FROM base as last
ENV mode fast
RUN --mount=type=secret,id=token,required=true --mount=type=ssh true
`

const callReport = `Check complete, 2 warnings have been found!

WARNING: FromAsCasing - https://docs.docker.com/go/dockerfile/rule/from-as-casing/
'as' and 'FROM' keywords' casing do not match
FILE:6
--------------------
   4 |     ARG NAME=you
   5 |     COPY Dockerfile /
   6 | >>> FROM base as last
   7 |     ENV mode fast
   8 |     RUN --mount=type=secret,id=token,required=true --mount=type=ssh true
--------------------

WARNING: LegacyKeyValueFormat - https://docs.docker.com/go/dockerfile/rule/legacy-key-value-format/
"ENV key=value" should be used instead of legacy "ENV key value" format
FILE:7
--------------------
   5 |     COPY Dockerfile /
   6 |     FROM base as last
   7 | >>> ENV mode fast
   8 |     RUN --mount=type=secret,id=token,required=true --mount=type=ssh true
   9 |     
--------------------
`

const callOutline = `TARGET: last

BUILD ARG   VALUE   DESCRIPTION
NAME        you     is who is greeted

SECRET   REQUIRED
token    true

SSH       REQUIRED
default   

`

const callTargets = `TARGET         DESCRIPTION
base           is what the rest is built on
last (default) 
`

const callMethods = `NAME                 VERSION DESCRIPTION
outline              1.0.0   List all parameters current build target supports
targets              1.0.0   List all targets current build supports
subrequests.describe 1.0.0   List available subrequest types
`

func TestCallReports(t *testing.T) {
	berth, _ := shared(t)
	top := lab.Context(t, map[string]string{"sub/Dockerfile": callDockerfile, "clean/Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"})
	report := func(file string) string { return strings.ReplaceAll(callReport, "FILE", file) }
	for i, c := range []struct {
		args  string
		stdin string
		code  int
		want  string
	}{
		{"--check sub", "", 1, report("sub/Dockerfile")},
		{"--call=check sub", "", 1, report("sub/Dockerfile")},
		{"--call=lint -f ./sub/Dockerfile clean", "", 1, report("./sub/Dockerfile")},
		{"--check -f - clean", callDockerfile, 1, report("stdin")},
		{"--check --platform linux/amd64,linux/arm64 sub", "", 1, report("sub/Dockerfile")},
		{"--call check,ignorestatus=true sub", "", 0, report("sub/Dockerfile")},
		{"--check clean", "", 0, "Check complete, no warnings found.\n"},
		{"--call outline sub", "", 0, callOutline},
		{"--call outline --target base --build-arg NAME=me sub", "", 0, "TARGET:      base\nDESCRIPTION: is what the rest is built on\n\nBUILD ARG   VALUE   DESCRIPTION\nNAME        me      is who is greeted\n\n"},
		{"--print=outline clean", "", 0, ""},
		{"--call targets sub", "", 0, callTargets},
		{"--call subrequests.describe sub", "", 0, callMethods},
	} {
		args := append([]string{"build"}, strings.Fields(c.args)...)
		quiet := i%2 == 1
		if quiet {
			args = append(args, "-q")
		}
		r := berth.Cmd(args...).Dir(top).Stdin(strings.NewReader(c.stdin)).Run()
		if r.Code != c.code || r.Stdout != c.want {
			t.Errorf("%q: wanted %d and\n%s\n%s", args, c.code, c.want, r)
		}
		hasNot(t, "stderr", r.Stderr, "ERROR", "WARNING: No output", "\x1b")
		if quiet != (r.Stderr == "") {
			t.Errorf("%q: standard error has %q", args, r.Stderr)
		}
	}
	if exists(join(berth.BuildxConfig, "refs")) {
		t.Error("a question left a record of a build")
	}
}

// What programs read: the frontend's JSON on standard output, one status a
// line on standard error, and the metadata.
func TestCallJSON(t *testing.T) {
	berth, _ := shared(t)
	dir := lab.Context(t, map[string]string{"Dockerfile": callDockerfile})
	md := join(t.TempDir(), "md")
	r := berth.Cmd("build", "--call", "check,format=json", "--progress", "rawjson", "--metadata-file", md, ".").Dir(dir).Run()
	if r.Code != 1 {
		t.Error(r)
	}
	type check struct {
		Warnings []struct {
			RuleName, URL, Detail string
			Location              struct {
				Ranges []struct{ Start struct{ Line int } }
			}
		}
		Sources []struct {
			Filename string
			Data     []byte
		}
	}
	var report check
	if err := json.Unmarshal([]byte(r.Stdout), &report); err != nil {
		t.Fatalf("%v: %s", err, r)
	}
	if w := report.Warnings; len(w) != 2 || w[1].RuleName != "LegacyKeyValueFormat" || w[1].Location.Ranges[0].Start.Line != 7 || string(report.Sources[0].Data) != callDockerfile {
		t.Errorf("%+v", report)
	}
	for line := range strings.Lines(r.Stderr) {
		if !json.Valid([]byte(line)) {
			t.Errorf("rawjson: %q", line)
		}
	}
	var meta map[string]json.RawMessage
	if err := json.Unmarshal([]byte(read(t, md)), &meta); err != nil {
		t.Fatal(err)
	}
	if len(meta) != 4 || string(meta["result.statuscode"]) != `"1"` || string(meta["version"]) != `"1.0.0"` ||
		!strings.Contains(string(meta["result.json"]), "LegacyKeyValueFormat") || meta["result.txt"] == nil {
		t.Errorf("metadata: %s", read(t, md))
	}
	var targets struct {
		Targets []struct {
			Name    string
			Default bool
		}
	}
	r = berth.Cmd("build", "-q", "--call", "targets,format=json", ".").Dir(dir).Run()
	if err := json.Unmarshal([]byte(r.Stdout), &targets); err != nil || r.Code != 0 || len(targets.Targets) != 2 || !targets.Targets[1].Default {
		t.Errorf("%v: %s", err, r)
	}
}

// A Dockerfile that cannot be read to its end fails, with its lines and, last,
// the error, also when findings are to be passed over.
func TestCallBrokenDockerfile(t *testing.T) {
	berth, _ := shared(t)
	dir := lab.Context(t, map[string]string{"Dockerfile": "FROM scratch as x\nCOPPY a b\n"})
	want := "Dockerfile:2\n--------------------\n   1 |     FROM scratch as x\n   2 | >>> COPPY a b\n   3 |     \n--------------------\nERROR: dockerfile parse error on line 2: unknown instruction: COPPY (did you mean COPY?)\n"
	for _, call := range []string{"check", "check,ignorestatus=true", "check,format=json"} {
		r := berth.Cmd("build", "-q", "--call", call, ".").Dir(dir).Run()
		if r.Code != 1 || r.Stderr != want {
			t.Errorf("%s: wanted\n%s\n%s", call, want, r)
		}
		if call == "check,format=json" {
			has(t, "JSON", r.Stdout, `"buildError"`, "unknown instruction: COPPY")
		}
	}
	r := berth.Cmd("build", "--call", "outline", ".").Dir(dir).Run()
	if r.Code != 1 || r.Stdout != "" {
		t.Error(r)
	}
	has(t, "last line", lastLine(r.Stderr), "ERROR: failed to build: failed to solve: dockerfile parse error on line 2")
}

// A question can be put to the line that builds, and nothing comes of it: no
// file, no folder, no push, no image, and no engine or registry is contacted.
func TestCallMakesNothing(t *testing.T) {
	berth, _ := shared(t)
	dir := lab.Context(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"})
	iid := join(t.TempDir(), "iid")
	r := berth.Cmd("build", "--check", "-t", "127.0.0.1:1/nobody", "--push", "--load", "-o", "out", "-o", "type=oci,dest=x.tar", "-o", "-", "--iidfile", iid,
		"--cache-to", "type=inline", "--provenance", "mode=max", "--sbom=true", ".").Dir(dir).Run()
	if r.Code != 0 || r.Stdout != "Check complete, no warnings found.\n" {
		t.Error(r)
	}
	if got := names(t, dir); len(got) != 1 {
		t.Errorf("the folder has %q", got)
	}
	if got := read(t, iid); got != "" {
		t.Errorf("--iidfile holds %q", got)
	}
}

// Another frontend, named by the Dockerfile or by the build argument, answers
// for itself.
func TestCallExternalFrontend(t *testing.T) {
	berth, _ := shared(t)
	registry := lab.Registry(t)
	image := registry.Addr() + "/frontend"
	build(t, berth, lab.FrontendContext(t, `LABEL moby.buildkit.frontend.caps="moby.buildkit.frontend.subrequests"`), "-t", image, "--push")
	build(t, berth, lab.FrontendContext(t, ""), "-t", image+":without", "--push")
	dir := lab.Context(t, map[string]string{
		"Dockerfile": "# syntax=" + image + "\nFROM scratch\n", "without/Dockerfile": "# syntax=" + image + ":without\nFROM scratch\n", "plain/Dockerfile": "FROM scratch\n",
	})
	targets := "TARGET                   DESCRIPTION\nfrom-the-image (default) is answered by another frontend\n"
	for _, c := range []struct {
		args, stdout, stderr string
		code                 int
	}{
		{"--call targets .", targets, "", 0},
		{"--call targets --build-arg BUILDKIT_SYNTAX=" + image + " plain", targets, "", 0},
		{"--call sums .", "1 + 1 = 3\n", "", 1},
		{"--call sums,ignorestatus=true .", "1 + 1 = 3\n", "", 0},
		{"--call subrequests.describe .", "NAME VERSION DESCRIPTION\nsums 0.1     does sums\n", "", 0},
		{"--call sums,format=json .", "", "is not JSON", 1},
		{"--check .", "", "ERROR: failed to build: --call=check: the frontend of this Dockerfile does not know it (node b0 of builder b is BuildKit v0.34.2)", 1},
		{"--check without", "", "ERROR: failed to build: --call=check: the frontend of this Dockerfile takes no calls (node b0 of builder b is BuildKit v0.34.2)", 1},
	} {
		r := berth.Cmd(append([]string{"build"}, strings.Fields(c.args)...)...).Dir(dir).Run()
		if r.Code != c.code || r.Stdout != c.stdout {
			t.Errorf("%s: wanted %d and\n%s\n%s", c.args, c.code, c.stdout, r)
		}
		has(t, c.args, lastLine(r.Stderr), c.stderr)
		if strings.Contains(c.stderr, "this Dockerfile") {
			has(t, c.args, r.Stderr, "hint: ", "# syntax=docker/dockerfile:1")
		}
	}
}

// The BuildKit of an old engine knows none of the questions, and says so.
func TestCallOldEngine(t *testing.T) {
	engine := lab.Docker(t)
	berth := lab.Berth(t).WithDocker(engine)
	dir := lab.Context(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"})
	for _, call := range []string{"check", "outline", "targets"} {
		r := berth.Cmd("build", "--call", call, ".").Dir(dir).Run()
		if r.Code != 1 || r.Stdout != "" {
			t.Error(r)
		}
		has(t, "last line", lastLine(r.Stderr), "ERROR: failed to build: --call="+call+": the frontend of this Dockerfile", "(node default of builder default is the BuildKit of ")
	}
}

// Of several nodes the first answers; the others may be down.
func TestCallAsksTheFirstNode(t *testing.T) {
	bk := lab.Shared(t)
	berth := lab.Berth(t)
	berth.OK("create", "--use", "--name", "two", bk.UnixAddr())
	berth.OK("create", "--name", "two", "--append", "--platform", "linux/arm64", "unix://"+join(t.TempDir(), "nobody.sock"))
	dir := lab.Context(t, map[string]string{"Dockerfile": callDockerfile})
	r := berth.Cmd("build", "-q", "--call", "targets", "--platform", "linux/amd64,linux/arm64", ".").Dir(dir).Run()
	if r.Code != 0 || r.Stdout != callTargets {
		t.Error(r)
	}
}

// A report that nobody reads is a failure, as any result is.
func TestCallReportCannotBeWritten(t *testing.T) {
	berth, _ := shared(t)
	dir := lab.Context(t, map[string]string{"Dockerfile": callDockerfile})
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = full.Close() }()
	r := berth.Cmd("build", "-q", "--call", "targets", ".").Dir(dir).StdoutTo(full).Run()
	if r.Code != 1 || lastLine(r.Stderr) != "ERROR: writing the report: write /dev/stdout: no space left on device" {
		t.Error(r)
	}
}

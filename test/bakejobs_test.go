//go:build e2e && linux

package test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/berthbuild/berth/test/lab"
)

const jobsDefinition = `
group "default" { targets = ["good", "bad", "upon"] }
target "good" {
  dockerfile-inline = "FROM scratch\nCOPY f.txt /good\n"
  output = ["out/good"]
}
target "bad" {
  dockerfile-inline = "FROM scratch\nCOPY sh /bin/sh\nRUN cat /proc/uptime && exit 3\n"
  output = ["out/bad"]
}
target "upon" {
  contexts = { base = "target:bad" }
  dockerfile-inline = "FROM base\nCOPY f.txt /upon\n"
  output = ["out/upon"]
}
`

// --jobs says what becomes of the other targets when one fails.
func TestBakeJobs(t *testing.T) {
	berth, _ := shared(t)
	dir := bakeContext(t, jobsDefinition, nil)
	md := filepath.Join(t.TempDir(), "md.json")
	r := berth.Cmd("bake", "--no-cache", "--jobs", "defer-error", "--metadata-file", md).Dir(dir).Run()
	if r.Code != 1 || !strings.HasPrefix(lastLine(r.Stderr), "ERROR: target bad: failed to solve: ") || !strings.HasSuffix(lastLine(r.Stderr), "(2 of 3 targets failed: bad, upon)") {
		t.Error(r)
	}
	if !exists(join(dir, "out", "good", "good")) || exists(join(dir, "out", "upon")) {
		t.Errorf("defer-error: %s", r)
	}
	var all map[string]any
	if err := json.Unmarshal([]byte(read(t, md)), &all); err != nil || len(all) != 1 || all["good"] == nil {
		t.Error(all, err)
	}
	if err := os.RemoveAll(join(dir, "out")); err != nil {
		t.Fatal(err)
	}
	r = berth.Cmd("bake", "--no-cache", "--jobs", "defer-output", "--metadata-file", md+"2").Dir(dir).Run()
	if r.Code != 1 || !strings.HasPrefix(lastLine(r.Stderr), "ERROR: target bad: failed to solve: ") || exists(join(dir, "out")) || exists(md+"2") {
		t.Errorf("defer-output: %s", r)
	}
	for _, bad := range []string{"-1", "keep-going", "fail-fast,x=1"} {
		if r := berth.Cmd("bake", "--print", "--jobs="+bad).Dir(dir).Run(); r.Code != 1 || !strings.Contains(r.Stderr, "jobs") {
			t.Errorf("%s: %s", bad, r)
		}
	}
}

// No more targets run at once than --jobs says, and those that others are built
// upon do not keep them from running.
func TestBakeJobsBound(t *testing.T) {
	berth, _ := shared(t)
	step := `RUN cat /proc/uptime > /start && sleep 0.5 && cat /proc/uptime > /end`
	dir := bakeContext(t, `
target "t" {
  name = "t${n}"
  matrix = { n = ["1", "2", "3"] }
  contexts = { base = "target:base" }
  dockerfile-inline = "FROM base\nRUN echo ${n}\n`+step+`\nFROM scratch\nCOPY --from=0 /start /end /\n"
  output = ["out/${n}"]
}
target "base" { dockerfile-inline = "FROM scratch\nCOPY sh /bin/sh\n" }
`, nil)
	for _, jobs := range []string{"1", "defer-output,parallel=1", "defer-error,parallel=1"} {
		r := berth.Cmd("bake", "--no-cache", "t", "-j", jobs).Dir(dir).Run()
		if r.Code != 0 {
			t.Fatal(r)
		}
		at := func(n, name string) float64 {
			text, _, _ := strings.Cut(read(t, join(dir, "out", n, name)), " ")
			v, err := strconv.ParseFloat(text, 64)
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
		for _, x := range []string{"1", "2", "3"} {
			for _, y := range []string{"1", "2", "3"} {
				if x < y && at(x, "start") < at(y, "end") && at(y, "start") < at(x, "end") {
					t.Errorf("-j %s: %s and %s ran at once", jobs, x, y)
				}
			}
		}
	}
}

// What is built on several nodes, of which others are built upon one, does not keep
// its slot for ever.
func TestBakeJobsOverNodes(t *testing.T) {
	berth, _, _ := twoNodes(t)
	dir := bakeContext(t, `
group "default" { targets = ["base", "app"] }
target "base" {
  platforms = ["linux/amd64", "linux/arm64"]
  dockerfile-inline = "FROM scratch\nCOPY f.txt /base\n"
}
target "app" {
  platforms = ["linux/amd64"]
  contexts = { base = "target:base" }
  dockerfile-inline = "FROM base\nCOPY f.txt /app\n"
  output = ["out"]
}
`, nil)
	for _, jobs := range []string{"1", "defer-output,parallel=1"} {
		if r := berth.Cmd("bake", "-j", jobs).Dir(dir).Run(); r.Code != 0 || strings.Join(names(t, join(dir, "out")), " ") != "app base" {
			t.Errorf("-j %s: %s", jobs, r)
		}
	}
}

// A bake leaves a reference that names its builds.
func TestBakeReferences(t *testing.T) {
	berth, _ := shared(t)
	dir := bakeContext(t, linkedDefinition, nil)
	md := filepath.Join(t.TempDir(), "md.json")
	if r := berth.Cmd("bake", "--metadata-file", md, "app").Dir(dir).Run(); r.Code != 0 {
		t.Fatal(r)
	}
	groups, err := filepath.Glob(join(berth.BuildxConfig, "refs", "__group__", "*"))
	if err != nil || len(groups) != 1 {
		t.Fatal(groups, err)
	}
	var group struct{ Targets, Refs []string }
	if err := json.Unmarshal([]byte(read(t, groups[0])), &group); err != nil || len(group.Targets) != 1 || group.Targets[0] != "app" || len(group.Refs) != 2 {
		t.Error(group, err)
	}
	for _, id := range group.Refs {
		var ref struct{ GroupRef, DockerfilePath string }
		if err := json.Unmarshal([]byte(read(t, join(berth.BuildxConfig, "refs", "b", "b0", id))), &ref); err != nil || ref.GroupRef != filepath.Base(groups[0]) || ref.DockerfilePath != join(dir, "Dockerfile") {
			t.Error(ref, err)
		}
		if !strings.Contains(read(t, md), id) {
			t.Errorf("the metadata does not have %s", id)
		}
	}
}

// On a terminal rights are asked for, with where symbolic links lead.
func TestBakeRightsAtATerminal(t *testing.T) {
	berth, _ := shared(t)
	outside := lab.Context(t, map[string]string{"f": "outside", "Dockerfile": scratchCopy})
	dir := lab.Context(t, map[string]string{"docker-bake.hcl": "target \"default\" {\n  context = \"link\"\n  output = [\"out\"]\n}\n"})
	if err := os.Symlink(outside, join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	const question = "Do you want to grant requested privileges and continue? [y/N]"
	for answer, code := range map[string]int{"\n": 1, "n\n": 1, "y\n": 0} {
		p := berth.Cmd("bake", "--progress", "plain").Dir(dir).TTY().Start()
		p.WaitFor(question)
		p.Type(answer)
		r := p.Wait()
		if r.Code != code || !strings.Contains(r.Stdout, " - read access to "+outside+" (--allow fs.read="+outside+")") {
			t.Errorf("%q: %s", answer, r)
		}
	}
	if read(t, join(dir, "out", "f")) != "outside" {
		t.Error("it was not built")
	}
	p := berth.Cmd("bake").Dir(dir).TTY().Start()
	p.WaitFor(question)
	p.Interrupt()
	if r := p.Wait(); r.Code != 130 {
		t.Errorf("after an interrupt: %s", r)
	}
}

// Services of the default Compose files are built, with what HCL says besides.
func TestBakeCompose(t *testing.T) {
	berth, _ := shared(t)
	dir := lab.Context(t, map[string]string{
		"compose.yaml": "services:\n  base: {build: ./base}\n  web:\n    image: web:${TAG}\n    env_file: web.env\n    build:\n      context: ./web\n" +
			"      args: [WHO, TAG=$TAG]\n      additional_contexts: {base: 'service:base'}\n",
		"docker-bake.override.hcl": "target \"web\" {\n  output = [\"type=local,dest=out\"]\n}\n", ".env": "TAG=dotenv\n", "web.env": "WHO=file\n",
		"base/Dockerfile": "FROM scratch\nCOPY b /b\n", "base/b": "base",
		"web/Dockerfile": "FROM scratch\nARG WHO\nARG TAG\nCOPY --from=base b /b\nCOPY <<EOF /args\n$WHO $TAG\nEOF\n",
	})
	if r := berth.Cmd("bake", "web").Dir(dir).Run(); r.Code != 0 || read(t, join(dir, "out", "b")) != "base" || read(t, join(dir, "out", "args")) != "file dotenv\n" {
		t.Error(r)
	}
	stdin := strings.NewReader(read(t, join(dir, "compose.yaml")))
	if r := berth.Cmd("bake", "--print", "-f", "-", "base").Dir(dir).Stdin(stdin).Run(); r.Code != 0 || !strings.Contains(r.Stdout, `"context": "base"`) {
		t.Errorf("standard input: %s", r)
	}
	outside := lab.Context(t, map[string]string{"secret.env": "WHO=secret\n"})
	if err := os.WriteFile(join(dir, "compose.yaml"), []byte("services: {web: {env_file: "+outside+"/secret.env, build: {context: web, args: [WHO]}}}"), 0o644); err != nil {
		t.Fatal(err)
	}
	r := berth.Cmd("bake", "--print").Dir(dir).Run()
	if r.Code != 1 || !strings.Contains(r.Stderr, "--allow fs.read="+join(outside, "secret.env")) {
		t.Error(r)
	}
	if r := berth.Cmd("bake", "--print", "--allow", "fs.read="+outside).Dir(dir).Run(); r.Code != 0 || !strings.Contains(r.Stdout, `"WHO": "secret"`) {
		t.Error(r)
	}
}

// The flags that stand for --set of every target, and what only prints.
func TestBakeShorthands(t *testing.T) {
	berth, _ := shared(t)
	registry := lab.Registry(t)
	dir := bakeContext(t, `
variable "NAME" { default = "none" }
target "default" {
  description = "all of it"
  dockerfile-inline = "FROM scratch\nCOPY f.txt /\n"
  tags = ["`+registry.Addr()+`/${NAME}:1"]
}
`, nil)
	md := filepath.Join(t.TempDir(), "md.json")
	r := berth.Cmd("bake", "--var", "NAME=shorthand", "--push", "--no-cache", "--pull", "--provenance", "mode=max", "--metadata-file", md).Dir(dir).Run()
	if r.Code != 0 {
		t.Fatal(r)
	}
	has(t, "the metadata", read(t, md), `"containerimage.digest"`, registry.Addr()+"/shorthand:1", `"buildx.build.provenance"`)
	for args, want := range map[string]string{
		"--print --sbom=true --load":  `"type": "sbom"`,
		"--list=targets":              "all of it",
		"--list variables":            "NAME",
		"--list-targets":              "all of it",
		"--list-variables":            "NAME",
		"--print --provenance=false":  `"disabled": true`,
		"--print --no-cache --pull":   `"no-cache": true`,
		"--print --load":              `"type": "docker"`,
		"--print --var NAME=variable": "/variable:1",
	} {
		if r := berth.Cmd(append([]string{"bake"}, strings.Fields(args)...)...).Dir(dir).Run(); r.Code != 0 || !strings.Contains(r.Stdout, want) {
			t.Errorf("%s: %s", args, r)
		}
	}
	r = berth.Cmd("bake", "--list-variables", "--list-targets").Dir(dir).Run()
	if r.Code != 0 || !strings.HasPrefix(r.Stdout, "TARGET") || !strings.Contains(r.Stderr, "WARNING: --list-variables is deprecated: use --list=variables\n") {
		t.Error(r)
	}
	if r := berth.Cmd("bake", "--list-targets", "--print").Dir(dir).Run(); r.Code != 1 || lastLine(r.Stderr) != "ERROR: --print and --list are mutually exclusive" {
		t.Error(r)
	}
	if r := berth.With("SOURCE_DATE_EPOCH=7").Cmd("bake", "--print").Dir(dir).Run(); r.Code != 0 || !strings.Contains(r.Stdout, `"SOURCE_DATE_EPOCH": "7"`) {
		t.Error(r)
	}
	if r := berth.Cmd("bake", "--set", "default.policy=filename=x.rego", "--policy", "disabled=true").Dir(dir).Run(); r.Code != 0 {
		t.Error(r)
	}
	if r := berth.Cmd("bake", "--policy", "strict=true").Dir(dir).Run(); r.Code != 1 || lastLine(r.Stderr) != "ERROR: --policy strict=true: this version of berth evaluates no policy" {
		t.Error(r)
	}
	r = berth.Cmd("bake", "--set", "default.policy=filename=x.rego").Dir(dir).Run()
	if r.Code != 1 || !strings.Contains(lastLine(r.Stderr), "it has a policy") {
		t.Error(r)
	}
}

// Each target's Dockerfile is looked at.
func TestBakeCall(t *testing.T) {
	berth, _ := shared(t)
	dir := bakeContext(t, `
group "default" { targets = ["good", "bad"] }
target "good" { dockerfile-inline = "FROM scratch\nCOPY f.txt /\n" }
target "bad" { dockerfile-inline = "from scratch\nCOPY f.txt /\n" }
`, nil)
	for _, flag := range []string{"--check", "--call=check"} {
		r := berth.Cmd("bake", flag).Dir(dir).Run()
		if r.Code != 1 {
			t.Error(r)
		}
		has(t, flag, r.Stdout, "good\n", "bad\n", "ConsistentInstructionCasing")
	}
	r := berth.Cmd("bake", "--call=check,format=json").Dir(dir).Run()
	var document struct{ Target map[string]map[string]any }
	if err := json.Unmarshal([]byte(r.Stdout), &document); err != nil || r.Code != 1 || document.Target["bad"]["check"] == nil || document.Target["good"]["build"] == nil {
		t.Error(err, r)
	}
	if r := berth.Cmd("bake", "--call=targets", "good").Dir(dir).Run(); r.Code != 0 || !strings.Contains(r.Stdout, "TARGET") {
		t.Error(r)
	}
}

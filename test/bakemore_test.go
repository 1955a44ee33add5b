//go:build e2e && linux

package test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/berthbuild/berth/test/lab"
)

// What was found in the Dockerfiles stands in the metadata beside the targets,
// where it is asked for.
func TestBakeMetadataWarnings(t *testing.T) {
	berth, _ := shared(t)
	dir := bakeContext(t, `
group "default" { targets = ["good", "bad"] }
target "good" { dockerfile-inline = "FROM scratch\nCOPY f.txt /\n" }
target "bad" { dockerfile-inline = "FROM scratch\nCOPY f.txt /\nMAINTAINER me\n" }
`, nil)
	md := filepath.Join(t.TempDir(), "md.json")
	for value, want := range map[string]int{"": 0, "0": 0, "1": 1} {
		if r := berth.With("BUILDX_METADATA_WARNINGS="+value).Cmd("bake", "--metadata-file", md).Dir(dir).Run(); r.Code != 0 {
			t.Fatal(r)
		}
		var meta struct {
			Warnings []struct {
				Short      []byte
				SourceInfo struct{ Filename string }
			} `json:"buildx.build.warnings"`
			Good, Bad map[string]any
		}
		if err := json.Unmarshal([]byte(read(t, md)), &meta); err != nil {
			t.Fatal(err)
		}
		if len(meta.Warnings) != want || meta.Good["buildx.build.ref"] == nil || meta.Bad["buildx.build.warnings"] != nil {
			t.Errorf("%q: %s", value, read(t, md))
		}
		for _, w := range meta.Warnings {
			if !strings.HasPrefix(string(w.Short), "MaintainerDeprecated: ") || w.SourceInfo.Filename != "Dockerfile" {
				t.Errorf("%s", read(t, md))
			}
		}
	}
	r := berth.With("BUILDX_METADATA_WARNINGS=perhaps").Cmd("bake").Dir(dir).Run()
	if r.Code != 1 || lastLine(r.Stderr) != `ERROR: BUILDX_METADATA_WARNINGS="perhaps" is neither true nor false` {
		t.Error(r)
	}
}

// A target that is built upon others is asked with what they are, and one that
// fails takes nobody else's report away.
func TestBakeCallLinked(t *testing.T) {
	berth, _ := shared(t)
	dir := bakeContext(t, `
group "default" { targets = ["app", "base"] }
target "ground" { dockerfile-inline = "FROM scratch\nCOPY f.txt /\nENV KNOWN=yes\n" }
target "base" {
  description = "What the rest stands on."
  contexts = { ground = "target:ground" }
  dockerfile-inline = "FROM ground\nCOPY f.txt /g\nRUN false\n"
}
target "app" {
  contexts = { base = "target:base" }
  dockerfile-inline = "FROM base\nARG WHO\nENV A=$${KNOWN} B=$${UNKNOWN}\n"
}
target "wrong" { dockerfile-inline = "FROM scratch\nWRONG\n" }
target "upon" {
  contexts = { wrong = "target:wrong" }
  dockerfile-inline = "FROM wrong\n"
}
`, nil)
	r := berth.Cmd("bake", "--check").Dir(dir).Run()
	if r.Code != 1 || strings.Contains(r.Stderr, "ERROR") {
		t.Error(r)
	}
	// The base's variables are known, and so only one is not.
	has(t, "check", r.Stdout, "app\n\nCheck complete, 1 warning has been found!\n", "Usage of undefined variable '$UNKNOWN'", "\ninline:3\n",
		"\nbase\nWhat the rest stands on.\n\nCheck complete, no warnings found.\n", "\nground\n\nCheck complete, no warnings found.\n")
	if r := berth.Cmd("bake", "--call=outline", "app").Dir(dir).Run(); r.Code != 0 || !strings.Contains(r.Stdout, "WHO") {
		t.Error(r)
	}
	r = berth.Cmd("bake", "--call=outline", "app", "upon").Dir(dir).Run()
	if r.Code != 1 || !strings.HasSuffix(lastLine(r.Stderr), "unknown instruction: WRONG (2 of 5 targets failed: upon, wrong)") {
		t.Error(r)
	}
	has(t, "outline", r.Stdout, "app\n", "WHO", "\nupon\n\nerror: its context wrong is another target, which cannot be built: ", "\nwrong\n\nerror: failed to solve: dockerfile parse error on line 2")
	for _, call := range []string{"check", "outline", "targets"} {
		r := berth.Cmd("bake", "--call="+call+",format=json", "app", "upon").Dir(dir).Run()
		var document struct {
			Group  map[string]struct{ Targets []string }
			Target map[string]map[string]map[string]any
		}
		if err := json.Unmarshal([]byte(r.Stdout), &document); err != nil {
			t.Fatal(err, r)
		}
		if len(document.Target) != 5 || len(document.Group["default"].Targets) != 2 || document.Target["app"]["build"]["call"] == nil {
			t.Error(r)
		}
		failed := map[string]bool{"wrong": true, "upon": call != "targets"}
		for name, target := range document.Target {
			if target[call] == nil || (target[call]["error"] != nil) != failed[name] {
				t.Errorf("--call=%s: %s: %v", call, name, target[call])
			}
		}
		if r.Code != 1 {
			t.Error(r)
		}
	}
	if r := berth.Cmd("bake", "--call=targets", "base").Dir(dir).Run(); r.Code != 0 {
		t.Error(r)
	}
}

// numbered is a line of the plain display that names a step.
var numbered = regexp.MustCompile(`(?m)^#(\d+) (\[.*)$`)

// One display shows how the definition is fetched, and what is built.
func TestBakeOneDisplay(t *testing.T) {
	berth, _ := shared(t)
	url := serve(t, repositoryOf(t, remoteFiles())) + "/r.git"
	here := t.TempDir()
	r := berth.Cmd("bake", "--progress", "plain", url).Dir(here).Run()
	if r.Code != 0 || strings.Count(r.Stderr, "#0 building with") != 1 {
		t.Error(r)
	}
	names := map[string]string{}
	for _, m := range numbered.FindAllStringSubmatch(r.Stderr, -1) {
		if had, ok := names[m[1]]; ok && had != m[2] {
			t.Errorf("#%s is %q and %q", m[1], had, m[2])
		}
		names[m[1]] = m[2]
	}
	if len(names) < 3 || !strings.HasPrefix(names["1"], "[internal] ") {
		t.Error(names, r)
	}
	for _, args := range [][]string{{"--print"}, {"--list=targets"}} {
		r := berth.Cmd(append([]string{"bake", "--progress", "plain", url}, args...)...).Dir(here).Run()
		if r.Code != 0 || !strings.Contains(r.Stdout, "named") && !strings.Contains(r.Stdout, `"output"`) || !strings.Contains(r.Stderr, "load remote bake definition") {
			t.Error(r)
		}
	}
	// The question is not asked in the middle of it.
	url = serve(t, repositoryOf(t, map[string]string{"docker-bake.hcl": "target \"default\" {\n  context = \"cwd://\"\n  dockerfile-inline = \"FROM scratch\\nCOPY f /\\n\"\n  output = [\"out\"]\n}\n"})) + "/r.git"
	here = lab.Context(t, map[string]string{"f": "here"})
	p := berth.Cmd("bake", url).Dir(here).TTY().Start()
	p.WaitFor("[y/N]")
	p.Type("y\n")
	if r := p.Wait(); r.Code != 0 || read(t, join(here, "out", "f")) != "here" {
		t.Error(r)
	}
}

// A .env that leads elsewhere is asked for like any other file.
func TestBakeDotEnvLink(t *testing.T) {
	berth, _ := shared(t)
	outside := lab.Context(t, map[string]string{"secret.env": "WHO=secret\n"})
	dir := lab.Context(t, map[string]string{"compose.yaml": "services: {web: {build: {context: ., args: [WHO]}}}\n", "own.env": "WHO=own\n"})
	link := func(to string) {
		t.Helper()
		_ = os.Remove(join(dir, ".env")) // there may be none
		if err := os.Symlink(to, join(dir, ".env")); err != nil {
			t.Fatal(err)
		}
	}
	secret := join(outside, "secret.env")
	link(secret)
	r := berth.Cmd("bake", "--print", "web").Dir(dir).Run()
	if r.Code != 1 || !strings.HasSuffix(lastLine(r.Stderr), join(dir, ".env")+" leads to "+secret+", which lies outside of the working directory") ||
		!strings.Contains(r.Stderr, " bake --print web --allow fs.read="+secret+"\n") || strings.Contains(r.Stdout+r.Stderr, "WHO") {
		t.Error(r)
	}
	for _, allow := range []string{secret, outside} {
		if r := berth.Cmd("bake", "--print", "--allow", "fs.read="+allow).Dir(dir).Run(); r.Code != 0 || !strings.Contains(r.Stdout, `"WHO": "secret"`) {
			t.Error(r)
		}
	}
	if r := berth.With("BUILDX_BAKE_ENTITLEMENTS_FS=0").Cmd("bake", "--print").Dir(dir).Run(); r.Code != 0 || !strings.Contains(r.Stdout, `"WHO": "secret"`) {
		t.Error(r)
	}
	link("own.env")
	if r := berth.Cmd("bake", "--print").Dir(dir).Run(); r.Code != 0 || !strings.Contains(r.Stdout, `"WHO": "own"`) {
		t.Error(r)
	}
}

// What is to be pasted for the rights that are missing is the whole command.
func TestBakeRightsLine(t *testing.T) {
	berth, _ := shared(t)
	outside := lab.Context(t, map[string]string{"Dockerfile": scratchCopy})
	dir := lab.Context(t, map[string]string{"my.hcl": "variable \"T\" {}\nvariable \"NPM_TOKEN\" {}\ntarget \"app\" {\n  context = \"" + outside + "\"\n}\n"})
	r := berth.With("CI_SECRET=very-secret").Cmd("bake", "-f", "my.hcl", "--var", "T=it's very-secret", "app").Dir(dir).Run()
	if r.Code != 1 || !strings.Contains(r.Stderr, ` bake -f my.hcl --var 'T=it'\''s '"$CI_SECRET" app --allow fs.read=`+outside+"\n") || strings.Contains(r.Stderr, "very-secret") {
		t.Error(r)
	}
	r = berth.Cmd("bake", "-f", "my.hcl", "--var", "NPM_TOKEN=very-secret", "app").Dir(dir).Run()
	if r.Code != 1 || !strings.Contains(r.Stderr, " --var 'NPM_TOKEN=…' app --allow fs.read="+outside+"\n") || strings.Contains(r.Stderr, "very-secret") {
		t.Error(r)
	}
}

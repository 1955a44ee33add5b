package bake

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/berthbuild/berth/internal/bake/compose"
	"github.com/berthbuild/berth/internal/bake/eval"
	"github.com/google/shlex"
)

// The cases in testdata/cases are what buildx v0.38.2 makes of small
// definitions, written down with
//
//	go test ./internal/bake -run TestCases -buildx ~/.cache/berth/bin/buildx -update
//
// which writes what buildx prints, and for what it refuses, our own words. With
// -buildx alone, buildx is asked again and nothing is written. A case:
//
//	=== title
//	> names, --set …, --var …, --list …
//	$ NAME=VALUE of the environment
//	~ why berth differs here; what is wanted is then our own
//	-- file.hcl --           x.hcl where there is none; +file is one that others refer to
//	…
//	<<<
//	G name {…}               a group, a target, a row of a list
//	! an error
var (
	buildx = flag.String("buildx", "", "ask this buildx what it makes of the cases")
	update = flag.Bool("update", false, "write down what it makes of them")
)

type testCase struct {
	title, differs string
	args, env      string
	files          []eval.File
	text           string // all of it but what is wanted
	want           string
}

func readCases(t *testing.T, path string) []testCase {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	formats := map[string]eval.Format{".hcl": eval.FormatHCL, ".json": eval.FormatJSON}
	var out []testCase
	for _, text := range strings.Split("\n"+string(data), "\n=== ")[1:] {
		c := testCase{}
		c.text, c.want, _ = strings.Cut(text+"\n", "\n<<<\n")
		c.want = strings.TrimSpace(c.want)
		title, body, _ := strings.Cut(c.text, "\n")
		c.title = title
		var file *eval.File
		for line := range strings.Lines(body + "\n") {
			rest := strings.TrimSpace(strings.TrimLeft(line, ">$~"))
			switch {
			case strings.HasPrefix(line, "-- ") && strings.HasSuffix(line, " --\n"):
				name := strings.TrimSuffix(line[3:], " --\n")
				c.files = append(c.files, eval.File{Name: name, Format: formats[filepath.Ext(name)]})
				file = &c.files[len(c.files)-1]
			case file == nil && strings.HasPrefix(line, ">"):
				c.args = rest
			case file == nil && strings.HasPrefix(line, "$"):
				c.env = rest
			case file == nil && strings.HasPrefix(line, "~"):
				c.differs = rest
			case file == nil:
				c.files = append(c.files, eval.File{Name: "x.hcl", Format: eval.FormatHCL})
				file = &c.files[0]
				fallthrough
			default:
				file.Data = append(file.Data, line...)
			}
		}
		out = append(out, c)
	}
	return out
}

func TestCases(t *testing.T) {
	paths, err := filepath.Glob(filepath.Join("testdata", "cases", "*.txt"))
	if err != nil || len(paths) == 0 {
		t.Fatal(paths, err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txt"), func(t *testing.T) {
			cases := readCases(t, path)
			seen := map[string]bool{}
			for i := range cases {
				c := &cases[i]
				if seen[c.title] {
					t.Errorf("two cases are called %q", c.title)
				}
				seen[c.title] = true
				t.Run(c.title, func(t *testing.T) { c.run(t) })
			}
			if *update {
				writeCases(t, path, cases)
			}
		})
	}
}

func (c *testCase) run(t *testing.T) {
	got := c.ours(t)
	if *buildx != "" {
		theirs := c.theirs(t)
		refused := strings.HasPrefix(theirs, "!")
		if c.differs != "" && theirs == got || c.differs == "" && theirs != got && (!refused || !strings.HasPrefix(got, "!")) {
			t.Errorf("buildx:\n%s\nours:\n%s", theirs, got)
		}
		if *update {
			c.want = theirs
			if refused || c.differs != "" {
				c.want = got
			}
		}
	}
	if c.want == "" || got != c.want {
		t.Errorf("%s\ngot:\n%s\nwanted:\n%s", c.text, got, c.want)
	}
}

func writeCases(t *testing.T, path string, cases []testCase) {
	t.Helper()
	var b bytes.Buffer
	for i, c := range cases {
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "=== %s\n<<<\n%s\n", strings.TrimRight(c.text, "\n"), c.want)
	}
	if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

// arguments are those that a case may have.
type arguments struct {
	Selection
	vars map[string]string
	list string

	policyErr error // of --policy
}

func (c *testCase) arguments(t *testing.T) arguments {
	t.Helper()
	words, err := shlex.Split(c.args)
	if err != nil {
		t.Fatal(err)
	}
	a := arguments{vars: map[string]string{}}
	var flags Flags
	var policy []string
	for i := 0; i < len(words); i++ {
		switch words[i] {
		case "--set":
			i++
			a.Set = append(a.Set, words[i])
		case "--var":
			i++
			k, v, _ := strings.Cut(words[i], "=")
			a.vars[k] = v
		case "--list":
			i++
			a.list = words[i]
		case "--policy":
			i++
			policy = append(policy, words[i])
		default:
			if !flags.take(words[i]) {
				a.Names = append(a.Names, words[i])
			}
		}
	}
	a.Set = append(a.Set, flags.Set()...)
	a.NoPolicy, a.policyErr = ParsePolicy(policy)
	return a
}

// take reads a flag.
func (f *Flags) take(word string) bool {
	name, value, given := strings.Cut(word, "=")
	yes := !given || value == "true"
	switch name {
	case "--no-cache":
		f.NoCache = &yes
	case "--pull":
		f.Pull = &yes
	case "--push":
		f.Push = yes
	case "--load":
		f.Load = yes
	case "--sbom":
		f.SBOM = value
	case "--provenance":
		f.Provenance = value
	case "--check":
		f.Call = "check"
	case "--call":
		f.Call, _, _ = strings.Cut(value, ",")
	default:
		return false
	}
	return true
}

func (c *testCase) environment(t *testing.T) map[string]string {
	t.Helper()
	words, err := shlex.Split(c.env)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, w := range words {
		k, v, _ := strings.Cut(w, "=")
		out[k] = strings.ReplaceAll(v, `\n`, "\n")
	}
	return out
}

// input is what is evaluated of a case.
func (c *testCase) input(t *testing.T) (Source, arguments) {
	t.Helper()
	args, env := c.arguments(t), c.environment(t)
	args.Env = func(name string) (string, bool) { v, ok := env[name]; return v, ok }
	in := eval.Input{
		Files: c.files, Vars: args.vars, Env: args.Env, Home: "/home/user", Now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		Builtins: map[string]string{"BAKE_CMD_CONTEXT": "cwd://", "BAKE_LOCAL_PLATFORM": "linux/amd64"},
	}
	if env["BUILDX_BAKE_DISABLE_VARS_ENV_LOOKUP"] != "" {
		in.Env = nil
	}
	args.Epoch = env["SOURCE_DATE_EPOCH"]
	args.FileRelative, _ = strconv.ParseBool(env["BUILDX_BAKE_FILE_RELATIVE_PATHS"])
	return c.source(in, env), args
}

// printed is what --print prints of a case, where it prints something.
func (c *testCase) printed(t *testing.T) (string, bool) {
	t.Helper()
	in, args := c.input(t)
	def, err := Evaluate(t.Context(), in)
	if err != nil || args.list != "" {
		return "", false
	}
	plan, err := Resolve(def, args.Selection)
	if err != nil {
		return "", false
	}
	data, err := plan.JSON()
	if err != nil {
		t.Fatal(err)
	}
	return string(data), true
}

// ours is what we make of a case, in the form in which it is wanted.
func (c *testCase) ours(t *testing.T) string {
	t.Helper()
	in, args := c.input(t)
	if args.policyErr != nil {
		return "! " + args.policyErr.Error()
	}
	def, err := Evaluate(t.Context(), in)
	if err != nil {
		var e *eval.Error
		if !errors.As(err, &e) && !strings.Contains(c.text, "compose") {
			t.Fatalf("not an *eval.Error: %v", err)
		}
		return "! " + err.Error()
	}
	if args.list != "" {
		l, err := ParseList(args.list)
		if err != nil {
			return "! " + err.Error()
		}
		var rows any = ListTargets(def)
		if l.Variables {
			rows = ListVariables(def)
		}
		data, err := json.Marshal(rows)
		if err != nil {
			t.Fatal(err)
		}
		return rowsOf(t, data)
	}
	plan, err := Resolve(def, args.Selection)
	if err != nil {
		return "! " + err.Error()
	}
	data, err := plan.JSON()
	if err != nil {
		t.Fatal(err)
	}
	return compact(t, data)
}

// source is the definition with an environment that Compose files may name, and
// the files that they refer to: those of the case whose names begin with "+".
func (c *testCase) source(in eval.Input, env map[string]string) Source {
	in.Files = nil
	more := map[string][]byte{}
	for _, f := range c.files {
		if name, ok := strings.CutPrefix(f.Name, "+"); ok {
			more[name] = f.Data
			continue
		}
		in.Files = append(in.Files, f)
	}
	return Source{
		Input: in,
		Environ: func() (map[string]string, error) {
			all := maps.Clone(env)
			if in.Env == nil {
				all = map[string]string{}
			}
			dot, err := compose.DotEnv(more[".env"], all)
			for k, v := range dot {
				if _, set := all[k]; !set {
					all[k] = v
				}
			}
			return all, err
		},
	}
}

// theirs is what buildx makes of it.
func (c *testCase) theirs(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	words, err := shlex.Split(c.args)
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"bake"}
	list := slices.Index(words, "--list")
	if list >= 0 {
		words[list+1] = "type=" + words[list+1] + ",format=json"
	} else {
		args = append(args, "--print")
	}
	for _, f := range c.files {
		name, referred := strings.CutPrefix(f.Name, "+")
		if !referred {
			args = append(args, "-f", name)
		}
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), f.Data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"key", "file", "S1"} { // what secrets and agents are looked for in
		if err := os.WriteFile(filepath.Join(dir, name), newKey(t), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), *buildx, append(args, words...)...)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/home/user", "BUILDX_CONFIG=" + dir, "DOCKER_CONFIG=" + dir, "AWS_EC2_METADATA_DISABLED=true"}
	for k, v := range c.environment(t) {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	data, err := cmd.Output()
	if err != nil {
		_, text, _ := strings.Cut(stderr.String(), "ERROR: ")
		return "! " + strings.TrimSpace(text)
	}
	if list >= 0 {
		return rowsOf(t, data)
	}
	return compact(t, data)
}

// compact is what --print prints, a line for each group and target, without what
// every target has.
func compact(t *testing.T, data []byte) string {
	t.Helper()
	var doc struct {
		Group, Target map[string]map[string]any
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		t.Fatalf("%v in\n%s", err, data)
	}
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(doc.Group)) {
		fmt.Fprintf(&b, "G %s %s\n", name, line(t, doc.Group[name]))
	}
	for _, name := range slices.Sorted(maps.Keys(doc.Target)) {
		m := doc.Target[name]
		if m["context"] == "." {
			delete(m, "context")
		}
		if m["dockerfile"] == "Dockerfile" {
			delete(m, "dockerfile")
		}
		if list, ok := m["policy"].([]any); ok {
			for i := range list {
				list[i] = asWritten(list[i])
			}
		}
		fmt.Fprintf(&b, "T %s %s\n", name, line(t, m))
	}
	return strings.TrimSpace(b.String())
}

// asWritten is a policy as definitions have it. What buildx prints of one is a
// type of its own, which it cannot read again.
func asWritten(policy any) any {
	m, ok := policy.(map[string]any)
	if !ok || m["Reset"] == nil {
		return policy
	}
	var p eval.Policy
	for _, f := range asList(m["Files"]) {
		p.Files = append(p.Files, f.(map[string]any)["Filename"].(string))
	}
	p.Reset, p.Disabled = m["Reset"].(bool), m["Disabled"].(bool)
	if b, ok := m["Strict"].(bool); ok {
		p.Strict = &b
	}
	p.LogLevel, _ = m["LogLevel"].(string)
	return printPolicy([]eval.Policy{p})[0]
}

func asList(v any) []any { l, _ := v.([]any); return l }

func rowsOf(t *testing.T, data []byte) string {
	t.Helper()
	var rows []map[string]any
	if err := json.Unmarshal(data, &rows); err != nil {
		t.Fatalf("%v in\n%s", err, data)
	}
	var b strings.Builder
	b.WriteString("list\n")
	for _, r := range rows {
		b.WriteString(line(t, r) + "\n")
	}
	return strings.TrimSpace(b.String())
}

func line(t *testing.T, v any) string {
	t.Helper()
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(b.String())
}

package archtest

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/berthbuild/berth"

// TestArchitecture is what this package is for.
func TestArchitecture(t *testing.T) {
	root := filepath.Join("..", "..")
	markdown, err := os.ReadFile(filepath.Join(root, "docs", "architecture.md"))
	if err != nil {
		t.Fatal(err)
	}
	rows, err := ParseTable(string(markdown))
	if err != nil {
		t.Fatal("docs/architecture.md: ", err)
	}
	packages, err := Load(root, module)
	if err != nil {
		t.Fatal(err)
	}
	for _, finding := range Check(rows, packages) {
		t.Error(finding)
	}
}

// What is slow is not in the program on a way through another module either.
func TestProgramStartsFast(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", module+"/cmd/berth").Output()
	if err != nil {
		t.Fatal(err)
	}
	for path := range strings.FieldsSeq(string(out)) {
		if slices.ContainsFunc(slow(), func(s string) bool { return within(path, s) }) {
			t.Errorf("cmd/berth has %s in it", path)
		}
	}
}

const table = "# A page\n| other | table |\n|---|---|\n| x | y |\n\n" +
	"| package | layer | purpose | sideways |\n|---|---|---|---|\n" +
	"| `cmd/x` | main | the call | |\n" +
	"| `internal/cli` | surface | flags | |\n" +
	"| `internal/build` | use case | builds | `internal/load`, `internal/index` |\n" +
	"| `internal/load` | use case | loads | |\n" +
	"| `internal/index` | use case | joins | |\n" +
	"| `internal/remote` | connection | connects | |\n" +
	"| `internal/ui` | leaf | prints | |\n" +
	"| `internal/fake` | test | pretends | |\n\nText.\n"

// sound is a module that the table describes.
func sound() []Package {
	return []Package{
		{Path: "cmd/x", Imports: []string{"internal/cli"}},
		{Path: "internal/cli", Imports: []string{"internal/build", "internal/ui", "github.com/spf13/cobra", "os"}},
		{Path: "internal/build", Imports: []string{"internal/load", "internal/remote", "internal/ui"}, TestImports: []string{"internal/fake"}},
		{Path: "internal/load", Imports: []string{"internal/remote"}},
		{Path: "internal/index"},
		{Path: "internal/remote", Imports: []string{"internal/ui", "net"}, Blank: []string{"embed"}},
		{Path: "internal/ui"},
		{Path: "internal/fake", Imports: []string{"internal/remote"}},
		{Path: "test", OnlyTests: true, TestImports: []string{"internal/fake"}},
		{Path: "examples/hello", Imports: []string{"os"}},
	}
}

func TestParseTable(t *testing.T) {
	rows, err := ParseTable(table)
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) != 8 {
		t.Fatalf("%d rows: %v", len(rows), rows)
	}
	build := rows[2]
	if build.Package != "internal/build" || build.Layer != "use case" || !slices.Equal(build.Sideways, []string{"internal/load", "internal/index"}) {
		t.Errorf("%+v", build)
	}
	for name, bad := range map[string]string{
		"nothing":       "# A page\n",
		"unknown layer": "| package | layer | purpose | s |\n|---|---|---|---|\n| `a` | cellar | x | |\n",
		"columns":       "| package | layer | purpose | s |\n|---|---|---|---|\n| `a` | leaf |\n",
	} {
		if rows, err := ParseTable(bad); err == nil {
			t.Errorf("%s: no error, %v", name, rows)
		}
	}
}

func TestCheck(t *testing.T) {
	edit := func(path string, change func(*Package)) func([]Package) []Package {
		return func(ps []Package) []Package {
			change(&ps[slices.IndexFunc(ps, func(p Package) bool { return p.Path == path })])
			return ps
		}
	}
	imports := func(path, i string) func([]Package) []Package {
		return edit(path, func(p *Package) { p.Imports = append(p.Imports, i) })
	}
	for _, tc := range []struct {
		name   string
		change func([]Package) []Package
		want   string // "" for no finding
	}{
		{"sound", func(ps []Package) []Package { return ps }, ""},
		{"up", imports("internal/remote", "internal/build"), "internal/remote (connection) imports internal/build (use case): imports point down"},
		{"leaf up", imports("internal/ui", "internal/remote"), "imports point down"},
		{"to main", imports("internal/cli", "cmd/x"), "imports point down"},
		{"sideways allowed", imports("internal/build", "internal/index"), ""},
		{"sideways refused", imports("internal/load", "internal/index"), "internal/load (use case) imports internal/index (use case): sideways"},
		{"leaf to leaf", imports("internal/ui", "internal/ui"), ""},
		{"test helper in code", imports("internal/build", "internal/fake"), "only tests may"},
		{"test helper of the surface", imports("internal/fake", "internal/cli"), "below the surface"},
		{"cobra below", imports("internal/build", "github.com/spf13/cobra"), "internal/build imports cobra"},
		{"buildx", imports("internal/build", "github.com/docker/buildx/driver"), "not built on buildx"},
		{"buildx in an example", imports("examples/hello", "github.com/docker/buildx"), "not built on buildx"},
		{"buildx in a test", edit("test", func(p *Package) { p.TestImports = append(p.TestImports, "github.com/docker/buildx/util") }), "not built on buildx"},
		{"slow", imports("internal/load", "github.com/compose-spec/compose-go/v2/loader"), "every command waits"},
		{"slow, another version", imports("internal/load", "github.com/santhosh-tekuri/jsonschema/v6"), "every command waits"},
		{"slow in a test", edit("test", func(p *Package) { p.TestImports = append(p.TestImports, "github.com/santhosh-tekuri/jsonschema/v6") }), ""},
		{"another buildx", imports("internal/build", "github.com/docker/buildxtra"), ""},
		{"init", edit("internal/ui", func(p *Package) { p.Inits = []string{"internal/ui/a.go:3"} }), "internal/ui/a.go:3: func init"},
		{"blank", edit("internal/ui", func(p *Package) { p.Blank = []string{"net/http/pprof"} }), "internal/ui imports net/http/pprof for its side effect"},
		{"not in the table", func(ps []Package) []Package { return append(ps, Package{Path: "internal/new"}) }, "internal/new is not in the table"},
		{"an unlisted test folder", func(ps []Package) []Package { return append(ps, Package{Path: "test/e2e", OnlyTests: true}) }, ""},
		{"gone", func(ps []Package) []Package {
			return slices.DeleteFunc(ps, func(p Package) bool { return p.Path == "internal/index" })
		}, "internal/index is in the table, but there is no such package"},
		{"only tests left", edit("internal/index", func(p *Package) { p.OnlyTests = true }), "there is no such package"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			rows, err := ParseTable(table)
			if err != nil {
				t.Fatal(err)
			}
			got := Check(rows, tc.change(sound()))
			if tc.want == "" && len(got) > 0 || tc.want != "" && (len(got) != 1 || !strings.Contains(got[0], tc.want)) {
				t.Errorf("got %q, wanted %q", got, tc.want)
			}
		})
	}
}

func TestCheckTable(t *testing.T) {
	rows := []Row{
		{Package: "internal/a", Layer: "leaf", Sideways: []string{"internal/b"}},
		{Package: "internal/a", Layer: "leaf"},
		{Package: "internal/b", Layer: "state"},
	}
	got := Check(rows[:1:1], []Package{{Path: "internal/a"}})
	if len(got) != 1 || !strings.Contains(got[0], "not in its layer") {
		t.Errorf("%q", got)
	}
	got = Check(rows[1:], []Package{{Path: "internal/a"}, {Path: "internal/b"}})
	if len(got) != 0 {
		t.Errorf("%q", got)
	}
	got = Check(rows[:2], []Package{{Path: "internal/a"}})
	if len(got) != 1 || !strings.Contains(got[0], "twice") {
		t.Errorf("%q", got)
	}
}

func TestLoad(t *testing.T) {
	root := t.TempDir()
	for name, src := range map[string]string{
		"go.mod":                 "module m\n",
		"internal/a/a.go":        "package a\nimport (\n\"os\"\n\"m/internal/b\"\n_ \"net/http/pprof\"\n)\n",
		"internal/a/w.go":        "//go:build windows\n\npackage a\nimport \"m/internal/c\"\nfunc init() {}\n",
		"internal/a/a_test.go":   "package a_test\nimport \"m/internal/d\"\ntype x int\nfunc (x) init() {}\n",
		"test/e2e/x_test.go":     "//go:build e2e\n\npackage e2e\nimport \"testing\"\n",
		"tool/go.mod":            "module other\n",
		"tool/x.go":              "package tool\n",
		"internal/testdata/x.go": "package broken {{{\n",
		".hidden/x.go":           "package hidden\n",
		"docs/readme.md":         "no Go here\n",
	} {
		path := filepath.Join(root, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(src), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := Load(root, "m")
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || got[0].Path != "internal/a" || got[1].Path != "test/e2e" || !got[1].OnlyTests {
		t.Fatalf("%+v", got)
	}
	a := got[0]
	if a.OnlyTests || !slices.Equal(a.Imports, []string{"internal/b", "internal/c", "net/http/pprof", "os"}) ||
		!slices.Equal(a.TestImports, []string{"internal/d"}) || !slices.Equal(a.Blank, []string{"net/http/pprof"}) ||
		!slices.Equal(a.Inits, []string{"internal/a/w.go:5"}) {
		t.Errorf("%+v", a)
	}
	if err := os.WriteFile(filepath.Join(root, "internal", "a", "bad.go"), []byte("package"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(root, "m"); err == nil {
		t.Error("no error for a file that is no Go")
	}
}

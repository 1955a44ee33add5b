// Package archtest holds the code against docs/architecture.md: the table there
// says which packages exist, in which layer, and what may be imported sideways.
//
// It is not for style: golangci-lint checks that. It knows nothing of what the
// packages do. Every file counts, whatever system or build tag it is for.
//
// Rules: a finding says what to change, the code or the table.
package archtest

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// layers from top to bottom; an import points to a later one. The layer "test"
// stands beside them.
func layers() []string {
	return []string{"main", "surface", "use case", "translation", "connection", "state", leaf}
}

const (
	leaf      = "leaf"
	testLayer = "test"
)

// Row is a row of the table: one package.
type Row struct {
	Package  string
	Layer    string
	Sideways []string // what it may import of its own layer
}

// Package is what the files of one folder import and define. Paths are relative
// to the module; those of other modules are as written.
type Package struct {
	Path        string
	OnlyTests   bool     // has no other file than _test.go
	Imports     []string // of the files that are no tests
	TestImports []string
	Blank       []string // imported as _, tests included
	Inits       []string // file:line of each func init, tests included
}

// ParseTable reads the table whose first column is called "package".
func ParseTable(markdown string) ([]Row, error) {
	var rows []Row
	inTable := false
	for line := range strings.Lines(markdown) {
		cells := splitRow(line)
		switch {
		case len(cells) == 0:
			inTable = false
		case cells[0] == "package":
			inTable = true
		case inTable && !strings.HasPrefix(cells[0], "-"):
			row, err := parseRow(cells)
			if err != nil {
				return nil, err
			}
			rows = append(rows, row)
		}
	}
	if len(rows) == 0 {
		return nil, fmt.Errorf("no table with a column \"package\"")
	}
	return rows, nil
}

// splitRow gives the cells of "| a | b |"; none when the line is no row.
func splitRow(line string) []string {
	line = strings.TrimSpace(line)
	if !strings.HasPrefix(line, "|") {
		return nil
	}
	cells := strings.Split(strings.Trim(line, "|"), "|")
	for i := range cells {
		cells[i] = strings.TrimSpace(cells[i])
	}
	return cells
}

func parseRow(cells []string) (Row, error) {
	if len(cells) != 4 {
		return Row{}, fmt.Errorf("the row of %s has %d columns, wanted 4", cells[0], len(cells))
	}
	row := Row{Package: strings.Trim(cells[0], "`"), Layer: cells[1]}
	if row.Layer != testLayer && !slices.Contains(layers(), row.Layer) {
		return Row{}, fmt.Errorf("the row of %s has the unknown layer %q", row.Package, row.Layer)
	}
	for s := range strings.SplitSeq(cells[3], ",") {
		if s = strings.Trim(strings.TrimSpace(s), "`"); s != "" {
			row.Sideways = append(row.Sideways, s)
		}
	}
	return row, nil
}

// Check gives everything in which the packages and the table disagree, and
// every rule that a package breaks, sorted.
func Check(rows []Row, packages []Package) []string {
	c := checker{rows: map[string]Row{}, exists: map[string]bool{}}
	for _, r := range rows {
		if _, twice := c.rows[r.Package]; twice {
			c.find("%s is in the table twice", r.Package)
		}
		c.rows[r.Package] = r
	}
	for _, p := range packages {
		c.exists[p.Path] = !p.OnlyTests
	}
	for _, name := range slices.Sorted(maps.Keys(c.rows)) {
		c.row(c.rows[name])
	}
	for _, p := range packages {
		c.pkg(p)
	}
	slices.Sort(c.findings)
	return c.findings
}

// slow are packages that only tests may have: once anything imports one of them,
// every command starts later, whatever it does.
func slow() []string {
	return []string{
		"github.com/santhosh-tekuri/jsonschema", // compiles the metaschemas; these import it:
		"github.com/compose-spec/compose-go/v2/cli",
		"github.com/compose-spec/compose-go/v2/loader",
		"github.com/compose-spec/compose-go/v2/schema",
	}
}

type checker struct {
	rows     map[string]Row
	exists   map[string]bool // false: only tests
	findings []string
}

func (c *checker) find(format string, args ...any) {
	c.findings = append(c.findings, fmt.Sprintf(format, args...))
}

func (c *checker) row(r Row) {
	if !c.exists[r.Package] {
		c.find("%s is in the table, but there is no such package", r.Package)
	}
	for _, s := range r.Sideways {
		if other, ok := c.rows[s]; !ok || other.Layer != r.Layer {
			c.find("%s: the table allows it %s, which is not in its layer", r.Package, s)
		}
	}
}

func (c *checker) pkg(p Package) {
	for _, at := range p.Inits {
		c.find("%s: func init: fill a value in a readable list instead", at)
	}
	for _, i := range p.Blank {
		if i != "embed" { // the language wants that one
			c.find("%s imports %s for its side effect", p.Path, i)
		}
	}
	for _, i := range slices.Concat(p.Imports, p.TestImports) {
		if within(i, "github.com/docker/buildx") {
			c.find("%s imports %s: berth is not built on buildx", p.Path, i)
		}
	}
	for _, i := range p.Imports {
		if slices.ContainsFunc(slow(), func(s string) bool { return within(i, s) }) {
			c.find("%s imports %s: its packages do so much as the program starts that every command waits", p.Path, i)
		}
	}
	if p.OnlyTests || !governed(p.Path) {
		return
	}
	row, ok := c.rows[p.Path]
	if !ok {
		c.find("%s is not in the table of docs/architecture.md", p.Path)
		return
	}
	for _, i := range p.Imports {
		c.imports(row, i)
	}
}

func (c *checker) imports(from Row, path string) {
	if within(path, "github.com/spf13/cobra") && from.Layer != "surface" {
		c.find("%s imports cobra, which only the surface may", from.Package)
	}
	if !governed(path) {
		return // the standard library, or another module
	}
	to, ok := c.rows[path]
	if !ok {
		return // said where the package itself is looked at
	}
	if why := forbidden(from, to); why != "" {
		c.find("%s (%s) imports %s (%s): %s", from.Package, from.Layer, to.Package, to.Layer, why)
	}
}

// forbidden says why an import is not allowed; "" when it is.
func forbidden(from, to Row) string {
	down := slices.Index(layers(), to.Layer) - slices.Index(layers(), from.Layer)
	switch {
	case from.Layer == testLayer:
		if to.Layer == "main" || to.Layer == "surface" {
			return "a test's helper may import only what is below the surface"
		}
	case to.Layer == testLayer:
		return "only tests may"
	case to.Layer == leaf, slices.Contains(from.Sideways, to.Package):
	case down < 0:
		return "imports point down"
	case down == 0:
		return "sideways, and the table does not allow it"
	}
	return ""
}

// governed tells whether the table speaks of a path: examples and the scripts'
// helpers are no part of the product.
func governed(path string) bool {
	return within(path, "cmd") || within(path, "internal") || within(path, "test")
}

func within(path, parent string) bool {
	return path == parent || strings.HasPrefix(path, parent+"/")
}

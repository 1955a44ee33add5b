package archtest

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Load parses all Go files of the module that lies in a folder. Modules below
// it, hidden folders and testdata are not looked at.
func Load(root, module string) ([]Package, error) {
	var packages []Package
	err := filepath.WalkDir(root, func(dir string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		if dir != root && skipped(dir) {
			return filepath.SkipDir
		}
		rel, err := filepath.Rel(root, dir)
		if err != nil {
			return err
		}
		p, err := loadPackage(dir, filepath.ToSlash(rel), module)
		if p != nil {
			packages = append(packages, *p)
		}
		return err
	})
	return packages, err
}

func skipped(dir string) bool {
	name := filepath.Base(dir)
	if strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_") || name == "testdata" {
		return true
	}
	_, err := os.Stat(filepath.Join(dir, "go.mod"))
	return err == nil
}

// loadPackage is nil when the folder has no Go file.
func loadPackage(dir, rel, module string) (*Package, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil || len(files) == 0 {
		return nil, err
	}
	p := &Package{Path: rel, OnlyTests: true}
	for _, file := range files {
		src, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		if err := p.addFile(path.Join(rel, filepath.Base(file)), src, module); err != nil {
			return nil, err
		}
	}
	for _, list := range []*[]string{&p.Imports, &p.TestImports, &p.Blank} {
		slices.Sort(*list)
		*list = slices.Compact(*list)
	}
	return p, nil
}

func (p *Package) addFile(name string, src []byte, module string) error {
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, name, src, parser.SkipObjectResolution)
	if err != nil {
		return fmt.Errorf("parsing: %w", err)
	}
	list := &p.Imports
	if strings.HasSuffix(name, "_test.go") {
		list = &p.TestImports
	} else {
		p.OnlyTests = false
	}
	for _, spec := range f.Imports {
		i, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return fmt.Errorf("%s: import %s: %w", name, spec.Path.Value, err)
		}
		i = strings.TrimPrefix(i, module+"/")
		*list = append(*list, i)
		if spec.Name != nil && spec.Name.Name == "_" {
			p.Blank = append(p.Blank, i)
		}
	}
	for _, d := range f.Decls {
		if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
			p.Inits = append(p.Inits, fmt.Sprintf("%s:%d", name, fset.Position(fn.Pos()).Line))
		}
	}
	return nil
}

package eval

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/agext/levenshtein"
	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
)

// evaluator is one evaluation.
type evaluator struct {
	in      Input
	budget  budget
	sources map[string][]byte // the files by name, for excerpts

	root   *hcl.EvalContext // the variables that have been evaluated
	stdlib map[string]*callable

	functions map[string]*callable
	variables map[string]*variable
	order     []string           // of variables, by their names
	globals   map[string]*global // attributes at the top of files
	builtins  map[string]bool

	attrs     []targetAttr // of targets, sorted by their names, …
	attrNames []string     // … which are these

	targets  []block              // in the order of the files
	groups   []groupDecl          // the same
	groupAt  map[string]int       // the last one of each name; see lastGroup
	made     []*instance          // what the target blocks make
	latest   map[string]*instance // the last one of each name
	named    bool                 // the names of all targets are known
	labels   []string             // the names of target blocks, each once
	groupsOf map[string][]string  // the targets that the blocks of a name make

	waiting []frame // what is being evaluated, the innermost last
	depth   int     // how deeply nested all of that is

	errs     []Diagnostic
	warnings []Diagnostic
}

// frame is something that is being evaluated.
type frame struct {
	kind string // blockVariable stands for attributes of the file as well
	name string
	attr string // of a target or a group
}

func (f frame) String() string {
	switch f.kind {
	case blockFunction:
		return f.name + "()"
	case blockVariable:
		return f.name
	}
	return f.kind + "." + f.name + "." + f.attr
}

func newEvaluator(ctx context.Context, in Input) *evaluator {
	in.Limits = in.Limits.or(DefaultLimits())
	e := &evaluator{
		in:        in,
		budget:    budget{ctx: ctx, limits: in.Limits, untilIn: lookEvery, ended: ctx.Err()},
		sources:   map[string][]byte{},
		root:      &hcl.EvalContext{Variables: map[string]cty.Value{}},
		functions: map[string]*callable{},
		variables: map[string]*variable{},
		globals:   map[string]*global{},
		builtins:  map[string]bool{},
		latest:    map[string]*instance{},
		groupsOf:  map[string][]string{},
		attrs:     targetAttrs(),
	}
	for _, a := range e.attrs {
		e.attrNames = append(e.attrNames, a.name)
	}
	return e
}

// run evaluates everything, needed or not: an error counts where it is, not
// where somebody comes across it.
func (e *evaluator) run() (*Definition, error) {
	for _, step := range []func(){
		e.readFiles, e.checkFunctions, e.evalVariables, e.nameTargets, e.evalGlobals, e.evalGroups, e.evalTargets,
	} {
		step()
		if err := e.failure(); err != nil {
			return nil, err
		}
	}
	return e.definition(), nil
}

// readFiles parses the files and sorts out what is in them.
func (e *evaluator) readFiles() {
	e.stdlib = e.standardFunctions()
	e.root.Functions = customDecoded(e.stdlib)
	for name, value := range e.in.Builtins {
		e.builtins[name] = true
		e.root.Variables[name] = cty.StringVal(value)
	}
	total := 0
	for _, f := range e.in.Files {
		e.sources[f.Name] = f.Data
		if total += len(f.Data); total > e.in.Limits.FileBytes {
			_ = e.budget.reach(hcl.Range{Filename: f.Name}, ofFileBytes, e.in.Limits.FileBytes)
			return
		}
		got, diags := e.parse(f)
		e.record(diags)
		if diags.HasErrors() {
			return
		}
		e.collect(got)
	}
	e.order = slices.Sorted(maps.Keys(e.variables))
}

// collect notes what a file defines. Of variables, functions and attributes, a
// later one takes the place of an earlier one.
func (e *evaluator) collect(s source) {
	for i := range s.attrs {
		e.globals[s.attrs[i].name] = &global{attr: &s.attrs[i]}
	}
	for i := range s.blocks {
		b := &s.blocks[i]
		switch b.kind {
		case blockVariable:
			e.variables[b.name] = &variable{block: b, typ: cty.NilType}
		case blockFunction:
			e.record(e.addFunction(b))
		case blockTarget:
			e.record(checkName(b.name, b.nameAt))
			e.targets = append(e.targets, *b)
		case blockGroup:
			e.record(checkName(b.name, b.nameAt))
			e.groups = append(e.groups, groupDecl{block: b})
		}
	}
}

// value evaluates an expression for f. Whoever calls it has made sure that f
// does not wait for itself.
func (e *evaluator) value(f frame, x expression, ctx *hcl.EvalContext) (v cty.Value, diags hcl.Diagnostics) {
	at := x.Range()
	if e.depth+x.depth > e.in.Limits.Depth {
		return cty.DynamicVal, e.budget.reach(at, ofDepth, e.in.Limits.Depth)
	}
	e.waiting = append(e.waiting, f)
	e.depth += x.depth
	defer func() {
		e.waiting = e.waiting[:len(e.waiting)-1]
		e.depth -= x.depth
		if r := recover(); r != nil {
			// A value that one of the libraries does not expect. What is wrong is
			// the definition all the same, so it is said where.
			v, diags = cty.DynamicVal, faults(at, "Invalid expression", fmt.Sprintf("It cannot be evaluated: %v.", r))
		}
	}()
	if diags := e.budget.spend(at, x.nodes); diags != nil {
		return cty.DynamicVal, diags
	}
	v, diags = x.Value(ctx)
	if diags.HasErrors() {
		return cty.DynamicVal, diags
	}
	if isLarge(v) { // all else has been measured by the nodes
		return cty.DynamicVal, e.budget.reach(at, ofDigits, maxExponent)
	}
	return v, diags
}

// cycle says that f needs itself, and by which way.
func (e *evaluator) cycle(f frame, at hcl.Range) hcl.Diagnostics {
	what := "reference"
	if f.kind == blockVariable {
		what = "variable"
	}
	return faults(at, "Invalid expression", fmt.Sprintf("%s cycle not allowed for %s: %s.", what, f, round(e.waiting, f)))
}

// round is the way from f, which is among those waiting, to f.
func round(waiting []frame, f frame) string {
	const most = 20
	var way []string
	for _, w := range waiting[slices.Index(waiting, f):] {
		way = append(way, w.String())
	}
	if len(way) > most {
		way = append(way[:most:most], "…")
	}
	return strings.Join(append(way, f.String()), " → ")
}

func byPlace(a, b hcl.Range) int {
	return cmp.Or(cmp.Compare(a.Filename, b.Filename), cmp.Compare(a.Start.Byte, b.Start.Byte))
}

func sortByPlace(attrs []attribute) {
	slices.SortFunc(attrs, func(a, b attribute) int { return byPlace(a.nameAt, b.nameAt) })
}

func sortBlocks(blocks []block) {
	slices.SortStableFunc(blocks, func(a, b block) int { return byPlace(a.at, b.at) })
}

// nearest is the name that was probably meant; "" where none is near.
func nearest[A, B any](name string, among map[string]A, more map[string]B) string {
	best, least := "", len(name)/3+1
	for _, candidate := range slices.Sorted(maps.Keys(among)) {
		if d := distance(name, candidate); d < least {
			best, least = candidate, d
		}
	}
	for _, candidate := range slices.Sorted(maps.Keys(more)) {
		if d := distance(name, candidate); d < least {
			best, least = candidate, d
		}
	}
	return best
}

// distance is how many letters are to be changed; names are short.
func distance(a, b string) int {
	const longest = 64
	if len(a) > longest || len(b) > longest {
		return longest
	}
	return levenshtein.Distance(a, b, nil)
}

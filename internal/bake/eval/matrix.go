package eval

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
)

// instance is a target that a block makes: one, or one for each combination of
// its matrix.
type instance struct {
	block  *targetBlock
	ctx    *hcl.EvalContext // with the values of the axes
	target Target
	// Sets of fields, by their numbers: evaluated, being evaluated, not to be had.
	done, busy, failed uint64
}

// targetBlock is a block whose attributes have been made ready, once for all of
// its instances.
type targetBlock struct {
	*block
	fields []field
}

// field is an attribute of a block that is a field of a target.
type field struct {
	number int // in targetAttrs
	attr   *attribute
	ready  bool
	x      expression
	diags  hcl.Diagnostics
}

// nameTargets finds the targets that there are, and their names. Nothing of
// what this needs may refer to a target.
func (e *evaluator) nameTargets() {
	for i := range e.targets {
		e.record(e.expand(&e.targets[i]))
		if e.budget.reached != nil || len(e.errs) >= maxErrors {
			return
		}
	}
	e.named = true
}

// expand makes the targets of a block.
func (e *evaluator) expand(b *block) hcl.Diagnostics {
	tb := &targetBlock{block: b}
	for i := range b.attrs {
		if n, ok := slices.BinarySearch(e.attrNames, b.attrs[i].name); ok {
			tb.fields = append(tb.fields, field{number: n, attr: &b.attrs[i]})
		}
	}
	name, matrix := b.attr("name"), b.attr("matrix")
	if matrix == nil {
		if name != nil {
			return faults(b.nameAt, "Invalid name", "name requires matrix", "call the target by its block: target \"NAME\" {")
		}
		return e.addInstance(tb, b.name, e.root, map[string]bool{})
	}
	v, diags := e.attrValue(frame{kind: blockTarget, name: b.name, attr: "matrix"}, matrix, e.root)
	if diags.HasErrors() {
		return diags
	}
	axes, diags := axesOf(v, matrix)
	if diags.HasErrors() {
		return diags
	}
	return e.multiply(tb, name, axes)
}

// axis is one variable of a matrix, and its values.
type axis struct {
	name   string
	values []cty.Value
}

// axesOf reads a matrix. The axes are sorted by their names.
func axesOf(v cty.Value, matrix *attribute) ([]axis, hcl.Diagnostics) {
	at := matrix.value.Range()
	if v.IsNull() || !isMap(v.Type()) {
		return nil, faults(at, "Invalid matrix", "matrix must be a map", `matrix = { version = ["1", "2"] }`)
	}
	var axes []axis
	for it := v.ElementIterator(); it.Next(); {
		key, values := it.Element()
		if t := values.Type(); values.IsNull() || !isList(t) && !isMap(t) {
			return nil, faults(at, "Invalid matrix", fmt.Sprintf("matrix values must be a list, and %s is none", key.AsString()))
		}
		a := axis{name: key.AsString()}
		for it := values.ElementIterator(); it.Next(); {
			_, value := it.Element()
			a.values = append(a.values, value)
		}
		axes = append(axes, a)
	}
	slices.SortFunc(axes, func(a, b axis) int { return strings.Compare(a.name, b.name) })
	return axes, nil
}

// multiply makes a target for each combination of the axes, the first axis
// changing fastest.
func (e *evaluator) multiply(tb *targetBlock, name *attribute, axes []axis) hcl.Diagnostics {
	total := 1
	for _, a := range axes {
		if total *= len(a.values); total > e.in.Limits.Targets {
			return e.budget.reach(tb.nameAt, ofTargets, e.in.Limits.Targets)
		}
	}
	var naming *field
	if name != nil {
		naming = &field{attr: name}
	}
	seen := map[string]bool{}
	for i := range total {
		ctx, rest := e.root, i
		if len(axes) > 0 {
			ctx = e.root.NewChild()
			ctx.Variables = make(map[string]cty.Value, len(axes))
		}
		for _, a := range axes {
			ctx.Variables[a.name] = a.values[rest%len(a.values)]
			rest /= len(a.values)
		}
		called, diags := e.instanceName(tb, naming, ctx)
		if !diags.HasErrors() {
			diags = e.addInstance(tb, called, ctx, seen)
		}
		if diags.HasErrors() {
			return diags
		}
	}
	return nil
}

// instanceName evaluates name = "…"; without one, it is the block's.
func (e *evaluator) instanceName(tb *targetBlock, naming *field, ctx *hcl.EvalContext) (string, hcl.Diagnostics) {
	if naming == nil {
		return tb.name, nil
	}
	v, diags := e.fieldValue(frame{kind: blockTarget, name: tb.name, attr: "name"}, naming, ctx)
	if diags.HasErrors() {
		return "", diags
	}
	at := naming.attr.value.Range()
	text, err := convert.Convert(v, cty.String)
	if err != nil || text.IsNull() {
		return "", faults(at, "Invalid name", "name must be a string")
	}
	return text.AsString(), checkName(text.AsString(), at)
}

// fieldValue evaluates a field of a block for one of its instances.
func (e *evaluator) fieldValue(f frame, fl *field, ctx *hcl.EvalContext) (cty.Value, hcl.Diagnostics) {
	if !fl.ready {
		fl.x, fl.diags = e.prepare(fl.attr.value)
		fl.ready = true
	}
	if fl.diags.HasErrors() {
		return cty.DynamicVal, fl.diags
	}
	return e.value(f, fl.x, ctx)
}

func (e *evaluator) addInstance(tb *targetBlock, name string, ctx *hcl.EvalContext, seen map[string]bool) hcl.Diagnostics {
	if seen[name] {
		return faults(tb.nameAt, "Invalid name", fmt.Sprintf("duplicate name %q", name),
			"let name tell the targets of the matrix apart by all of its variables")
	}
	seen[name] = true
	if len(e.made) >= e.in.Limits.Targets {
		return e.budget.reach(tb.nameAt, ofTargets, e.in.Limits.Targets)
	}
	in := &instance{block: tb, ctx: ctx, target: Target{Name: name, ContextFile: tb.nameAt.Filename}}
	e.made = append(e.made, in)
	e.latest[name] = in
	if len(e.groupsOf[tb.name]) == 0 {
		e.labels = append(e.labels, tb.name)
	}
	e.groupsOf[tb.name] = append(e.groupsOf[tb.name], name)
	return nil
}

// inName tells the characters of a name.
func inName(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '-'
}

func checkName(name string, at hcl.Range) hcl.Diagnostics {
	for _, r := range name {
		if !inName(r) {
			return faults(at, "Invalid name", `only "[a-zA-Z0-9_-]+" are allowed`, `sanitize(…) makes a name of any text`)
		}
	}
	if name == "" {
		return faults(at, "Invalid name", `only "[a-zA-Z0-9_-]+" are allowed, and not nothing`)
	}
	return nil
}

// matrixGroups are the groups that call together what the blocks of one name
// make, where that is anything else than one target of that name.
func (e *evaluator) matrixGroups() []Group {
	var out []Group
	for _, label := range e.labels {
		names := texts(e.groupsOf[label])
		if len(names) != 1 || names[0] != label {
			out = append(out, Group{Name: label, Targets: names})
		}
	}
	return out
}

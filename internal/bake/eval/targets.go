package eval

import (
	"errors"
	"fmt"
	"slices"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
)

// evaluated tells which attributes of a block are evaluated; others are of
// whoever wrote them, and nobody looks at them.
func (e *evaluator) evaluated(kind, name string) bool {
	switch kind {
	case blockVariable:
		return name == "default"
	case blockValidation:
		return name == "condition" || name == "error_message"
	case blockFunction:
		return name == "result"
	case blockGroup:
		return name == "targets" || name == "description"
	}
	_, isField := slices.BinarySearch(e.attrNames, name)
	return isField || name == "name" || name == "matrix"
}

// evalTargets evaluates the fields of all targets.
func (e *evaluator) evalTargets() {
	for n, in := range e.made {
		for i := range in.block.fields {
			e.record(e.field(in, &in.block.fields[i], in.block.fields[i].attr.value.Range()))
		}
		if n+1 == len(e.made) || e.made[n+1].block != in.block {
			in.block.release()
		}
		if e.budget.reached != nil || e.budget.ended != nil || len(e.errs) >= maxErrors {
			return
		}
	}
}

// release lets go of the expressions of a block all of whose instances have been
// evaluated: in a large definition, they are most of what there is in memory.
func (b *targetBlock) release() {
	for i := range b.fields {
		b.fields[i].x = expression{}
		b.fields[i].attr.value, b.fields[i].attr.static = nil, nil
	}
}

// field evaluates one field of a target, once.
func (e *evaluator) field(in *instance, fl *field, at hcl.Range) hcl.Diagnostics {
	f := frame{kind: blockTarget, name: in.target.Name, attr: fl.attr.name}
	bit := uint64(1) << fl.number
	switch {
	case in.busy&bit != 0:
		return e.cycle(f, at)
	case in.failed&bit != 0:
		return alreadyReported()
	case in.done&bit != 0:
		return nil
	}
	in.busy |= bit
	v, diags := e.fieldValue(f, fl, in.ctx)
	in.busy &^= bit
	in.done |= bit
	if !diags.HasErrors() {
		// A target has a copy of its own of what it says, each of a matrix one.
		diags = append(diags, e.budget.take(fl.attr.value.Range(), v)...)
	}
	if !diags.HasErrors() {
		where := fl.attr.value.Range()
		if err := e.attrs[fl.number].read(&in.target, v, where.Filename); err != nil {
			diags = append(diags, e.unsuitable(where, err)...)
		}
	}
	if diags.HasErrors() {
		in.failed |= bit
		e.record(diags)
		return alreadyReported()
	}
	return nil
}

// unsuitable says that a field cannot be read.
func (e *evaluator) unsuitable(at hcl.Range, err error) hcl.Diagnostics {
	if limit := (&LimitError{}); errors.As(err, &limit) {
		return e.budget.reach(at, limit.What, limit.Max)
	}
	return faults(at, "Unsuitable value type", "Unsuitable value: "+err.Error())
}

// blockRef is the value of target.NAME.ATTRIBUTE: what the last block of that
// name says, without what it inherits.
func (e *evaluator) blockRef(t hcl.Traversal, at hcl.Range) (cty.Value, hcl.Diagnostics) {
	kind := t.RootName()
	name, ok := step(t, 1)
	if !ok {
		return cty.DynamicVal, faults(at, "Invalid expression", "cannot access "+kind+" as a variable",
			"write "+kind+".NAME.ATTRIBUTE, with the name itself")
	}
	if !e.named {
		return cty.DynamicVal, faults(at, "Invalid expression",
			kind+"."+name+" cannot be used here: variables, and the names and matrices of targets, are evaluated before there are targets")
	}
	attr, single := step(t, 2)
	var v cty.Value
	var diags hcl.Diagnostics
	if kind == blockGroup {
		v, diags = e.groupValue(name, at)
	} else {
		v, diags = e.targetValue(name, attr, single, at)
	}
	if diags.HasErrors() {
		return cty.DynamicVal, diags
	}
	rest := t[2:]
	if kind == blockTarget && single {
		rest = t[3:]
	}
	return rest.TraverseRel(v)
}

// step is the name at position i of a traversal.
func step(t hcl.Traversal, i int) (string, bool) {
	if i >= len(t) {
		return "", false
	}
	switch s := t[i].(type) {
	case hcl.TraverseAttr:
		return s.Name, true
	case hcl.TraverseIndex:
		if s.Key.Type() == cty.String && s.Key.IsKnown() && !s.Key.IsNull() {
			return s.Key.AsString(), true
		}
	}
	return "", false
}

// targetValue is one attribute of a target, or an object of all of them.
func (e *evaluator) targetValue(name, attr string, single bool, at hcl.Range) (cty.Value, hcl.Diagnostics) {
	in := e.latest[name]
	if in == nil {
		d := fault(at, "Unknown target", fmt.Sprintf("There is no target named %q.", name))
		d.Extra = &extra{suggest: func() string { return nearest(name, e.latest, map[string]bool{}) }}
		return cty.DynamicVal, hcl.Diagnostics{d}
	}
	if !single {
		return e.wholeTarget(in, at)
	}
	if attr == "name" {
		return cty.StringVal(in.target.Name), nil
	}
	number, ok := slices.BinarySearch(e.attrNames, attr)
	if !ok {
		return cty.DynamicVal, faults(at, "Unsupported attribute", fmt.Sprintf("A target does not have an attribute named %q.", attr))
	}
	return e.fieldOf(in, number, at)
}

func (e *evaluator) fieldOf(in *instance, number int, at hcl.Range) (cty.Value, hcl.Diagnostics) {
	for i := range in.block.fields {
		if fl := &in.block.fields[i]; fl.number == number {
			if diags := e.field(in, fl, at); diags.HasErrors() {
				return cty.DynamicVal, diags
			}
		}
	}
	v := e.attrs[number].value(&in.target)
	return v, e.budget.take(at, v)
}

func (e *evaluator) wholeTarget(in *instance, at hcl.Range) (cty.Value, hcl.Diagnostics) {
	values := map[string]cty.Value{"name": cty.StringVal(in.target.Name)}
	for number, name := range e.attrNames {
		v, diags := e.fieldOf(in, number, at)
		if diags.HasErrors() {
			return cty.DynamicVal, diags
		}
		values[name] = v
	}
	return cty.ObjectVal(values), nil
}

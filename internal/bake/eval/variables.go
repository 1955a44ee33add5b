package eval

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/ext/typeexpr"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
	ctyjson "github.com/zclconf/go-cty/cty/json"
)

// variable is a declared variable.
type variable struct {
	block  *block
	busy   bool
	done   bool
	failed bool
	typ    cty.Type // cty.NilType where none is declared
}

// global is an attribute at the top of a file. Where a variable has the same
// name, it takes the place of the variable's default.
type global struct {
	attr   *attribute
	busy   bool
	done   bool
	failed bool
}

// global makes sure that e.root has a value for name.
func (e *evaluator) global(name string, at hcl.Range) hcl.Diagnostics {
	if v, ok := e.variables[name]; ok && !e.builtins[name] {
		return e.variable(name, v, at)
	}
	g, ok := e.globals[name]
	switch f := (frame{kind: blockVariable, name: name}); {
	case e.builtins[name]:
		return nil
	case !ok:
		return e.unknownVariable(name, at)
	case g.busy:
		return e.cycle(f, at)
	case g.failed:
		return alreadyReported()
	case g.done:
		return nil
	default:
		return e.evalGlobal(f, g)
	}
}

func (e *evaluator) evalGlobal(f frame, g *global) hcl.Diagnostics {
	g.busy = true
	v, diags := e.attrValue(f, g.attr, e.root)
	g.busy, g.done = false, true
	if diags.HasErrors() {
		g.failed = true
		e.record(diags)
		return alreadyReported()
	}
	e.root.Variables[f.name] = v
	return nil
}

// evalGlobals evaluates what nobody has asked for.
func (e *evaluator) evalGlobals() {
	for _, name := range slices.Sorted(maps.Keys(e.globals)) {
		e.record(e.global(name, e.globals[name].attr.nameAt))
	}
}

// attrValue evaluates an attribute once.
func (e *evaluator) attrValue(f frame, a *attribute, ctx *hcl.EvalContext) (cty.Value, hcl.Diagnostics) {
	x, diags := e.prepare(a.value)
	if diags.HasErrors() {
		return cty.DynamicVal, diags
	}
	return e.value(f, x, ctx)
}

func (e *evaluator) unknownVariable(name string, at hcl.Range) hcl.Diagnostics {
	d := fault(at, "Unknown variable", fmt.Sprintf("There is no variable named %q.", name))
	d.Extra = &extra{
		tries:   []string{fmt.Sprintf("declare it: variable %q {}", name)},
		suggest: func() string { return nearest(name, e.variables, e.globals) },
	}
	return hcl.Diagnostics{d}
}

// evalVariables gives every variable its value, and checks it.
func (e *evaluator) evalVariables() {
	for _, name := range e.order {
		if !e.builtins[name] {
			e.record(e.variable(name, e.variables[name], e.variables[name].block.nameAt))
		}
	}
	if len(e.errs) > 0 {
		return
	}
	for _, name := range e.order {
		for i := range e.variables[name].block.nested {
			e.record(e.validate(name, &e.variables[name].block.nested[i]))
		}
	}
}

func (e *evaluator) variable(name string, v *variable, at hcl.Range) hcl.Diagnostics {
	f := frame{kind: blockVariable, name: name}
	switch {
	case v.busy:
		return e.cycle(f, at)
	case v.failed:
		return alreadyReported()
	case v.done:
		return nil
	}
	v.busy = true
	value, diags := e.variableValue(f, v)
	v.busy, v.done = false, true
	if diags.HasErrors() {
		v.failed = true
		e.record(diags)
		return alreadyReported()
	}
	e.root.Variables[name] = value
	return nil
}

// variableValue is the default, or what takes its place.
func (e *evaluator) variableValue(f frame, v *variable) (cty.Value, hcl.Diagnostics) {
	at := v.block.nameAt
	if a := v.block.attr("description"); a != nil {
		// It is read where nothing is evaluated: for a list of the variables.
		if _, diags := a.static.Value(nil); diags.HasErrors() {
			return cty.DynamicVal, diags
		}
	}
	if a := v.block.attr("type"); a != nil {
		var diags hcl.Diagnostics
		if v.typ, diags = typeexpr.TypeConstraint(a.static); diags.HasErrors() {
			return cty.DynamicVal, diags
		}
		at = a.nameAt
	}
	value, hasDefault := cty.NullVal(cty.String), false
	def := v.block.attr("default")
	if g := e.globals[f.name]; g != nil {
		def = g.attr
	}
	if def != nil {
		var diags hcl.Diagnostics
		if value, diags = e.attrValue(f, def, e.root); diags.HasErrors() {
			return cty.DynamicVal, diags
		}
		hasDefault, at = true, def.value.Range()
	}
	if v.typ != cty.NilType {
		return e.typedValue(f.name, v.typ, value, hasDefault, at)
	}
	return e.untypedValue(f.name, value, hasDefault, at)
}

// typedValue is the value of a variable with a type. Where it is given from
// outside as JSON, that goes before all other ways.
func (e *evaluator) typedValue(name string, typ cty.Type, def cty.Value, hasDefault bool, at hcl.Range) (cty.Value, hcl.Diagnostics) {
	value := cty.NullVal(typ)
	if hasDefault {
		if diags := e.budget.take(at, def); diags != nil {
			return cty.DynamicVal, diags
		}
		if diags := e.budget.conversion(at, def, typ); diags != nil {
			return cty.DynamicVal, diags
		}
		var err error
		if value, err = convert.Convert(def, typ); err != nil {
			return cty.DynamicVal, faults(at, "Invalid value",
				fmt.Sprintf("invalid type %s for variable %s default value: %v", typ.FriendlyName(), name, err))
		}
	}
	text, from, found := "", "", false
	parse := fromCSV
	if _, declared := e.variables[name+jsonSuffix]; !declared {
		text, from, found = e.given(name + jsonSuffix)
		parse = fromJSON
	}
	if !found {
		text, from, found = e.given(name)
		parse = fromCSV
	}
	if !found {
		return value, e.budget.take(at, value)
	}
	value, err := parse(text, typ)
	if limit := (&LimitError{}); errors.As(err, &limit) {
		return cty.DynamicVal, e.budget.reach(at, limit.What, limit.Max)
	}
	if err != nil {
		return cty.DynamicVal, faults(at, "Invalid value", fmt.Sprintf("variable %s, given by %s: %v", name, from, err))
	}
	if diags := e.budget.take(at, value); diags != nil {
		return cty.DynamicVal, diags
	}
	return value, nil
}

// untypedValue is the value of a variable that has the type of its default.
func (e *evaluator) untypedValue(name string, def cty.Value, hasDefault bool, at hcl.Range) (cty.Value, hcl.Diagnostics) {
	text, from, found := e.given(name)
	if _, declared := e.variables[name+jsonSuffix]; !found && !declared {
		text, from, found = e.given(name + jsonSuffix)
	}
	if !found {
		if !hasDefault {
			return cty.StringVal(""), nil
		}
		return def, nil
	}
	typ := def.Type()
	if def.IsNull() {
		typ = cty.String
	}
	if !typ.IsPrimitiveType() {
		return cty.DynamicVal, faults(at, "Invalid value",
			fmt.Sprintf("unsupported type %s for variable %s, given by %s: a list or a map can be given where its type is declared",
				kindName(typ), name, from), fmt.Sprintf("in variable %q: type = list(string)", name))
	}
	value, err := fromText(text, typ)
	if err != nil {
		return cty.DynamicVal, faults(at, "Invalid value", fmt.Sprintf("variable %s, given by %s: %v", name, from, err))
	}
	return value, nil
}

// given looks up what is given from outside, and says by what.
func (e *evaluator) given(name string) (value, from string, found bool) {
	if value, found = e.in.Vars[name]; found {
		return value, "--var " + name, true
	}
	if e.in.Env != nil {
		if value, found = e.in.Env(name); found {
			return value, "the environment variable " + name, true
		}
	}
	return "", "", false
}

// validate holds a variable against one of its conditions.
func (e *evaluator) validate(name string, b *block) hcl.Diagnostics {
	f := frame{kind: blockVariable, name: name}
	condition, at := cty.NullVal(cty.Bool), b.at
	if a := b.attr("condition"); a != nil {
		var diags hcl.Diagnostics
		at = a.value.Range()
		if condition, diags = e.attrValue(f, a, e.root); diags.HasErrors() {
			return diags
		}
	}
	if condition.IsNull() {
		return faults(at, "Invalid condition result", "Condition expression must return either true or false, not null.")
	}
	condition, err := convert.Convert(condition, cty.Bool)
	if err != nil {
		return faults(at, "Invalid condition result", fmt.Sprintf("Invalid condition result value: %v.", err))
	}
	if condition.True() {
		return nil
	}
	message := "This check failed, but has an invalid error message."
	if a := b.attr("error_message"); a != nil {
		v, diags := e.attrValue(f, a, e.root)
		if diags.HasErrors() {
			return diags
		}
		if text, err := convert.Convert(v, cty.String); err == nil && !text.IsNull() {
			message = text.AsString()
		}
	}
	return faults(at, "Validation failed", message)
}

// listed is what --list shows of the variables.
func (e *evaluator) listed() []Variable {
	var out []Variable
	for _, name := range e.order {
		v := e.variables[name]
		value := e.root.Variables[name]
		shown := Variable{Name: name}
		if v.typ != cty.NilType {
			shown.Type = v.typ.FriendlyNameForConstraint()
		}
		if a := v.block.attr("description"); a != nil {
			if d, diags := a.static.Value(nil); !diags.HasErrors() {
				if text, err := convert.Convert(d, cty.String); err == nil && !text.IsNull() {
					shown.Description = text.AsString()
				}
			}
		}
		shown.Value = textOf(value, v.typ)
		out = append(out, shown)
	}
	return out
}

// textOf writes a value out; nil for null.
func textOf(v cty.Value, declared cty.Type) *string {
	if v.IsNull() {
		return nil
	}
	if v.Type().IsPrimitiveType() && declared != cty.DynamicPseudoType {
		if s, err := convert.Convert(v, cty.String); err == nil {
			text := s.AsString()
			return &text
		}
	}
	typ := v.Type()
	if declared != cty.NilType {
		typ = declared
	}
	b, err := ctyjson.Marshal(v, typ)
	if err != nil {
		b = []byte(strings.TrimSpace(v.GoString()))
	}
	text := string(b)
	return &text
}

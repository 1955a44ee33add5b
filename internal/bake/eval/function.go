package eval

import (
	"errors"
	"fmt"
	"slices"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/ext/customdecode"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
	"github.com/zclconf/go-cty/cty/function"
)

// callable is a function: one of the standard library's, or one that the
// definition has.
type callable struct {
	name   string
	params []function.Parameter
	rest   *function.Parameter // of the arguments that follow; nil for none

	// Of the standard library.
	fn    function.Function
	check func(b *budget, at hcl.Range, args []cty.Value) hcl.Diagnostics // what it may cost; nil for little

	// Of the definition.
	block *block
	body  expression
	calls []*hclsyntax.FunctionCallExpr
	refs  []*hclsyntax.ScopeTraversalExpr
	state int // of checkFunctions: 0 not seen, 1 on the way, 2 done
}

// addFunction reads a function block. One that has the name of a standard
// function is never called, as in buildx.
func (e *evaluator) addFunction(b *block) hcl.Diagnostics {
	f := &callable{name: b.name, block: b}
	for _, a := range b.attrs {
		if !slices.Contains([]string{"params", "variadic_params", "result"}, a.name) {
			return faults(a.nameAt, "Unsupported argument", fmt.Sprintf("An argument named %q is not expected here.", a.name))
		}
	}
	params, result := b.attr("params"), b.attr("result")
	switch {
	case params == nil:
		return faults(b.nameAt, "Invalid function", "empty params not allowed for "+b.name, "params = []")
	case result == nil:
		return faults(b.nameAt, "Invalid function", "empty result not allowed for "+b.name)
	}
	items, diags := hcl.ExprList(params.static)
	for _, item := range items {
		name := hcl.ExprAsKeyword(item)
		if name == "" {
			return append(diags, fault(item.Range(), "Invalid param element", "Each parameter name must be an identifier."))
		}
		f.params = append(f.params, function.Parameter{Name: name, Type: cty.DynamicPseudoType})
	}
	if a := b.attr("variadic_params"); a != nil {
		name := hcl.ExprAsKeyword(a.static)
		if name == "" {
			return append(diags, fault(a.static.Range(), "Invalid param element", "Each parameter name must be an identifier."))
		}
		f.rest = &function.Parameter{Name: name, Type: cty.DynamicPseudoType}
	}
	if diags.HasErrors() {
		return diags
	}
	if _, standard := e.stdlib[b.name]; standard {
		e.warn(b.nameAt, "Function ignored", fmt.Sprintf("%s is a function of the standard library, which is the one that is called.", b.name))
	}
	e.functions[b.name] = f
	return nil
}

// checkFunctions looks at the bodies, called or not: what they refer to exists,
// and none comes to call itself.
func (e *evaluator) checkFunctions() {
	var order []*callable
	for _, f := range e.functions {
		order = append(order, f)
	}
	slices.SortFunc(order, func(a, b *callable) int { return byPlace(a.block.at, b.block.at) })
	for _, f := range order {
		p := preparer{e: e}
		body := p.expr(f.block.attr("result").value)
		f.body, f.calls, f.refs = expression{body, p.nodes, p.deepest}, p.calls, p.refs
		e.record(p.diags)
	}
	for _, f := range order {
		e.record(e.checkFunction(f, nil))
	}
}

func (e *evaluator) checkFunction(f *callable, way []frame) hcl.Diagnostics {
	me := frame{kind: blockFunction, name: f.name}
	f.state = 1
	way = append(way, me)
	if len(way) > e.in.Limits.Depth {
		return e.budget.reach(f.block.nameAt, ofDepth, e.in.Limits.Depth)
	}
	var diags hcl.Diagnostics
	params := map[string]bool{}
	for _, p := range f.params {
		params[p.Name] = true
	}
	if f.rest != nil {
		params[f.rest.Name] = true
	}
	for _, r := range f.refs {
		if !params[r.Traversal.RootName()] {
			diags = append(diags, e.checkReference(r)...)
		}
	}
	for _, c := range f.calls {
		g := e.callee(c.Name)
		switch {
		case g == nil:
			diags = append(diags, e.unknownFunction(c)...)
		case g.block == nil || g.state == 2:
		case g.state == 1:
			diags = append(diags, functionCycle(c, way)...)
		default:
			diags = append(diags, e.checkFunction(g, way)...)
		}
	}
	f.state = 2
	return diags
}

func functionCycle(c *hclsyntax.FunctionCallExpr, way []frame) hcl.Diagnostics {
	return faults(c.Range(), "Invalid expression",
		fmt.Sprintf("function cycle not allowed for %s: %s.", c.Name, round(way, frame{kind: blockFunction, name: c.Name})))
}

// checkReference tells whether what a body refers to exists.
func (e *evaluator) checkReference(r *hclsyntax.ScopeTraversalExpr) hcl.Diagnostics {
	name := r.Traversal.RootName()
	switch {
	case e.variables[name] != nil, e.globals[name] != nil, e.builtins[name]:
	case name == blockTarget, name == blockGroup:
	default:
		return e.unknownVariable(name, r.SrcRange)
	}
	return nil
}

func (e *evaluator) callee(name string) *callable {
	if f, ok := e.stdlib[name]; ok {
		return f
	}
	return e.functions[name]
}

func (e *evaluator) unknownFunction(c *hclsyntax.FunctionCallExpr) hcl.Diagnostics {
	d := fault(c.NameRange, "Call to unknown function", fmt.Sprintf("There is no function named %q.", c.Name))
	d.Extra = &extra{suggest: func() string { return nearest(c.Name, e.stdlib, e.functions) }}
	return hcl.Diagnostics{d}
}

// callNode calls a function.
type callNode struct {
	*hclsyntax.FunctionCallExpr
	e *evaluator
}

func (n *callNode) UnwrapExpression() hcl.Expression { return n.FunctionCallExpr }

func (n *callNode) Value(ctx *hcl.EvalContext) (cty.Value, hcl.Diagnostics) {
	f := n.e.callee(n.Name)
	if f == nil {
		return cty.DynamicVal, n.e.unknownFunction(n.FunctionCallExpr)
	}
	v, diags := n.call(f, ctx)
	if diags.HasErrors() {
		return cty.DynamicVal, diags
	}
	if f.block == nil {
		diags = append(diags, n.e.budget.take(n.Range(), v)...)
	}
	return v, diags
}

func (n *callNode) call(f *callable, ctx *hcl.EvalContext) (cty.Value, hcl.Diagnostics) {
	if f.takesExpressions() {
		return n.FunctionCallExpr.Value(ctx) // try, can
	}
	exprs, diags := n.arguments(ctx)
	if diags.HasErrors() {
		return cty.DynamicVal, diags
	}
	if diags := n.checkCount(f, len(exprs)); diags != nil {
		return cty.DynamicVal, diags
	}
	args := make([]cty.Value, len(exprs))
	for i, x := range exprs {
		v, more := x.Value(ctx)
		if more.HasErrors() {
			return cty.DynamicVal, append(diags, more...)
		}
		if diags := n.e.budget.conversion(x.Range(), v, f.param(i).Type); diags != nil {
			return cty.DynamicVal, diags
		}
		var err error
		if args[i], err = convert.Convert(v, f.param(i).Type); err != nil {
			return cty.DynamicVal, faults(x.Range(), "Invalid function argument",
				fmt.Sprintf("Invalid value for %q parameter: %v.", f.param(i).Name, err))
		}
		if args[i].IsNull() && !f.param(i).AllowNull {
			return cty.DynamicVal, faults(x.Range(), "Invalid function argument",
				fmt.Sprintf("Invalid value for %q parameter: argument must not be null.", f.param(i).Name))
		}
	}
	if f.block != nil {
		return n.e.callDefined(f, args)
	}
	return n.callStandard(f, args, exprs)
}

func (f *callable) takesExpressions() bool {
	takes := func(p *function.Parameter) bool {
		return p != nil && customdecode.CustomExpressionDecoderForType(p.Type) != nil
	}
	return takes(f.rest) || slices.ContainsFunc(f.params, func(p function.Parameter) bool { return takes(&p) })
}

// param is the parameter for argument i.
func (f *callable) param(i int) *function.Parameter {
	if i < len(f.params) {
		return &f.params[i]
	}
	return f.rest
}

// arguments are the expressions of the arguments, with what f(list...) stands for.
func (n *callNode) arguments(ctx *hcl.EvalContext) ([]hclsyntax.Expression, hcl.Diagnostics) {
	if !n.ExpandFinal {
		return n.Args, nil
	}
	last := n.Args[len(n.Args)-1]
	v, diags := last.Value(ctx)
	if diags.HasErrors() {
		return nil, diags
	}
	if t := v.Type(); v.IsNull() || !t.IsTupleType() && !t.IsListType() && !t.IsSetType() {
		return nil, faults(last.Range(), "Invalid expanding argument value",
			"The expanding argument (indicated by ...) must be of a tuple, list, or set type, and not null.")
	}
	if diags := n.e.budget.take(last.Range(), v); diags != nil {
		return nil, diags
	}
	out := slices.Clone(n.Args[:len(n.Args)-1])
	for it := v.ElementIterator(); it.Next(); {
		_, element := it.Element()
		out = append(out, &hclsyntax.LiteralValueExpr{Val: element, SrcRange: last.Range()})
	}
	return out, nil
}

func (n *callNode) checkCount(f *callable, got int) hcl.Diagnostics {
	switch want := len(f.params); {
	case got < want:
		atLeast := ""
		if f.rest != nil {
			atLeast = " at least"
		}
		return faults(n.CloseParenRange, "Not enough function arguments",
			fmt.Sprintf("Function %q expects%s %d argument(s). Missing value for %q.", n.Name, atLeast, want, f.params[got].Name))
	case got > want && f.rest == nil:
		return faults(n.Range(), "Too many function arguments", fmt.Sprintf("Function %q expects only %d argument(s).", n.Name, want))
	}
	return nil
}

// callStandard calls a function of the standard library, unless what it would
// make is beyond the limits.
func (n *callNode) callStandard(f *callable, args []cty.Value, exprs []hclsyntax.Expression) (cty.Value, hcl.Diagnostics) {
	known := true
	for _, a := range args {
		const times = 6 // converted, hashed, sorted, converted back
		if diags := n.e.budget.takeTimes(n.Range(), a, times); diags != nil {
			return cty.DynamicVal, diags
		}
		known = known && a.IsKnown()
	}
	if diags := n.manyTypes(args); diags != nil {
		return cty.DynamicVal, diags
	}
	if f.check != nil && known {
		if diags := f.check(&n.e.budget, n.Range(), args); diags != nil {
			return cty.DynamicVal, diags
		}
	}
	v, err := f.fn.Call(args)
	if err == nil {
		return v, nil
	}
	var arg function.ArgError
	if errors.As(err, &arg) && arg.Index < len(exprs) && f.param(arg.Index) != nil {
		return cty.DynamicVal, faults(exprs[arg.Index].Range(), "Invalid function argument",
			fmt.Sprintf("Invalid value for %q parameter: %v.", f.param(arg.Index).Name, err))
	}
	return cty.DynamicVal, faults(n.Range(), "Error in function call", fmt.Sprintf("Call to function %q failed: %v.", n.Name, err))
}

// manyTypes takes what it costs to find one type for the arguments, as some
// functions do.
func (n *callNode) manyTypes(args []cty.Value) hcl.Diagnostics {
	simple := true
	for _, a := range args {
		simple = simple && a.Type().IsPrimitiveType()
	}
	const few = 4
	if simple && len(args) <= few {
		return nil
	}
	types := make([]cty.Type, len(args))
	for i, a := range args {
		types[i] = a.Type()
	}
	return n.e.budget.unify(n.Range(), types)
}

// callDefined evaluates the body of a function of the definition. It sees its
// arguments, and the variables, but not the names where it is called.
func (e *evaluator) callDefined(f *callable, args []cty.Value) (cty.Value, hcl.Diagnostics) {
	ctx := e.root.NewChild()
	ctx.Variables = make(map[string]cty.Value, len(f.params)+1)
	for i, p := range f.params {
		ctx.Variables[p.Name] = args[i]
	}
	if f.rest != nil {
		ctx.Variables[f.rest.Name] = cty.TupleVal(args[len(f.params):])
	}
	return e.value(frame{kind: blockFunction, name: f.name}, f.body, ctx)
}

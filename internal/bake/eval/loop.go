package eval

import (
	"fmt"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
)

// loopNode is a for expression, of a list or in a template. It is evaluated
// here, and not by HCL, because HCL's goes on to the last element whatever came
// of those before: three loops in each other would outlast every limit.
type loopNode struct {
	*hclsyntax.ForExpr
	e     *evaluator
	steps int // of one turn
}

func (n *loopNode) UnwrapExpression() hcl.Expression { return n.ForExpr }

func (n *loopNode) Value(ctx *hcl.EvalContext) (cty.Value, hcl.Diagnostics) {
	over, diags := n.CollExpr.Value(ctx)
	if diags.HasErrors() {
		return cty.DynamicVal, diags
	}
	switch {
	case over.IsNull():
		return cty.DynamicVal, faults(n.CollExpr.Range(), "Iteration over null value",
			"A null value cannot be used as the collection in a 'for' expression.")
	case !over.IsKnown():
		return cty.DynamicVal, nil
	case !over.CanIterateElements():
		return cty.DynamicVal, faults(n.CollExpr.Range(), "Iteration over non-iterable value",
			fmt.Sprintf("A value of type %s cannot be used as the collection in a 'for' expression.", over.Type().FriendlyName()))
	}
	v, diags := n.turns(over, ctx)
	if diags.HasErrors() {
		return cty.DynamicVal, diags
	}
	return v, n.e.budget.take(n.Range(), v)
}

// turns evaluates the body for each element, until one fails.
func (n *loopNode) turns(over cty.Value, ctx *hcl.EvalContext) (cty.Value, hcl.Diagnostics) {
	made := gathered{n: n}
	child := ctx.NewChild()
	child.Variables = make(map[string]cty.Value, 2)
	for it := over.ElementIterator(); it.Next(); {
		if diags := n.e.budget.spend(n.SrcRange, n.steps); diags != nil {
			return cty.DynamicVal, diags
		}
		key, value := it.Element()
		if n.KeyVar != "" {
			child.Variables[n.KeyVar] = key
		}
		child.Variables[n.ValVar] = value // goes before a key of the same name, as in HCL
		if diags := made.turn(child); diags.HasErrors() {
			return cty.DynamicVal, diags
		}
	}
	return made.value(), nil
}

// gathered is what a loop has made so far.
type gathered struct {
	n      *loopNode
	count  int
	list   []cty.Value
	object map[string]cty.Value
	groups map[string][]cty.Value
}

func (g *gathered) turn(ctx *hcl.EvalContext) hcl.Diagnostics {
	n := g.n
	wanted, diags := n.wanted(ctx)
	if diags.HasErrors() || !wanted {
		return diags
	}
	if g.count++; g.count > n.e.budget.limits.Elements {
		return n.e.budget.reach(n.SrcRange, ofElements, n.e.budget.limits.Elements)
	}
	key := ""
	if n.KeyExpr != nil {
		if key, diags = n.key(ctx); diags.HasErrors() {
			return diags
		}
	}
	v, diags := n.ValExpr.Value(ctx)
	if diags.HasErrors() {
		return diags
	}
	return g.add(key, v)
}

// wanted evaluates the if of a loop.
func (n *loopNode) wanted(ctx *hcl.EvalContext) (bool, hcl.Diagnostics) {
	if n.CondExpr == nil {
		return true, nil
	}
	v, diags := n.CondExpr.Value(ctx)
	if diags.HasErrors() {
		return false, diags
	}
	if v.IsNull() {
		return false, faults(n.CondExpr.Range(), "Invalid 'for' condition", "The value of the 'if' clause must not be null.")
	}
	is, err := convert.Convert(v, cty.Bool)
	if err != nil {
		return false, faults(n.CondExpr.Range(), "Invalid 'for' condition", fmt.Sprintf("The 'if' clause value is invalid: %v.", err))
	}
	return is.IsKnown() && is.True(), nil
}

func (n *loopNode) key(ctx *hcl.EvalContext) (string, hcl.Diagnostics) {
	v, diags := n.KeyExpr.Value(ctx)
	if diags.HasErrors() {
		return "", diags
	}
	if v.IsNull() {
		return "", faults(n.KeyExpr.Range(), "Invalid object key", "Key expression in 'for' expression must not produce a null value.")
	}
	text, err := convert.Convert(v, cty.String)
	if err != nil || !text.IsKnown() {
		return "", faults(n.KeyExpr.Range(), "Invalid object key", fmt.Sprintf("The key expression produced an invalid result: %v.", err))
	}
	return text.AsString(), nil
}

func (g *gathered) add(key string, v cty.Value) hcl.Diagnostics {
	switch {
	case g.n.KeyExpr == nil:
		g.list = append(g.list, v)
	case g.n.Group:
		if g.groups == nil {
			g.groups = map[string][]cty.Value{}
		}
		g.groups[key] = append(g.groups[key], v)
	default:
		if g.object == nil {
			g.object = map[string]cty.Value{}
		}
		if _, twice := g.object[key]; twice {
			return faults(g.n.KeyExpr.Range(), "Duplicate object key",
				fmt.Sprintf("Two different items produced the key %q in this 'for' expression.", key),
				"to group the values by their keys, write an ellipsis (...) after the value")
		}
		g.object[key] = v
	}
	return nil
}

func (g *gathered) value() cty.Value {
	if g.n.KeyExpr == nil {
		return cty.TupleVal(g.list)
	}
	if !g.n.Group {
		return cty.ObjectVal(g.object)
	}
	object := make(map[string]cty.Value, len(g.groups))
	for key, list := range g.groups {
		object[key] = cty.TupleVal(list)
	}
	return cty.ObjectVal(object)
}

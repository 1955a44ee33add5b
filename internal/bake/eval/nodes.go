package eval

import (
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// Nodes of our own, around HCL's. They let themselves be unwrapped, for what is
// read and not evaluated: the type in convert(x, list(string)).

// sizedNode takes what its expression makes from the budget.
type sizedNode struct {
	hclsyntax.Expression
	e *evaluator
}

func (n *sizedNode) UnwrapExpression() hcl.Expression { return n.Expression }

func (n *sizedNode) Value(ctx *hcl.EvalContext) (cty.Value, hcl.Diagnostics) {
	v, diags := n.Expression.Value(ctx)
	if diags.HasErrors() {
		return v, diags
	}
	if more := n.e.budget.take(n.Range(), v); more != nil {
		return cty.DynamicVal, more
	}
	return v, diags
}

// stepNode takes the steps of what a loop repeats.
type stepNode struct {
	hclsyntax.Expression
	e     *evaluator
	steps int
}

func (n *stepNode) UnwrapExpression() hcl.Expression { return n.Expression }

func (n *stepNode) Value(ctx *hcl.EvalContext) (cty.Value, hcl.Diagnostics) {
	if diags := n.e.budget.spend(n.Range(), n.steps); diags != nil {
		return cty.DynamicVal, diags
	}
	return n.Expression.Value(ctx)
}

// refNode looks up a name. What the expression itself defines, a function's
// parameters and a matrix's axes are in ctx; the rest is evaluated when it is
// first asked for.
type refNode struct {
	*hclsyntax.ScopeTraversalExpr
	e *evaluator
}

func (n *refNode) UnwrapExpression() hcl.Expression { return n.ScopeTraversalExpr }

func (n *refNode) Value(ctx *hcl.EvalContext) (cty.Value, hcl.Diagnostics) {
	v, diags := n.lookUp(ctx)
	if !diags.HasErrors() && v.Type() == cty.String && v.IsKnown() && !v.IsNull() {
		// It is about to be copied into something.
		if more := n.e.budget.made(n.SrcRange, len(v.AsString())); more != nil {
			return cty.DynamicVal, more
		}
	}
	return v, diags
}

func (n *refNode) lookUp(ctx *hcl.EvalContext) (cty.Value, hcl.Diagnostics) {
	root := n.Traversal.RootName()
	for c := ctx; c != nil; c = c.Parent() {
		if _, ok := c.Variables[root]; ok {
			return n.ScopeTraversalExpr.Value(c)
		}
	}
	switch root {
	case blockTarget, blockGroup:
		return n.e.blockRef(n.Traversal, n.SrcRange)
	}
	if diags := n.e.global(root, n.SrcRange); diags.HasErrors() {
		return cty.DynamicVal, diags
	}
	return n.ScopeTraversalExpr.Value(n.e.root)
}

package eval

import (
	"fmt"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/ext/typeexpr"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
)

// numberNode is an expression that may be a number: none may be so large that
// it could not be written out.
type numberNode struct {
	hclsyntax.Expression
	e *evaluator
}

func (n *numberNode) UnwrapExpression() hcl.Expression { return n.Expression }

func (n *numberNode) Value(ctx *hcl.EvalContext) (cty.Value, hcl.Diagnostics) {
	v, diags := n.Expression.Value(ctx)
	if !diags.HasErrors() && isLarge(v) {
		return cty.DynamicVal, n.e.budget.reach(n.Range(), ofDigits, maxExponent)
	}
	return v, diags
}

// compared is how many times as much as looking at a value it costs to compare
// it with another, or to give it another type.
const compared = 4

// operandNode is what an operator is applied to. It looks at what converting it
// costs, or comparing it.
type operandNode struct {
	hclsyntax.Expression
	e      *evaluator
	number bool // it will be a number
}

func (n *operandNode) UnwrapExpression() hcl.Expression { return n.Expression }

func (n *operandNode) Value(ctx *hcl.EvalContext) (cty.Value, hcl.Diagnostics) {
	v, diags := n.Expression.Value(ctx)
	if diags.HasErrors() {
		return cty.DynamicVal, diags
	}
	var more hcl.Diagnostics
	switch {
	case n.number:
		more = n.e.budget.numeral(n.Range(), v)
	case !v.Type().IsPrimitiveType():
		more = n.e.budget.takeTimes(n.Range(), v, compared)
	}
	if more != nil {
		return cty.DynamicVal, more
	}
	return v, diags
}

// choiceNode is a condition with its two results. HCL evaluates both, and looks
// for a type that both have.
type choiceNode struct {
	*hclsyntax.ConditionalExpr
	e *evaluator
}

func (n *choiceNode) UnwrapExpression() hcl.Expression { return n.ConditionalExpr }

func (n *choiceNode) Value(ctx *hcl.EvalContext) (cty.Value, hcl.Diagnostics) {
	pair := &chosen{e: n.e, at: n.SrcRange}
	// The copy evaluates each part once, and what it is told of the types of
	// both results before it puts them together.
	c := *n.ConditionalExpr
	c.TrueResult, c.FalseResult = &chosenNode{n.TrueResult, pair}, &chosenNode{n.FalseResult, pair}
	return c.Value(ctx)
}

// chosen are the types of the results so far.
type chosen struct {
	e     *evaluator
	at    hcl.Range
	types []cty.Type
}

type chosenNode struct {
	hclsyntax.Expression
	pair *chosen
}

func (n *chosenNode) UnwrapExpression() hcl.Expression { return n.Expression }

func (n *chosenNode) Value(ctx *hcl.EvalContext) (cty.Value, hcl.Diagnostics) {
	v, diags := n.Expression.Value(ctx)
	if diags.HasErrors() || v.Type().IsPrimitiveType() {
		return v, diags
	}
	b := &n.pair.e.budget
	if more := b.takeTimes(n.pair.at, v, compared); more != nil {
		return cty.DynamicVal, more
	}
	n.pair.types = append(n.pair.types, v.Type())
	more := b.unify(n.pair.at, n.pair.types)
	if more == nil && len(n.pair.types) == 2 && !n.pair.types[0].Equals(n.pair.types[1]) {
		for _, t := range n.pair.types {
			if more = b.inferred(n.pair.at, t); more != nil {
				break
			}
		}
	}
	if more != nil {
		return cty.DynamicVal, more
	}
	return v, diags
}

// convertNode is convert(value, type), whose second argument is no expression.
type convertNode struct {
	*hclsyntax.FunctionCallExpr
	e *evaluator
}

func (n *convertNode) UnwrapExpression() hcl.Expression { return n.FunctionCallExpr }

func (n *convertNode) Value(ctx *hcl.EvalContext) (cty.Value, hcl.Diagnostics) {
	to, diags := typeexpr.TypeConstraint(n.Args[1])
	if diags.HasErrors() {
		return cty.DynamicVal, diags
	}
	v, diags := n.Args[0].Value(ctx)
	if diags.HasErrors() {
		return cty.DynamicVal, diags
	}
	b, at := &n.e.budget, n.Range()
	if diags := b.take(at, v); diags != nil {
		return cty.DynamicVal, diags
	}
	if diags := b.conversion(at, v, to); diags != nil {
		return cty.DynamicVal, diags
	}
	made, err := convert.Convert(v, to)
	if err != nil {
		return cty.DynamicVal, faults(n.Args[0].Range(), "Invalid function argument", fmt.Sprintf(`Invalid value for "value" parameter: %v.`, err))
	}
	return made, b.take(at, made)
}

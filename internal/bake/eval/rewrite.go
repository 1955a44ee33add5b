package eval

import (
	"slices"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// expression is an expression that is ready to be evaluated: its names are
// looked up when they are needed, and what it makes is taken from the budget.
type expression struct {
	hclsyntax.Expression
	nodes int // how many parts it has: what evaluating it costs, besides its loops
	depth int // how deeply they are nested
}

// prepare makes an expression ready. Nodes are changed in place: those that
// fetch, make or repeat something are put into nodes of our own (nodes.go).
func (e *evaluator) prepare(x hclsyntax.Expression) (expression, hcl.Diagnostics) {
	p := preparer{e: e}
	made := p.expr(x)
	return expression{made, p.nodes, p.deepest}, p.diags
}

// preparer walks through one expression.
type preparer struct {
	e       *evaluator
	nodes   int
	depth   int
	deepest int
	diags   hcl.Diagnostics

	// What a function's body needs to be known of: see function.go.
	locals []string                        // names that the expression itself defines, the innermost last
	refs   []*hclsyntax.ScopeTraversalExpr // of names that are not local
	calls  []*hclsyntax.FunctionCallExpr
}

func (p *preparer) expr(x hclsyntax.Expression) hclsyntax.Expression {
	if x == nil {
		return nil
	}
	p.nodes++
	p.depth++
	p.deepest = max(p.deepest, p.depth)
	defer func() { p.depth-- }()
	switch x := x.(type) {
	case *hclsyntax.LiteralValueExpr:
		p.literal(x)
	case *hclsyntax.ScopeTraversalExpr:
		if !slices.Contains(p.locals, x.Traversal.RootName()) {
			p.refs = append(p.refs, x)
		}
		p.nodes += len(p.locals) / 8 // of which each is a context to look into
		return &refNode{x, p.e}
	case *hclsyntax.FunctionCallExpr:
		return p.call(x)
	case *hclsyntax.TemplateExpr:
		if x.IsStringLiteral() {
			return x
		}
		p.all(x.Parts)
		return &sizedNode{x, p.e}
	case *hclsyntax.TupleConsExpr:
		p.all(x.Exprs)
		return &sizedNode{x, p.e}
	case *hclsyntax.ObjectConsExpr:
		for i := range x.Items {
			x.Items[i].KeyExpr = p.expr(x.Items[i].KeyExpr)
			x.Items[i].ValueExpr = p.expr(x.Items[i].ValueExpr)
		}
		return &sizedNode{x, p.e}
	case *hclsyntax.ObjectConsKeyExpr:
		if _, name := x.Wrapped.(*hclsyntax.ScopeTraversalExpr); !name || x.ForceNonLiteral {
			x.Wrapped = p.expr(x.Wrapped)
		}
	case *hclsyntax.ForExpr:
		return p.loop(x)
	case *hclsyntax.SplatExpr:
		x.Source = p.expr(x.Source)
		x.Each = p.repeated(x.Each)
		return &sizedNode{x, p.e}
	default:
		return p.inner(x)
	}
	return x
}

// inner is the rest of expr.
func (p *preparer) inner(x hclsyntax.Expression) hclsyntax.Expression {
	switch x := x.(type) {
	case *hclsyntax.RelativeTraversalExpr:
		x.Source = p.expr(x.Source)
		return &sizedNode{x, p.e}
	case *hclsyntax.IndexExpr:
		x.Collection, x.Key = p.expr(x.Collection), p.operand(x.Key, true)
		return &sizedNode{x, p.e}
	case *hclsyntax.TemplateJoinExpr:
		x.Tuple = p.expr(x.Tuple)
		return &sizedNode{x, p.e}
	case *hclsyntax.TemplateWrapExpr:
		x.Wrapped = p.expr(x.Wrapped)
	case *hclsyntax.ParenthesesExpr:
		x.Expression = p.expr(x.Expression)
	case *hclsyntax.ConditionalExpr:
		same := isText(x.TrueResult) && isText(x.FalseResult)
		x.Condition, x.TrueResult, x.FalseResult = p.expr(x.Condition), p.expr(x.TrueResult), p.expr(x.FalseResult)
		if !same {
			return &choiceNode{x, p.e}
		}
	case *hclsyntax.BinaryOpExpr:
		number := x.Op.Impl.Params()[0].Type == cty.Number
		x.LHS, x.RHS = p.operand(x.LHS, number), p.operand(x.RHS, number)
		if x.Op.Type == cty.Number {
			return &numberNode{x, p.e}
		}
	case *hclsyntax.UnaryOpExpr:
		number := x.Op.Type == cty.Number
		x.Val = p.operand(x.Val, number)
		if number {
			return &numberNode{x, p.e}
		}
	}
	return x
}

// isText tells what is always a text.
func isText(x hclsyntax.Expression) bool {
	_, is := x.(*hclsyntax.TemplateExpr)
	return is
}

// operand prepares what an operator is applied to, or an index.
func (p *preparer) operand(x hclsyntax.Expression, number bool) hclsyntax.Expression {
	made := p.expr(x)
	if l, is := made.(*hclsyntax.LiteralValueExpr); is && l.Val.Type().IsPrimitiveType() {
		return made // numbers in the file have been looked at
	}
	return &operandNode{made, p.e, number}
}

func (p *preparer) call(x *hclsyntax.FunctionCallExpr) hclsyntax.Expression {
	p.calls = append(p.calls, x)
	if x.Name == "convert" && len(x.Args) == 2 && !x.ExpandFinal {
		x.Args[0] = p.expr(x.Args[0])
		return &convertNode{x, p.e}
	}
	p.all(x.Args)
	return &callNode{x, p.e}
}

func (p *preparer) all(list []hclsyntax.Expression) {
	for i := range list {
		list[i] = p.expr(list[i])
	}
}

// literal refuses a number that no text could be made of.
func (p *preparer) literal(x *hclsyntax.LiteralValueExpr) {
	if isLarge(x.Val) {
		p.diags = append(p.diags, p.e.budget.reach(x.SrcRange, ofDigits, maxExponent)...)
	}
}

func (p *preparer) loop(x *hclsyntax.ForExpr) hclsyntax.Expression {
	x.CollExpr = p.expr(x.CollExpr)
	outer := len(p.locals)
	p.locals = append(p.locals, x.ValVar)
	if x.KeyVar != "" {
		p.locals = append(p.locals, x.KeyVar)
	}
	before := p.nodes
	x.KeyExpr, x.ValExpr, x.CondExpr = p.expr(x.KeyExpr), p.expr(x.ValExpr), p.expr(x.CondExpr)
	p.locals = p.locals[:outer]
	return &loopNode{x, p.e, p.nodes - before + 1}
}

// repeated prepares what is evaluated for each element of something.
func (p *preparer) repeated(x hclsyntax.Expression) hclsyntax.Expression {
	if x == nil {
		return nil
	}
	before := p.nodes
	made := p.expr(x)
	return &stepNode{made, p.e, p.nodes - before}
}

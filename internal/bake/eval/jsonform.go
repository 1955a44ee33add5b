package eval

import (
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	hcljson "github.com/hashicorp/hcl/v2/json"
	"github.com/zclconf/go-cty/cty"
)

// The JSON form is read by HCL's own parser for it, and its values are made the
// same nodes that HCL files have, once: so all that evaluates and all that
// limits does not know two syntaxes.

// parseJSON parses a file in the JSON form.
func (e *evaluator) parseJSON(f File) (source, hcl.Diagnostics) {
	if at, deep := jsonDepth(f.Data, e.budget.limits.Nesting); deep {
		return source{}, e.budget.reach(hcl.Range{Filename: f.Name, Start: at, End: at}, ofNesting, e.budget.limits.Nesting)
	}
	file, diags := hcljson.Parse(f.Data, f.Name)
	if diags.HasErrors() {
		return source{}, diags
	}
	content, rest, more := file.Body.PartialContent(&hcl.BodySchema{Blocks: []hcl.BlockHeaderSchema{
		{Type: blockVariable, LabelNames: []string{"name"}}, {Type: blockFunction, LabelNames: []string{"name"}},
		{Type: blockTarget, LabelNames: []string{"name"}}, {Type: blockGroup, LabelNames: []string{"name"}},
	}})
	diags = append(diags, more...)
	attrs, more := rest.JustAttributes()
	diags = append(diags, more...)
	var out source
	out.attrs, more = e.jsonAttributes(attrs, func(string) bool { return true })
	diags = append(diags, more...)
	for _, b := range content.Blocks {
		made, more := e.jsonBlock(b)
		out.blocks = append(out.blocks, made)
		diags = append(diags, more...)
	}
	sortBlocks(out.blocks)
	return out, diags
}

func (e *evaluator) jsonBlock(b *hcl.Block) (block, hcl.Diagnostics) {
	out := block{kind: b.Type, at: b.DefRange, nameAt: b.DefRange}
	if len(b.Labels) > 0 {
		out.name, out.nameAt, out.nameSet = b.Labels[0], b.LabelRanges[0], true
	}
	body, diags := b.Body, hcl.Diagnostics(nil)
	if b.Type == blockVariable {
		content, rest, more := body.PartialContent(&hcl.BodySchema{Blocks: []hcl.BlockHeaderSchema{{Type: blockValidation}}})
		diags = append(diags, more...)
		for _, n := range content.Blocks {
			nested, more := e.jsonBlock(n)
			out.nested = append(out.nested, nested)
			diags = append(diags, more...)
		}
		body = rest
	}
	attrs, more := body.JustAttributes()
	diags = append(diags, more...)
	out.attrs, more = e.jsonAttributes(attrs, func(name string) bool { return e.evaluated(b.Type, name) })
	return out, append(diags, more...)
}

// jsonAttributes makes attributes, with a value where wanted tells.
func (e *evaluator) jsonAttributes(attrs hcl.Attributes, wanted func(name string) bool) ([]attribute, hcl.Diagnostics) {
	var diags hcl.Diagnostics
	out := make([]attribute, 0, len(attrs))
	for _, a := range attrs {
		made := attribute{name: a.Name, nameAt: a.NameRange, static: a.Expr}
		if wanted(a.Name) {
			value, more := e.jsonExpr(a.Expr)
			diags = append(diags, more...)
			made.value = value
		}
		out = append(out, made)
	}
	sortByPlace(out)
	return out, diags
}

// jsonExpr makes a node of a JSON value: strings are templates, as are the names
// in objects.
func (e *evaluator) jsonExpr(x hcl.Expression) (hclsyntax.Expression, hcl.Diagnostics) {
	at := x.Range()
	if l, ok := x.(interface{ ExprList() []hcl.Expression }); ok {
		if items := l.ExprList(); items != nil {
			return e.jsonTuple(items, at)
		}
	}
	if m, ok := x.(interface{ ExprMap() []hcl.KeyValuePair }); ok {
		if items := m.ExprMap(); items != nil {
			return e.jsonObject(items, at)
		}
	}
	v, diags := x.Value(nil) // without a context, a string is what it is
	if diags.HasErrors() {
		return nil, diags
	}
	if v.IsNull() || v.Type() != cty.String {
		return &hclsyntax.LiteralValueExpr{Val: v, SrcRange: at}, nil
	}
	return e.jsonTemplate(v.AsString(), at)
}

func (e *evaluator) jsonTemplate(text string, at hcl.Range) (hclsyntax.Expression, hcl.Diagnostics) {
	if !strings.Contains(text, "${") && !strings.Contains(text, "%{") {
		return &hclsyntax.TemplateExpr{SrcRange: at, Parts: []hclsyntax.Expression{
			&hclsyntax.LiteralValueExpr{Val: cty.StringVal(text), SrcRange: at},
		}}, nil
	}
	pos := at.Start
	pos.Byte, pos.Column = pos.Byte+1, pos.Column+1 // after the quote
	if diags := e.checkTemplate(at.Filename, text, pos); diags != nil {
		return nil, diags
	}
	return hclsyntax.ParseTemplate([]byte(text), at.Filename, pos)
}

func (e *evaluator) jsonTuple(items []hcl.Expression, at hcl.Range) (hclsyntax.Expression, hcl.Diagnostics) {
	var diags hcl.Diagnostics
	out := &hclsyntax.TupleConsExpr{SrcRange: at, OpenRange: at, Exprs: make([]hclsyntax.Expression, 0, len(items))}
	for _, i := range items {
		value, more := e.jsonExpr(i)
		diags = append(diags, more...)
		out.Exprs = append(out.Exprs, value)
	}
	return out, diags
}

func (e *evaluator) jsonObject(items []hcl.KeyValuePair, at hcl.Range) (hclsyntax.Expression, hcl.Diagnostics) {
	var diags hcl.Diagnostics
	out := &hclsyntax.ObjectConsExpr{SrcRange: at, OpenRange: at, Items: make([]hclsyntax.ObjectConsItem, 0, len(items))}
	first := map[string]hcl.Range{}
	for _, i := range items {
		key, more := e.jsonExpr(i.Key)
		diags = append(diags, more...)
		if name, nameDiags := i.Key.Value(nil); !nameDiags.HasErrors() && name.Type() == cty.String {
			if where, twice := first[name.AsString()]; twice {
				diags = append(diags, fault(i.Key.Range(), "Duplicate object attribute",
					`An attribute named "`+name.AsString()+`" was already defined at `+where.String()+"."))
			}
			first[name.AsString()] = i.Key.Range()
		}
		value, more := e.jsonExpr(i.Value)
		diags = append(diags, more...)
		out.Items = append(out.Items, hclsyntax.ObjectConsItem{KeyExpr: key, ValueExpr: value})
	}
	return out, diags
}

// jsonDepth tells whether brackets are deeper than most within each other, and
// where. It looks at nothing but strings and brackets.
func jsonDepth(data []byte, most int) (hcl.Pos, bool) {
	pos := hcl.InitialPos
	depth, quoted, escaped := 0, false, false
	for i, c := range data {
		switch {
		case escaped:
			escaped = false
		case quoted:
			escaped, quoted = c == '\\', c != '"' && c != '\n' // no string goes across lines
		case c == '"':
			quoted = true
		case c == '[' || c == '{':
			depth++
		case c == ']' || c == '}':
			depth--
		}
		if depth > most {
			pos.Byte = i
			return pos, true
		}
		pos.Column++
		if c == '\n' {
			pos.Line, pos.Column = pos.Line+1, 1
		}
	}
	return pos, false
}

package eval

import (
	"bytes"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// The blocks that a definition is made of.
const (
	blockVariable   = "variable"
	blockFunction   = "function"
	blockTarget     = "target"
	blockGroup      = "group"
	blockValidation = "validation"
)

// block is a block of either syntax.
type block struct {
	kind    string
	name    string
	at      hcl.Range // its kind and name
	nameAt  hcl.Range
	attrs   []attribute // in the order of the file
	nested  []block     // the validations of a variable
	nameSet bool
}

// attribute is one argument of a block, or of the file itself.
type attribute struct {
	name   string
	nameAt hcl.Range
	// static is the expression for what is read and not evaluated: types and
	// the names of parameters. value is the same, to be evaluated.
	static hcl.Expression
	value  hclsyntax.Expression
}

func (b *block) attr(name string) *attribute {
	for i := range b.attrs {
		if b.attrs[i].name == name {
			return &b.attrs[i]
		}
	}
	return nil
}

// source is a parsed file.
type source struct {
	blocks []block
	attrs  []attribute // at the top of the file
}

// parse reads one file.
func (e *evaluator) parse(f File) (source, hcl.Diagnostics) {
	if diags := e.checkSize(f); diags != nil {
		return source{}, diags
	}
	if isJSON(f) {
		return e.parseJSON(f)
	}
	return e.parseHCL(f)
}

// isJSON tells the format of a file: by what is known of it, by the end of its
// name, by how it begins.
func isJSON(f File) bool {
	switch {
	case f.Format != FormatAuto:
		return f.Format == FormatJSON
	case strings.HasSuffix(f.Name, ".json"):
		return true
	case strings.HasSuffix(f.Name, ".hcl"):
		return false
	}
	return looksLikeJSON(f.Data)
}

func looksLikeJSON(data []byte) bool {
	data = bytes.TrimLeft(bytes.TrimPrefix(data, []byte("\ufeff")), " \t\r\n")
	return len(data) > 0 && (data[0] == '{' || data[0] == '[')
}

// pieceSize is how many bytes of a file are parsed at once, or more until the
// next block ends. HCL's scanner holds all tokens of what it is given, which is
// many times the text.
const pieceSize = 8 << 10

// parseHCL parses a file piece by piece. A cut that was none, because a text or
// a comment goes across it, leaves a piece that does not parse: the file is then
// parsed again as a whole, which tells the errors as well.
func (e *evaluator) parseHCL(f File) (source, hcl.Diagnostics) {
	var out source
	whole := piece{data: f.Data, pos: hcl.InitialPos}
	for _, p := range cut(f.Data) {
		diags := e.parsePiece(f.Name, p, &out)
		if e.budget.reached != nil {
			return out, diags
		}
		if diags.HasErrors() {
			out = source{}
			diags = e.parsePiece(f.Name, whole, &out)
			return out, append(diags, redefined(out.attrs)...)
		}
	}
	return out, redefined(out.attrs)
}

// redefined refuses an attribute that one file has twice.
func redefined(attrs []attribute) hcl.Diagnostics {
	var diags hcl.Diagnostics
	first := map[string]hcl.Range{}
	for _, a := range attrs {
		if at, twice := first[a.name]; twice {
			diags = append(diags, fault(a.nameAt, "Attribute redefined",
				`The argument "`+a.name+`" was already set at `+at.String()+". Each argument may be set only once."))
			continue
		}
		first[a.name] = a.nameAt
	}
	return diags
}

// piece is a part of a file that begins at pos.
type piece struct {
	data []byte
	pos  hcl.Pos
}

// cut cuts a file after lines that are just a closing brace.
func cut(data []byte) []piece {
	var out []piece
	start, line := 0, 1
	pos := hcl.InitialPos
	for i, c := range data {
		if c != '\n' {
			continue
		}
		line++
		if i-start < pieceSize || !bytes.HasSuffix(bytes.TrimSuffix(data[start:i], []byte("\r")), []byte("\n}")) {
			continue
		}
		out = append(out, piece{data[start : i+1], pos})
		start = i + 1
		pos = hcl.Pos{Line: line, Column: 1, Byte: start}
	}
	return append(out, piece{data[start:], pos})
}

func (e *evaluator) parsePiece(name string, p piece, out *source) hcl.Diagnostics {
	if diags := e.checkNesting(name, p); diags != nil {
		return diags
	}
	f, diags := hclsyntax.ParseConfig(p.data, name, p.pos)
	body, ok := f.Body.(*hclsyntax.Body)
	if !ok {
		return diags
	}
	out.attrs = append(out.attrs, attributesOf(body)...)
	for _, b := range body.Blocks {
		switch b.Type {
		case blockVariable, blockFunction, blockTarget, blockGroup:
			out.blocks = append(out.blocks, blockOf(b))
			diags = append(diags, checkLabels(b)...)
		} // others are of whoever wrote them
	}
	return diags
}

func attributesOf(body *hclsyntax.Body) []attribute {
	out := make([]attribute, 0, len(body.Attributes))
	for _, a := range body.Attributes {
		out = append(out, attribute{name: a.Name, nameAt: a.NameRange, static: a.Expr, value: a.Expr})
	}
	sortByPlace(out)
	return out
}

func blockOf(b *hclsyntax.Block) block {
	out := block{kind: b.Type, at: b.DefRange(), nameAt: b.DefRange(), attrs: attributesOf(b.Body)}
	if len(b.Labels) > 0 {
		out.name, out.nameAt, out.nameSet = b.Labels[0], b.LabelRanges[0], true
	}
	for _, n := range b.Body.Blocks {
		if b.Type == blockVariable && n.Type == blockValidation {
			out.nested = append(out.nested, block{kind: n.Type, at: n.DefRange(), attrs: attributesOf(n.Body)})
		}
	}
	return out
}

func checkLabels(b *hclsyntax.Block) hcl.Diagnostics {
	switch {
	case len(b.Labels) == 0:
		return faults(b.OpenBraceRange, "Missing name for "+b.Type, "All "+b.Type+" blocks must have 1 labels (name).",
			b.Type+` "NAME" {`)
	case len(b.Labels) > 1:
		return faults(b.LabelRanges[1], "Extraneous label for "+b.Type, "Only 1 labels (name) are expected for "+b.Type+" blocks.")
	}
	return nil
}

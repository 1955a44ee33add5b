package eval

import (
	"bytes"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// HCL's parser goes into itself for every bracket, operator and directive, and
// so does the evaluation. Deep enough, either would end the program: so what is
// nested too deeply is found before it is parsed, by its tokens.

// checkSize refuses a file that would be slow to parse: the scanners hold all
// tokens of a file, which take some hundred times the memory of its text, and
// reading a number takes time by the square of its digits.
func (e *evaluator) checkSize(f File) hcl.Diagnostics {
	c := counter{json: isJSON(f)}
	line := 1
	for _, b := range f.Data {
		e.budget.words += c.next(b)
		at := hcl.Range{Filename: f.Name, Start: hcl.Pos{Line: line, Column: 1}, End: hcl.Pos{Line: line, Column: 1}}
		switch {
		case e.budget.words > e.budget.limits.Words:
			return e.budget.reach(at, ofWords, e.budget.limits.Words)
		case c.digits > maxDigits:
			return e.budget.reach(at, ofNumeral, maxDigits)
		case b == '\n':
			line++
		}
	}
	return nil
}

// counter counts what may be tokens. In JSON, a string is one, unless it is a
// template.
type counter struct {
	json, quoted, escaped, template bool

	inWord bool
	digits int // in a row, now
	last   byte
}

// next tells whether b begins another one.
func (c *counter) next(b byte) int {
	switch {
	case b >= '0' && b <= '9':
		c.digits++
	case b != '.':
		c.digits = 0
	}
	word := b >= '0' && b <= '9' || b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b == '_' || b >= utf8.RuneSelf
	begins := word && !c.inWord || !word && b != ' ' && b != '\t' && !(c.json && b == '\n')
	plain := c.json && c.quoted && !c.template
	c.inWord = word
	if c.json {
		c.string(b)
	}
	c.last = b
	if begins && !plain {
		return 1
	}
	return 0
}

// string follows the strings of JSON.
func (c *counter) string(b byte) {
	switch {
	case c.escaped:
		c.escaped = false
	case b == '"':
		c.quoted, c.template = !c.quoted, false
	case !c.quoted:
	case b == '\\':
		c.escaped = true
	case b == '\n': // no string goes across lines
		c.quoted = false
	case b == '{' && (c.last == '$' || c.last == '%'):
		c.template = true
	}
}

// maxDigits bounds what may be a number in a file. It is above maxNumeral as the
// digits may be those of a text.
const maxDigits = 10_000

// checkNesting refuses a piece that is nested too deeply.
func (e *evaluator) checkNesting(name string, p piece) hcl.Diagnostics {
	if mayNest(p.data) <= e.budget.limits.Nesting && !mayJoin(p.data) {
		return nil // not even if all of it were in one expression
	}
	tokens, _ := hclsyntax.LexConfig(p.data, name, p.pos) // the parser tells what is wrong with them
	return e.checkTokens(tokens, level{lines: true})
}

// checkTemplate does the same for a template that JSON has in a string.
func (e *evaluator) checkTemplate(name, text string, pos hcl.Pos) hcl.Diagnostics {
	if mayNest([]byte(text)) <= e.budget.limits.Nesting && !mayJoin([]byte(text)) {
		return nil
	}
	tokens, _ := hclsyntax.LexTemplate([]byte(text), name, pos)
	return e.checkTokens(tokens, level{template: true})
}

// mayNest counts the bytes that could begin something nested, or an operator.
func mayNest(data []byte) int {
	n := 0
	last := byte(' ')
	for _, c := range data {
		switch c {
		case '(', '[', '{', '!', '+', '*', '/', '%', '?', '&', '|', '<', '>':
			n++
		case '=':
			if last == '=' {
				n++
			}
		case '-':
			if (last < 'a' || last > 'z') && (last < 'A' || last > 'Z') { // or it is in a name
				n++
			}
		}
		last = c
	}
	return n
}

// The parser puts a text together piece by piece, copying all that it has each
// time: a line, an escape is a piece. maxJoined bounds the bytes that it copies,
// for all files: about a second. Less than fewJoined is not counted.
const (
	maxJoined = 1 << 30
	fewJoined = 8 << 20
)

// mayJoin tells whether there would be much to be copied if all were one text.
func mayJoin(data []byte) bool {
	pieces := 1 + bytes.Count(data, []byte("\n")) + bytes.Count(data, []byte("$${")) + bytes.Count(data, []byte("%%{"))
	return pieces*len(data)/2 > fewJoined
}

// joined takes what putting texts together will copy.
func (e *evaluator) joined(tokens hclsyntax.Tokens) hcl.Diagnostics {
	length := 0
	for _, t := range tokens {
		if t.Type != hclsyntax.TokenStringLit && t.Type != hclsyntax.TokenQuotedLit {
			length = 0
			continue
		}
		length += len(t.Bytes)
		if e.budget.joined += length; e.budget.joined > maxJoined {
			return e.budget.reach(t.Range, ofJoined, maxJoined)
		}
	}
	return nil
}

// level is an open bracket, text or template, or the file itself.
type level struct {
	template bool // its parts are beside each other
	lines    bool // a line's end ends an item
	own      int  // what the level itself adds
	sticky   int  // operators and brackets of the item so far: each may hold all that follows
	open     int  // %{if} and %{for} that have not been ended
}

func (l level) depth() int { return l.own + l.sticky + l.open }

func (e *evaluator) checkTokens(tokens hclsyntax.Tokens, base level) hcl.Diagnostics {
	if diags := e.joined(tokens); diags != nil {
		return diags
	}
	stack := []level{base}
	depth := 0 // the sum of all levels
	for i, t := range tokens {
		top := &stack[len(stack)-1]
		before := top.depth()
		switch {
		case opens(t.Type):
			inner := level{template: ofTemplate(t.Type), lines: ofLines(tokens, i)}
			if top.template {
				inner.own = 1
			} else {
				top.sticky++
			}
			stack = append(stack, inner)
			depth += inner.own + stack[len(stack)-2].depth() - before
		case closes(t.Type):
			if len(stack) > 1 {
				depth -= before
				stack = stack[:len(stack)-1]
			}
		case t.Type == hclsyntax.TokenComma, t.Type == hclsyntax.TokenNewline && top.lines:
			top.sticky = 0
			depth += top.depth() - before
		case operates(t.Type):
			top.sticky++
			depth++
		case t.Type == hclsyntax.TokenIdent && i > 0 && tokens[i-1].Type == hclsyntax.TokenTemplateControl:
			around := &stack[max(0, len(stack)-2)]
			before = around.depth()
			around.directive(string(t.Bytes))
			depth += around.depth() - before
		}
		if depth > e.budget.limits.Nesting {
			return e.budget.reach(t.Range, ofNesting, e.budget.limits.Nesting)
		}
	}
	return nil
}

// directive takes the name in %{name …}.
func (l *level) directive(name string) {
	switch name {
	case "if", "for":
		l.open++
	case "endif", "endfor":
		l.open = max(0, l.open-1)
	}
}

func opens(t hclsyntax.TokenType) bool {
	switch t {
	case hclsyntax.TokenOBrace, hclsyntax.TokenOBrack, hclsyntax.TokenOParen, hclsyntax.TokenTemplateInterp, hclsyntax.TokenTemplateControl:
		return true
	}
	return ofTemplate(t)
}

func ofTemplate(t hclsyntax.TokenType) bool {
	return t == hclsyntax.TokenOQuote || t == hclsyntax.TokenOHeredoc
}

// ofLines tells whether items end with their lines in what tokens[i] opens: in
// the braces of blocks and objects, but not of {for …}.
func ofLines(tokens hclsyntax.Tokens, i int) bool {
	if tokens[i].Type != hclsyntax.TokenOBrace {
		return false
	}
	for _, t := range tokens[i+1:] {
		if t.Type != hclsyntax.TokenNewline && t.Type != hclsyntax.TokenComment {
			return t.Type != hclsyntax.TokenIdent || string(t.Bytes) != "for"
		}
	}
	return true
}

func closes(t hclsyntax.TokenType) bool {
	switch t {
	case hclsyntax.TokenCBrace, hclsyntax.TokenCBrack, hclsyntax.TokenCParen,
		hclsyntax.TokenCQuote, hclsyntax.TokenCHeredoc, hclsyntax.TokenTemplateSeqEnd:
		return true
	}
	return false
}

// operates tells operators, and what a traversal can repeat.
func operates(t hclsyntax.TokenType) bool {
	switch t {
	case hclsyntax.TokenStar, hclsyntax.TokenSlash, hclsyntax.TokenPlus, hclsyntax.TokenMinus, hclsyntax.TokenPercent,
		hclsyntax.TokenEqualOp, hclsyntax.TokenNotEqual, hclsyntax.TokenLessThan, hclsyntax.TokenLessThanEq,
		hclsyntax.TokenGreaterThan, hclsyntax.TokenGreaterThanEq, hclsyntax.TokenAnd, hclsyntax.TokenOr,
		hclsyntax.TokenBang, hclsyntax.TokenQuestion, hclsyntax.TokenColon:
		return true
	}
	return false
}

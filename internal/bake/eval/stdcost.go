package eval

import (
	"regexp/syntax"
	"strings"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
)

// What a call would make is looked at before it is made, where that can be much
// more than its arguments are: a text of spaces, a product, a hash that is slow
// by intent. All other functions make about as much as they are given, and what
// they make is measured afterwards.

// costCheck refuses a call that would be beyond the limits. The arguments have
// been converted for the function, are not null where it does not take that, and
// have been measured.
type costCheck = func(b *budget, at hcl.Range, args []cty.Value) hcl.Diagnostics

// Bounds of single functions.
const (
	maxPattern    = 16 << 10 // bytes of a regular expression, a key, a version
	maxDecoded    = 1 << 20  // bytes of a text to be decoded, or searched for all matches
	maxStates     = 20_000   // of a regular expression, once {9} is written out
	maxBcryptCost = 14       // about a second
)

func textLen(v cty.Value) int {
	if v.IsNull() || !v.IsKnown() || v.Type() != cty.String {
		return 0
	}
	return len(v.AsString())
}

// wouldMake refuses text that would be larger than one value may be. Factors are
// checked one by one, so that their product is no overflow.
func (b *budget) wouldMake(at hcl.Range, n int, times ...int) hcl.Diagnostics {
	for _, t := range times {
		if t > 0 && n > b.limits.Text/t {
			return b.reach(at, ofText, b.limits.Text)
		}
		n *= t
	}
	return b.spend(at, n/256)
}

func shortText(b *budget, at hcl.Range, args []cty.Value) hcl.Diagnostics {
	for _, a := range args {
		if textLen(a) > maxPattern {
			return b.reach(at, "bytes in this argument", maxPattern)
		}
		if diags := b.spend(at, textLen(a)*2); diags != nil {
			return diags
		}
	}
	return nil
}

// rsaCost: the time grows with the cube of the key.
func rsaCost(b *budget, at hcl.Range, args []cty.Value) hcl.Diagnostics {
	const most, steps = 8 << 10, 250_000
	if textLen(args[1]) > most {
		return b.reach(at, "bytes in a key", most)
	}
	if diags := b.spend(at, steps); diags != nil {
		return diags
	}
	return shortText(b, at, args[:1])
}

// lettersCost: what people see as one character is found by tables.
func lettersCost(b *budget, at hcl.Range, args []cty.Value) hcl.Diagnostics {
	return b.spend(at, textLen(args[0])/8)
}

// trimCost: each letter of the one is looked for in the other.
func trimCost(b *budget, at hcl.Range, args []cty.Value) hcl.Diagnostics {
	return b.spend(at, textLen(args[0])*textLen(args[1])/64)
}

func decodeCost(b *budget, at hcl.Range, args []cty.Value) hcl.Diagnostics {
	n := textLen(args[0])
	if n > maxDecoded {
		return b.reach(at, "bytes to be decoded", maxDecoded)
	}
	if lines := strings.Count(args[0].AsString(), "\n"); lines > b.limits.Elements {
		return b.reach(at, ofElements, b.limits.Elements)
	}
	return b.spend(at, n)
}

func jsonDecodeCost(b *budget, at hcl.Range, args []cty.Value) hcl.Diagnostics {
	n := textLen(args[0])
	if n > maxDecoded {
		return b.reach(at, "bytes to be decoded", maxDecoded)
	}
	if _, deep := jsonDepth([]byte(args[0].AsString()), maxValueDepth); deep {
		return b.reach(at, ofValueDepth, maxValueDepth)
	}
	if longNumber(args[0].AsString()) {
		return b.reach(at, ofNumeral, maxNumeral)
	}
	return b.spend(at, n)
}

// longNumber tells whether there are more digits in a row in JSON than a number
// may have.
func longNumber(text string) bool {
	digits, quoted, escaped := 0, false, false
	for i := range len(text) {
		c := text[i]
		switch {
		case escaped:
			escaped = false
		case quoted:
			escaped, quoted = c == '\\', c != '"'
		case c == '"':
			quoted = true
		case c >= '0' && c <= '9':
			digits++
		case c != '.':
			digits = 0
		}
		if digits > maxNumeral {
			return true
		}
	}
	return false
}

// distinctCost: it compares each element with each, and all that is in them.
func distinctCost(b *budget, at hcl.Range, args []cty.Value) hcl.Diagnostics {
	if args[0].IsNull() {
		return nil
	}
	var s size
	if diags := b.measure(at, args[0], &s, 0); diags != nil {
		return diags
	}
	return b.spend(at, args[0].LengthInt()*(s.elements+s.text/256)/2)
}

func bcryptCost(b *budget, at hcl.Range, args []cty.Value) hcl.Diagnostics {
	cost := 10
	if len(args) > 1 && !args[1].IsNull() {
		f, _ := args[1].AsBigFloat().Float64()
		cost = int(min(max(f, 4), 100))
	}
	if cost > maxBcryptCost {
		return b.reach(at, "as the cost of bcrypt", maxBcryptCost)
	}
	return b.spend(at, 200<<cost)
}

// formatCost: every verb may write every argument, and as many spaces as it says.
func formatCost(b *budget, at hcl.Range, args []cty.Value) hcl.Diagnostics {
	return b.formats(at, args[0].AsString(), args[1:], 1)
}

// formatListCost: the same for each element of the longest list; what is no list
// is written each time.
func formatListCost(b *budget, at hcl.Range, args []cty.Value) hcl.Diagnostics {
	longest := 1
	for _, a := range args[1:] {
		if t := a.Type(); !a.IsNull() && (t.IsListType() || t.IsSetType() || t.IsTupleType()) {
			longest = max(longest, a.LengthInt())
		}
	}
	return b.formats(at, args[0].AsString(), args[1:], longest)
}

func (b *budget) formats(at hcl.Range, format string, args []cty.Value, times int) hcl.Diagnostics {
	width, number := 0, 0
	for _, c := range format {
		if c >= '0' && c <= '9' {
			if number = number*10 + int(c-'0'); number > b.limits.Text {
				return b.reach(at, ofText, b.limits.Text)
			}
			continue
		}
		width, number = width+number, 0
	}
	const short = 100 // bytes that a number takes, about
	written := 0
	for _, a := range args {
		var s size
		if diags := b.measure(at, a, &s, 0); diags != nil {
			return diags
		}
		if s.elements == 0 {
			s.text *= times
		}
		written += s.text + (s.elements+times)*short
	}
	if diags := b.wouldMake(at, written, max(1, strings.Count(format, "%"))); diags != nil {
		return diags
	}
	return b.wouldMake(at, len(format)+width, times)
}

func indentCost(b *budget, at hcl.Range, args []cty.Value) hcl.Diagnostics {
	spaces, _ := args[0].AsBigFloat().Float64()
	if spaces > float64(b.limits.Text) {
		return b.reach(at, ofText, b.limits.Text)
	}
	return b.wouldMake(at, max(0, int(spaces)), strings.Count(args[1].AsString(), "\n"))
}

// sortCost: every comparison makes values.
func sortCost(b *budget, at hcl.Range, args []cty.Value) hcl.Diagnostics {
	return b.spend(at, args[0].LengthInt()*48)
}

func joinCost(b *budget, at hcl.Range, args []cty.Value) hcl.Diagnostics {
	n := 0
	for _, a := range args[1:] {
		n += a.LengthInt()
	}
	return b.wouldMake(at, textLen(args[0]), n)
}

func replaceCost(b *budget, at hcl.Range, args []cty.Value) hcl.Diagnostics {
	n := strings.Count(args[0].AsString(), args[1].AsString())
	return b.wouldMake(at, textLen(args[2]), n)
}

// regexCost: for each byte of the text, it may look at each state of the
// pattern.
func regexCost(b *budget, at hcl.Range, args []cty.Value) hcl.Diagnostics {
	pattern := textLen(args[0])
	if pattern > maxPattern {
		return b.reach(at, "bytes in a regular expression", maxPattern)
	}
	parsed, err := syntax.Parse(args[0].AsString(), syntax.Perl)
	if err != nil {
		return nil // the function says so
	}
	n := states(parsed)
	if n > maxStates {
		return b.reach(at, "states in a regular expression", maxStates)
	}
	return b.spend(at, n+pattern+(n+1)*textLen(args[1])/64)
}

// states is how many states a pattern has, about.
func states(p *syntax.Regexp) int {
	n := 1 + len(p.Rune)
	for _, sub := range p.Sub {
		n += states(sub)
	}
	if p.Op == syntax.OpRepeat {
		n *= max(1, p.Min, p.Max)
	}
	return min(n, maxStates+1)
}

func regexAllCost(b *budget, at hcl.Range, args []cty.Value) hcl.Diagnostics {
	if n := textLen(args[1]); n > maxDecoded/4 {
		return b.reach(at, "bytes in which all matches are looked for", maxDecoded/4)
	}
	return regexCost(b, at, args)
}

// regexReplaceCost: each match may write all of the text for every $1.
func regexReplaceCost(b *budget, at hcl.Range, args []cty.Value) hcl.Diagnostics {
	text, pattern, by := args[0], args[1], args[2]
	if diags := b.wouldMake(at, textLen(text)+1, textLen(by)+1); diags != nil {
		return diags
	}
	return regexCost(b, at, []cty.Value{pattern, text})
}

func splitCost(b *budget, at hcl.Range, args []cty.Value) hcl.Diagnostics {
	n := strings.Count(args[1].AsString(), args[0].AsString())
	if textLen(args[0]) == 0 {
		n = utf8.RuneCountInString(args[1].AsString())
	}
	if n > b.limits.Elements {
		return b.reach(at, ofElements, b.limits.Elements)
	}
	return nil
}

func productCost(b *budget, at hcl.Range, args []cty.Value) hcl.Diagnostics {
	n := 1
	for _, a := range args {
		t := a.Type()
		if a.IsNull() || !t.IsCollectionType() && !t.IsTupleType() {
			return nil // it refuses that itself
		}
		if n *= max(1, a.LengthInt()); n > b.limits.Elements || n*len(args) > b.limits.AllElements {
			return b.reach(at, ofElements, b.limits.Elements)
		}
	}
	return b.spend(at, n*len(args))
}

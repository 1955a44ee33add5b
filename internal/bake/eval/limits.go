package eval

import (
	"context"
	"fmt"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
)

// Limits bound what a definition may cost. They are far above what definitions
// need, and below what harms the machine that evaluates one.
type Limits struct {
	FileBytes   int // bytes of all files together
	Words       int // names, numbers, signs and lines of all files together, about
	Nesting     int // brackets, operators and directives within each other
	Targets     int // targets, with those that matrices make
	Steps       int // parts of expressions evaluated, and elements made
	Text        int // bytes of the texts in one value
	AllText     int // bytes of all texts that were made
	Elements    int // elements of one list or map
	AllElements int // elements of one value, with those of its elements
	Depth       int // expressions that wait for each other
}

// DefaultLimits are the limits that hold where Input sets none.
func DefaultLimits() Limits {
	return Limits{
		FileBytes:   4 << 20,
		Words:       600_000,
		Nesting:     1000,
		Targets:     10_000,
		Steps:       3_000_000,
		Text:        8 << 20,
		AllText:     64 << 20,
		Elements:    10_000,
		AllElements: 100_000,
		Depth:       20_000,
	}
}

// or gives l with the values of d where l has none.
func (l Limits) or(d Limits) Limits {
	for _, p := range []struct{ have, def *int }{
		{&l.FileBytes, &d.FileBytes}, {&l.Words, &d.Words}, {&l.Nesting, &d.Nesting}, {&l.Targets, &d.Targets},
		{&l.Steps, &d.Steps}, {&l.Text, &d.Text}, {&l.AllText, &d.AllText},
		{&l.Elements, &d.Elements}, {&l.AllElements, &d.AllElements}, {&l.Depth, &d.Depth},
	} {
		if *p.have == 0 {
			*p.have = *p.def
		}
	}
	return l
}

// LimitError says that a definition reaches one of the Limits.
type LimitError struct {
	What string // "elements of one list or map"
	Max  int
}

// Error names the limit.
func (l *LimitError) Error() string {
	return fmt.Sprintf("the definition has more than %d %s", l.Max, l.What)
}

// The limits by name.
const (
	ofFileBytes   = "bytes in its files"
	ofWords       = "names, numbers and signs in its files"
	ofJoined      = "bytes to be copied for its texts, which have many lines or escapes"
	ofNesting     = "brackets, operators and directives within each other"
	ofTargets     = "targets"
	ofSteps       = "steps of evaluation"
	ofText        = "bytes of text in one value"
	ofAllText     = "bytes of text that its expressions make"
	ofElements    = "elements in one list or map"
	ofAllElements = "elements in one value"
	ofDepth       = "levels of expressions that wait for each other"
	ofDigits      = "binary digits in a number"
	ofNumeral     = "characters in a number"
	ofValueDepth  = "lists and maps within each other"
)

// budget is what is left of the limits. What was reached first stays: an
// expression cannot go on past it by way of try() or can().
type budget struct {
	ctx     context.Context
	limits  Limits
	steps   int
	text    int
	words   int
	joined  int // see maxJoined
	untilIn int // steps until ctx is looked at

	reached *hcl.Diagnostic
	ended   error // of ctx
}

// lookEvery is how many steps are between two looks at the context: well below
// a millisecond of work.
const lookEvery = 1000

// reach records that a limit has been reached, and gives the diagnostic.
func (b *budget) reach(at hcl.Range, what string, most int) hcl.Diagnostics {
	if b.reached == nil {
		l := &LimitError{What: what, Max: most}
		b.reached = fault(at, "Limit reached", l.Error()+".")
		b.reached.Extra = &extra{cause: l}
	}
	return hcl.Diagnostics{b.reached}
}

// spend takes n steps.
func (b *budget) spend(at hcl.Range, n int) hcl.Diagnostics {
	if b.reached != nil {
		return hcl.Diagnostics{b.reached}
	}
	b.steps += n
	if b.steps > b.limits.Steps {
		return b.reach(at, ofSteps, b.limits.Steps)
	}
	if b.untilIn -= n; b.untilIn < 0 {
		b.untilIn = lookEvery
		if b.ended == nil {
			b.ended = b.ctx.Err()
		}
	}
	if b.ended != nil {
		return alreadyReported()
	}
	return nil
}

// made takes text that an expression has made, or has fetched to make more of.
func (b *budget) made(at hcl.Range, text int) hcl.Diagnostics {
	b.text += text
	if b.text > b.limits.AllText {
		return b.reach(at, ofAllText, b.limits.AllText)
	}
	return nil
}

// size is how large a value is.
type size struct{ elements, text int }

// take measures a value and takes its size from the budget. It looks into every
// element: lists that share their elements are small in memory, and as large as
// they look to whoever walks through them.
func (b *budget) take(at hcl.Range, v cty.Value) hcl.Diagnostics { return b.takeTimes(at, v, 1) }

// takeTimes does the same for what is walked through several times.
func (b *budget) takeTimes(at hcl.Range, v cty.Value, times int) hcl.Diagnostics {
	var s size
	if diags := b.measure(at, v, &s, 0); diags != nil {
		return diags
	}
	if diags := b.made(at, s.text); diags != nil {
		return diags
	}
	return b.spend(at, s.elements*times)
}

// maxValueDepth bounds lists within lists, and maxExponent numbers: 2 to its
// power has about 2,500 digits.
const (
	maxValueDepth = 200
	maxExponent   = 8192
)

func (b *budget) measure(at hcl.Range, v cty.Value, s *size, depth int) hcl.Diagnostics {
	if !v.IsKnown() || v.IsNull() {
		return b.measureType(at, v.Type(), s)
	}
	switch t := v.Type(); {
	case t == cty.String:
		if s.text += len(v.AsString()); s.text > b.limits.Text {
			return b.reach(at, ofText, b.limits.Text)
		}
	case t == cty.Number:
		if tooLarge(v) {
			return b.reach(at, ofDigits, maxExponent)
		}
		if s.text += digits(v); s.text > b.limits.Text {
			return b.reach(at, ofText, b.limits.Text)
		}
	case t.IsCollectionType(), t.IsTupleType(), t.IsObjectType():
		return b.measureElements(at, v, s, depth)
	}
	return nil
}

func (b *budget) measureElements(at hcl.Range, v cty.Value, s *size, depth int) hcl.Diagnostics {
	if depth >= maxValueDepth {
		return b.reach(at, ofValueDepth, maxValueDepth)
	}
	n := v.LengthInt()
	if n > b.limits.Elements {
		return b.reach(at, ofElements, b.limits.Elements)
	}
	if n == 0 {
		return b.measureType(at, v.Type(), s)
	}
	if s.elements += n; s.elements > b.limits.AllElements {
		return b.reach(at, ofAllElements, b.limits.AllElements)
	}
	for it := v.ElementIterator(); it.Next(); {
		key, element := it.Element()
		if t := v.Type(); t.IsMapType() || t.IsObjectType() {
			s.text += len(key.AsString())
		}
		if diags := b.measure(at, element, s, depth+1); diags != nil {
			return diags
		}
	}
	return nil
}

// measureType measures a type in place of a value that has nothing in it: a list
// without elements knows what they would be.
func (b *budget) measureType(at hcl.Range, t cty.Type, s *size) hcl.Diagnostics {
	if t.IsPrimitiveType() || t == cty.DynamicPseudoType {
		return nil
	}
	size := typeSize{most: b.limits.AllElements}
	size.add(t, 0)
	if s.elements += size.nodes - 1; s.elements > b.limits.AllElements {
		return b.reach(at, ofAllElements, b.limits.AllElements)
	}
	return nil
}

// isLarge tells a number that would fill the memory when written out.
func isLarge(v cty.Value) bool {
	return v.Type() == cty.Number && v.IsKnown() && !v.IsNull() && tooLarge(v)
}

// tooLarge does so of a value that is known to be a number.
func tooLarge(v cty.Value) bool {
	exponent := v.AsBigFloat().MantExp(nil) // 0 of infinity, which 1/0 is
	return exponent > maxExponent || exponent < -maxExponent
}

// digits is how many digits a number has, about, where they are many.
func digits(v cty.Value) int {
	const few, bitsPerDigit = 64, 3
	exponent := v.AsBigFloat().MantExp(nil)
	if exponent = max(exponent, -exponent); exponent <= few {
		return 0
	}
	return exponent / bitsPerDigit
}

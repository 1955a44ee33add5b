package eval

import (
	"maps"
	"slices"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
)

// What conversions cost. To find one type for many values, cty tries each with
// each, and does so again for what is in them; to read a number, it takes time
// by the square of the digits.

// maxNumeral is how long a text may be that is to be a number.
const maxNumeral = 1000

// numeral refuses a text that would be slow to read as a number.
func (b *budget) numeral(at hcl.Range, v cty.Value) hcl.Diagnostics {
	if textLen(v) > maxNumeral {
		return b.reach(at, ofNumeral, maxNumeral)
	}
	return nil
}

// conversion takes what it costs to convert v, which has been measured, to a
// type.
func (b *budget) conversion(at hcl.Range, v cty.Value, to cty.Type) hcl.Diagnostics {
	if v.IsNull() || !v.IsKnown() || to == cty.DynamicPseudoType || to == cty.String {
		return nil
	}
	if hasNumber(to) {
		if diags := b.numerals(at, v); diags != nil {
			return diags
		}
	}
	if to.IsSetType() && !v.Type().IsPrimitiveType() {
		// The elements are hashed and sorted by all that is in them.
		var s size
		if diags := b.measure(at, v, &s, 0); diags != nil {
			return diags
		}
		if diags := b.spend(at, (s.elements-v.LengthInt())*48+s.text/64); diags != nil {
			return diags
		}
	}
	if !to.HasDynamicTypes() || v.Type().IsPrimitiveType() {
		return nil
	}
	return b.inferred(at, v.Type())
}

// numerals does what numeral does, for all that is in a value.
func (b *budget) numerals(at hcl.Range, v cty.Value) hcl.Diagnostics {
	if v.IsNull() || !v.IsKnown() || !v.CanIterateElements() {
		return b.numeral(at, v)
	}
	if diags := b.spend(at, v.LengthInt()); diags != nil {
		return diags
	}
	for it := v.ElementIterator(); it.Next(); {
		_, element := it.Element()
		if diags := b.numerals(at, element); diags != nil {
			return diags
		}
	}
	return nil
}

func hasNumber(t cty.Type) bool {
	switch {
	case t.IsCollectionType():
		return hasNumber(t.ElementType())
	case t.IsTupleType():
		for _, element := range t.TupleElementTypes() {
			if hasNumber(element) {
				return true
			}
		}
	case t.IsObjectType():
		for _, element := range t.AttributeTypes() {
			if hasNumber(element) {
				return true
			}
		}
	}
	return t == cty.Number
}

// inferred takes what it costs to find one type for the elements of t, and of
// its elements.
func (b *budget) inferred(at hcl.Range, t cty.Type) hcl.Diagnostics {
	within := elementTypes(t)
	if diags := b.unify(at, within); diags != nil {
		return diags
	}
	for i, element := range within {
		if i > 0 && element.Equals(within[i-1]) {
			continue
		}
		if diags := b.inferred(at, element); diags != nil {
			return diags
		}
	}
	return nil
}

// elementTypes are the types of what is in a value of type t.
func elementTypes(t cty.Type) []cty.Type {
	switch {
	case t.IsCollectionType():
		return []cty.Type{t.ElementType()}
	case t.IsTupleType():
		return t.TupleElementTypes()
	case t.IsObjectType():
		attrs := t.AttributeTypes()
		out := make([]cty.Type, 0, len(attrs))
		for _, name := range slices.Sorted(maps.Keys(attrs)) {
			out = append(out, attrs[name])
		}
		return out
	}
	return nil
}

// unify takes what it costs to find one type for several.
func (b *budget) unify(at hcl.Range, types []cty.Type) hcl.Diagnostics {
	total := typeSize{most: b.limits.AllElements}
	different := 0
	for i, t := range types {
		if i > 0 && t.Equals(types[i-1]) {
			continue
		}
		different++
		total.add(t, 0)
	}
	// Even where all are the same, each is compared with each.
	if diags := b.spend(at, len(types)*len(types)/32); diags != nil || different < 2 {
		return diags
	}
	// Every level of lists in lists is tried in two ways, each with those below.
	const deepest = 24 // there, all steps are used up
	return b.spend(at, total.nodes*different/4<<min(total.depth, deepest))
}

// typeSize is how much there is to a type.
type typeSize struct {
	nodes, depth int
	most         int // nodes beyond it are not counted
}

func (s *typeSize) add(t cty.Type, depth int) {
	s.nodes++
	s.depth = max(s.depth, depth)
	if t.IsPrimitiveType() {
		return
	}
	within := []cty.Type(nil)
	switch {
	case t.IsObjectType():
		for _, element := range t.AttributeTypes() {
			if s.nodes <= s.most {
				s.add(element, depth+1)
			}
		}
	case t.IsCollectionType(), t.IsTupleType():
		within = elementTypes(t)
	}
	for _, element := range within {
		if s.nodes > s.most {
			return
		}
		s.add(element, depth+1)
	}
}

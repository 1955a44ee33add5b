package eval

import (
	"errors"
	"fmt"
	"path"
	"strings"
	"time"

	"github.com/Masterminds/semver/v3"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
	"github.com/zclconf/go-cty/cty/function"
	"github.com/zclconf/go-cty/cty/function/stdlib"
	"github.com/zclconf/go-cty/cty/gocty"
)

// The functions of the standard library that no library has.

func text(name string) function.Parameter {
	return function.Parameter{Name: name, Type: cty.String}
}

// textFunc is a function from text to text.
func textFunc(param string, f func(string) string) function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{text(param)},
		Type:   function.StaticReturnType(cty.String),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			return cty.StringVal(f(args[0].AsString())), nil
		},
	})
}

// constantFunc is a function without parameters.
func constantFunc(value string) function.Function {
	return function.New(&function.Spec{
		Type: function.StaticReturnType(cty.String),
		Impl: func([]cty.Value, cty.Type) (cty.Value, error) { return cty.StringVal(value), nil },
	})
}

func basenameFunc() function.Function { return textFunc("path", path.Base) }

func dirnameFunc() function.Function { return textFunc("path", path.Dir) }

// sanitizeFunc makes a target's name of any text.
func sanitizeFunc() function.Function {
	return textFunc("name", func(s string) string {
		return strings.Map(func(r rune) rune {
			if inName(r) {
				return r
			}
			return '_'
		}, s)
	})
}

// bytesLenFunc and bytesSliceFunc count the bytes of a text. The functions of
// that name in cty take a type that no other function makes; bake's documents
// give them texts.
func bytesLenFunc() function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{text("buf")},
		Type:   function.StaticReturnType(cty.Number),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			return cty.NumberIntVal(int64(len(args[0].AsString()))), nil
		},
	})
}

func bytesSliceFunc() function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{text("buf"), {Name: "offset", Type: cty.Number}, {Name: "length", Type: cty.Number}},
		Type:   function.StaticReturnType(cty.String),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			s := args[0].AsString()
			var offset, length int
			if err := gocty.FromCtyValue(args[1], &offset); err != nil {
				return cty.NilVal, function.NewArgError(1, err)
			}
			if err := gocty.FromCtyValue(args[2], &length); err != nil {
				return cty.NilVal, function.NewArgError(2, err)
			}
			if offset < 0 || length < 0 || offset > len(s) || length > len(s)-offset {
				return cty.NilVal, errors.New("it goes beyond the end of the buffer")
			}
			return cty.StringVal(s[offset : offset+length]), nil
		},
	})
}

// indexFunc is cty's, which takes objects as well: {a = 1} is one in HCL.
func indexFunc() function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{
			{Name: "collection", Type: cty.DynamicPseudoType},
			{Name: "key", Type: cty.DynamicPseudoType},
		},
		Type: func(args []cty.Value) (cty.Type, error) {
			v, err := index(args[0], args[1])
			return v.Type(), err
		},
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) { return index(args[0], args[1]) },
	})
}

func index(collection, key cty.Value) (cty.Value, error) {
	if !collection.Type().IsObjectType() {
		return stdlib.Index(collection, key)
	}
	name, err := convert.Convert(key, cty.String)
	if err != nil || name.IsNull() || !collection.Type().HasAttribute(name.AsString()) {
		return cty.DynamicVal, function.NewArgErrorf(1, "the object has no such attribute")
	}
	return collection.GetAttr(name.AsString()), nil
}

func indexOfFunc() function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{
			{Name: "list", Type: cty.DynamicPseudoType},
			{Name: "value", Type: cty.DynamicPseudoType},
		},
		Type: function.StaticReturnType(cty.Number),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			if t := args[0].Type(); !t.IsListType() && !t.IsTupleType() {
				return cty.NilVal, function.NewArgErrorf(0, "argument must be a list or tuple")
			}
			for it := args[0].ElementIterator(); it.Next(); {
				i, element := it.Element()
				if same, err := stdlib.Equal(element, args[1]); err == nil && same.IsKnown() && same.True() {
					return i, nil
				}
			}
			return cty.NilVal, errors.New("item not found")
		},
	})
}

func semverFunc() function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{text("version"), text("contraint")},
		Type:   function.StaticReturnType(cty.Bool),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			version, err := semver.NewVersion(args[0].AsString())
			if err != nil {
				return cty.NilVal, function.NewArgError(0, err)
			}
			constraint, err := semver.NewConstraint(args[1].AsString())
			if err != nil {
				return cty.NilVal, function.NewArgError(1, err)
			}
			return cty.BoolVal(constraint.Check(version)), nil
		},
	})
}

func rfc3339(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// timeOf is a time in RFC 3339, or in seconds since 1970.
func timeOf(v cty.Value) (time.Time, error) {
	if v.Type() == cty.Number {
		var seconds int64
		if err := gocty.FromCtyValue(v, &seconds); err != nil {
			return time.Time{}, err
		}
		return time.Unix(seconds, 0).UTC(), nil
	}
	return time.Parse(time.RFC3339, v.AsString())
}

// formatTimestampFunc is stdlib's formatdate, which takes seconds since 1970 as
// well, and gives them for the format X.
func formatTimestampFunc() function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{text("format"), {Name: "time", Type: cty.DynamicPseudoType}},
		Type:   function.StaticReturnType(cty.String),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			if t := args[1].Type(); t != cty.Number && t != cty.String {
				return cty.NilVal, function.NewArgErrorf(1, "must be a string timestamp or a unix timestamp number")
			}
			when, err := timeOf(args[1])
			if err != nil {
				return cty.NilVal, function.NewArgError(1, err)
			}
			if args[0].AsString() == "X" {
				return cty.StringVal(fmt.Sprint(when.Unix())), nil
			}
			return stdlib.FormatDate(args[0], cty.StringVal(when.Format(time.RFC3339)))
		},
	})
}

func unixTimestampFunc() function.Function {
	fields := map[string]cty.Type{}
	for name, v := range timeFields(time.Time{}) {
		fields[name] = v.Type()
	}
	return function.New(&function.Spec{
		Params: []function.Parameter{{Name: "unix_timestamp", Type: cty.Number}},
		Type:   function.StaticReturnType(cty.Object(fields)),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			when, err := timeOf(args[0])
			if err != nil {
				return cty.NilVal, function.NewArgError(0, err)
			}
			return cty.ObjectVal(timeFields(when)), nil
		},
	})
}

func timeFields(t time.Time) map[string]cty.Value {
	number := func(n int) cty.Value { return cty.NumberIntVal(int64(n)) }
	year, week := t.ISOWeek()
	return map[string]cty.Value{
		"year":         number(t.Year()),
		"year_day":     number(t.YearDay()),
		"day":          number(t.Day()),
		"month":        number(int(t.Month())),
		"month_name":   cty.StringVal(t.Month().String()),
		"weekday":      number(int(t.Weekday())),
		"weekday_name": cty.StringVal(t.Weekday().String()),
		"hour":         number(t.Hour()),
		"minute":       number(t.Minute()),
		"second":       number(t.Second()),
		"rfc3339":      cty.StringVal(t.Format(time.RFC3339)),
		"iso_year":     number(year),
		"iso_week":     number(week),
	}
}

package eval

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/tonistiigi/go-csvvalue"
	"github.com/zclconf/go-cty/cty"
	ctyjson "github.com/zclconf/go-cty/cty/json"
)

// Values that are given from outside, as text. The text is not repeated in
// errors: it may be a secret.

// jsonSuffix is appended to a variable's name where its value is given as JSON.
const jsonSuffix = "_JSON"

// fromText reads a value of a primitive type.
func fromText(text string, typ cty.Type) (cty.Value, error) {
	switch typ {
	case cty.String:
		return cty.StringVal(text), nil
	case cty.Bool:
		b, err := strconv.ParseBool(text)
		if err != nil {
			return cty.NilVal, errors.New("it is not true or false")
		}
		return cty.BoolVal(b), nil
	case cty.Number:
		n, err := strconv.ParseFloat(text, 64)
		if err != nil || math.IsInf(n, 0) || math.IsNaN(n) {
			return cty.NilVal, errors.New("it is not a number")
		}
		return cty.NumberFloatVal(n), nil
	}
	return cty.NilVal, fmt.Errorf("unsupported type %s; its value can be given as JSON, in NAME%s", typ.FriendlyName(), jsonSuffix)
}

// fromCSV reads a value of a declared type: a primitive one as it is, the
// elements of others separated by commas.
func fromCSV(text string, typ cty.Type) (cty.Value, error) {
	switch {
	case typ.IsListType(), typ.IsSetType():
		if !typ.ElementType().IsPrimitiveType() {
			break
		}
		return listFromCSV(text, typ)
	case typ.IsTupleType():
		return tupleFromCSV(text, typ.TupleElementTypes())
	case typ.IsMapType():
		if !typ.ElementType().IsPrimitiveType() {
			break
		}
		return mapFromCSV(text, typ.ElementType())
	default:
		return fromText(text, typ)
	}
	return cty.NilVal, fmt.Errorf("unsupported type %s for CSV; its value can be given as JSON, in NAME%s", typ.FriendlyName(), jsonSuffix)
}

func fieldsOf(text string) ([]string, error) {
	if strings.Count(text, ",") > maxGiven {
		return nil, fmt.Errorf("it has more than %d elements", maxGiven)
	}
	fields, err := csvvalue.Fields(text, nil)
	if err != nil {
		if text == "" {
			return nil, errors.New("it is empty, and so not CSV")
		}
		return nil, errors.New("it is not CSV: its quotes do not match")
	}
	return fields, nil
}

// maxGiven bounds the elements of a list that is given as CSV.
const maxGiven = 10_000

func listFromCSV(text string, typ cty.Type) (cty.Value, error) {
	fields, err := fieldsOf(text)
	if err != nil {
		return cty.NilVal, err
	}
	values := make([]cty.Value, len(fields))
	for i, f := range fields {
		if values[i], err = fromText(f, typ.ElementType()); err != nil {
			return cty.NilVal, fmt.Errorf("element %d: %w", i, err)
		}
	}
	if typ.IsSetType() {
		return cty.SetVal(values), nil
	}
	return cty.ListVal(values), nil
}

func tupleFromCSV(text string, types []cty.Type) (cty.Value, error) {
	fields, err := fieldsOf(text)
	if err != nil {
		return cty.NilVal, err
	}
	if len(fields) != len(types) {
		return cty.NilVal, fmt.Errorf("the tuple has %d elements, and %d are given", len(types), len(fields))
	}
	values := make([]cty.Value, len(fields))
	for i, f := range fields {
		if values[i], err = fromText(f, types[i]); err != nil {
			return cty.NilVal, fmt.Errorf("element %d: %w", i, err)
		}
	}
	return cty.TupleVal(values), nil
}

func mapFromCSV(text string, element cty.Type) (cty.Value, error) {
	fields, err := fieldsOf(text)
	if err != nil {
		return cty.NilVal, err
	}
	values := map[string]cty.Value{}
	for i, f := range fields {
		key, value, ok := strings.Cut(f, ":")
		if !ok || strings.Contains(value, ":") {
			return cty.NilVal, fmt.Errorf("element %d is not KEY:VALUE; other values can be given as JSON, in NAME%s", i, jsonSuffix)
		}
		if values[key], err = fromText(value, element); err != nil {
			return cty.NilVal, fmt.Errorf("element %d: %w", i, err)
		}
	}
	return cty.MapVal(values), nil
}

// fromJSON reads a value of a declared type as JSON.
func fromJSON(text string, typ cty.Type) (cty.Value, error) {
	if err := checkJSON(text); err != nil {
		return cty.NilVal, err
	}
	if typ.HasDynamicTypes() {
		if err := checkTypes(text); err != nil {
			return cty.NilVal, err
		}
	}
	v, err := ctyjson.Unmarshal([]byte(text), typ)
	if err != nil {
		return cty.NilVal, fmt.Errorf("it is not JSON of the type %s", typ.FriendlyName())
	}
	return v, nil
}

// checkJSON refuses what would be slow to read.
func checkJSON(text string) error {
	if len(text) > maxDecoded {
		return fmt.Errorf("it has more than %d bytes", maxDecoded)
	}
	if longNumber(text) {
		return &LimitError{What: ofNumeral, Max: maxNumeral}
	}
	if _, deep := jsonDepth([]byte(text), maxValueDepth); deep {
		return &LimitError{What: ofValueDepth, Max: maxValueDepth}
	}
	return nil
}

// checkTypes refuses JSON for a list of any where finding what they have in
// common would be slow.
func checkTypes(text string) error {
	implied, err := ctyjson.ImpliedType([]byte(text))
	if err != nil {
		return nil // the caller comes across it again
	}
	b := budget{ctx: context.Background(), limits: DefaultLimits(), untilIn: lookEvery}
	if diags := b.inferred(hcl.Range{}, implied); diags != nil {
		return &LimitError{What: ofSteps, Max: b.limits.Steps}
	}
	return nil
}

// kindName is a type in one word.
func kindName(t cty.Type) string {
	switch {
	case t.IsTupleType():
		return "tuple"
	case t.IsObjectType():
		return "object"
	}
	return t.FriendlyName()
}

package eval

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
	"github.com/zclconf/go-cty/cty/gocty"
)

// From values to the fields of a target. What is read is converted as HCL
// converts: a number is a text where a text is wanted.

var errNull = errors.New("null value is not allowed")

func required(want string, v cty.Value) error {
	return fmt.Errorf("%s required, but have %s", want, kindName(v.Type()))
}

// toText reads a text; it is nil for null.
func toText(v cty.Value) (*string, error) {
	if v.IsNull() {
		return nil, nil
	}
	if v.Type() != cty.String {
		c, err := convert.Convert(v, cty.String)
		if err != nil {
			return nil, required("string", v)
		}
		v = c
	}
	s := v.AsString()
	return &s, nil
}

// toBool reads true or false; it is nil for null.
func toBool(v cty.Value) (*bool, error) {
	if v.IsNull() {
		return nil, nil
	}
	c, err := convert.Convert(v, cty.Bool)
	if err != nil {
		if v.Type() == cty.String {
			return nil, err
		}
		return nil, required("bool", v)
	}
	b := c.True()
	return &b, nil
}

func toInt(v cty.Value) (*int64, error) {
	if v.IsNull() {
		return nil, nil
	}
	if textLen(v) > maxNumeral {
		return nil, &LimitError{What: ofNumeral, Max: maxNumeral}
	}
	c, err := convert.Convert(v, cty.Number)
	if err != nil {
		return nil, err
	}
	var n int64
	if err := gocty.FromCtyValue(c, &n); err != nil {
		return nil, err
	}
	return &n, nil
}

func isList(t cty.Type) bool { return t.IsTupleType() || t.IsListType() || t.IsSetType() }

func isMap(t cty.Type) bool { return t.IsObjectType() || t.IsMapType() }

// toTexts reads a list of texts; it is nil for null.
func toTexts(v cty.Value) ([]string, error) {
	if v.IsNull() {
		return nil, nil
	}
	if !isList(v.Type()) {
		return nil, required("list of string", v)
	}
	out := make([]string, 0, v.LengthInt())
	for it := v.ElementIterator(); it.Next(); {
		_, element := it.Element()
		s, err := toText(element)
		switch {
		case err != nil:
			return nil, fmt.Errorf("element %d: %w", len(out), err)
		case s == nil:
			return nil, errNull
		}
		out = append(out, *s)
	}
	return out, nil
}

// toTextMap reads a map of texts, of which some may be null; it is nil for null.
func toTextMap(v cty.Value) (map[string]*string, error) {
	if v.IsNull() {
		return nil, nil
	}
	if !isMap(v.Type()) {
		return nil, required("map of string", v)
	}
	out := make(map[string]*string, v.LengthInt())
	for it := v.ElementIterator(); it.Next(); {
		key, element := it.Element()
		s, err := toText(element)
		if err != nil {
			return nil, fmt.Errorf("element %q: %w", key.AsString(), err)
		}
		out[key.AsString()] = s
	}
	return out, nil
}

// toFullMap reads a map of texts, none of which is null.
func toFullMap(v cty.Value) (map[string]string, error) {
	m, err := toTextMap(v)
	if m == nil || err != nil {
		return nil, err
	}
	out := make(map[string]string, len(m))
	for k, s := range m {
		if s == nil {
			return nil, errNull
		}
		out[k] = *s
	}
	return out, nil
}

// toEntries reads a list of entries, each a map or its inline form. An empty
// text is no entry.
func toEntries[T any](v cty.Value, parse func(string) ([]T, error), read func(cty.Value) (T, error)) ([]T, error) {
	if v.IsNull() {
		return nil, errNull
	}
	if !isList(v.Type()) {
		return nil, required("list of objects", v)
	}
	out := make([]T, 0, v.LengthInt())
	i := 0
	for it := v.ElementIterator(); it.Next(); i++ {
		_, element := it.Element()
		entries, err := toEntry(element, parse, read)
		if err != nil {
			return nil, fmt.Errorf("element %d: %w", i, err)
		}
		out = append(out, entries...)
	}
	return out, nil
}

func toEntry[T any](v cty.Value, parse func(string) ([]T, error), read func(cty.Value) (T, error)) ([]T, error) {
	switch t := v.Type(); {
	case v.IsNull():
		return nil, errNull
	case t == cty.String && v.AsString() == "":
		return nil, nil
	case t == cty.String:
		return parse(v.AsString())
	case isMap(t):
		entry, err := read(v)
		return []T{entry}, err
	}
	return nil, required("map or string", v)
}

// one makes a parser of one entry a parser of several.
func one[T any](parse func(string) (T, error)) func(string) ([]T, error) {
	return func(s string) ([]T, error) {
		entry, err := parse(s)
		return []T{entry}, err
	}
}

// takeText takes a text out of a map, "" where there is none.
func takeText(m map[string]*string, key string) string {
	s := m[key]
	delete(m, key)
	if s == nil {
		return ""
	}
	return *s
}

// rest is what has not been taken out; null says nothing.
func rest(m map[string]*string) map[string]string {
	out := make(map[string]string, len(m))
	for k, s := range m {
		if s != nil {
			out[k] = *s
		}
	}
	return out
}

func readCache(v cty.Value) (Cache, error) {
	m, err := toTextMap(v)
	if err != nil {
		return Cache{}, err
	}
	c := Cache{Type: takeText(m, "type")}
	if c.Attrs = rest(m); c.Type == "" {
		return Cache{}, errors.New("type required")
	}
	return c, nil
}

func readOutput(v cty.Value) (Output, error) {
	m, err := toTextMap(v)
	if err != nil {
		return Output{}, err
	}
	o := Output{Type: takeText(m, "type"), Dest: takeText(m, "dest")}
	if o.Attrs = rest(m); o.Type == "" {
		return Output{}, errors.New("type is required for output")
	}
	return o, nil
}

// readSecret reads what it knows and nothing else, as buildx does.
func readSecret(v cty.Value) (s Secret, err error) {
	err = eachText(v, map[string]*string{"id": &s.ID, "src": &s.Src, "env": &s.Env})
	return s, err
}

// eachText reads some attributes of an object, where it has them.
func eachText(v cty.Value, into map[string]*string) error {
	for it := v.ElementIterator(); it.Next(); {
		key, element := it.Element()
		to, ok := into[key.AsString()]
		if !ok {
			continue
		}
		s, err := toText(element)
		if err != nil {
			return fmt.Errorf("attribute %q: %w", key.AsString(), err)
		}
		if s != nil {
			*to = *s
		}
	}
	return nil
}

func readSSH(v cty.Value) (s SSH, err error) {
	if err := eachText(v, map[string]*string{"id": &s.ID}); err != nil {
		return SSH{}, err
	}
	for it := v.ElementIterator(); it.Next(); {
		if key, element := it.Element(); key.AsString() == "paths" {
			if s.Paths, err = toTexts(element); err != nil {
				return SSH{}, fmt.Errorf(`attribute "paths": %w`, err)
			}
		}
	}
	return s, nil
}

func readAttest(v cty.Value) (Attest, error) {
	m, err := toTextMap(v)
	if err != nil {
		return Attest{}, err
	}
	a := Attest{Type: takeText(m, "type")}
	if d := takeText(m, "disabled"); d != "" {
		if a.Disabled, err = strconv.ParseBool(d); err != nil {
			return Attest{}, errors.New("disabled must be true or false")
		}
	}
	if a.Attrs = rest(m); a.Type == "" {
		return Attest{}, errors.New("attestation type not specified")
	}
	return a, nil
}

func readPolicy(v cty.Value) (p Policy, err error) {
	m, err := toFullMap(v)
	if err != nil {
		return Policy{}, err
	}
	for _, key := range slices.Sorted(maps.Keys(m)) {
		if err := p.set(key, m[key]); err != nil {
			return Policy{}, err
		}
	}
	return p, nil
}

// readResources reads what it knows and nothing else, as buildx does.
func readResources(v cty.Value) (*Resources, error) {
	switch {
	case v.IsNull():
		return nil, errNull
	case !isMap(v.Type()):
		return nil, required("object", v)
	}
	r := &Resources{}
	for it := v.ElementIterator(); it.Next(); {
		key, element := it.Element()
		if err := r.set(key.AsString(), element); err != nil {
			return nil, fmt.Errorf("attribute %q: %w", key.AsString(), err)
		}
	}
	return r, nil
}

func (r *Resources) set(key string, v cty.Value) (err error) {
	switch key {
	case "memory":
		r.Memory, err = toText(v)
	case "memory-swap":
		r.MemorySwap, err = toText(v)
	case "cpu-shares":
		r.CPUShares, err = toInt(v)
	case "cpu-period":
		r.CPUPeriod, err = toInt(v)
	case "cpu-quota":
		r.CPUQuota, err = toInt(v)
	case "cpuset-cpus":
		r.CpusetCPUs, err = toText(v)
	case "cpuset-mems":
		r.CpusetMems, err = toText(v)
	}
	return err
}

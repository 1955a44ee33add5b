package buildflag

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/distribution/reference"

	"github.com/berthbuild/berth/internal/hint"
)

// The types of attestations.
const (
	AttestProvenance = "provenance" // how the result came to be
	AttestSBOM       = "sbom"       // what is in it
)

// String is the attestation as a flag value; ParseAttests reads it back.
func (a Attest) String() string {
	parts := []string{"type=" + a.Type}
	if a.Disabled {
		parts = append(parts, "disabled=true")
	}
	for _, k := range sortedKeys(a.Attrs) {
		parts = append(parts, k+"="+a.Attrs[k])
	}
	return joinFields(parts)
}

func (a Attest) equal(b Attest) bool {
	return a.Type == b.Type && a.Disabled == b.Disabled && maps.Equal(a.Attrs, b.Attrs)
}

// attestFlag is one value and how a person finds it again.
type attestFlag struct {
	text  string // `--sbom "true"`
	value Attest
}

// ParseAttests reads the values of --attest and of its shorthands, --provenance
// and --sbom, whose empty value stands for a flag that was not given. Each type
// comes at most once in the result; two flags that say the same of one are fine,
// and any others are refused.
func ParseAttests(vals []string, provenance, sbom string) ([]Attest, error) {
	var all []attestFlag
	for _, v := range vals {
		a, err := parseAttest(v)
		all = append(all, attestFlag{fmt.Sprintf("--attest %q", v), a})
		if err != nil {
			return nil, hint.Wrap(err, all[len(all)-1].text, attestShape)
		}
	}
	for _, short := range []struct{ flag, typ, value, shape string }{
		{"--provenance", AttestProvenance, provenance, provenanceShape},
		{"--sbom", AttestSBOM, sbom, sbomShape},
	} {
		if short.value == "" {
			continue
		}
		a, err := parseAttestShorthand(short.typ, short.value)
		all = append(all, attestFlag{fmt.Sprintf("%s %q", short.flag, short.value), a})
		if err != nil {
			return nil, hint.Wrap(err, all[len(all)-1].text, short.shape)
		}
	}
	return mergeAttests(all)
}

const (
	attestShape     = "write --attest type=provenance,mode=max or --attest type=sbom,generator=IMAGE"
	provenanceShape = "write --provenance=true, false, min or max, or attributes: --provenance=mode=max,builder-id=URL"
	sbomShape       = "write --sbom=true or false, or attributes: --sbom=generator=IMAGE"
)

func mergeAttests(all []attestFlag) ([]Attest, error) {
	var out []Attest
	first := map[string]attestFlag{}
	for _, f := range all {
		other, twice := first[f.value.Type]
		switch {
		case !twice:
			first[f.value.Type] = f
			out = append(out, f.value)
		case !other.value.equal(f.value):
			return nil, hint.New(fmt.Sprintf("%s and %s contradict each other", other.text, f.text), "leave one of them out")
		}
	}
	return out, nil
}

func parseAttest(value string) (Attest, error) {
	a, err := collectAttest(value)
	switch {
	case err != nil:
		return Attest{}, err
	case a.Type == "":
		return Attest{}, hint.New(`"type" is missing`)
	}
	return a, a.check()
}

// parseAttestShorthand reads a word, or attributes without a type.
func parseAttestShorthand(typ, value string) (Attest, error) {
	a := Attest{Type: typ, Attrs: map[string]string{}}
	if on, err := strconv.ParseBool(value); err == nil {
		a.Disabled = !on
		return a, nil
	}
	if typ == AttestProvenance && slices.Contains(provenanceModes(), value) {
		a.Attrs["mode"] = value
		return a, nil
	}
	a, err := collectAttest(value)
	switch {
	case err != nil:
		return Attest{}, err
	case a.Type != "" && a.Type != typ:
		return Attest{}, fmt.Errorf("it is short for type=%s, and cannot be type=%s", typ, a.Type)
	}
	a.Type = typ
	return a, a.check()
}

// collectAttest reads KEY=VALUE,…; the type may be missing.
func collectAttest(value string) (Attest, error) {
	parts, err := fields(value)
	if err != nil {
		return Attest{}, err
	}
	a := Attest{Attrs: map[string]string{}}
	seen := map[string]bool{}
	for _, part := range parts {
		key, val, ok := strings.Cut(part, "=")
		key = attestAttr(key)
		if !ok || key == "" {
			return Attest{}, fmt.Errorf("%q is not KEY=VALUE", part)
		}
		if seen[key] {
			return Attest{}, fmt.Errorf("%q is given twice", key)
		}
		seen[key] = true
		switch key {
		case "type":
			a.Type = strings.ToLower(val)
		case "disabled":
			if a.Disabled, err = strconv.ParseBool(val); err != nil {
				return Attest{}, fmt.Errorf(`"disabled" must be true or false, not %q`, val)
			}
		default:
			a.Attrs[key] = val
		}
	}
	return a, nil
}

// attestAttr is an attribute's name: those that are known in lower case, and any
// other as it was typed, since a generator of SBOMs gets them as its environment.
func attestAttr(key string) string {
	key = strings.TrimSpace(key)
	if lower := strings.ToLower(key); slices.Contains([]string{
		"type", "disabled", "mode", "version", "builder-id", "filename", "inline-only", "reproducible", "generator",
	}, lower) {
		return lower
	}
	return key
}

// provenanceModes are how much is told.
func provenanceModes() []string { return []string{"min", "max"} }

// check refuses what is known to be wrong. Attributes that are not known here
// are the daemon's to judge, which may be newer.
func (a Attest) check() error {
	switch a.Type {
	case AttestProvenance:
		return a.checkProvenance()
	case AttestSBOM:
		generator, given := a.Attrs["generator"]
		if !given {
			return nil
		}
		if _, err := reference.ParseNormalizedNamed(generator); err != nil {
			return fmt.Errorf(`"generator" is no name of an image: %q: %w`, generator, err)
		}
		return nil
	}
	return hint.New(fmt.Sprintf("type %q is not known", a.Type), "the types are "+AttestProvenance+" and "+AttestSBOM)
}

func (a Attest) checkProvenance() error {
	mode, given := a.Attrs["mode"]
	if given && mode != "full" && !slices.Contains(provenanceModes(), mode) { // "full" is an older word for max
		return fmt.Errorf(`"mode" must be %s, not %q`, strings.Join(provenanceModes(), " or "), mode)
	}
	for _, key := range []string{"inline-only", "reproducible"} {
		if v, given := a.Attrs[key]; given {
			if _, err := strconv.ParseBool(v); err != nil {
				return fmt.Errorf("%q must be true or false, not %q", key, v)
			}
		}
	}
	return nil
}

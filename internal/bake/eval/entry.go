package eval

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/tonistiigi/go-csvvalue"
)

// Entries of lists in their inline form, which the flags of build have as well:
// type=registry,ref=a/b. Errors do not repeat values.

// pairs reads KEY=VALUE,KEY=VALUE, in the order of the text.
func pairs(text string) ([][2]string, error) {
	fields, err := csvvalue.Fields(text, nil)
	if err != nil {
		return nil, errors.New("its quotes do not match")
	}
	out := make([][2]string, 0, len(fields))
	for _, f := range fields {
		key, value, ok := strings.Cut(f, "=")
		if !ok {
			return nil, fmt.Errorf("invalid value %s: not KEY=VALUE", f)
		}
		out = append(out, [2]string{key, value})
	}
	return out, nil
}

// ParseCache reads one --cache-from or --cache-to: either pairs, or references
// of images, of which there may be several.
func ParseCache(text string) ([]Cache, error) {
	fields, err := csvvalue.Fields(text, nil)
	if err != nil {
		return nil, errors.New("its quotes do not match")
	}
	if !slices.ContainsFunc(fields, func(f string) bool { return strings.Contains(f, "=") }) {
		var out []Cache
		for _, ref := range fields {
			out = append(out, Cache{Type: "registry", Attrs: map[string]string{"ref": ref}})
		}
		return out, nil
	}
	kvs, err := pairs(text)
	if err != nil {
		return nil, err
	}
	c := Cache{Attrs: map[string]string{}}
	for _, kv := range kvs {
		if key := strings.ToLower(kv[0]); key == "type" {
			c.Type = kv[1]
		} else {
			c.Attrs[key] = kv[1]
		}
	}
	if c.Type == "" {
		return nil, errors.New("type required: write type=registry,ref=… or the like")
	}
	return []Cache{c}, nil
}

// ParseOutput reads one --output. What has no type is a folder, and - the
// standard output, to which an archive goes.
func ParseOutput(text string) (Output, error) {
	fields, err := csvvalue.Fields(text, nil)
	if err != nil {
		return Output{}, errors.New("its quotes do not match")
	}
	if len(fields) == 1 && !strings.HasPrefix(fields[0], "type=") {
		if fields[0] == "-" {
			return Output{Type: "tar", Dest: "-", Attrs: map[string]string{}}, nil
		}
		return Output{Type: "local", Dest: fields[0], Attrs: map[string]string{}}, nil
	}
	kvs, err := pairs(text)
	if err != nil {
		return Output{}, err
	}
	o := Output{Attrs: map[string]string{}}
	for _, kv := range kvs {
		switch key := strings.TrimSpace(strings.ToLower(kv[0])); key {
		case "type":
			o.Type = kv[1]
		case "dest":
			o.Dest = kv[1]
		default:
			o.Attrs[key] = kv[1]
		}
	}
	if o.Type == "" {
		return Output{}, errors.New("type is required for output")
	}
	return o, nil
}

// ParseSecret reads one --secret.
func ParseSecret(text string) (Secret, error) {
	kvs, err := pairs(text)
	if err != nil {
		return Secret{}, errors.New("a secret is written id=NAME,src=FILE or id=NAME,env=VARIABLE")
	}
	var s Secret
	fromEnv := false
	for _, kv := range kvs {
		switch key := strings.ToLower(kv[0]); key {
		case "id":
			s.ID = kv[1]
		case "src", "source":
			s.Src = kv[1]
		case "env":
			s.Env = kv[1]
		case "type":
			if kv[1] != "env" && kv[1] != "file" {
				return Secret{}, errors.New("unsupported secret type: write type=file or type=env")
			}
			fromEnv = kv[1] == "env"
		default:
			return Secret{}, fmt.Errorf("unexpected key %q in a secret", key)
		}
	}
	if fromEnv && s.Env == "" {
		s.Env, s.Src = s.Src, ""
	}
	return s, nil
}

// ParseSSH reads one --ssh: ID, or ID=PATH,PATH.
func ParseSSH(text string) (SSH, error) {
	id, paths, given := strings.Cut(text, "=")
	s := SSH{ID: id}
	if given {
		s.Paths = strings.Split(paths, ",")
	}
	return s, nil
}

// ParseAttest reads one --attest.
func ParseAttest(text string) (Attest, error) {
	kvs, err := pairs(text)
	if err != nil {
		return Attest{}, err
	}
	a := Attest{Attrs: map[string]string{}}
	for _, kv := range kvs {
		switch key := kv[0]; strings.ToLower(key) {
		case "type":
			a.Type = kv[1]
		case "disabled":
			if a.Disabled, err = strconv.ParseBool(kv[1]); err != nil {
				return Attest{}, errors.New("disabled must be true or false")
			}
		default:
			a.Attrs[key] = kv[1]
		}
	}
	if a.Type == "" {
		return Attest{}, errors.New("attestation type not specified")
	}
	return a, nil
}

// ParsePolicy reads one --policy.
func ParsePolicy(text string) (Policy, error) {
	kvs, err := pairs(text)
	if err != nil {
		return Policy{}, err
	}
	var p Policy
	for _, kv := range kvs {
		if err := p.set(strings.ToLower(kv[0]), kv[1]); err != nil {
			return Policy{}, err
		}
	}
	return p, nil
}

func (p *Policy) set(key, value string) (err error) {
	switch key {
	case "filename":
		if value != "" {
			p.Files = append(p.Files, value)
		}
	case "reset":
		p.Reset, err = strconv.ParseBool(value)
	case "disabled":
		p.Disabled, err = strconv.ParseBool(value)
	case "strict":
		var strict bool
		strict, err = strconv.ParseBool(value)
		p.Strict = &strict
	case "log-level":
		p.LogLevel = strings.ToLower(value)
		if !slices.Contains([]string{"panic", "fatal", "error", "warn", "warning", "info", "debug", "trace"}, p.LogLevel) {
			return errors.New("log-level must be panic, fatal, error, warn, info, debug or trace")
		}
	default:
		return fmt.Errorf("invalid value %s: the keys of a policy are filename, reset, disabled, strict and log-level", key)
	}
	if err != nil {
		return fmt.Errorf("%s must be true or false", key)
	}
	return nil
}

// inline writes pairs, sorted; what reads them reads the same again.
func inline(kvs map[string]string) string {
	var b strings.Builder
	for i, k := range slices.Sorted(maps.Keys(kvs)) {
		if i > 0 {
			b.WriteByte(',')
		}
		field := k + "=" + kvs[k]
		if strings.ContainsAny(field, ",\"\r\n") || strings.HasPrefix(field, " ") {
			field = `"` + strings.ReplaceAll(field, `"`, `""`) + `"`
		}
		b.WriteString(field)
	}
	return b.String()
}

// fields is an entry as the pairs that it is made of.
func fields(attrs map[string]string, more ...string) map[string]string {
	out := make(map[string]string, len(attrs)+len(more)/2)
	maps.Copy(out, attrs)
	for i := 0; i < len(more); i += 2 {
		if more[i+1] != "" {
			out[more[i]] = more[i+1]
		}
	}
	return out
}

// Fields is the entry as pairs.
func (c Cache) Fields() map[string]string { return fields(c.Attrs, "type", c.Type) }

// String is the entry's inline form.
func (c Cache) String() string { return inline(c.Fields()) }

// Fields is the entry as pairs.
func (o Output) Fields() map[string]string { return fields(o.Attrs, "type", o.Type, "dest", o.Dest) }

// String is the entry's inline form.
func (o Output) String() string { return inline(o.Fields()) }

// String is the entry's inline form.
func (s Secret) String() string {
	return inline(fields(nil, "id", s.ID, "src", s.Src, "env", s.Env))
}

// String is the entry's inline form.
func (s SSH) String() string {
	if len(s.Paths) == 0 {
		return s.ID
	}
	return s.ID + "=" + strings.Join(s.Paths, ",")
}

// String is the entry's inline form.
func (a Attest) String() string {
	disabled := ""
	if a.Disabled {
		disabled = "true"
	}
	return inline(fields(a.Attrs, "type", a.Type, "disabled", disabled))
}

// String is the entry's inline form.
func (p Policy) String() string {
	var parts []string
	for _, f := range p.Files {
		parts = append(parts, inline(map[string]string{"filename": f}))
	}
	rest := map[string]string{}
	if p.Reset {
		rest["reset"] = "true"
	}
	if p.Disabled {
		rest["disabled"] = "true"
	}
	if p.Strict != nil {
		rest["strict"] = strconv.FormatBool(*p.Strict)
	}
	if p.LogLevel != "" {
		rest["log-level"] = p.LogLevel
	}
	if len(rest) > 0 {
		parts = append(parts, inline(rest))
	}
	return strings.Join(parts, ",")
}

// Attestation is the value of --attest that --provenance or --sbom, or the keys of
// these names, stand for.
func Attestation(typ, value string) string {
	switch value {
	case "true":
		return "type=" + typ
	case "false":
		return "type=" + typ + ",disabled=true"
	}
	return "type=" + typ + "," + value
}

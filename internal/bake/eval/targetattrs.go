package eval

import (
	"maps"
	"slices"
	"strconv"

	"github.com/zclconf/go-cty/cty"
)

// targetAttr is an attribute of a target: how it is read into its field, and the
// value that target.NAME.ATTRIBUTE has.
type targetAttr struct {
	name  string
	read  func(t *Target, v cty.Value, file string) error
	value func(t *Target) cty.Value
}

// targetAttrs are all attributes that are fields, sorted by name. What a matrix
// and its name say is gone once the targets are made.
func targetAttrs() []targetAttr {
	return []targetAttr{
		textsAttr("annotations", func(t *Target) *[]string { return &t.Annotations }),
		textMapAttr("args", func(t *Target) *map[string]*string { return &t.Args }),
		entriesAttr("attest", func(t *Target) *[]Attest { return &t.Attest }, one(ParseAttest), readAttest, attestType(), attestValue),
		entriesAttr("cache-from", func(t *Target) *[]Cache { return &t.CacheFrom }, ParseCache, readCache, cty.Map(cty.String), cacheValue),
		entriesAttr("cache-to", func(t *Target) *[]Cache { return &t.CacheTo }, ParseCache, readCache, cty.Map(cty.String), cacheValue),
		textAttr("call", func(t *Target) **string { return &t.Call }),
		contextAttr(),
		contextsAttr(),
		descriptionAttr(),
		textAttr("dockerfile", func(t *Target) **string { return &t.Dockerfile }),
		textAttr("dockerfile-inline", func(t *Target) **string { return &t.DockerfileInline }),
		textsAttr("entitlements", func(t *Target) *[]string { return &t.Entitlements }),
		textMapAttr("extra-hosts", func(t *Target) *map[string]*string { return &t.ExtraHosts }),
		textsAttr("inherits", func(t *Target) *[]string { return &t.Inherits }),
		textMapAttr("labels", func(t *Target) *map[string]*string { return &t.Labels }),
		textAttr("network", func(t *Target) **string { return &t.Network }),
		boolAttr("no-cache", func(t *Target) **bool { return &t.NoCache }),
		textsAttr("no-cache-filter", func(t *Target) *[]string { return &t.NoCacheFilter }),
		entriesAttr("output", func(t *Target) *[]Output { return &t.Outputs }, one(ParseOutput), readOutput, cty.Map(cty.String), outputValue),
		textsAttr("platforms", func(t *Target) *[]string { return &t.Platforms }),
		entriesAttr("policy", func(t *Target) *[]Policy { return &t.Policy }, one(ParsePolicy), readPolicy, cty.Map(cty.String), policyValue),
		boolAttr("pull", func(t *Target) **bool { return &t.Pull }),
		resourcesAttr(),
		entriesAttr("secret", func(t *Target) *[]Secret { return &t.Secrets }, one(ParseSecret), readSecret, secretType(), secretValue),
		textAttr("shm-size", func(t *Target) **string { return &t.ShmSize }),
		entriesAttr("ssh", func(t *Target) *[]SSH { return &t.SSH }, one(ParseSSH), readSSH, sshType(), sshValue),
		textsAttr("tags", func(t *Target) *[]string { return &t.Tags }),
		textAttr("target", func(t *Target) **string { return &t.Target }),
		textsAttr("ulimits", func(t *Target) *[]string { return &t.Ulimits }),
	}
}

// TargetAttributes are the names of all attributes that say something of a
// target, sorted. A matrix and its name make targets, and are not among them.
func TargetAttributes() []string {
	var out []string
	for _, a := range targetAttrs() {
		out = append(out, a.name)
	}
	return out
}

func textAttr(name string, field func(*Target) **string) targetAttr {
	return targetAttr{
		name:  name,
		read:  func(t *Target, v cty.Value, _ string) (err error) { *field(t), err = toText(v); return err },
		value: func(t *Target) cty.Value { return textValue(*field(t)) },
	}
}

func boolAttr(name string, field func(*Target) **bool) targetAttr {
	return targetAttr{
		name: name,
		read: func(t *Target, v cty.Value, _ string) (err error) { *field(t), err = toBool(v); return err },
		value: func(t *Target) cty.Value {
			if b := *field(t); b != nil {
				return cty.BoolVal(*b)
			}
			return cty.NullVal(cty.Bool)
		},
	}
}

func textsAttr(name string, field func(*Target) *[]string) targetAttr {
	return targetAttr{
		name:  name,
		read:  func(t *Target, v cty.Value, _ string) (err error) { *field(t), err = toTexts(v); return err },
		value: func(t *Target) cty.Value { return textsValue(*field(t)) },
	}
}

func textMapAttr(name string, field func(*Target) *map[string]*string) targetAttr {
	return targetAttr{
		name:  name,
		read:  func(t *Target, v cty.Value, _ string) (err error) { *field(t), err = toTextMap(v); return err },
		value: func(t *Target) cty.Value { return textMapValue(*field(t)) },
	}
}

func entriesAttr[T any](name string, field func(*Target) *[]T, parse func(string) ([]T, error), read func(cty.Value) (T, error),
	typ cty.Type, value func(T) cty.Value,
) targetAttr {
	return targetAttr{
		name: name,
		read: func(t *Target, v cty.Value, _ string) (err error) {
			*field(t), err = toEntries(v, parse, read)
			return err
		},
		value: func(t *Target) cty.Value {
			if len(*field(t)) == 0 {
				return cty.ListValEmpty(typ)
			}
			var values []cty.Value
			for _, entry := range *field(t) {
				values = append(values, value(entry))
			}
			return cty.ListVal(values)
		},
	}
}

func contextAttr() targetAttr {
	a := textAttr("context", func(t *Target) **string { return &t.Context })
	read := a.read
	a.read = func(t *Target, v cty.Value, file string) error {
		t.ContextFile = file
		return read(t, v, file)
	}
	return a
}

func contextsAttr() targetAttr {
	return targetAttr{
		name: "contexts",
		read: func(t *Target, v cty.Value, file string) (err error) {
			if t.Contexts, err = toFullMap(v); t.Contexts == nil {
				return err
			}
			t.ContextsFile = make(map[string]string, len(t.Contexts))
			for name := range t.Contexts {
				t.ContextsFile[name] = file
			}
			return nil
		},
		value: func(t *Target) cty.Value {
			if t.Contexts == nil {
				return cty.NullVal(cty.Map(cty.String))
			}
			return fieldsValue(t.Contexts)
		},
	}
}

func descriptionAttr() targetAttr {
	return targetAttr{
		name: "description",
		read: func(t *Target, v cty.Value, _ string) error {
			s, err := toText(v)
			if s == nil {
				return cmpErr(err, errNull)
			}
			t.Description = *s
			return nil
		},
		value: func(t *Target) cty.Value { return cty.StringVal(t.Description) },
	}
}

func resourcesAttr() targetAttr {
	return targetAttr{
		name:  "resources",
		read:  func(t *Target, v cty.Value, _ string) (err error) { t.Resources, err = readResources(v); return err },
		value: func(t *Target) cty.Value { return resourcesValue(t.Resources) },
	}
}

func cmpErr(err, otherwise error) error {
	if err != nil {
		return err
	}
	return otherwise
}

// Values of fields.

func textValue(s *string) cty.Value {
	if s == nil {
		return cty.NullVal(cty.String)
	}
	return cty.StringVal(*s)
}

func numberValue(n *int64) cty.Value {
	if n == nil {
		return cty.NullVal(cty.Number)
	}
	return cty.NumberIntVal(*n)
}

func textsValue(list []string) cty.Value {
	switch {
	case list == nil:
		return cty.NullVal(cty.List(cty.String))
	case len(list) == 0:
		return cty.ListValEmpty(cty.String)
	}
	values := make([]cty.Value, len(list))
	for i, s := range list {
		values[i] = cty.StringVal(s)
	}
	return cty.ListVal(values)
}

func textMapValue(m map[string]*string) cty.Value {
	switch {
	case m == nil:
		return cty.NullVal(cty.Map(cty.String))
	case len(m) == 0:
		return cty.MapValEmpty(cty.String)
	}
	values := make(map[string]cty.Value, len(m))
	for k, s := range m {
		values[k] = textValue(s)
	}
	return cty.MapVal(values)
}

func fieldsValue(m map[string]string) cty.Value {
	if len(m) == 0 {
		return cty.MapValEmpty(cty.String)
	}
	values := make(map[string]cty.Value, len(m))
	for k, s := range m {
		values[k] = cty.StringVal(s)
	}
	return cty.MapVal(values)
}

func cacheValue(c Cache) cty.Value { return fieldsValue(c.Fields()) }

func outputValue(o Output) cty.Value {
	m := o.Fields()
	m["dest"] = o.Dest // there, even where it is empty
	return fieldsValue(m)
}

func attestType() cty.Type { return cty.Map(cty.String) }

func attestValue(a Attest) cty.Value {
	m := maps.Clone(a.Attrs)
	if m == nil {
		m = map[string]string{}
	}
	m["type"] = a.Type
	if a.Disabled {
		m["disabled"] = "true"
	}
	return fieldsValue(m)
}

func policyValue(p Policy) cty.Value {
	m := map[string]string{}
	for _, f := range slices.Backward(p.Files) { // the first of several
		m["filename"] = f
	}
	if p.Reset {
		m["reset"] = "true"
	}
	if p.Disabled {
		m["disabled"] = "true"
	}
	if p.Strict != nil {
		m["strict"] = strconv.FormatBool(*p.Strict)
	}
	if p.LogLevel != "" {
		m["log-level"] = p.LogLevel
	}
	return fieldsValue(m)
}

func secretType() cty.Type {
	return cty.Object(map[string]cty.Type{"id": cty.String, "src": cty.String, "env": cty.String})
}

func secretValue(s Secret) cty.Value {
	return cty.ObjectVal(map[string]cty.Value{"id": cty.StringVal(s.ID), "src": cty.StringVal(s.Src), "env": cty.StringVal(s.Env)})
}

func sshType() cty.Type {
	return cty.Object(map[string]cty.Type{"id": cty.String, "paths": cty.List(cty.String)})
}

func sshValue(s SSH) cty.Value {
	paths := cty.ListValEmpty(cty.String)
	if len(s.Paths) > 0 {
		paths = textsValue(s.Paths)
	}
	return cty.ObjectVal(map[string]cty.Value{"id": cty.StringVal(s.ID), "paths": paths})
}

func resourcesValue(r *Resources) cty.Value {
	some := r
	if r == nil {
		some = &Resources{}
	}
	v := cty.ObjectVal(map[string]cty.Value{
		"memory": textValue(some.Memory), "memory-swap": textValue(some.MemorySwap),
		"cpu-shares": numberValue(some.CPUShares), "cpu-period": numberValue(some.CPUPeriod), "cpu-quota": numberValue(some.CPUQuota),
		"cpuset-cpus": textValue(some.CpusetCPUs), "cpuset-mems": textValue(some.CpusetMems),
	})
	if r == nil {
		return cty.NullVal(v.Type())
	}
	return v
}

package bake

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/berthbuild/berth/internal/bake/eval"
)

// What each key of --set does to a target. Maps and lists are cloned before they
// are changed: a target shares them with others.

func setText(field func(*eval.Target) **string) func(*eval.Target, *override) error {
	return func(t *eval.Target, o *override) error {
		*field(t) = &o.values[0]
		return nil
	}
}

func setContext(t *eval.Target, o *override) error {
	t.Context, t.ContextFile = &o.values[0], ""
	return nil
}

func setBool(field func(*eval.Target) **bool) func(*eval.Target, *override) error {
	return func(t *eval.Target, o *override) error {
		b, err := o.boolean()
		*field(t) = &b
		return err
	}
}

func setTexts(field func(*eval.Target) *[]string) func(*eval.Target, *override) error {
	return setEntries(field, func(s string) ([]string, error) { return []string{s}, nil })
}

func setEntries[T any](field func(*eval.Target) *[]T, parse func(string) ([]T, error)) func(*eval.Target, *override) error {
	return func(t *eval.Target, o *override) error {
		if !o.says() {
			return nil
		}
		out := []T{}
		if o.base() {
			out = slices.Clone(*field(t))
		}
		for _, v := range o.values {
			entries, err := parse(v)
			if err != nil {
				return err
			}
			out = append(out, entries...)
		}
		*field(t) = out
		return nil
	}
}

func single[T any](parse func(string) (T, error)) func(string) ([]T, error) {
	return func(s string) ([]T, error) {
		entry, err := parse(s)
		return []T{entry}, err
	}
}

func setMap(field func(*eval.Target) *map[string]*string) func(*eval.Target, *override) error {
	return func(t *eval.Target, o *override) error {
		out := maps.Clone(*field(t))
		if out == nil {
			out = map[string]*string{}
		}
		maps.Copy(out, o.names)
		*field(t) = out
		return nil
	}
}

func setArg(t *eval.Target, o *override) error {
	if len(o.names) == 0 {
		return nil
	}
	return setMap(func(t *eval.Target) *map[string]*string { return &t.Args })(t, o)
}

func setContexts(t *eval.Target, o *override) error {
	t.Contexts, t.ContextsFile = maps.Clone(t.Contexts), maps.Clone(t.ContextsFile)
	if t.Contexts == nil {
		t.Contexts = map[string]string{}
	}
	for name, value := range o.names {
		t.Contexts[name] = *value
		delete(t.ContextsFile, name)
	}
	return nil
}

// setAttest adds by type, as a later file would; an empty one clears all.
func setAttest(t *eval.Target, o *override) error {
	if !o.says() {
		return nil
	}
	over := eval.Target{Name: t.Name, Inherits: t.Inherits, Attest: []eval.Attest{}}
	if o.cleared {
		t.Attest = nil
	}
	for _, v := range o.values {
		a, err := eval.ParseAttest(v)
		if err != nil {
			return err
		}
		over.Attest = append(over.Attest, a)
	}
	*t = t.Merge(&over)
	return nil
}

// setSecret takes a list of secrets, and then a new source for one of them.
func setSecret(t *eval.Target, o *override) error {
	if err := setEntries(func(t *eval.Target) *[]eval.Secret { return &t.Secrets }, single(eval.ParseSecret))(t, o); err != nil {
		return err
	}
	for _, id := range sortedKeys(o.names) {
		source, err := eval.ParseSecret(*o.names[id])
		if err != nil {
			return err
		}
		if source.ID != "" && source.ID != id {
			return fmt.Errorf("secret override id %q does not match declared secret %q", source.ID, id)
		}
		i := slices.IndexFunc(t.Secrets, func(s eval.Secret) bool { return s.ID == id })
		if i < 0 {
			return fmt.Errorf("secret %q must be declared before it can be overridden", id)
		}
		source.ID = id
		t.Secrets = slices.Clone(t.Secrets)
		t.Secrets[i] = source
	}
	return nil
}

func setResource(t *eval.Target, o *override) error {
	out := eval.Resources{}
	if t.Resources != nil {
		out = *t.Resources
	}
	texts := map[string]**string{"memory": &out.Memory, "memory-swap": &out.MemorySwap, "cpuset-cpus": &out.CpusetCPUs, "cpuset-mems": &out.CpusetMems}
	numbers := map[string]**int64{"cpu-shares": &out.CPUShares, "cpu-period": &out.CPUPeriod, "cpu-quota": &out.CPUQuota}
	for _, name := range sortedKeys(o.names) {
		value := o.names[name]
		if field, ok := texts[name]; ok {
			*field = value
			continue
		}
		field, ok := numbers[name]
		if !ok {
			return fmt.Errorf("unknown resources key %s: the keys are memory, memory-swap, cpu-shares, cpu-period, cpu-quota, cpuset-cpus, cpuset-mems", name)
		}
		n, err := strconv.ParseInt(*value, 10, 64)
		if err != nil {
			return fmt.Errorf("invalid value %s for %s: not a whole number", *value, name)
		}
		*field = &n
	}
	t.Resources = &out
	return nil
}

// setPush is --push: images are pushed, and one is made where nothing else than
// an image for Docker is wanted. Not pushing takes away what only pushes.
func setPush(t *eval.Target, o *override) error {
	push, err := o.boolean()
	if err != nil {
		return err
	}
	var out []eval.Output
	other := false
	for _, have := range t.Outputs {
		switch have.Type {
		case "image":
			have.Attrs = maps.Clone(have.Attrs)
			if have.Attrs == nil {
				have.Attrs = map[string]string{}
			}
			have.Attrs["push"] = strconv.FormatBool(push)
			other = true
		case "registry":
			if !push {
				continue
			}
			other = true
		case "docker":
		default:
			other = true
		}
		out = append(out, have)
	}
	if push && !other {
		out = append(out, eval.Output{Type: "image", Attrs: map[string]string{"push": "true"}})
	}
	t.Outputs = out
	return nil
}

// setLoad is --load: images are loaded into Docker as well. Where the result is
// no image, nothing changes.
func setLoad(t *eval.Target, o *override) error {
	load, err := o.boolean()
	if err != nil || !load {
		return err
	}
	for _, have := range t.Outputs {
		switch have.Type {
		case "docker":
			if have.Dest == "" {
				return nil
			}
		case "image", "registry", "oci":
		default:
			return nil
		}
	}
	t.Outputs = append(slices.Clone(t.Outputs), eval.Output{Type: "docker", Attrs: map[string]string{}})
	return nil
}

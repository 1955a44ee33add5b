package compose

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/berthbuild/berth/internal/hint"
	"github.com/compose-spec/compose-go/v2/types"
)

// fields are the keys that a mapping may have, beside those with x-, and what
// reads the value of each.
type fields map[string]func(any) error

func (f fields) read(v any) error {
	m, ok := v.(map[string]any)
	if !ok {
		return fmt.Errorf("it is %s, not a mapping", kind(v))
	}
	for _, key := range slices.Sorted(maps.Keys(m)) {
		read, ok := f[key]
		switch {
		case ok:
			if err := read(m[key]); err != nil {
				return hint.Wrap(err, key)
			}
		case !strings.HasPrefix(key, "x-"):
			return hint.New("unknown key "+clip(key), "Compose has: "+strings.Join(slices.Sorted(maps.Keys(f)), ", "))
		}
	}
	return nil
}

// kind is what people call a value.
func kind(v any) string {
	switch v.(type) {
	case nil:
		return "empty"
	case string:
		return "a text"
	case bool:
		return "true or false"
	case int, int64, uint64, float64:
		return "a number"
	case time.Time:
		return "a date"
	case []any:
		return "a list"
	case map[string]any:
		return "a mapping"
	}
	return fmt.Sprintf("a %T", v)
}

// checkAll reads what is read later, for what is wrong in it: the library takes
// some of it for what it is not.
func checkAll(all map[string]any) error {
	_, err := readAll(all)
	return err
}

// readAll reads what a build is told by. The rest may be wrong, as it may be for
// buildx.
func readAll(all map[string]any) (*types.Project, error) {
	p := &types.Project{Services: types.Services{}, Secrets: types.Secrets{}}
	if v, ok := all["secrets"]; ok {
		err := eachNamed("secret ", v, func(name string, v any) error {
			var s types.SecretConfig
			err := secretFields(&s).read(v)
			p.Secrets[name] = s
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	services, ok := all["services"].(map[string]any)
	if !ok {
		if _, ok := all["secrets"]; !ok {
			return nil, hint.New("empty compose file", "a Compose file has services:")
		}
	}
	err := eachNamed("service ", services, func(name string, v any) error {
		s := types.ServiceConfig{Name: name}
		err := readService(&s, v)
		p.Services[name] = s
		return err
	})
	if err != nil {
		return nil, err
	}
	return p, nil
}

// eachNamed reads the values of a mapping whose keys are names of something.
func eachNamed(of string, v any, read func(name string, v any) error) error {
	m, ok := v.(map[string]any)
	if !ok {
		return fmt.Errorf("%sit is %s, not a mapping", of, kind(v))
	}
	valid := regexp.MustCompile(`^[a-zA-Z0-9._-]+$`)
	for _, name := range slices.Sorted(maps.Keys(m)) {
		if !valid.MatchString(name) {
			return hint.New(of+clip(name)+": invalid name", "a name has letters, digits, ., - and _")
		}
		if err := read(name, m[name]); err != nil {
			return hint.Wrap(err, of+name)
		}
	}
	return nil
}

// readService reads the keys of a service that a build is told by, and no others.
func readService(s *types.ServiceConfig, v any) error {
	m, ok := v.(map[string]any)
	if !ok && v != nil {
		return fmt.Errorf("it is %s, not a mapping", kind(v))
	}
	f := fields{
		"image": aText(&s.Image),
		"build": func(v any) error {
			s.Build = &types.BuildConfig{}
			return buildFields(s.Build).read(v)
		},
		"environment": pairs(&s.Environment),
		"env_file": each(func(v any) error {
			file := types.EnvFile{Required: true}
			err := envFileFields(&file).read(v)
			s.EnvFiles = append(s.EnvFiles, file)
			return err
		}),
	}
	for _, key := range slices.Sorted(maps.Keys(f)) {
		if v, ok := m[key]; ok {
			if err := f[key](v); err != nil {
				return hint.Wrap(err, key)
			}
		}
	}
	if build, ok := m["build"].(map[string]any); ok {
		s.Build.Extensions = types.Extensions{"x-bake": build["x-bake"]}
	}
	return nil
}

func buildFields(b *types.BuildConfig) fields {
	return fields{
		"context": aText(&b.Context), "dockerfile": aText(&b.Dockerfile), "dockerfile_inline": aText(&b.DockerfileInline),
		"network": aText(&b.Network), "target": aText(&b.Target), "isolation": aText(&b.Isolation),
		"provenance": aText(&b.Provenance), "sbom": aText(&b.SBOM), // the long form has no truths
		"no_cache": aTruth(&b.NoCache), "pull": aTruth(&b.Pull), "privileged": aTruth(&b.Privileged),
		"entitlements": listOf(&b.Entitlements), "cache_from": listOf(&b.CacheFrom), "cache_to": listOf(&b.CacheTo),
		"tags": listOf(&b.Tags), "platforms": listOf(&b.Platforms), "no_cache_filter": textOrTexts(&b.NoCacheFilter, true),
		"args": pairs(&b.Args), "labels": pairs(&b.Labels), "additional_contexts": contextsOf(&b.AdditionalContexts),
		"ssh": pairs(&b.SSH), "extra_hosts": hostsOf(&b.ExtraHosts), "shm_size": sizeOf(&b.ShmSize),
		"ulimits": func(v any) error {
			b.Ulimits = map[string]*types.UlimitsConfig{}
			return ulimitsOf(b.Ulimits, v)
		},
		"secrets": each(func(v any) error {
			var ref types.ServiceSecretConfig
			err := fields{
				"source": aText(&ref.Source), "target": aText(&ref.Target), "uid": aText(&ref.UID), "gid": aText(&ref.GID), "mode": modeOf,
			}.read(v)
			b.Secrets = append(b.Secrets, ref)
			return err
		}),
	}
}

func secretFields(s *types.SecretConfig) fields {
	external := func(v any) error { // the long form has no mapping
		var yes bool
		err := aTruth(&yes)(v)
		s.External = types.External(yes)
		return err
	}
	return fields{
		"name": aText(&s.Name), "file": aText(&s.File), "environment": aText(&s.Environment), "external": external,
		"labels": pairs(&s.Labels), "driver": aText(&s.Driver), "template_driver": aText(&s.TemplateDriver),
		"driver_opts": driverOpts,
	}
}

// driverOpts are nothing to a build.
func driverOpts(v any) error {
	m, ok := v.(map[string]any)
	if !ok {
		return fmt.Errorf("it is %s, not a mapping", kind(v))
	}
	for _, name := range slices.Sorted(maps.Keys(m)) {
		switch m[name].(type) {
		case string, int:
		default:
			return fmt.Errorf("%s: it is %s, neither a whole number nor a text", name, kind(m[name]))
		}
	}
	return nil
}

func envFileFields(f *types.EnvFile) fields {
	return fields{"path": aText(&f.Path), "format": aText(&f.Format), "required": aTruth((*bool)(&f.Required))}
}

func aText(to *string) func(any) error {
	return func(v any) error {
		s, ok := v.(string)
		if !ok {
			return fmt.Errorf("it is %s, not a text", kind(v))
		}
		*to = s
		return nil
	}
}

// aTruth is true or false; a variable may have been in it.
func aTruth(to *bool) func(any) error {
	return func(v any) (err error) {
		switch v := v.(type) {
		case bool:
			*to = v
		case string:
			*to, err = truth(v)
		default:
			return fmt.Errorf("it is %s, neither true nor false", kind(v))
		}
		return err
	}
}

// each reads the entries of a list.
func each(read func(any) error) func(any) error {
	return func(v any) error {
		list, ok := v.([]any)
		if !ok {
			return fmt.Errorf("it is %s, not a list", kind(v))
		}
		for i, e := range list {
			if err := read(e); err != nil {
				return hint.Wrap(err, fmt.Sprintf("[%d]", i))
			}
		}
		return nil
	}
}

// listOf is a list of texts.
func listOf[T ~[]string](to *T) func(any) error {
	return each(func(v any) error {
		var s string
		err := aText(&s)(v)
		*to = append(*to, s)
		return err
	})
}

// textOrTexts is a text, or a list of them, perhaps of different ones only.
func textOrTexts[T ~[]string](to *T, different bool) func(any) error {
	return func(v any) error {
		if s, ok := v.(string); ok {
			*to = T{s}
			return nil
		}
		if err := listOf(to)(v); err != nil {
			return err
		}
		if different {
			return noneTwice(v)
		}
		return nil
	}
}

func noneTwice(v any) error {
	seen := map[string]bool{}
	list, _ := v.([]any)
	for _, e := range list {
		s, _ := e.(string)
		if seen[s] {
			return fmt.Errorf("%s is there twice", clip(s))
		}
		seen[s] = true
	}
	return nil
}

// decoder is one of the library's types, which take what is written in one of
// several ways.
type decoder interface{ DecodeMapstructure(v any) error }

// pairs is a mapping of names to simple values, or a list of different NAME=VALUE.
func pairs(to decoder) func(any) error {
	return func(v any) error {
		switch list := v.(type) {
		case map[string]any:
			for _, name := range slices.Sorted(maps.Keys(list)) {
				if k := kind(list[name]); name == "" {
					return fmt.Errorf("a name is empty")
				} else if k == kind([]any{}) || k == kind(list) {
					return fmt.Errorf("%s: it is %s, not a text", name, k)
				}
			}
		case []any:
			var texts []string
			if err := textOrTexts(&texts, true)(v); err != nil {
				return err
			}
		default:
			return fmt.Errorf("it is %s, neither a mapping nor a list", kind(v))
		}
		return to.DecodeMapstructure(v)
	}
}

// contextsOf are named contexts, which the long form has as a mapping.
func contextsOf(to *types.Mapping) func(any) error {
	return func(v any) error {
		m, _ := v.(map[string]any)
		for _, name := range slices.Sorted(maps.Keys(m)) {
			var s string
			if err := aText(&s)(m[name]); err != nil {
				return hint.Wrap(err, name)
			}
		}
		return pairs(to)(v)
	}
}

// hostsOf are names with their addresses.
func hostsOf(to *types.HostsList) func(any) error {
	return func(v any) error {
		var texts []string
		m, ok := v.(map[string]any)
		if !ok {
			if err := each(aText(new(string)))(v); err != nil {
				return err
			} else if err := noneTwice(v); err != nil {
				return err
			}
		}
		for _, name := range slices.Sorted(maps.Keys(m)) {
			if err := textOrTexts(&texts, false)(m[name]); err != nil {
				return hint.Wrap(err, name)
			}
		}
		return to.DecodeMapstructure(v)
	}
}

// sizeOf is a number of bytes, or a text with a unit.
func sizeOf(to *types.UnitBytes) func(any) error {
	return func(v any) error {
		switch v.(type) {
		case int, string:
			return to.DecodeMapstructure(v)
		}
		return fmt.Errorf("it is %s, neither a whole number nor a text", kind(v))
	}
}

func modeOf(v any) error {
	switch v.(type) {
	case int, string:
		return new(types.FileMode).DecodeMapstructure(v)
	}
	return fmt.Errorf("it is %s, not a file's mode", kind(v))
}

// ulimitsOf are numbers, or mappings that have two of them.
func ulimitsOf(to map[string]*types.UlimitsConfig, v any) error {
	return eachNamed("", v, func(name string, v any) error {
		u := &types.UlimitsConfig{}
		to[name] = u
		if n, ok := v.(int); ok {
			u.Single = n
			return nil
		}
		if err := (fields{"soft": aNumber(&u.Soft), "hard": aNumber(&u.Hard)}).read(v); err != nil {
			return err
		}
		m, _ := v.(map[string]any)
		for _, key := range []string{"soft", "hard"} {
			if _, ok := m[key]; !ok {
				return fmt.Errorf("it has no %s", key)
			}
		}
		return nil
	})
}

func aNumber(to *int) func(any) error {
	return func(v any) error {
		n, ok := v.(int)
		if !ok {
			return fmt.Errorf("it is %s, not a whole number", kind(v))
		}
		*to = n
		return nil
	}
}

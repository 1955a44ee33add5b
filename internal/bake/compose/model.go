package compose

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/berthbuild/berth/internal/hint"
	"github.com/compose-spec/compose-go/v2/interpolation"
	"github.com/compose-spec/compose-go/v2/override"
	"github.com/compose-spec/compose-go/v2/paths"
	"github.com/compose-spec/compose-go/v2/transform"
	"github.com/compose-spec/compose-go/v2/tree"
	"github.com/compose-spec/compose-go/v2/types"
	"go.yaml.in/yaml/v4"
)

// model is files that are merged with each other: those of the definition, or
// those of one include.
type model struct {
	*merger

	dir       string        // where what they name is, from the working directory
	rel       string        // the same, from where what the including file names is
	env       types.Mapping // what their variables are
	including []string      // the files that led to them
	bases     map[string]*source
}

// merger is what all models of a definition share.
type merger struct {
	scan     *scan
	included map[string]map[string]any // what an include came to
	copied   int                       // values
}

// source has services that others may extend.
type source struct {
	file     string
	services map[string]any
	resets   resets
}

// composed is a file's documents, under the name that errors have.
type composed struct {
	name string
	docs []*yaml.Node
}

// merged is what the files say, each over those before it, in the long form of
// everything that has a short one, and with paths that lead from rel.
func (m *model) merged(files []composed) (map[string]any, error) {
	all := map[string]any{}
	for _, f := range files {
		for _, doc := range f.docs {
			cfg, r, err := m.document(doc)
			if err != nil {
				return nil, err
			}
			if err := m.include(cfg, f.name, r); err != nil {
				return nil, err
			}
			r.apply(all, "")
			if err := m.extends(cfg, f.name, r); err != nil {
				return nil, err
			}
			if all, err = over(all, cfg); err != nil {
				return nil, err
			}
		}
	}
	all, err := transform.SetDefaultValues(all)
	if err != nil {
		return nil, err
	}
	if m.including == nil {
		if err := checkAll(all); err != nil {
			return nil, err
		}
	}
	if err := paths.ResolveRelativePaths(all, m.rel, nil); err != nil {
		return nil, err
	}
	m.giveEnvironment(all)
	return all, nil
}

// document is what one says, with its variables replaced.
func (m *model) document(doc *yaml.Node) (map[string]any, resets, error) {
	raw, r, err := values(doc)
	if err == nil {
		raw, err = textKeys(raw)
	}
	if err != nil {
		return nil, nil, err
	}
	cfg, ok := raw.(map[string]any)
	if !ok {
		return nil, nil, hint.New("it is not a Compose file: that is a mapping, with services:")
	}
	cfg, err = interpolation.Interpolate(cfg, m.interpolation())
	return cfg, r, err
}

// interpolation says how variables are replaced; and of what we read, what must be
// no text even if a variable was in it.
func (m *model) interpolation() interpolation.Options {
	number := func(s string) (any, error) { return strconv.Atoi(s) }
	casts := map[tree.Path]interpolation.Cast{
		"secrets.*.external": func(s string) (any, error) { return truth(s) },
	}
	for _, p := range []tree.Path{"services.*", "jobs.*", "services.*.pre_start.*"} {
		casts[p+".ulimits.*"] = number // the long form has no texts
	}
	return interpolation.Options{
		LookupValue:     func(name string) (string, bool) { v, ok := m.env[name]; return v, ok },
		TypeCastMapping: casts,
		Substitute:      m.scan.substitute,
	}
}

// truth is true or false, also as people write it in YAML 1.1.
func truth(s string) (bool, error) {
	switch strings.ToLower(s) {
	case "true", "y", "yes", "on":
		return true, nil
	case "false", "n", "no", "off":
		return false, nil
	}
	return false, fmt.Errorf("%s is neither true nor false", clip(s))
}

// over merges a document over what came before it.
func over(all, cfg map[string]any) (map[string]any, error) {
	all, err := override.Merge(all, cfg)
	if err == nil {
		all, err = override.EnforceUnicity(all)
	}
	if err == nil {
		all, err = transform.Canonical(all, false)
	}
	if err == nil { // the long form shows more that is there twice
		all, err = override.EnforceUnicity(all)
	}
	return all, err
}

// giveEnvironment gives the variables that services list without a value the one
// that they have here: another model may have others.
func (m *model) giveEnvironment(all map[string]any) {
	services, _ := all["services"].(map[string]any)
	for _, v := range services {
		service, _ := v.(map[string]any)
		list, _ := service["environment"].([]any)
		for i, e := range list {
			name, _ := e.(string)
			if value, ok := m.env[name]; ok {
				list[i] = name + "=" + value
			}
		}
	}
}

// extends gives the services of a document what they extend.
func (m *model) extends(cfg map[string]any, file string, r resets) error {
	v, ok := cfg["services"]
	if !ok {
		return nil
	}
	services, ok := v.(map[string]any)
	if !ok {
		return errors.New("services must be a mapping")
	}
	from := &source{file: file, services: services, resets: r}
	for name := range services {
		if _, err := m.service(from, name, nil); err != nil {
			return err
		}
	}
	return nil
}

// link is a service on the way from one to what it extends.
type link struct{ name, file string }

// service is one with all that it extends; it stands for itself afterwards.
func (m *model) service(from *source, name string, chain []link) (map[string]any, error) {
	v := from.services[name]
	if v == nil {
		return nil, nil
	}
	service, ok := v.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("services.%s must be a mapping", name)
	}
	extends, ok := service["extends"]
	if !ok {
		return service, nil
	}
	chain, err := follow(chain, link{name, from.file})
	if err != nil {
		return nil, err
	}
	ref, _ := extends.(string)
	base := from
	if long, ok := extends.(map[string]any); ok {
		if ref, ok = long["service"].(string); !ok {
			return nil, fmt.Errorf("extends.%s.service is required", name)
		}
		if file := long["file"]; file != nil {
			if base, err = m.base(file); err != nil {
				return nil, fmt.Errorf("cannot extend service %q in %s: %w", name, from.file, err)
			}
		}
	}
	if _, ok := base.services[ref]; !ok {
		where := ""
		if base != from {
			where = " in " + base.file
		}
		return nil, fmt.Errorf("cannot extend service %q in %s: service %q not found%s", name, from.file, ref, where)
	}
	extended, err := m.service(base, ref, chain)
	if err != nil || extended == nil {
		return service, err
	}
	own, err := m.copyOf(extended)
	if err != nil {
		return nil, err
	}
	from.resets.apply(map[string]any{"services": map[string]any{name: own}}, "")
	merged, err := override.ExtendService(own, service)
	if err != nil {
		return nil, err
	}
	delete(merged, "extends")
	from.services[name] = merged
	return merged, nil
}

// follow adds a service to those that led to it, unless it is one of them.
func follow(chain []link, next link) ([]link, error) {
	for _, l := range chain {
		if l != next {
			continue
		}
		text := "Circular reference:"
		for i, l := range append(chain, next) {
			text += "\n  "
			if i > 0 {
				text += "extends "
			}
			text += l.name + " in " + l.file
		}
		return nil, errors.New(text)
	}
	return append(chain, next), nil
}

// base is a file that has services which others extend. It includes nothing.
func (m *model) base(file any) (*source, error) {
	name, ok := file.(string)
	if !ok {
		return nil, errors.New("a path is a text")
	}
	path := within(m.dir, name)
	if b, ok := m.bases[path]; ok {
		return b, nil
	}
	docs, err := m.read("extends", path, filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	all := map[string]any{}
	b := &source{file: path}
	for _, doc := range docs {
		var cfg map[string]any
		if cfg, b.resets, err = m.document(doc); err != nil {
			return nil, hint.Wrap(err, path)
		}
		b.resets.apply(all, "")
		if all, err = over(all, cfg); err != nil {
			return nil, hint.Wrap(err, path)
		}
	}
	if b.services, ok = all["services"].(map[string]any); !ok {
		return nil, fmt.Errorf("%s has no services", path)
	}
	if err := paths.ResolveRelativePaths(all, relative(m.dir, filepath.Dir(path)), nil); err != nil {
		return nil, hint.Wrap(err, path)
	}
	m.bases[path] = b
	return b, nil
}

// read gives the documents of a file that another one refers to; it has been
// scanned before, or is now: variables may have named it that only an env_file has.
func (m *merger) read(how, path, project string) ([]*yaml.Node, error) {
	if docs, ok := m.scan.docs[path]; ok {
		return docs, nil
	}
	if err := m.scan.compose(how, "", path, project); err != nil {
		return nil, err
	}
	return m.scan.docs[path], nil
}

// within is a path that leads from dir, as the working directory sees it.
func within(dir, path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(dir, path)
}

// relative is a path as dir sees it.
func relative(dir, path string) string {
	if rel, err := filepath.Rel(dir, path); err == nil {
		return rel
	}
	return path
}

// copyOf copies what is merged into more than one place, within the bounds.
func (m *merger) copyOf(v map[string]any) (map[string]any, error) {
	if m.copied += count(v); m.copied > 10*maxExtends {
		return nil, &LimitError{"values, with what it extends and includes", 10 * maxExtends}
	}
	out, _ := duplicate(v).(map[string]any)
	return out, nil
}

func duplicate(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for key, e := range v {
			out[key] = duplicate(e)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			out[i] = duplicate(e)
		}
		return out
	}
	return v
}

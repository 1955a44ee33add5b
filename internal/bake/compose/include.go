package compose

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/berthbuild/berth/internal/hint"
	"github.com/compose-spec/compose-go/v2/dotenv"
	"github.com/compose-spec/compose-go/v2/override"
	"github.com/compose-spec/compose-go/v2/tree"
)

// inclusion is one entry of include.
type inclusion struct {
	paths, envFiles []string
	project         string
}

func (i *inclusion) read(v any) error {
	if path, ok := v.(string); ok {
		i.paths = []string{path}
		return nil
	}
	m, ok := v.(map[string]any)
	if !ok {
		return fmt.Errorf("it is %s, not a path or a mapping", kind(v))
	}
	known := fields{"path": textOrTexts(&i.paths, false), "env_file": textOrTexts(&i.envFiles, false), "project_directory": aText(&i.project)}
	for key, read := range known { // others are nothing to us
		if v, ok := m[key]; ok {
			if err := read(v); err != nil {
				return fmt.Errorf("%s: %w", key, err)
			}
		}
	}
	return nil
}

// include puts what a document includes beneath it. Where no file may be read,
// there is nothing to include, or it would have been refused (scan).
func (m *model) include(cfg map[string]any, file string, r resets) error {
	if m.scan.in.MayRead == nil || cfg["include"] == nil {
		return nil
	}
	list, ok := cfg["include"].([]any)
	if !ok {
		return fmt.Errorf("include: it is %s, not a list", kind(cfg["include"]))
	}
	for _, v := range list {
		var i inclusion
		err := i.read(v)
		if err == nil && len(i.paths) > 0 {
			err = m.includeOne(cfg, i, append(slices.Clone(m.including), file), r)
		}
		if err != nil {
			return hint.Wrap(err, "include")
		}
	}
	delete(cfg, "include")
	return nil
}

func (m *model) includeOne(cfg map[string]any, i inclusion, including []string, r resets) error {
	for n, p := range i.paths {
		i.paths[n] = within(m.dir, p)
	}
	first := i.paths[0]
	if slices.Contains(including, first) {
		return errors.New("include cycle detected:\n" + strings.Join(append(including, first), "\n include "))
	}
	dir := filepath.Dir(first)
	if i.project != "" {
		dir = within(m.dir, i.project)
	}
	inner := &model{merger: m.merger, dir: dir, rel: relative(m.dir, dir), including: including, bases: map[string]*source{}}
	more, err := m.variables(i, dir)
	if err != nil {
		return err
	}
	inner.env = m.env.Clone().Merge(more)
	key := fmt.Sprintf("%q %q %q %q", i.paths, dir, inner.rel, inner.env) // maps are sorted
	all, ok := m.included[key]
	if !ok {
		files := make([]composed, len(i.paths))
		for n, p := range i.paths {
			docs, err := m.read("include", p, dir)
			if err != nil {
				return err
			}
			files[n] = composed{p, docs}
		}
		if all, err = inner.merged(files); err != nil {
			return err
		}
		m.included[key] = all
	}
	if all, err = m.copyOf(all); err != nil {
		return err
	}
	return beneath(cfg, all, r)
}

// variables are those of an include's env_file.
func (m *model) variables(i inclusion, dir string) (map[string]string, error) {
	var files []string
	for _, f := range i.envFiles {
		if f != os.DevNull {
			files = append(files, within(m.dir, f))
		}
	}
	if len(i.envFiles) == 0 {
		files = []string{filepath.Join(dir, ".env")}
	}
	for _, f := range files {
		if err := m.scan.in.MayRead(f); err != nil {
			return nil, hint.Wrap(err, "env_file")
		}
	}
	if len(i.envFiles) == 0 {
		if s, err := os.Stat(files[0]); err != nil || s.IsDir() {
			return nil, nil
		}
	}
	return dotenv.GetEnvFromFile(m.env, files)
}

// beneath puts what is included into a document, which goes before it.
func beneath(cfg, included map[string]any, r resets) error {
	for _, section := range []string{"services", "jobs", "volumes", "networks", "secrets", "configs", "models"} {
		from, _ := included[section].(map[string]any)
		if len(from) == 0 {
			continue
		}
		to, ok := cfg[section].(map[string]any)
		if !ok {
			if cfg[section] != nil {
				return fmt.Errorf("%s: it is %s, not a mapping", section, kind(cfg[section]))
			}
			to = map[string]any{}
			cfg[section] = to
		}
		for name, v := range from {
			own, ok := to[name]
			if !ok {
				to[name] = v
				continue
			}
			if reflect.DeepEqual(v, own) { // the same, on two ways
				continue
			}
			r.apply(map[string]any{section: map[string]any{name: v}}, "")
			merged, err := override.MergeYaml(v, own, tree.NewPath(section, name))
			if err != nil {
				return err
			}
			to[name] = merged
		}
	}
	return nil
}

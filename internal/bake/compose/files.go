package compose

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/berthbuild/berth/internal/bake/eval"
	"github.com/berthbuild/berth/internal/hint"
	"github.com/compose-spec/compose-go/v2/template"
	"go.yaml.in/yaml/v4"
)

// scan goes through the files before the library does: it holds them against the
// bounds, and finds the files that they refer to, and those that these refer to.
type scan struct {
	in      Input
	seen    map[string]bool         // the files that were referred to, with how
	docs    map[string][]*yaml.Node // of these files
	size    int                     // of all files
	lookups int                     // bytes that variables were replaced by
	unset   []string                // variables that have no value
}

func newScan(in Input) *scan {
	return &scan{in: in, seen: map[string]bool{}, docs: map[string][]*yaml.Node{}}
}

// file scans one file, and gives its documents; what it names is relative to dir.
func (s *scan) file(data []byte, dir string) ([]*yaml.Node, error) {
	if s.size += len(data); s.size > maxAll {
		return nil, &LimitError{"bytes in all its files", maxAll}
	}
	docs, err := documents(data)
	if err == nil {
		err = s.documents(docs, dir)
	}
	return docs, err
}

func (s *scan) documents(docs []*yaml.Node, dir string) error {
	for _, d := range docs {
		var m map[string]any
		if err := d.Decode(&m); err != nil {
			return shape(d, err)
		}
		if err := s.includes(m["include"], dir); err != nil {
			return err
		}
		services, _ := m["services"].(map[string]any)
		if err := checkExtends(services); err != nil {
			return err
		}
		for name, v := range services {
			service, _ := v.(map[string]any)
			if err := s.service(service, dir); err != nil {
				return hint.Wrap(err, "service "+clip(name))
			}
		}
	}
	return nil
}

// shape says what a file is that is no mapping.
func shape(d *yaml.Node, err error) error {
	if len(d.Content) == 1 && d.Content[0].Kind != yaml.MappingNode {
		return hint.New("it is not a Compose file: that is a mapping, with services:")
	}
	return err
}

func (s *scan) service(service map[string]any, dir string) error {
	if err := checkPorts(service); err != nil {
		return err
	}
	if m, ok := service["extends"].(map[string]any); ok && m["file"] != nil {
		name, err := s.text(m["file"])
		if err != nil {
			return hint.Wrap(err, "extends")
		}
		if err := s.compose("extends", dir, name, filepath.Dir(join(dir, name))); err != nil {
			return err
		}
	}
	for _, key := range []string{"env_file", "label_file"} {
		list, ok := service[key].([]any)
		if !ok && service[key] != nil {
			list = []any{service[key]}
		}
		for _, e := range list {
			if m, ok := e.(map[string]any); ok {
				e = m["path"]
			}
			name, err := s.text(e)
			if err != nil {
				return hint.Wrap(err, key)
			}
			if s.in.MayRead == nil {
				continue // and the library is told not to read it
			}
			if err := s.in.MayRead(join(dir, name)); err != nil {
				return hint.Wrap(err, key)
			}
		}
	}
	return nil
}

// includes goes into what include lists.
func (s *scan) includes(v any, dir string) error {
	list, ok := v.([]any)
	if !ok {
		return nil // none, or nothing that the library takes
	}
	for _, e := range list {
		m, ok := e.(map[string]any)
		if !ok {
			m = map[string]any{"path": e}
		}
		paths, err := s.texts(m["path"])
		if err != nil {
			return hint.Wrap(err, "include")
		}
		if len(paths) == 0 {
			continue
		}
		project := filepath.Dir(join(dir, paths[0]))
		if m["project_directory"] != nil {
			given, err := s.text(m["project_directory"])
			if err != nil {
				return hint.Wrap(err, "include")
			}
			project = join(dir, given)
		}
		env, err := s.texts(m["env_file"])
		if err != nil {
			return hint.Wrap(err, "include")
		}
		if len(env) == 0 {
			env = []string{filepath.Join(project, ".env")}
		} else {
			for i := range env {
				env[i] = join(dir, env[i])
			}
		}
		for _, p := range paths {
			if err := s.compose("include", dir, p, project); err != nil {
				return err
			}
		}
		for _, p := range env {
			if err := s.in.MayRead(p); err != nil {
				return hint.Wrap(err, "include: env_file")
			}
		}
	}
	return nil
}

// compose scans a Compose file that another one refers to.
func (s *scan) compose(how, dir, name, project string) error {
	if s.in.MayRead == nil || s.in.Read == nil {
		return hint.New(fmt.Sprintf("%s: a definition from elsewhere reads no file of this machine: %s", how, clip(name)),
			"write what it has into the definition itself")
	}
	path := join(dir, name)
	if key := how + "\x00" + path + "\x00" + project; s.seen[key] {
		return nil
	} else if s.seen[key] = true; len(s.seen) > maxFiles {
		return &LimitError{"files that it refers to", maxFiles}
	}
	if err := s.in.MayRead(path); err != nil {
		return hint.Wrap(err, how)
	}
	data, err := s.in.Read(path)
	if err != nil {
		return hint.Wrap(err, how)
	}
	docs, err := s.file(data, project)
	s.docs[filepath.Clean(path)] = docs
	return hint.Wrap(err, path)
}

func join(dir, name string) string {
	if filepath.IsAbs(name) || dir == "" {
		return name
	}
	return filepath.Join(dir, name)
}

// text is a path, with its variables replaced.
func (s *scan) text(v any) (string, error) {
	t, ok := v.(string)
	if !ok {
		return "", errors.New("a path is a text")
	}
	t, err := s.substitute(t, func(name string) (string, bool) { v, ok := s.in.Env[name]; return v, ok })
	if err != nil {
		return "", err
	}
	if strings.HasPrefix(t, "~") {
		return "", hint.New(fmt.Sprintf("the path %s begins with ~", clip(t)), "write it out")
	}
	return t, nil
}

// texts is a path, or a list of them.
func (s *scan) texts(v any) ([]string, error) {
	if v == nil {
		return nil, nil
	}
	list, ok := v.([]any)
	if !ok {
		list = []any{v}
	}
	var out []string
	for _, e := range list {
		t, err := s.text(e)
		if err != nil {
			return nil, err
		}
		out = append(out, t)
	}
	return out, nil
}

// substitute replaces the variables of one value; it notes what has none, and
// what all of it comes to.
func (s *scan) substitute(value string, lookup template.Mapping) (string, error) {
	if !strings.Contains(value, "$") {
		return value, nil
	}
	s.noteUnset(value, lookup)
	return template.SubstituteWithOptions(value, func(name string) (string, bool) {
		v, ok := lookup(name)
		if s.lookups += len(v); s.lookups > maxLookups {
			return "", ok
		}
		return v, ok
	}, template.WithoutLogging)
}

// spent tells whether variables were left out since there were too many.
func (s *scan) spent() error {
	if s.lookups > maxLookups {
		return &LimitError{"bytes of variables in its values", maxLookups}
	}
	return nil
}

// noteUnset notes the variables that a value has without saying what is to be
// taken where they are not set.
func (s *scan) noteUnset(value string, lookup template.Mapping) {
	const most = 20
	for name, v := range template.ExtractVariables(map[string]any{"": value}, template.DefaultPattern) {
		if _, ok := lookup(name); ok || v.Required || v.DefaultValue != "" || v.PresenceValue != "" ||
			strings.Contains(value, "{"+name+":-") || strings.Contains(value, "{"+name+"-") ||
			len(s.unset) >= most || slices.Contains(s.unset, name) {
			continue
		}
		s.unset = append(s.unset, name)
	}
}

func (s *scan) warnings() []eval.Diagnostic {
	var out []eval.Diagnostic
	slices.Sort(s.unset)
	for _, name := range s.unset {
		out = append(out, eval.Diagnostic{Summary: fmt.Sprintf("The %q variable is not set. Defaulting to a blank string.", name)})
	}
	return out
}

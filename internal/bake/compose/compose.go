// Package compose reads Compose files as bake definitions: each service that has
// a build section becomes a target, and all of them the group "default".
//
// Compose's own library merges the files, so that they mean here what they mean
// there: variables, what is over what, long forms, paths. In which order that is
// done is here (model.go, include.go, tags.go), and so is reading what a build is
// told by (read.go): the library's loader would do both, but it has a JSON schema
// in it, whose package costs every start of the program as much as all others
// together. Tests hold the one against the other. What a service becomes as a
// target is what buildx v0.38 makes of it. HCL and JSON are the business of
// internal/bake/eval, and so is merging with them.
//
// The package opens no Compose file, reads no environment and no clock by itself.
// Input.MayRead is asked of each file that another one refers to (include, extends,
// env_file), and of those that it refers to in turn, before it is read by
// Input.Read or, with variables, by the library. Where it is nil, nothing is read.
//
// Rules: the files are not to be trusted. Before anything is made of one, it is held
// against the bounds of this package (bounds.go), which are far above what people
// write: size, depth, aliases and what they unfold to, what interpolation may
// cost, ranges of ports, chains of extends. A panic of the library is an error.
package compose

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/berthbuild/berth/internal/bake/eval"
	"github.com/berthbuild/berth/internal/hint"
	"github.com/compose-spec/compose-go/v2/consts"
	"github.com/compose-spec/compose-go/v2/dotenv"
	"github.com/compose-spec/compose-go/v2/interpolation"
	"github.com/compose-spec/compose-go/v2/types"
)

// Input is a definition in Compose files, and all that it may know of the world.
type Input struct {
	Files []eval.File // a later file is merged over an earlier one, as Compose does

	// Env are the variables that the files may name. It is not changed.
	Env map[string]string
	// Read reads a Compose file that another one refers to. Names are relative to
	// the working directory, or absolute.
	Read func(name string) ([]byte, error)
	// MayRead is asked of every file that another one refers to, before it is
	// read; nil refuses them all, and then env_file says nothing.
	MayRead func(name string) error
}

// Load evaluates the files. It ends when ctx does.
func Load(ctx context.Context, in Input) (*eval.Definition, error) {
	if may := in.MayRead; may != nil {
		in.MayRead = func(name string) error { // nothing is read when nobody waits any more
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return may(name)
		}
	}
	s := newScan(in)
	files := make([]composed, len(in.Files))
	for i, f := range in.Files {
		docs, err := s.file(f.Data, "")
		if err != nil {
			return nil, at(f.Name, err)
		}
		files[i] = composed{f.Name, docs}
	}
	project, err := loadWithin(ctx, in, s, files)
	if err != nil {
		return nil, err
	}
	return define(in, project, s.warnings())
}

// define makes targets of the services.
func define(in Input, project *types.Project, warnings []eval.Diagnostic) (*eval.Definition, error) {
	def := &eval.Definition{Warnings: warnings}
	group := eval.Group{Name: defaultGroup, Targets: []string{}}
	for _, name := range slices.Sorted(maps.Keys(project.Services)) {
		service := project.Services[name]
		if service.Build == nil {
			if service.Image == "" { // what is misspelt is not seen otherwise
				return nil, at(in.Files[0].Name, hint.New(fmt.Sprintf("service %s has neither an image nor a build context", name)))
			}
			continue
		}
		t, err := target(project, service)
		if err != nil {
			return nil, at(in.Files[0].Name, fmt.Errorf("service %s: %w", name, err))
		}
		t.ContextFile = in.Files[0].Name
		for name := range t.Contexts {
			if t.ContextsFile == nil {
				t.ContextsFile = map[string]string{}
			}
			t.ContextsFile[name] = t.ContextFile
		}
		def.Targets = append(def.Targets, t)
		group.Targets = append(group.Targets, t.Name)
	}
	if len(project.Services) > 0 {
		def.Groups = []eval.Group{group}
	}
	if err := distinctNames(def.Targets); err != nil {
		return nil, at(in.Files[0].Name, err)
	}
	return def, nil
}

// defaultGroup has all services that are built.
const defaultGroup = "default"

// at says which file it is about.
func at(file string, err error) error { return hint.Wrap(err, file) }

// loadWithin merges the files beside, since the library looks at no context: what
// it makes of a file within the bounds takes it seconds at most, and nobody waits
// for it when ctx has ended.
func loadWithin(ctx context.Context, in Input, s *scan, files []composed) (*types.Project, error) {
	type outcome struct {
		project *types.Project
		err     error
	}
	done := make(chan outcome, 1)
	go func() {
		var o outcome
		defer func() {
			if r := recover(); r != nil { // it takes some values for what they are not
				o = outcome{err: hint.New(fmt.Sprintf("it is not a Compose file that can be read: %v", r))}
			}
			done <- o
		}()
		o.project, o.err = load(in, s, files)
	}()
	select {
	case o := <-done:
		if o.err == nil {
			o.err = s.spent()
		}
		if o.err != nil {
			return nil, named(in.Files, o.err)
		}
		return o.project, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// load merges the files, and reads what a build is told by.
func load(in Input, s *scan, files []composed) (*types.Project, error) {
	m := &model{merger: &merger{scan: s, included: map[string]map[string]any{}}, env: types.Mapping(in.Env).Clone(), bases: map[string]*source{}}
	name, err := m.projectName(files)
	if err != nil {
		return nil, err
	}
	m.env[consts.ComposeProjectName] = name
	all, err := m.merged(files)
	if err != nil {
		return nil, err
	}
	project, err := readAll(all)
	if err != nil {
		return nil, err
	}
	project.Environment = m.env
	if in.MayRead == nil {
		return project, nil
	}
	for _, service := range project.Services {
		for _, f := range service.EnvFiles {
			if err := in.MayRead(f.Path); err != nil {
				return nil, hint.Wrap(err, "service "+service.Name+": env_file")
			}
		}
	}
	return project.WithServicesEnvironmentResolved(false)
}

// projectName is what the last file that has a name calls the project, else what
// the environment or buildx calls it.
func (m *model) projectName(files []composed) (string, error) {
	var top struct {
		Name string `yaml:"name"`
	}
	for _, f := range files {
		for _, doc := range f.docs {
			var here struct {
				Name string `yaml:"name"`
			}
			if doc.Decode(&here) != nil {
				break // it is told where all of the document is read
			}
			if here.Name != "" {
				top = here
			}
		}
	}
	out, err := interpolation.Interpolate(map[string]any{"name": top.Name}, m.interpolation())
	if err != nil {
		return "", err
	}
	for _, name := range []any{out["name"], m.env[consts.ComposeProjectName]} {
		if s, _ := name.(string); s != "" {
			return s, nil
		}
	}
	return "bake", nil
}

// named bounds what the library says, and says first which file it is about,
// where the library does not.
func named(files []eval.File, err error) error {
	const most = 2000
	text := err.Error()
	if len(text) > most {
		err = hint.New(strings.ToValidUTF8(text[:most], "\uFFFD") + "…")
	}
	names := make([]string, len(files))
	for i, f := range files {
		if strings.Contains(text, f.Name) {
			return err
		}
		names[i] = f.Name
	}
	return at(strings.Join(names, ", "), err)
}

// DotEnv reads an .env file, in which variables may stand for those of env.
func DotEnv(data []byte, env map[string]string) (map[string]string, error) {
	if err := checkCost(data, maxFile); err != nil {
		return nil, err
	}
	return dotenv.UnmarshalBytesWithLookup(data, func(name string) (string, bool) { v, ok := env[name]; return v, ok })
}

package bake

import (
	"context"

	"github.com/berthbuild/berth/internal/bake/compose"
	"github.com/berthbuild/berth/internal/bake/eval"
)

// Source is a definition in files of any kind, and all that it may know of the
// world. Of its Input, Files are all files, in their order.
type Source struct {
	eval.Input
	// Environ are the variables that Compose files may name; those of --var are
	// added to them.
	Environ func() (map[string]string, error)
	// Read and MayRead are for what Compose files refer to; see compose.Input.
	Read    func(name string) ([]byte, error)
	MayRead func(name string) error
}

// Evaluate evaluates a definition. Compose files are taken together, wherever
// they stand; the other files override what they say, attribute by attribute.
func Evaluate(ctx context.Context, s Source) (*eval.Definition, error) {
	var services, others []eval.File
	for _, f := range s.Files {
		if f.Format == eval.FormatAuto && compose.Is(f.Name, f.Data) {
			services = append(services, f)
			continue
		}
		others = append(others, f)
	}
	if len(services) == 0 {
		return eval.Evaluate(ctx, s.Input)
	}
	in := compose.Input{Files: services, Env: map[string]string{}, Read: s.Read, MayRead: s.MayRead}
	if s.Environ != nil {
		var err error
		if in.Env, err = s.Environ(); err != nil {
			return nil, err
		}
	}
	for name, value := range s.Vars {
		in.Env[name] = value
	}
	def, err := compose.Load(ctx, in)
	if err != nil || len(others) == 0 {
		return def, err
	}
	s.Files = others
	over, err := eval.Evaluate(ctx, s.Input)
	if err != nil {
		return nil, err
	}
	return def.Merge(over), nil
}

package bake

import (
	"errors"

	"github.com/berthbuild/berth/internal/bake/eval"
	"github.com/berthbuild/berth/internal/buildflag"
)

// check refuses what no build takes, by the grammar of build's flags: so what
// --print shows can be built, as far as a grammar can tell.
func check(t *eval.Target) error {
	if _, err := buildflag.ParseUlimits(t.Ulimits); err != nil {
		return err
	}
	if _, err := buildflag.ParsePlatforms(t.Platforms); err != nil {
		return err
	}
	if _, err := buildflag.ParseAnnotations(t.Annotations); err != nil {
		return err
	}
	if t.ShmSize != nil {
		if _, err := buildflag.ParseShmSize(*t.ShmSize); err != nil {
			return err
		}
	}
	for _, s := range t.Secrets {
		if s.ID == "" {
			return errors.New("a secret has no id")
		}
	}
	return nil
}

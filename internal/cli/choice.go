package cli

import (
	"context"
	"sync"

	"github.com/berthbuild/berth/internal/builder"
	"github.com/berthbuild/berth/internal/hint"
)

// Where a builder can be named, besides --builder and an argument.
const (
	envBuilder = "BUILDX_BUILDER"
	envHost    = "BUILDKIT_HOST" // an endpoint, where nothing else was chosen
	envFile    = "BERTH_FILE"    // a definition file, in place of a berth.yaml that is found
)

// withChoices adds to the service what builders come from that are not stored:
// endpoints in place of names, and the definition file in force.
func (a *app) withChoices(s *builder.Service) *builder.Service {
	s.Host, s.HostFrom = a.env(envHost), envHost
	s.TLS = a.tlsFromEnv
	s.Dir, s.Home = a.dir, a.home()
	s.Definition = sync.OnceValues(a.definition)
	if a.asker() != nil {
		s.Ask = a.askConsent
	}
	s.Note = func(text string) { a.warn("%s", text) }
	return s
}

// definitionPath is where the definition file in force is; "" for none.
func (a *app) definitionPath() string {
	if path := a.env(envFile); path != "" {
		return a.abs(path)
	}
	return builder.FindDefinition(a.dir, a.home())
}

func (a *app) definition() (*builder.Definition, error) {
	path := a.definitionPath()
	if path == "" {
		return nil, nil
	}
	d, err := builder.ReadDefinition(path)
	if err != nil && a.env(envFile) != "" {
		return nil, hint.Wrap(err, envFile)
	}
	return d, err
}

// askConsent shows what the file says, and asks on the terminal.
func (a *app) askConsent(ctx context.Context, d *builder.Definition, c builder.Consent) (bool, error) {
	a.showReview(a.io.Err, d, c)
	return a.askYes(ctx, "Use the builders of this file, until it changes? [y/N] ")
}

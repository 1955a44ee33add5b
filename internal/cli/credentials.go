package cli

import (
	"context"
	"errors"
	"time"

	"github.com/berthbuild/berth/internal/build"
	"github.com/berthbuild/berth/internal/dockerconfig"
	"github.com/berthbuild/berth/internal/registry"
	"github.com/google/go-containerregistry/pkg/authn"
)

// keychain gives docker's registry credentials to pushes that berth makes
// itself. They are read when asked for, and never kept.
func keychain(config *dockerconfig.Config) authn.Keychain {
	return registry.Keychain(func(host string) (user, pass, identityToken, registryToken string, err error) {
		ac, err := config.File().GetAuthConfig(host)
		return ac.Username, ac.Password, ac.IdentityToken, ac.RegistryToken, err
	})
}

// engineBudget is how long a Docker engine may take to say that it is there.
const engineBudget = 10 * time.Second

var errEngineSilent = errors.New("no answer within " + engineBudget.String())

// openEngine connects to the Docker engine of a docker context; "" is the
// current one.
func openEngine(ctx context.Context, config *dockerconfig.Config, name string) (build.Engine, error) {
	e, err := config.Engine(name)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, engineBudget, errEngineSilent)
	defer cancel()
	c, err := e.Client(ctx)
	if err != nil {
		return nil, err // not a typed nil
	}
	return c, nil
}

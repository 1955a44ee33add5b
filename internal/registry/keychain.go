package registry

import (
	"fmt"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
)

// dockerHubKey is the name under which docker keeps the credentials of its
// own registry.
const dockerHubKey = "https://index.docker.io/v1/"

// Keychain looks credentials up with get, which is asked for a host as
// docker's configuration spells it ("ghcr.io", "localhost:5000", and
// https://index.docker.io/v1/ for Docker Hub). All empty is no login.
func Keychain(get func(host string) (user, pass, identityToken, registryToken string, err error)) authn.Keychain {
	return keychain(get)
}

type keychain func(string) (user, pass, identityToken, registryToken string, err error)

// Resolve implements authn.Keychain.
func (k keychain) Resolve(target authn.Resource) (authn.Authenticator, error) {
	host := target.RegistryStr()
	if host == name.DefaultRegistry {
		host = dockerHubKey
	}
	user, pass, identity, registry, err := k(host)
	if err != nil {
		return nil, fmt.Errorf("credentials for %s: %w", host, err)
	}
	config := authn.AuthConfig{Username: user, Password: pass, IdentityToken: identity, RegistryToken: registry}
	if config == (authn.AuthConfig{}) {
		return authn.Anonymous, nil
	}
	return authn.FromConfig(config), nil
}

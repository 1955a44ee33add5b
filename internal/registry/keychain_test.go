package registry

import (
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
)

func TestKeychain(t *testing.T) {
	asked := ""
	answer := authn.AuthConfig{}
	k := Keychain(func(host string) (string, string, string, string, error) {
		asked = host
		return answer.Username, answer.Password, answer.IdentityToken, answer.RegistryToken, nil
	})
	for in, want := range map[string]string{"ubuntu": "https://index.docker.io/v1/", "ghcr.io/a/b": "ghcr.io", "localhost:5000/x": "localhost:5000"} {
		ref, err := name.ParseReference(in)
		if err != nil {
			t.Fatal(err)
		}
		if auth, err := k.Resolve(ref.Context()); err != nil || auth != authn.Anonymous || asked != want {
			t.Errorf("%s: asked for %q, got %v, %v", in, asked, auth, err)
		}
	}
	answer = authn.AuthConfig{Username: "u", Password: "p", IdentityToken: "i", RegistryToken: "r"}
	ref, err := name.ParseReference("ghcr.io/a/b")
	if err != nil {
		t.Fatal(err)
	}
	auth, err := k.Resolve(ref.Context())
	if err != nil {
		t.Fatal(err)
	}
	got, err := auth.Authorization()
	if err != nil || *got != answer {
		t.Errorf("credentials = %+v, %v", got, err)
	}
}

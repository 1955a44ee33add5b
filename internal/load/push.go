package load

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/moby/moby/api/pkg/authconfig"
	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/client"

	"github.com/berthbuild/berth/internal/hint"
)

// Pusher is the part of an engine that sends images of its own to a registry.
// *client.Client implements it.
type Pusher interface {
	ImagePush(ctx context.Context, image string, options client.ImagePushOptions) (client.ImagePushResponse, error)
}

// Login is what a registry is told about who pushes. All empty is nobody.
type Login struct{ User, Password, IdentityToken, RegistryToken string }

// Push has the engine push the image that it knows by name, and gives the
// manifest's digest, "" where the engine does not tell. onProgress may be nil;
// it is called from this goroutine.
func Push(ctx context.Context, engine Pusher, name string, login Login, onProgress func(Status)) (digest string, err error) {
	doing := "pushing " + name
	auth, err := authconfig.Encode(registry.AuthConfig{
		Username: login.User, Password: login.Password, IdentityToken: login.IdentityToken, RegistryToken: login.RegistryToken,
	})
	if err != nil {
		return "", errors.New(doing + ": the credentials cannot be encoded") // the cause may repeat them
	}
	res, err := engine.ImagePush(ctx, name, client.ImagePushOptions{RegistryAuth: auth})
	if err == nil {
		digest, err = followPush(res, onProgress)
		if cerr := res.Close(); err == nil {
			err = cerr
		}
	}
	switch {
	case err == nil:
		return digest, nil
	case ctx.Err() != nil:
		return "", fmt.Errorf("%w: %w", context.Cause(ctx), err)
	}
	return "", hint.Wrap(err, doing, "is it a name that you may push to, and are you logged in? docker login")
}

func followPush(r io.Reader, onProgress func(Status)) (digest string, err error) {
	err = read(r, func(m message) {
		var pushed struct{ Digest string }
		if m.Aux != nil && json.Unmarshal(*m.Aux, &pushed) == nil && pushed.Digest != "" {
			digest = pushed.Digest
		}
		if st := m.status(); st != (Status{}) && onProgress != nil {
			onProgress(st)
		}
	})
	return digest, err
}

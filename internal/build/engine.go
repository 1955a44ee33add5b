package build

import (
	"context"
	"fmt"
	"slices"

	"github.com/berthbuild/berth/internal/builder"
	"github.com/berthbuild/berth/internal/buildflag"
	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/load"
	"github.com/berthbuild/berth/internal/progress"
	"github.com/berthbuild/berth/internal/request"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
)

// capabilities is what the part's daemon can do. A Docker engine tells by its
// workers, and by what it calls itself.
func capabilities(ctx context.Context, p part) (request.Capabilities, error) {
	if p.Node.Driver != builder.DriverDocker {
		return request.CapabilitiesOf(p.conn.Version()), nil
	}
	workers, err := p.conn.Workers(ctx)
	if err != nil {
		return request.Capabilities{}, err
	}
	return request.EngineCapabilities(p.conn.Version(), workers, p.conn.Host()), nil
}

// settle makes an engine's answer complete: what its BuildKit could not push
// is pushed by the engine itself, and the image's id is the one that the engine
// knows it by.
func settle(ctx context.Context, p part, c request.Capabilities, response map[string]string, o Options) error {
	if c.Engine == "" {
		return nil
	}
	if c.ContainerdStore {
		if slices.ContainsFunc(p.req.Outputs, func(o buildflag.Output) bool { return o.Type == buildflag.OutputImage }) {
			// Such an engine knows images by their manifests or indexes.
			delete(response, exptypes.ExporterImageConfigDigestKey)
		}
		return nil
	}
	if id := response[exptypes.ExporterImageDigestKey]; id != "" && response[exptypes.ExporterImageConfigDigestKey] == "" {
		// Engines before 23 say it as the digest only, of an image without manifest.
		response[exptypes.ExporterImageConfigDigestKey] = id
	}
	names := p.req.EnginePushes(c)
	if len(names) == 0 {
		return nil
	}
	engine, err := o.Engine(ctx, p.Node.Endpoint)
	if err != nil {
		return err
	}
	defer engine.Close() //nolint:errcheck // an engine client holds nothing worth an error
	for i, image := range names {
		digest, err := push(ctx, engine, image, o)
		if err != nil {
			return err
		}
		if i == 0 && digest != "" {
			response[exptypes.ExporterImageDigestKey] = digest
		}
	}
	return nil
}

func push(ctx context.Context, engine Engine, image string, o Options) (digest string, err error) {
	pusher, ok := engine.(load.Pusher)
	if !ok {
		return "", fmt.Errorf("pushing %s: this engine cannot push", image)
	}
	login, err := loginFor(image, o.Keychain)
	if err != nil {
		return "", hint.Wrap(err, "pushing "+image)
	}
	step := o.Progress.Step("pushing " + image + " with docker")
	digest, err = load.Push(ctx, pusher, image, login, func(st load.Status) { showPush(step, st) })
	step.Done(err)
	return digest, err
}

func showPush(step *progress.Step, st load.Status) {
	switch {
	case st.ID != "" && st.Total > 0:
		step.Progress("pushing layer "+st.ID, st.Current, st.Total)
	case st.ID == "":
		step.Log(st.Text)
	}
}

// loginFor asks docker's configuration for the credentials of an image's
// registry.
func loginFor(image string, keys authn.Keychain) (load.Login, error) {
	if keys == nil {
		return load.Login{}, nil
	}
	ref, err := name.ParseReference(image)
	if err != nil {
		return load.Login{}, err
	}
	who, err := keys.Resolve(ref.Context().Registry)
	if err != nil {
		return load.Login{}, err
	}
	c, err := who.Authorization()
	if err != nil {
		return load.Login{}, err
	}
	return load.Login{User: c.Username, Password: c.Password, IdentityToken: c.IdentityToken, RegistryToken: c.RegistryToken}, nil
}

package doctor

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	ggcr "github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/berthbuild/berth/internal/builder"
	"github.com/berthbuild/berth/internal/dial"
	"github.com/berthbuild/berth/internal/hint"
)

const (
	engineBudget = 5 * time.Second
	pushBudget   = 10 * time.Second
)

// load is StepLoad. Without an engine only --load fails, unless a node loads by
// default.
func (d *doctor) load(ctx context.Context, b *builder.Builder, walks []*walk, p *plan) {
	s := Step{Name: StepLoad, Status: OK}
	switch {
	case b != nil && b.Driver == builder.DriverDocker:
		s.Text = "the builder is the engine: what it builds is there at once"
		p.set(s)
		return
	case d.o.Engine == nil:
		s.Status, s.Text = Skipped, "not looked at"
		p.set(s)
		return
	}
	began := time.Now()
	ectx, cancel := context.WithTimeout(ctx, engineBudget)
	defer cancel()
	e, err := d.o.Engine(ectx)
	s.Took = time.Since(began)
	if err == nil {
		s.Text = fmt.Sprintf("Docker %s at %s, docker context %s", e.Version, e.Host, e.Context)
		s.Facts = []dial.Fact{{Name: "store", Value: e.Store}}
		p.set(s)
		return
	}
	for _, w := range walks {
		if w.err == nil && w.target.Options.DefaultLoad {
			s.fail(ClassEngine, hint.Wrap(err, "the driver option default-load wants a Docker engine"))
			p.set(s)
			return
		}
	}
	s.Status, s.Text = Skipped, "only --load needs one: "+oneLine(err.Error())
	p.set(s)
}

// push is StepPush: whether the registry takes the login that a build would
// have. Nothing is pushed. It is the daemon that pushes, so that a registry
// which is not reached from here is only worth a warning.
func (d *doctor) push(ctx context.Context, p *plan) {
	s := Step{Name: StepPush, Status: OK}
	if d.o.Push == "" {
		s.Status, s.Text = Skipped, "not asked for (--push REF)"
		p.set(s)
		return
	}
	began := time.Now()
	pctx, cancel := context.WithTimeout(ctx, pushBudget)
	defer cancel()
	secrets := d.login(pctx, &s)
	s.Took = time.Since(began)
	p.scrub = newScrubber(append(slices.Clone(d.o.Secrets), secrets...))
	p.set(s)
}

// login gives back what the login consists of, so that nobody prints it.
func (d *doctor) login(ctx context.Context, s *Step) (secrets []string) {
	ref, err := name.ParseReference(d.o.Push)
	if err != nil {
		s.fail(ClassPushRef, hint.New(fmt.Sprintf("%q is no image reference: %v", d.o.Push, err), "--push REGISTRY/REPOSITORY:TAG"))
		return nil
	}
	repo := ref.Context()
	host := repo.RegistryStr()
	who, err := d.credentials(ctx, repo.Registry)
	if err != nil { // the helper's words may be anything
		s.fail(ClassLogin, hint.New("the credential helper for "+host+" gives no answer that can be used; what it says is not repeated here",
			"docker login "+host, "or see what is wrong with it: credHelpers and credsStore in ~/.docker/config.json"))
		return nil
	}
	found := dial.Fact{Name: "credentials", Value: "none for " + host}
	anonymous := who == authn.Anonymous
	if c, err := who.Authorization(); err == nil && !anonymous {
		found.Value = credentialKind(c) + " for " + host
		secrets = []string{c.Password, c.Auth, c.IdentityToken, c.RegistryToken}
	}
	s.Facts = append(s.Facts, found)
	base := ggcr.DefaultTransport
	challenge, err := transport.Ping(ctx, repo.Registry, base)
	if err != nil {
		unreached(s, host, err)
		return secrets
	}
	wants := challenge.Scheme
	switch {
	case wants == "":
		s.Text = host + " asks for no login"
		return secrets
	case anonymous:
		s.fail(ClassLogin, hint.New(host+" wants a login, and docker's configuration has none for it", "docker login "+host))
		return secrets
	}
	err = greet(ctx, repo, who, base)
	var refused *transport.Error
	switch {
	case err == nil:
		s.Text = fmt.Sprintf("%s takes the login (%s)", host, wants)
	case errors.As(err, &refused) && refused.StatusCode < http.StatusInternalServerError:
		s.fail(ClassRefused, hint.New(fmt.Sprintf("%s does not take the login: HTTP %d %s", host, refused.StatusCode, http.StatusText(refused.StatusCode)),
			"log in again: docker login "+host, "does it let you push to "+repo.RepositoryStr()+"?"))
	default:
		unreached(s, host, err)
	}
	return secrets
}

// credentials asks docker's configuration, and with it maybe a helper, which
// knows nothing of our time.
func (d *doctor) credentials(ctx context.Context, registry authn.Resource) (authn.Authenticator, error) {
	type answer struct {
		who authn.Authenticator
		err error
	}
	ch := make(chan answer, 1)
	go func() {
		who, err := d.o.Keychain.Resolve(registry)
		ch <- answer{who, err}
	}()
	select {
	case a := <-ch:
		return a.who, a.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func credentialKind(c *authn.AuthConfig) string {
	switch {
	case c.RegistryToken != "":
		return "a registry token"
	case c.IdentityToken != "":
		return "an identity token"
	}
	return "a user name and password"
}

func unreached(s *Step, host string, err error) {
	s.Status = Warning
	why := plainText(err)
	var answer *transport.Error
	if errors.As(err, &answer) {
		why = fmt.Sprintf("HTTP %d %s", answer.StatusCode, http.StatusText(answer.StatusCode))
	}
	s.Text = fmt.Sprintf("%s cannot be asked from here: %s", host, why)
	s.Hints = []string{"the daemon pushes, and may reach it all the same; a token for it is fetched from here"}
}

// greet logs in as a push would, with a token for it where the registry wants
// one, and asks for nothing but a welcome.
func greet(ctx context.Context, repo name.Repository, who authn.Authenticator, base http.RoundTripper) error {
	rt, err := transport.NewWithContext(ctx, repo.Registry, who, base, []string{repo.Scope(transport.PushScope)})
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, repo.Scheme()+"://"+repo.RegistryStr()+"/v2/", http.NoBody)
	if err != nil {
		return err
	}
	resp, err := (&http.Client{Transport: rt}).Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	return transport.CheckError(resp, http.StatusOK)
}

package compose

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/berthbuild/berth/internal/bake/eval"
	"github.com/berthbuild/berth/internal/hint"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/docker/go-units"
)

// target is what a service's build section says.
func target(project *types.Project, s types.ServiceConfig) (eval.Target, error) {
	b := s.Build
	t := eval.Target{
		Name: strings.ReplaceAll(s.Name, ".", "_"), // a target's name has no dots
		Tags: nonEmpty(b.Tags), Platforms: nonEmpty(b.Platforms), NoCacheFilter: nonEmpty(b.NoCacheFilter),
		Context: text(b.Context), Dockerfile: text(b.Dockerfile), DockerfileInline: text(b.DockerfileInline),
		Target: text(b.Target), Network: text(b.Network), Entitlements: nonEmpty(b.Entitlements),
		Args: args(project, s), Labels: pointers(b.Labels), Contexts: contexts(b.AdditionalContexts),
		Pull: yes(b.Pull), NoCache: yes(b.NoCache), ExtraHosts: hosts(b.ExtraHosts), Ulimits: ulimits(b.Ulimits),
	}
	if !targetName().MatchString(t.Name) {
		return t, hint.New(fmt.Sprintf("invalid service name %q", t.Name), "a target's name has letters, digits, - and _")
	}
	if b.ShmSize > 0 {
		t.ShmSize = text(units.BytesSize(float64(b.ShmSize)))
	}
	for _, key := range b.SSH {
		one := eval.SSH{ID: key.ID}
		if key.Path != "" {
			one.Paths = strings.Split(key.Path, ",")
		}
		t.SSH = append(t.SSH, one)
	}
	for _, ref := range b.Secrets {
		def, ok := project.Secrets[ref.Source]
		if !ok {
			return t, hint.New(fmt.Sprintf("undefined build secret %s", ref.Source), "define it under secrets:")
		}
		one, err := secret(ref, def)
		if err != nil {
			return t, err
		}
		t.Secrets = append(t.Secrets, one)
	}
	if err := entries(&t, b); err != nil {
		return t, err
	}
	if err := extend(&t, b.Extensions["x-bake"]); err != nil {
		return t, hint.Wrap(err, "x-bake")
	}
	slices.SortStableFunc(t.SSH, func(x, y eval.SSH) int { return strings.Compare(x.ID, y.ID) })
	if len(t.Tags) == 0 && s.Image != "" {
		t.Tags = []string{s.Image}
	}
	return t, nil
}

// targetName is what a target may be called.
func targetName() *regexp.Regexp { return regexp.MustCompile(`^[a-zA-Z0-9_-]+$`) }

// distinctNames refuses two services that become one target.
func distinctNames(targets []eval.Target) error {
	seen := map[string]bool{}
	for _, t := range targets {
		if seen[t.Name] {
			return hint.New(fmt.Sprintf("two services are the target %s: a dot in a service's name is an underscore in a target's", t.Name), "rename one of them")
		}
		seen[t.Name] = true
	}
	return nil
}

func nonEmpty(list []string) []string {
	if len(list) == 0 {
		return nil
	}
	return slices.Clone(list)
}

func text(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func yes(b bool) *bool {
	if !b {
		return nil
	}
	return &b
}

func pointers(m map[string]string) map[string]*string {
	if len(m) == 0 {
		return nil
	}
	out := map[string]*string{}
	for k, v := range m {
		out[k] = &v
	}
	return out
}

// args are the build's arguments; one without a value has that of the service's
// environment, or of the one that the files may know.
func args(project *types.Project, s types.ServiceConfig) map[string]*string {
	out := map[string]*string{}
	for name, v := range s.Build.Args {
		if v == nil {
			if own := s.Environment[name]; own != nil {
				v = own
			} else if value, ok := project.Environment[name]; ok {
				v = &value
			}
		}
		if v != nil {
			out[name] = v
		}
	}
	if len(out) == 0 {
		return nil
	}
	return out
}

// contexts are the named contexts; a service is the target that it becomes.
func contexts(m map[string]string) map[string]string {
	if len(m) == 0 {
		return nil
	}
	out := maps.Clone(m)
	for name, v := range out {
		if service, ok := strings.CutPrefix(v, "service:"); ok {
			out[name] = "target:" + strings.ReplaceAll(service, ".", "_")
		}
	}
	return out
}

func hosts(list types.HostsList) map[string]*string {
	if len(list) == 0 {
		return nil
	}
	out := map[string]*string{}
	for name, addresses := range list {
		all := strings.Join(addresses, ",")
		out[name] = &all
	}
	return out
}

func ulimits(m map[string]*types.UlimitsConfig) []string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(m)) {
		u := m[name]
		switch {
		case u == nil:
		case u.Single != 0:
			out = append(out, fmt.Sprintf("%s=%d:%d", name, u.Single, u.Single))
		default:
			out = append(out, fmt.Sprintf("%s=%d:%d", name, u.Soft, u.Hard))
		}
	}
	return out
}

// secret is one of the build, from what stands under its name for the project.
func secret(ref types.ServiceSecretConfig, def types.SecretConfig) (eval.Secret, error) {
	if def.External {
		return eval.Secret{}, hint.New(fmt.Sprintf("unsupported external secret %s", ref.Source), "give it a file or an environment variable")
	}
	out := eval.Secret{ID: ref.Source, Src: def.File, Env: def.Environment}
	if ref.Source == "" {
		return out, errors.New("a secret has no source")
	}
	return out, nil
}

// entries are those that are written as the flags of build are.
func entries(t *eval.Target, b *types.BuildConfig) error {
	var err error
	if t.CacheFrom, err = caches(b.CacheFrom); err != nil {
		return err
	}
	if t.CacheTo, err = caches(b.CacheTo); err != nil {
		return err
	}
	for _, a := range []struct{ typ, value string }{{"sbom", b.SBOM}, {"provenance", b.Provenance}} {
		if a.value == "" {
			continue
		}
		one, err := eval.ParseAttest(eval.Attestation(a.typ, a.value))
		if err != nil {
			return err
		}
		t.Attest = append(t.Attest, one)
	}
	return nil
}

func caches(list []string) ([]eval.Cache, error) {
	var out []eval.Cache
	for _, text := range list {
		c, err := eval.ParseCache(text)
		if err != nil {
			return nil, err
		}
		out = append(out, c...)
	}
	return out, nil
}

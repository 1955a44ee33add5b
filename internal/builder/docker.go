package builder

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/berthbuild/berth/internal/endpoint"
	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/state"
)

// DriverDocker is the driver of the builders that nobody made: the BuildKit
// inside the engine of each docker context. Each has one node; both have the
// context's name. They are not in the state folder.
const DriverDocker = "docker"

// engineBudget is how long an engine is waited for, unless the command says
// otherwise. Docker's own command does not wait at all, and an engine is seldom
// just coming up; but it may be far away.
const engineBudget = 5 * time.Second

// engineBuilder is the builder of a docker context.
func engineBuilder(context string) *Builder {
	return &Builder{Name: context, Driver: DriverDocker, Source: OfDocker, Nodes: []Node{{
		Builder: context, Driver: DriverDocker, Name: context, Endpoint: context,
		reach: endpoint.DockerEngine(context),
	}}}
}

// withEngines adds the builders of docker's contexts to the stored ones, which
// hide those of the same name. current is the stored choice, which is not known
// where unknown says why; that is then List's error.
func (s *Service) withEngines(all []*Builder, current string, unknown error) ([]*Builder, error) {
	if s.Docker == nil {
		return all, unknown
	}
	config, err := s.Docker()
	if err != nil {
		return all, errors.Join(unknown, err)
	}
	inForce := config.ContextName()
	names, err := config.Contexts()
	if !slices.Contains(names, inForce) {
		names = append(names, inForce) // its absence is for its row to tell
	}
	stored := slices.Clone(all)
	for _, name := range names {
		if slices.ContainsFunc(stored, func(b *Builder) bool { return strings.EqualFold(b.Name, name) }) {
			continue
		}
		b := engineBuilder(name)
		b.Current = unknown == nil && current == "" && name == inForce && s.Host == ""
		all = append(all, b)
	}
	if err != nil { // of some contexts; the others are good
		all = append(all, &Builder{Name: "contexts", Driver: DriverDocker, Source: OfDocker, Err: err})
	}
	return all, unknown
}

// contextInForce is the docker context whose engine builds when no builder was
// chosen.
func (s *Service) contextInForce() (string, error) {
	if s.Docker == nil {
		return "", hint.New("no builder is chosen", "choose one: berth use NAME",
			"or make one: berth create --use --driver remote unix:///run/buildkit/buildkitd.sock")
	}
	config, err := s.Docker()
	if err != nil {
		return "", err
	}
	return config.ContextName(), nil
}

// chooseOne is what to do about the engine that is taken because no builder was
// chosen, where it cannot be used.
func chooseOne() []string {
	return []string{
		"no builder is chosen, so Docker's own BuildKit is taken; choose one: berth use NAME",
		"or make one: berth create --use --driver remote unix:///run/buildkit/buildkitd.sock",
	}
}

// isContext tells whether name is a docker context. A configuration that cannot
// be read has none: whoever needs it says what is wrong with it.
func (s *Service) isContext(name string) bool {
	if s.Docker == nil || name == "" {
		return false
	}
	config, err := s.Docker()
	if err != nil {
		return false
	}
	names, _ := config.Contexts()
	return slices.Contains(names, name)
}

// notStored tells whether err of the state folder leaves room for a docker
// context of that name.
func notStored(err error) bool {
	return errors.Is(err, state.ErrNotFound) || errors.Is(err, state.ErrInvalidName)
}

// checkUseEngine refuses to choose the engine of another context than the one
// in force: that choice is docker's own to keep.
func (s *Service) checkUseEngine(name string) error {
	if s.Docker == nil {
		return nil
	}
	inForce, err := s.contextInForce()
	if err != nil || inForce == name {
		return err
	}
	return hint.New(fmt.Sprintf("%s is the builder of docker context %q, and %q is in force", name, name, inForce),
		"choose the context: docker context use "+name, "or name the builder in each call: --builder "+name)
}

// bundled is the BuildKit in a Docker engine that is too old to tell, by what
// the engine calls itself: "Docker/20.10.24 (linux)". Which build of it is not
// known; "" when nothing is.
func bundled(host string) string {
	version, ok := strings.CutPrefix(host, "Docker/")
	if !ok {
		return ""
	}
	parts := strings.SplitN(version, ".", 3)
	if len(parts) < 2 {
		return ""
	}
	switch parts[0] + "." + parts[1] {
	case "19.03":
		return "v0.6+unknown"
	case "20.10":
		return "v0.8+unknown"
	case "22.06", "23.0":
		return "v0.10+unknown"
	}
	return ""
}

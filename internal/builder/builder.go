// Package builder turns a name into a Builder: a named set of daemons, as the
// state folder keeps it and as the daemons themselves answer.
//
// It changes state (create, append, leave, use, remove) and asks daemons how
// they are, never both under the state lock. It does not choose a node for a
// build, and it prints nothing.
package builder

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/berthbuild/berth/internal/dial"
	"github.com/berthbuild/berth/internal/dockerconfig"
	"github.com/berthbuild/berth/internal/endpoint"
	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/remote"
	"github.com/berthbuild/berth/internal/state"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// DriverRemote is the driver whose daemons are run by their owners.
const DriverRemote = "remote"

// Reserved is the name that stands for Docker's own BuildKit; no builder may
// be called so.
const Reserved = "default"

// Builder is a named set of daemons. It is a snapshot: changing it changes no
// state.
type Builder struct {
	Name         string
	Driver       string
	Nodes        []Node
	Dynamic      bool
	Current      bool      // the one that commands use when none is named
	LastActivity time.Time // zero when never used
	Err          error     // why it cannot be used at all, such as a damaged file
}

// Node is one daemon of a builder.
type Node struct {
	Builder    string
	Name       string
	Endpoint   string
	Driver     string
	Platforms  []ocispecs.Platform // fixed by its owner; empty means whatever the daemon offers
	DriverOpts map[string]string
	Flags      []string
	Files      map[string][]byte

	// reach is what is dialled where that is not Endpoint itself, or err why it
	// is not known; tries are hints for when it does not answer.
	reach endpoint.Endpoint
	tries []string
	err   error
}

// Service works on the builders of one state folder.
type Service struct {
	Store   *state.Store
	Schemes dial.Registry
	// Key names the docker engine that is current, which the state folder
	// keeps the chosen builder by. It is asked only when needed, since it
	// reads docker's configuration.
	Key func() (string, error)
	// Docker is docker's configuration, whose contexts are builders too. It is
	// asked only when needed; nil means that there is none.
	Docker func() (*dockerconfig.Config, error)
}

// Target is what a connection to the node needs. It fails for a node that this
// version cannot dial, or whose stored settings are unusable.
func (n Node) Target() (remote.Target, error) {
	t := remote.Target{Builder: n.Builder, Node: n.Name, Endpoint: n.reach, Tries: n.tries}
	fail := func(err error, hints ...string) (remote.Target, error) {
		return t, hint.Wrap(err, fmt.Sprintf("node %s of builder %s", n.Name, n.Builder), hints...)
	}
	if n.err != nil {
		return fail(n.err)
	}
	if !n.reach.IsZero() {
		if n.Driver == DriverDocker {
			t.Options.ConnectTimeout = engineBudget
		}
		return t, nil
	}
	if n.Driver != DriverRemote {
		return fail(fmt.Errorf("the %s driver is not supported by this version of berth", n.Driver),
			"connect to its daemon with the remote driver: berth create --driver remote tcp://HOST:PORT")
	}
	e, err := endpoint.Parse(n.Endpoint)
	if err != nil {
		return fail(err)
	}
	o, err := endpoint.ParseOptions(e, n.DriverOpts)
	if err != nil {
		return fail(err)
	}
	t.Endpoint, t.Options = e, o
	return t, nil
}

// List gives all builders, sorted by name; a damaged one is listed with its
// error. When only the chosen one cannot be told, because a file that says so
// is damaged, the builders come with the error.
func (s *Service) List(ctx context.Context) ([]*Builder, error) {
	groups, damaged, err := s.Store.List(ctx)
	if err != nil {
		return nil, err
	}
	current, err := s.current(ctx)
	var all []*Builder
	for _, g := range groups {
		b := s.fromGroup(g)
		b.Current = strings.EqualFold(b.Name, current)
		all = append(all, b)
	}
	for i := range damaged {
		all = append(all, &Builder{Name: filepath.Base(damaged[i].Path), Err: &damaged[i]})
	}
	slices.SortStableFunc(all, func(a, b *Builder) int {
		return strings.Compare(strings.ToLower(a.Name), strings.ToLower(b.Name))
	})
	return s.withEngines(all, current, err)
}

// Find gives the builder called name, or the chosen one when name is empty:
// where none was chosen, that of the docker context in force.
func (s *Service) Find(ctx context.Context, name string) (*Builder, error) {
	current, err := s.current(ctx)
	if err != nil && name == "" {
		return nil, err
	}
	if name == "" {
		name = current
	}
	byDefault := name == ""
	if byDefault {
		if name, err = s.contextInForce(); err != nil {
			return nil, err
		}
	}
	g, err := s.Store.Get(ctx, name)
	switch {
	case err == nil:
		b := s.fromGroup(g)
		b.Current = strings.EqualFold(b.Name, current)
		return b, nil
	case notStored(err) && (byDefault || s.isContext(name)):
		b := engineBuilder(name)
		if b.Current = byDefault; byDefault {
			b.Nodes[0].tries = chooseOne()
		}
		return b, nil
	}
	return nil, notFound(name, err)
}

// current is the name of the chosen builder, or empty.
func (s *Service) current(ctx context.Context) (string, error) {
	key, err := s.Key()
	if err != nil {
		return "", err
	}
	return s.Store.Current(ctx, key)
}

// notFound says a missing builder as users and scripts know it, and leaves
// other errors alone.
func notFound(name string, err error) error {
	if errors.Is(err, state.ErrNotFound) {
		return hint.Wrap(fmt.Errorf("no builder %q found%w", name, hint.Quietly(err)), "", "list the builders: berth ls")
	}
	return err
}

func (s *Service) fromGroup(g state.Group) *Builder {
	b := &Builder{Name: g.Name, Driver: g.Driver, Dynamic: g.Dynamic, LastActivity: g.LastActivity}
	for _, n := range g.Nodes {
		b.Nodes = append(b.Nodes, Node{
			Builder: g.Name, Driver: g.Driver,
			Name: n.Name, Endpoint: n.Endpoint, Platforms: n.Platforms,
			DriverOpts: n.DriverOpts, Flags: n.Flags, Files: n.Files,
		})
	}
	s.adopt(b)
	return b
}

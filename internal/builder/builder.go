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
	Source       Source
	File         string // the definition file that it is from, with OfFile
	Err          error  // why it cannot be used at all, such as a damaged file
}

// Source is where a builder comes from.
type Source int

// Only what is Stored is kept in the state folder, can be chosen, and changes.
const (
	Stored   Source = iota
	OfDocker        // a docker context
	OfURL           // an endpoint in place of a name
	OfFile          // a definition file
)

// KeepsRecords tells whether builds on b are recorded in the state folder.
func (b *Builder) KeepsRecords() bool { return b.Source == Stored || b.Source == OfDocker }

// Usable tells why nothing can be asked of the builder: it is broken, or has no
// nodes. It is nil otherwise; whether a node answers is another matter.
func (b *Builder) Usable() error {
	switch {
	case b.Err != nil:
		return b.Err
	case len(b.Nodes) == 0:
		return hint.New(fmt.Sprintf("builder %s has no nodes", b.Name),
			fmt.Sprintf("add one: berth create --append --name %s ENDPOINT", hint.Quote(b.Name)))
	}
	return nil
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

	// reach is what is dialled where that is not Endpoint with DriverOpts, and
	// options how; or err why it is not known. tries are hints for when it does
	// not answer.
	reach   endpoint.Endpoint
	options endpoint.Options
	tries   []string
	err     error
	source  Source
	stored  string // see Stored
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

	// What builders that nobody made need. All of it may be left out.

	// Host is an endpoint to use when no builder is named and none was chosen;
	// HostFrom says where it was set.
	Host, HostFrom string
	// TLS are the options that tcp endpoints without any get, when they are
	// given in place of a name.
	TLS func() (endpoint.Options, error)
	// Dir is what relative paths in such an endpoint are relative to, and Home
	// what ~ stands for.
	Dir, Home string
	// Definition is the definition file in force; it gives nil where there is
	// none. It is asked only when needed.
	Definition func() (*Definition, error)
	// Ask asks the user to agree to a definition file. nil where nobody can be
	// asked: the file is not used then.
	Ask func(ctx context.Context, d *Definition, c Consent) (bool, error)
	// Note says something that does not stop the command.
	Note func(text string)
}

// Target is what a connection to the node needs. It fails for a node that this
// version cannot dial, or whose stored settings are unusable.
func (n Node) Target() (remote.Target, error) {
	t := remote.Target{Builder: n.Builder, Node: n.Name, Endpoint: n.reach, Options: n.options, Tries: n.tries}
	if n.source == OfURL { // the endpoint says it all
		t.Builder, t.Node = "", ""
	}
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
	all, err = s.withEngines(all, current, err)
	return s.withDefined(ctx, all), err
}

// Find gives the builder called name, or the chosen one when name is empty:
// where none was chosen, Host, or the builder of the docker context in force. A
// name may be an endpoint's URL. A stored builder and that of a docker context
// come before one of the definition file, which is never taken without its
// name, nor before the user has agreed to the file: that may be asked now.
func (s *Service) Find(ctx context.Context, name string) (*Builder, error) {
	if endpoint.IsURL(name) {
		return s.fromURL(name)
	}
	current, err := s.current(ctx)
	if err != nil && name == "" {
		return nil, err
	}
	named := name != ""
	if !named {
		name = current
	}
	byDefault := name == ""
	if byDefault && s.Host != "" {
		b, err := s.fromURL(s.Host)
		return b, hint.Wrap(err, s.HostFrom)
	}
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
		if named {
			s.hides(b, "the stored one")
		}
		return b, nil
	case notStored(err) && (byDefault || s.isContext(name)):
		b := engineBuilder(name)
		if b.Current = byDefault; byDefault {
			b.Nodes[0].tries = chooseOne()
		} else {
			s.hides(b, "the docker context")
		}
		return b, nil
	case notStored(err):
		b, ferr := s.fromFile(ctx, name)
		if b != nil {
			return b, nil
		}
		return nil, undefined(notFound(name, err), ferr)
	}
	return nil, err
}

// Lookup gives the stored builder called name, nil where there is none that can
// be read. Nobody is asked anything.
func (s *Service) Lookup(ctx context.Context, name string) *Builder {
	g, err := s.Store.Get(ctx, name)
	if err != nil {
		return nil
	}
	return s.fromGroup(g)
}

// undefined adds why the definition file, which may have it, did not help.
func undefined(missing, err error) error {
	var refused *NotAgreed
	switch {
	case err == nil:
		return missing
	case errors.As(err, &refused):
		return err
	}
	return hint.Wrap(err, missing.Error(), hint.Of(missing)...)
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

// Behind is one daemon out of those that the node leads to, as a node of its own:
// with a name and an endpoint that are its alone. It is stored nowhere.
func (n Node) Behind(name string, t remote.Target) Node {
	n.stored = n.Stored()
	n.Name, n.Endpoint = name, t.Endpoint.String()
	n.reach, n.options, n.err = t.Endpoint, t.Options, nil
	return n
}

// Stored is the node's name in the state folder, which references to builds have:
// Name, but for a node that stands for one daemon of several (Behind).
func (n Node) Stored() string {
	if n.stored != "" {
		return n.stored
	}
	return n.Name
}

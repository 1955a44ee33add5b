package builder

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/berthbuild/berth/internal/endpoint"
	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/remote"
	"github.com/berthbuild/berth/internal/state"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// CreateOptions say what to create or change.
type CreateOptions struct {
	Name       string // empty: the chosen builder with Append, else a new name is made
	Node       string // empty: <name>0, <name>1, …
	Driver     string // empty: remote
	Endpoint   string
	Platforms  []ocispecs.Platform
	DriverOpts []string // as given: k=v,k=v, or one each
	Append     bool
	Use        bool
	Dir        string // what relative certificate paths are relative to
	Home       string // what ~ in them stands for

	// fresh completes a node that was not there before.
	fresh func(state.Node) (state.Node, error)
}

// foreignDrivers are drivers of buildx that start daemons.
var foreignDrivers = []string{DriverContainer, DriverKubernetes, "cloud"}

// Create makes a builder, adds a node to one (Append), or changes the node
// that is named. Everything is checked before anything is written; no daemon
// is contacted. It returns the builder's name.
func (s *Service) Create(ctx context.Context, o CreateOptions) (string, error) {
	if err := checkDriver(o.Driver); err != nil {
		return "", err
	}
	node, err := s.newNode(ctx, o)
	if err != nil {
		return "", err
	}
	o.fresh = s.withEnvTLS(ctx, node)
	if o.Use { // what Use will need
		if _, err := s.Key(); err != nil {
			return "", err
		}
	}
	name, err := s.put(ctx, node, o)
	if err != nil {
		return "", err
	}
	if err := s.Store.Touch(ctx, name, time.Now()); err != nil {
		return "", err
	}
	if o.Use {
		return name, s.Use(ctx, name, UseOptions{})
	}
	return name, nil
}

// errTaken says that another process took a name that was free a moment ago.
var errTaken = errors.New("the name is taken")

// put stores the node under the name that is wanted, or under one that is made
// up, for which another is tried as long as others are quicker.
func (s *Service) put(ctx context.Context, node state.Node, o CreateOptions) (string, error) {
	for {
		name, err := s.nameFor(ctx, o)
		if err != nil {
			return "", err
		}
		err = s.Store.Change(ctx, name, func(old *state.Group) (*state.Group, error) {
			if old != nil && o.Name == "" && !o.Append {
				return nil, errTaken
			}
			return place(old, name, node, o)
		})
		if !errors.Is(err, errTaken) {
			return name, err
		}
	}
}

func checkDriver(driver string) error {
	switch {
	case driver == "", driver == DriverRemote:
		return nil
	case driver == DriverDocker:
		return hint.New(`additional instances of driver "docker" cannot be created`, "each docker context is a builder already: berth ls",
			"another engine is added with: docker context create NAME --docker host=…")
	case slices.Contains(foreignDrivers, driver):
		return hint.New(fmt.Sprintf("the %s driver starts daemons; berth builds on daemons that are already running", driver),
			"connect to one with: berth create --driver remote tcp://HOST:PORT")
	default:
		return hint.New(fmt.Sprintf("unknown driver %q", driver), "use --driver remote")
	}
}

// newNode checks all that the user said about the node itself.
func (s *Service) newNode(ctx context.Context, o CreateOptions) (state.Node, error) {
	if o.Node != "" {
		if _, err := state.ValidName(o.Node); err != nil {
			return state.Node{}, fmt.Errorf("--node: %w", err)
		}
	}
	if o.Endpoint == "" {
		return state.Node{}, hint.New("no remote endpoint provided",
			"name the daemon: berth create --driver remote tcp://HOST:PORT", "or set BUILDKIT_HOST")
	}
	e, err := endpoint.Parse(o.Endpoint)
	if err != nil {
		return state.Node{}, err
	}
	kv, err := endpoint.SplitOptions(o.DriverOpts)
	if err != nil {
		return state.Node{}, err
	}
	kv = endpoint.Absolute(kv, o.Dir, o.Home)
	opts, err := endpoint.ParseOptions(e, kv)
	if err != nil {
		return state.Node{}, err
	}
	if err := s.checkTLS(ctx, e, opts); err != nil {
		return state.Node{}, err
	}
	if len(kv) == 0 {
		kv = nil
	}
	return state.Node{Name: o.Node, Endpoint: e.String(), Platforms: o.Platforms, DriverOpts: kv}, nil
}

// checkTLS reads the files that the options name, and warns about what others
// can read.
func (s *Service) checkTLS(ctx context.Context, e endpoint.Endpoint, o endpoint.Options) error {
	if !o.TLS() {
		return nil
	}
	scheme, _ := s.Schemes.Lookup(e.Scheme)
	_, err := remote.ReadTLS(ctx, o, scheme.Keys)
	return err
}

// withEnvTLS gives the node, should it turn out to be a new one, what the
// environment says about TLS, where nothing else was said.
func (s *Service) withEnvTLS(ctx context.Context, n state.Node) func(state.Node) (state.Node, error) {
	kv, err := s.envTLS(ctx, n)
	return func(n state.Node) (state.Node, error) {
		if err != nil || len(kv) == 0 {
			return n, err
		}
		all := maps.Clone(kv)
		maps.Copy(all, n.DriverOpts)
		n.DriverOpts = all
		s.note("TLS options are taken from BERTH_TLS_… of the environment, and stored with the builder")
		return n, nil
	}
}

// envTLS is the environment's TLS options for a tcp node without any, as far as
// they can be stored.
func (s *Service) envTLS(ctx context.Context, n state.Node) (map[string]string, error) {
	e, err := endpoint.Parse(n.Endpoint)
	if err != nil || e.Scheme != endpoint.SchemeTCP || s.TLS == nil {
		return nil, err
	}
	for _, k := range endpoint.TLSOptions() {
		if _, said := n.DriverOpts[k]; said {
			return nil, nil
		}
	}
	env, err := s.TLS()
	switch {
	case err != nil:
		return nil, err
	case env.Inline != endpoint.Inline{}:
		return nil, hint.New("the environment has certificates as text (BERTH_TLS_…_PEM), which are never stored with a builder",
			"write them to files and name those by --driver-opt", "or make no builder: --builder "+hint.Quote(e.String()))
	}
	if err := s.checkTLS(ctx, e, env); err != nil {
		return nil, err
	}
	return env.Map(), nil
}

func (s *Service) nameFor(ctx context.Context, o CreateOptions) (string, error) {
	switch {
	case o.Name != "":
		name, err := state.ValidName(o.Name)
		if err != nil {
			return "", fmt.Errorf("--name: %w", err)
		}
		if name == Reserved {
			return "", hint.New("default is a reserved name and cannot be used to identify builder instance",
				"choose another: --name remote")
		}
		if !o.Append && s.isContext(o.Name) {
			return "", hint.New(fmt.Sprintf("instance name %q already exists as context builder", o.Name), "choose another --name")
		}
		return name, nil
	case o.Append:
		b, err := s.Find(ctx, "")
		switch {
		case err != nil:
			return "", err
		case b.Source == OfURL:
			return "", hint.New("no builder is chosen that a node could be added to", "name it: berth create --append --name NAME ENDPOINT")
		}
		return b.Name, nil
	}
	return s.freeName(ctx)
}

// freeName makes a name that no builder has. What cannot be read has it too.
func (s *Service) freeName(ctx context.Context) (string, error) {
	for suffix := ""; ; {
		name := pick(qualities) + "_" + pick(vessels) + suffix
		_, err := s.Store.Get(ctx, name)
		var damaged *state.Damage
		switch {
		case errors.Is(err, state.ErrNotFound):
			return name, nil
		case err != nil && !errors.As(err, &damaged):
			return "", err
		}
		suffix = strconv.Itoa(rand.IntN(1_000_000)) // there are many; two words will not do
	}
}

func pick(words []string) string { return words[rand.IntN(len(words))] }

// place puts the node into the group as create's flags say.
func place(old *state.Group, name string, node state.Node, o CreateOptions) (*state.Group, error) {
	if old == nil {
		if o.Append {
			return nil, hint.New(fmt.Sprintf("failed to find instance %q for append", name),
				"list the builders: berth ls", "or create it: leave --append out")
		}
		if node.Name == "" {
			node.Name = name + "0"
		}
		node, err := o.complete(node)
		return &state.Group{Name: name, Driver: DriverRemote, Nodes: []state.Node{node}}, err
	}
	if old.Driver != DriverRemote {
		return nil, hint.New(fmt.Sprintf("existing instance for %q but has mismatched driver %q", name, old.Driver),
			"choose another --name")
	}
	if !o.Append && o.Node == "" {
		return nil, hint.New(fmt.Sprintf("existing instance for %q but no append mode, specify the node name to make changes for existing instances", name),
			fmt.Sprintf("add a daemon: berth create --append --name %s ENDPOINT", name),
			fmt.Sprintf("or start afresh: berth rm %s", name))
	}
	g := *old
	g.Nodes = slices.Clone(old.Nodes)
	if node.Name == "" {
		node.Name = nextNodeName(name, g.Nodes)
	}
	at := slices.IndexFunc(g.Nodes, func(n state.Node) bool { return n.Name == node.Name })
	switch {
	case at < 0 && !o.Append && len(g.Nodes) > 0:
		return nil, hint.New(fmt.Sprintf("node %s not found in builder %s, did you mean to append?", node.Name, name),
			fmt.Sprintf("add it: berth create --append --name %s --node %s ENDPOINT", name, node.Name),
			"list the nodes: berth inspect "+name)
	case at < 0:
		node, err := o.complete(node)
		if err != nil {
			return nil, err
		}
		g.Nodes = append(g.Nodes, node)
		at = len(g.Nodes) - 1
	default:
		g.Nodes[at] = changed(g.Nodes[at], node)
	}
	return &g, checkAmong(g, at)
}

// complete is fresh, where there is one.
func (o CreateOptions) complete(n state.Node) (state.Node, error) {
	if o.fresh == nil {
		return n, nil
	}
	return o.fresh(n)
}

// checkAmong refuses the node at index at where it does not fit the others, or
// where an old option of its does not fit what was said now.
func checkAmong(g state.Group, at int) error {
	node := g.Nodes[at]
	for i, n := range g.Nodes {
		if i != at && n.Endpoint == node.Endpoint && maps.Equal(n.DriverOpts, node.DriverOpts) {
			return hint.New(fmt.Sprintf("node %s of builder %s already is at %s", n.Name, g.Name, n.Endpoint),
				fmt.Sprintf("change that node with: --node %s", n.Name))
		}
	}
	e, err := endpoint.Parse(node.Endpoint)
	if err != nil {
		return err
	}
	_, err = endpoint.ParseOptions(e, node.DriverOpts)
	return hint.Wrap(err, fmt.Sprintf("node %s of builder %s", node.Name, g.Name),
		"the options that it has stay; say them anew with --driver-opt, or let the node leave and append it again")
}

// changed is a stored node with what the user said about it; what was not
// said, and fields that only others know, stay.
func changed(old, said state.Node) state.Node {
	old.Endpoint = said.Endpoint
	if said.DriverOpts != nil {
		old.DriverOpts = said.DriverOpts
	}
	if len(said.Platforms) > 0 {
		old.Platforms = said.Platforms
	}
	return old
}

func nextNodeName(builder string, nodes []state.Node) string {
	for i := len(nodes); ; i++ {
		name := fmt.Sprintf("%s%d", builder, i)
		if !slices.ContainsFunc(nodes, func(n state.Node) bool { return n.Name == name }) {
			return name
		}
	}
}

// Leave takes a node out of a builder (the chosen one when name is empty). The
// last node stays: a builder without nodes can do nothing but confuse.
func (s *Service) Leave(ctx context.Context, name, node string) (string, error) {
	if node == "" {
		return "", hint.New("which node is to leave?", "name it: berth create --leave --name BUILDER --node NODE")
	}
	b, err := s.Find(ctx, name)
	if err != nil {
		return "", err
	}
	return b.Name, s.Store.Change(ctx, b.Name, func(old *state.Group) (*state.Group, error) {
		if old == nil {
			return nil, notFound(b.Name, state.ErrNotFound)
		}
		g := *old
		g.Nodes = slices.DeleteFunc(slices.Clone(old.Nodes), func(n state.Node) bool { return n.Name == node })
		switch {
		case len(g.Nodes) == len(old.Nodes):
			return nil, hint.New(fmt.Sprintf("builder %s has no node %q", b.Name, node), "list its nodes: berth inspect "+b.Name)
		case len(g.Nodes) == 0:
			return nil, hint.New(fmt.Sprintf("%s is the last node of builder %s", node, b.Name), "remove the builder: berth rm "+b.Name)
		}
		return &g, nil
	})
}

// UseOptions say how long a choice holds.
type UseOptions struct {
	Global  bool // whatever docker context is current
	Default bool // for this docker context, whenever nothing else is chosen
}

// Use makes the named builder the chosen one. The name of the docker context in
// force takes a choice back, so that its engine builds.
func (s *Service) Use(ctx context.Context, name string, o UseOptions) error {
	key, err := s.Key()
	if err != nil {
		return err
	}
	g, err := s.Store.Get(ctx, name)
	switch {
	case err == nil:
		name = g.Name
	case notStored(err) && (name == Reserved || s.isContext(name)):
		if err := s.checkUseEngine(name); err != nil {
			return err
		}
		name = ""
	default:
		return s.unchangeable(name, "cannot be chosen", notFound(name, err))
	}
	return s.Store.SetCurrent(ctx, key, name, o.Global, o.Default)
}

// Remove forgets a builder: its file, activity and build references. Its
// daemons are not contacted. A damaged builder can be removed too.
func (s *Service) Remove(ctx context.Context, name string) error {
	if name == Reserved {
		return hint.New("default is Docker's own BuildKit and cannot be removed")
	}
	err := s.Store.Remove(ctx, name)
	if err != nil && notStored(err) && s.isContext(name) {
		return hint.New(name+" is the builder of a docker context and is removed with it", "docker context rm "+name)
	}
	return s.unchangeable(name, "cannot be removed", notFound(name, err))
}

// Words for the names of builders that were given none.
var (
	qualities = []string{"able", "bold", "calm", "deep", "fair", "fast", "firm", "free", "glad", "gray", "keen", "kind", "lean", "lucky", "neat", "north", "proud", "quick", "ready", "safe", "south", "steady", "stout", "swift", "tidy", "true", "warm", "west", "white", "wise"}
	vessels   = []string{"barge", "brig", "canoe", "clipper", "coaster", "cutter", "dhow", "dinghy", "dory", "ferry", "frigate", "galleon", "galley", "gondola", "junk", "kayak", "ketch", "launch", "lighter", "lugger", "pilot", "pinnace", "punt", "raft", "schooner", "skiff", "sloop", "tender", "trawler", "tug", "yacht", "yawl"}
)

// Drain takes a node out of choice, or with on=false lets it be chosen again. The
// builds that it has go on. It returns the builder's name. The error of a builder
// that is stored nowhere says where to write it down instead.
func (s *Service) Drain(ctx context.Context, name, node string, on bool) (string, error) {
	b, err := s.Find(ctx, name)
	if err != nil {
		return "", err
	}
	if !slices.ContainsFunc(b.Nodes, func(n Node) bool { return n.Name == node }) {
		var names []string
		for _, n := range b.Nodes {
			names = append(names, n.Name)
		}
		return "", hint.New(fmt.Sprintf("builder %s has no node %q", b.Name, node), "its nodes are: "+strings.Join(names, ", "))
	}
	switch b.Source {
	case OfFile:
		line := fmt.Sprintf("under the node's options, write %s: %t", endpoint.OptDrained, on)
		return "", hint.New(fmt.Sprintf("builder %s is defined in %s, for all who share that file", b.Name, b.File), line, "and agree to the file anew: berth trust")
	case Stored:
	default:
		return "", hint.New(fmt.Sprintf("builder %s is stored nowhere, so that nothing can be said of its nodes", b.Name), "make a builder of the endpoint: berth create")
	}
	return b.Name, s.Store.Change(ctx, b.Name, func(old *state.Group) (*state.Group, error) {
		if old == nil {
			return nil, notFound(b.Name, state.ErrNotFound)
		}
		g := *old
		g.Nodes = slices.Clone(old.Nodes)
		for i := range g.Nodes {
			if g.Nodes[i].Name != node {
				continue
			}
			kv := maps.Clone(g.Nodes[i].DriverOpts)
			if kv == nil {
				kv = map[string]string{}
			}
			delete(kv, endpoint.OptDrained)
			if on {
				kv[endpoint.OptDrained] = "true"
			}
			if len(kv) == 0 {
				kv = nil
			}
			g.Nodes[i].DriverOpts = kv
		}
		return &g, nil
	})
}

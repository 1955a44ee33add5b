// Package pool knows which daemons a builder has, and which of them to prefer:
// all nodes, and all daemons behind one endpoint (the ready pods of a Deployment,
// the addresses of a name), in the order in which a piece of work should try them.
//
// It is not for platforms, nor for building: internal/build decides which of the
// members can do a piece of work, asks them in this order, and is told here how
// busy one is. It keeps nothing by itself; what is remembered of members that
// could not be reached is in internal/state.
//
// Rules: membership is looked up each time and kept nowhere. The order is the same
// for everybody who sees the same members, so that the same work finds its cache
// again from every machine (internal/rendezvous). What a daemon does not say is
// not known, which is neither idle nor busy.
package pool

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/berthbuild/berth/internal/builder"
	"github.com/berthbuild/berth/internal/dial"
	"github.com/berthbuild/berth/internal/endpoint"
	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/remote"
	"github.com/berthbuild/berth/internal/rendezvous"
	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/util/grpcerrors"
	"google.golang.org/grpc/codes"
)

// MaxMembers bounds how many daemons of one builder are asked for one piece of
// work. Those that the work prefers are among them.
const MaxMembers = 32

// lookup bounds finding the daemons behind one endpoint.
const lookup = 10 * time.Second

// asking bounds one question about a daemon's load.
const asking = 2 * time.Second

// Member is one daemon of a builder.
type Member struct {
	Node   builder.Node
	Target remote.Target
	Name   string // the node's, with the daemon's own where the node has several: "node/pod-0"
	Err    error  // why the node leads to no daemon at all; nil otherwise
}

// Key is the member's name for the memory of those that could not be reached: its
// address, which other builders may share.
func (m Member) Key() string { return m.Target.Endpoint.String() }

// Members finds the daemons behind the nodes, in their order. It contacts only
// those who know them: a name server, a Kubernetes API server. A node whose daemons
// cannot be found is one member, with its Err. It returns early when ctx ends.
func Members(ctx context.Context, nodes []builder.Node, schemes dial.Registry) []Member {
	each := make([][]Member, len(nodes))
	done := make(chan struct{})
	for i, n := range nodes {
		go func() {
			each[i] = behind(ctx, n, schemes)
			done <- struct{}{}
		}()
	}
	for range nodes {
		<-done
	}
	return slices.Concat(each...)
}

// Undrained are the nodes that may get new builds. The error says how to change
// that, where there are none. Nodes are not changed.
func Undrained(name string, nodes []builder.Node) ([]builder.Node, error) {
	kept := slices.DeleteFunc(slices.Clone(nodes), func(n builder.Node) bool {
		t, err := n.Target()
		return err == nil && t.Options.Drained
	})
	if len(kept) == 0 {
		return nil, hint.New(fmt.Sprintf("builder %s: all of its nodes are drained", name), "berth undrain --builder "+hint.Quote(name)+" "+hint.Quote(nodes[0].Name))
	}
	return kept, nil
}

// behind are the daemons of one node.
func behind(ctx context.Context, n builder.Node, schemes dial.Registry) []Member {
	t, err := n.Target()
	one := Member{Node: n, Target: t, Name: n.Name, Err: err}
	find := several(t, schemes)
	if err != nil || find == nil {
		return []Member{one}
	}
	ctx, cancel := context.WithTimeout(ctx, lookup)
	defer cancel()
	found, err := find(ctx, t.Endpoint)
	if err != nil || len(found) < 2 {
		// As it stands: dialling it finds the same, with the reason in its place, and
		// what people are told is what they know.
		return []Member{one}
	}
	var all []Member
	for _, f := range found {
		m := one
		m.Name = n.Name + "/" + f.Name
		m.Target.Endpoint = f.Endpoint
		if t.Options.TLS() && t.Options.ServerName == "" { // which the certificate is for
			m.Target.Options.ServerName = t.Options.ServerNameFor(t.Endpoint)
		}
		if m.Target.Node != "" {
			m.Target.Node = m.Name
		}
		all = append(all, m)
	}
	return all
}

// several is how the daemons behind a target are found; nil where it leads to one.
func several(t remote.Target, schemes dial.Registry) func(context.Context, endpoint.Endpoint) ([]dial.Member, error) {
	scheme, ok := schemes.Lookup(t.Endpoint.Scheme)
	if !ok || scheme.Members == nil {
		return nil
	}
	if t.Endpoint.Scheme == endpoint.SchemeTCP && !t.Options.ResolveAll {
		return nil
	}
	return scheme.Members
}

// Choosing tells whether there is something to choose or to wait for: several
// nodes, an endpoint that may lead to several daemons, or a limit of builds.
func Choosing(nodes []builder.Node, schemes dial.Registry) bool {
	if len(nodes) > 1 {
		return true
	}
	for _, n := range nodes {
		t, err := n.Target()
		if err == nil && (t.Options.MaxBuilds > 0 || several(t, schemes) != nil) {
			return true
		}
	}
	return false
}

// Settings are what the nodes of a builder say of all of them; the first that says
// something counts.
type Settings struct {
	Policy  endpoint.Pool
	Queue   time.Duration
	Retries endpoint.Count
}

// DefaultQueue is how long a build waits for a daemon that has room.
const DefaultQueue = time.Hour

// SettingsOf reads them. A node whose options cannot be read says nothing.
func SettingsOf(nodes []builder.Node) Settings {
	s := Settings{}
	for _, n := range nodes {
		t, err := n.Target()
		if err != nil {
			continue
		}
		if s.Policy == "" {
			s.Policy = t.Options.Pool
		}
		if s.Queue == 0 {
			s.Queue = t.Options.QueueTimeout
		}
		if s.Retries == (endpoint.Count{}) {
			s.Retries = t.Options.Retries
		}
	}
	if s.Policy == "" {
		s.Policy = endpoint.PoolAffinity
	}
	if s.Queue == 0 {
		s.Queue = DefaultQueue
	}
	return s
}

// Order is in which order members should be tried for the work called key: their
// indices. Those for which away says so come last, in the same order: they may be
// there again.
func Order(policy endpoint.Pool, key string, members []Member, away func(Member) bool) []int {
	order := make([]int, len(members))
	for i := range order {
		order[i] = i
	}
	if policy != endpoint.PoolFirst {
		names := make([]string, len(members))
		for i, m := range members {
			names[i] = m.Name
		}
		order = rendezvous.Order(key, names)
	}
	slices.SortStableFunc(order, func(a, b int) int {
		switch x, y := away(members[a]), away(members[b]); {
		case x == y:
			return 0
		case x:
			return 1
		}
		return -1
	})
	return order
}

// Running is a build that a daemon has at the moment, whoever began it.
type Running struct {
	Ref     string
	Started time.Time

	record *controlapi.BuildHistoryRecord
}

// Active asks a daemon for the builds that it has, in the order in which they
// began. It takes at most 2 s. One from before v0.12 answers that it has none,
// which is not so (request.Capabilities.ActiveBuilds).
func Active(ctx context.Context, c *client.Client) ([]Running, error) {
	ctx, cancel := context.WithTimeout(ctx, asking)
	defer cancel()
	events, err := c.ControlClient().ListenBuildHistory(ctx, &controlapi.BuildHistoryRequest{ActiveOnly: true, EarlyExit: true})
	if err != nil {
		return nil, err
	}
	var all []Running
	for {
		e, err := events.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, hint.Wrap(err, "asking for the builds that it has")
		}
		if r := e.Record; r != nil && e.Type == controlapi.BuildHistoryEventType_STARTED && r.CompletedAt == nil {
			all = append(all, Running{Ref: r.Ref, Started: r.CreatedAt.AsTime(), record: r})
		}
	}
	slices.SortFunc(all, func(a, b Running) int {
		if c := a.Started.Compare(b.Started); c != 0 {
			return c
		}
		return strings.Compare(a.Ref, b.Ref)
	})
	return all, nil
}

// Busy tells whether an error of Active is one of a daemon that has too much to do,
// or is about to go: another time it may answer. With any other it never does.
func Busy(err error) bool {
	switch grpcerrors.Code(err) {
	case codes.DeadlineExceeded, codes.Canceled, codes.Unavailable, codes.ResourceExhausted:
		return true
	}
	return errors.Is(err, context.DeadlineExceeded)
}

// Rank is how many builds began before the one called ref; ok tells whether it is
// among them.
func Rank(all []Running, ref string) (before int, ok bool) {
	i := slices.IndexFunc(all, func(r Running) bool { return r.Ref == ref })
	return i, i >= 0
}

// Expand is b with a node for each of its daemons: where a node leads to several,
// those stand in its place. b is not changed. Finding them takes at most budget; a
// node whose daemons are not found in time stands for itself.
func Expand(ctx context.Context, b *builder.Builder, schemes dial.Registry, budget time.Duration) *builder.Builder {
	if !slices.ContainsFunc(b.Nodes, func(n builder.Node) bool {
		t, err := n.Target()
		return err == nil && several(t, schemes) != nil
	}) {
		return b
	}
	ctx, cancel := context.WithTimeout(ctx, budget)
	defer cancel()
	out := *b
	out.Nodes = nil
	for _, m := range Members(ctx, b.Nodes, schemes) {
		n := m.Node
		if m.Name != n.Name {
			n = n.Behind(m.Name, m.Target)
		}
		out.Nodes = append(out.Nodes, n)
	}
	return &out
}

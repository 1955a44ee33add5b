package build

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/berthbuild/berth/internal/builder"
	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/progress"
	"github.com/berthbuild/berth/internal/remote"
	"github.com/berthbuild/berth/internal/request"
	"github.com/containerd/platforms"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// member is a node that is connected, or the reason why it is not.
type member struct {
	node     builder.Node
	target   remote.Target
	conn     *remote.Conn
	offered  []ocispecs.Platform
	err      error
	answered bool // what stands above is known; set by place alone
}

// placement says which member builds which platforms. It owns the members'
// connections.
type placement struct {
	members []*member
	chosen  map[int][]ocispecs.Platform // member index → platforms; nil for "the daemon's own"
}

func (p *placement) close() {
	for _, m := range p.members {
		if m.conn != nil {
			_ = m.conn.Close() // the build is over; there is nobody to tell
		}
	}
}

// part is one node's share of a build.
type part struct {
	*member
	req    request.Request
	prefix string // before the names of its steps, when several builds are shown
	share  string // its platforms, when other nodes build the others
	outs   *outputs
	ties   *ties // to other targets; nil where there are none

	sessions map[string]folderSession // by the name of the local folder that they send

	caps     request.Capabilities // of its daemon; set when it is solved
	readable bool                 // the daemon gives what it has built, layer by layer; asked where it matters
}

// split makes each chosen member's own request.
func (p *placement) split(req request.Request) ([]part, error) {
	several := len(p.chosen) > 1
	var parts []part
	for i, m := range p.members {
		want, ok := p.chosen[i]
		if !ok {
			continue
		}
		r, err := req.ForNode(want, several)
		if err != nil {
			return nil, err
		}
		one := part{member: m, req: r}
		if several {
			one.share = strings.Join(formatAll(want), " ")
			one.prefix = one.share
		}
		parts = append(parts, one)
	}
	return parts, nil
}

// errNotNeeded ends the connecting to a node that is not needed after all.
var errNotNeeded = errors.New("another node builds this")

// place connects to the nodes that the request may need and shares its
// platforms out among them, as soon as those have answered that matter. On
// error all connections are closed.
func place(ctx context.Context, b *builder.Builder, req request.Request, o Options) (*placement, error) {
	return placeFor(ctx, b, req.Platforms, false, o)
}

// placeFor is place for all platforms that several builds want; with native,
// some of them want none, and the first node is needed for those.
func placeFor(ctx context.Context, b *builder.Builder, want []ocispecs.Platform, native bool, o Options) (*placement, error) {
	if err := b.Usable(); err != nil {
		return nil, err
	}
	p := &placement{}
	nodes := needed(b.Nodes, want)
	if native && nodes[0].Name != b.Nodes[0].Name {
		nodes = append([]builder.Node{b.Nodes[0]}, nodes...)
	}
	for _, n := range nodes {
		p.members = append(p.members, &member{node: n})
	}
	err := p.connect(ctx, want, native, o)
	if _, ok := p.chosen[0]; native && !ok && err == nil {
		p.chosen[0] = nil
	}
	for i, m := range p.members {
		if _, ok := p.chosen[i]; m.conn != nil && (err != nil || !ok) {
			_ = m.conn.Close() // nothing ran on it
			m.conn = nil
		}
	}
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case err != nil:
		return nil, err
	}
	return p, nil
}

// connect dials all members at once, and chooses.
func (p *placement) connect(ctx context.Context, want []ocispecs.Platform, native bool, o Options) (err error) {
	ctx, enough := context.WithCancelCause(ctx)
	defer enough(nil)
	ask := len(p.members) > 1 && !allOwned(p.nodes(), want)
	done := make(chan *member)
	for _, m := range p.members {
		go func() {
			m.connect(ctx, ask, o)
			done <- m
		}()
	}
	decided := false
	for range p.members {
		m := <-done
		m.answered = true
		if decided {
			continue
		}
		first := p.members[0]
		if native && !first.answered {
			continue
		}
		if p.chosen, err = p.choose(want); native && err == nil {
			err = first.err
		}
		if !errors.Is(err, errUndecided) {
			decided = true
			enough(errNotNeeded)
		}
	}
	return err
}

func (p *placement) nodes() []builder.Node {
	var all []builder.Node
	for _, m := range p.members {
		all = append(all, m.node)
	}
	return all
}

// needed leaves out the nodes that cannot be chosen: without a platform the
// first one builds, and when owners fixed nodes for all that is wanted, the
// others need not be woken.
func needed(nodes []builder.Node, want []ocispecs.Platform) []builder.Node {
	if len(want) == 0 || len(nodes) == 1 {
		return nodes[:1]
	}
	if !allOwned(nodes, want) {
		return nodes
	}
	return slices.DeleteFunc(slices.Clone(nodes), func(n builder.Node) bool {
		return !slices.ContainsFunc(want, func(w ocispecs.Platform) bool { return offers(n.Platforms, w) })
	})
}

// allOwned tells whether each platform has a node that its owner fixed for it.
func allOwned(nodes []builder.Node, want []ocispecs.Platform) bool {
	return !slices.ContainsFunc(want, func(w ocispecs.Platform) bool {
		return !slices.ContainsFunc(nodes, func(n builder.Node) bool { return offers(n.Platforms, w) })
	})
}

// connect dials the member and, when members have to be compared, asks what it
// builds for.
func (m *member) connect(ctx context.Context, askWorkers bool, o Options) {
	if m.target, m.err = m.node.Target(); m.err != nil {
		return
	}
	wait := &waitStep{printer: o.Progress, node: m.node.Name}
	m.conn, m.err = remote.Connect(ctx, m.target, remote.Config{
		Schemes: o.Schemes, Budget: o.Budget, KeepAlive: true, OnWait: wait.show,
	})
	wait.done(m.err)
	if m.err != nil || !askWorkers {
		return
	}
	workers, err := m.conn.Workers(ctx)
	if err != nil {
		m.err = err
		return
	}
	m.offered = builder.Offered(m.node, builder.Status{Workers: workers})
}

// errUndecided says that an answer is missing that matters.
var errUndecided = errors.New("an answer is missing")

// choose gives every platform to a member. The answers that came first do not
// matter, only the order of the members does.
func (p *placement) choose(want []ocispecs.Platform) (map[int][]ocispecs.Platform, error) {
	chosen := map[int][]ocispecs.Platform{}
	if len(p.members) == 1 {
		chosen[0] = want
		return chosen, p.members[0].err
	}
	if len(want) == 0 { // the first node's own
		chosen[0] = nil
		return chosen, p.members[0].err
	}
	for _, w := range want {
		i, err := p.pick(w)
		if err != nil {
			return nil, err
		}
		chosen[i] = append(chosen[i], w)
	}
	return chosen, nil
}

// pick finds the member that builds w: the first one whose owner fixed it for
// that; without any such, the first that offers it; without that either, the first
// that can run what is built for it. A node that cannot be reached may be the one
// that was meant, so before w goes to a worse one it is an error.
//
// That nobody offers w is an error too: which of them was meant to cross-build, only
// the owner can say. A builder with one node is different: there is no choice.
func (p *placement) pick(w ocispecs.Platform) (int, error) {
	owned := allOwned(p.nodes(), []ocispecs.Platform{w})
	var down error
	near := -1
	for i, m := range p.members {
		switch owner := offers(m.node.Platforms, w); {
		case owned && !owner:
		case !m.answered:
			return 0, errUndecided
		case m.err != nil && down == nil:
			down = m.err
		case m.err != nil:
			down = fmt.Errorf("%w; %w", down, m.err)
		case owner || offers(m.offered, w):
			return i, nil
		case near < 0 && runs(m.offered, w):
			near = i
		}
	}
	switch {
	case down != nil:
		return 0, hint.Wrap(down, "no node for "+platforms.FormatAll(w))
	case near >= 0:
		return near, nil
	}
	return 0, p.nobody(w)
}

// nobody says who offers what, and how to change that.
func (p *placement) nobody(w ocispecs.Platform) error {
	builder, want := p.members[0].node.Builder, platforms.FormatAll(w)
	who := make([]string, 0, len(p.members))
	for _, m := range p.members {
		offered := strings.Join(formatAll(plain(m.offered)), ", ")
		if offered == "" {
			offered = "nothing"
		}
		who = append(who, fmt.Sprintf("%s offers %s", m.node.Name, offered))
	}
	return hint.New(fmt.Sprintf("no node of builder %s offers %s: %s", builder, want, strings.Join(who, "; ")),
		fmt.Sprintf("add a node for it: berth create --append --name %s --platform %s ENDPOINT", hint.Quote(builder), hint.Quote(want)),
		fmt.Sprintf("if the Dockerfile cross-builds for it, or a node emulates it, say which: berth create --append --name %s --node %s --platform %s %s",
			hint.Quote(builder), hint.Quote(p.members[0].node.Name), hint.Quote(want), hint.Quote(p.members[0].node.Endpoint)))
}

// plain leaves out the levels of amd64 where amd64 itself is there: they are of no
// help to a person, and a daemon does not always name them.
func plain(list []ocispecs.Platform) []ocispecs.Platform {
	return slices.DeleteFunc(slices.Clone(list), func(p ocispecs.Platform) bool {
		return p.Architecture == "amd64" && p.Variant != "" && slices.ContainsFunc(list, func(other ocispecs.Platform) bool {
			return other.OS == p.OS && other.Architecture == p.Architecture && other.Variant == ""
		})
	})
}

func offers(list []ocispecs.Platform, w ocispecs.Platform) bool {
	m := platforms.OnlyStrict(w)
	return slices.ContainsFunc(list, func(p ocispecs.Platform) bool { return m.Match(platforms.Normalize(p)) })
}

// runs tells whether a machine that offers list can run what is built for w: an
// older variant of one of them (arm/v5 on arm/v7), not another architecture.
func runs(list []ocispecs.Platform, w ocispecs.Platform) bool {
	return slices.ContainsFunc(list, func(p ocispecs.Platform) bool {
		return p.Architecture == w.Architecture && platforms.Only(p).Match(w)
	})
}

func formatAll(list []ocispecs.Platform) []string {
	var all []string
	for _, p := range list {
		all = append(all, platforms.FormatAll(p))
	}
	return all
}

// waitStep shows a slow connect as a step of the build; a fast one leaves no
// trace.
type waitStep struct {
	printer *progress.Printer
	node    string
	step    *progress.Step
	pace    remote.Pace
}

func (w *waitStep) show(now remote.Waiting) {
	if w.step == nil {
		w.step = w.printer.Step("[internal] connecting to " + w.node)
	}
	if w.pace.Due(now) {
		w.step.Log(now.String())
	}
}

func (w *waitStep) done(err error) {
	if errors.Is(err, errNotNeeded) {
		err = nil
	}
	if w.step != nil {
		w.step.Done(err)
	}
}

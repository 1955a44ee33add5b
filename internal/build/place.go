package build

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/berthbuild/berth/internal/builder"
	"github.com/berthbuild/berth/internal/endpoint"
	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/pool"
	"github.com/berthbuild/berth/internal/progress"
	"github.com/berthbuild/berth/internal/remote"
	"github.com/berthbuild/berth/internal/request"
	"github.com/containerd/platforms"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// member is a daemon that is connected, or the reason why it is not.
type member struct {
	pool.Member
	conn    *remote.Conn
	offered []ocispecs.Platform
	native  string // OS and architecture that it builds for when none is named; "" until it has said so
	was     string // native, as it was remembered
	err     error

	asked    time.Time // when it was begun to connect; zero where it was not
	answered bool      // what stands above is known; set by the placement alone

	active int   // builds that it has
	told   bool  // active is known
	mute   error // why active is not known of one that has a limit, and could say so
	wins   int   // builds of this run that it was given
}

// full tells whether the member has as many builds as its owner allows, or may have:
// one with so much to do that it does not say how much gets nothing more.
func (m *member) full() bool {
	most := m.Target.Options.MaxBuilds
	return most > 0 && (m.mute != nil || m.told && m.active >= most)
}

// placement says which member builds which platforms. It owns the members'
// connections.
type placement struct {
	members []*member
	order   []int                       // of members, as they are to be tried; nil is as they stand
	policy  endpoint.Pool               //
	first   string                      // the first node, which builds for its own platform when none is named
	chosen  map[int][]ocispecs.Platform // member index → platforms; nil for "the daemon's own"
}

func (p *placement) close() {
	for _, m := range p.members {
		m.hangUp()
	}
}

// hangUp closes the connection, if there is one: nothing runs on it any more.
func (m *member) hangUp() {
	if m.conn != nil {
		_ = m.conn.Close() // there is nobody to tell
		m.conn = nil
	}
}

// one is the member that was chosen where there is one build, for no platform.
func (p *placement) one() *member {
	for i := range p.chosen {
		return p.members[i]
	}
	return p.members[0]
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

// place connects to the daemons that the request may need and shares its
// platforms out among them, as soon as those have answered that matter. On
// error all connections are closed.
func place(ctx context.Context, b *builder.Builder, req request.Request, o Options) (*placement, error) {
	return placeFor(ctx, b, req.Platforms, len(req.Platforms) == 0, false, o)
}

// placeFor is place for all platforms that several builds want; with native,
// some of them want none. With all, every member is connected to that answers
// soon: there is work for many.
func placeFor(ctx context.Context, b *builder.Builder, want []ocispecs.Platform, native, all bool, o Options) (*placement, error) {
	if err := b.Usable(); err != nil {
		return nil, err
	}
	nodes, err := pool.Undrained(b.Name, b.Nodes)
	if err != nil {
		return nil, err
	}
	if !pool.Choosing(nodes, o.Schemes) {
		return placeOnOne(ctx, nodes[0], want, o)
	}
	c := &choice{b: b, nodes: nodes, want: want, native: native, all: all, o: o}
	p, err := c.place(ctx)
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case err != nil:
		return nil, err
	}
	return p, nil
}

// placeOnOne waits for the only daemon that there is: it builds what is wanted.
func placeOnOne(ctx context.Context, n builder.Node, want []ocispecs.Platform, o Options) (*placement, error) {
	m := &member{Member: pool.Member{Node: n, Name: n.Name}, answered: true}
	m.Target, m.err = n.Target()
	if m.err == nil {
		m.connect(ctx, remote.Config{Schemes: o.Schemes, Budget: o.Budget, KeepAlive: true}, o)
	}
	switch {
	case m.err != nil && ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case m.err != nil:
		return nil, m.err
	}
	return &placement{members: []*member{m}, chosen: map[int][]ocispecs.Platform{0: want}}, nil
}

func (p *placement) nodes() []builder.Node {
	var all []builder.Node
	for _, m := range p.members {
		all = append(all, m.Node)
	}
	return all
}

// tried are the members in the order in which they are to be tried.
func (p *placement) tried() []int {
	if p.order != nil {
		return p.order
	}
	all := make([]int, len(p.members))
	for i := range all {
		all[i] = i
	}
	return all
}

// allOwned tells whether each platform has a node that its owner fixed for it.
func allOwned(nodes []builder.Node, want []ocispecs.Platform) bool {
	return !slices.ContainsFunc(want, func(w ocispecs.Platform) bool {
		return !slices.ContainsFunc(nodes, func(n builder.Node) bool { return offers(n.Platforms, w) })
	})
}

// connect dials the member.
func (m *member) connect(ctx context.Context, c remote.Config, o Options) {
	wait := &waitStep{printer: o.Progress, node: m.Name}
	c.OnWait = wait.show
	m.conn, m.err = remote.Connect(ctx, m.Target, c)
	wait.done(m.err)
}

// errUndecided says that an answer is missing that matters.
var errUndecided = errors.New("an answer is missing")

// errFull says that every daemon that could build has as many builds as it may.
var errFull = errors.New("every daemon has as many builds as it may have")

// choose gives every platform to a member, or the build to one when no platform is
// wanted. The answers that came first do not matter, only the order of the members
// does; but for one that is slow to answer (see patience) nobody waits. Those whose
// answer is missing, and who are not asked yet, are given to need.
func (p *placement) choose(want []ocispecs.Platform, now time.Time, need func(*member)) (map[int][]ocispecs.Platform, error) {
	chosen := map[int][]ocispecs.Platform{}
	if len(want) == 0 {
		i, err := p.pickNative(now, need)
		if err != nil {
			return nil, err
		}
		chosen[i] = nil
		return chosen, nil
	}
	undecided := false
	for _, w := range want {
		i, err := p.pick(w, now, need)
		switch {
		case errors.Is(err, errUndecided): // the others may have to be asked as well
			undecided = true
		case err != nil:
			return nil, err
		default:
			chosen[i] = append(chosen[i], w)
		}
	}
	if undecided {
		return nil, errUndecided
	}
	return chosen, nil
}

// search walks over the members in their order, and tells what stood in the way
// where none of them can.
type search struct {
	waiting bool  // for one that has not answered
	full    bool  // one could, and has too many builds
	down    error // of those that could not be reached
}

// see tells whether m has answered, and can take a build. stop says that nobody
// else may be looked at before it has answered.
func (s *search) see(m *member, now time.Time, need func(*member)) (usable, stop bool) {
	switch {
	case m.answered && m.err != nil && s.down == nil:
		s.down = m.err
	case m.answered && m.err != nil:
		s.down = fmt.Errorf("%w; %w", s.down, m.err)
	case m.answered:
		return true, false
	case m.asked.IsZero():
		need(m)
		s.waiting = true
		return false, true
	default:
		s.waiting = true
		return false, now.Sub(m.asked) < patience
	}
	return false, false
}

// result is what a search without a result means.
func (s *search) result() error {
	switch {
	case s.waiting:
		return errUndecided
	case s.full:
		return errFull
	}
	return s.down
}

// pick finds the member that builds w: the first one in the order whose owner fixed
// it for that; without any such, the first that offers it; without that either, the
// first that can run what is built for it. A node that cannot be reached may be the
// one that was meant, so before w goes to a worse one it is an error.
//
// Unless the order is the owner's, members whose machine is of w's kind come first.
//
// That nobody offers w is an error too: which of them was meant to cross-build, only
// the owner can say. A builder with one daemon is different: there is no choice.
func (p *placement) pick(w ocispecs.Platform, now time.Time, need func(*member)) (int, error) {
	owned := allOwned(p.nodes(), []ocispecs.Platform{w})
	var s search
	near, foreign := -1, -1
	for _, i := range p.tried() {
		m := p.members[i]
		owner := offers(m.Node.Platforms, w)
		if owned && !owner {
			continue
		}
		usable, stop := s.see(m, now, need)
		if stop {
			return 0, errUndecided
		}
		if !usable {
			continue
		}
		switch able := owner || len(p.members) == 1 || offers(m.offered, w); {
		case able && !owner && p.foreign(m, w):
			if foreign < 0 && !m.full() {
				foreign = i
			}
		case able && m.full():
			s.full = true
		case able:
			return i, nil
		case near < 0 && runs(m.offered, w):
			near = i
		}
	}
	switch err := s.result(); {
	case foreign >= 0 && !s.full:
		return foreign, nil
	case errors.Is(err, errUndecided), errors.Is(err, errFull):
		return 0, err
	case err != nil:
		return 0, hint.Wrap(err, "no node for "+platforms.FormatAll(w))
	case near >= 0 && p.members[near].full():
		return 0, errFull
	case near >= 0:
		return near, nil
	}
	return 0, p.nobody(w)
}

// foreign tells whether m builds for w, but its machine is of another kind: where
// any of several may be chosen, one that has to emulate w, or was set up for
// something else, is taken only when none is there that need not.
func (p *placement) foreign(m *member, w ocispecs.Platform) bool {
	if p.policy == "" || p.policy == endpoint.PoolFirst || m.native == "" {
		return false
	}
	return m.native != w.OS+"/"+w.Architecture
}

// pickNative finds the member for a build that names no platform. It is for the
// first node's own platform, and any member with that one may do it. Where the first
// node does not answer, what it was the last time counts; where that is not known,
// nobody stands in for it: an image for another platform is worse than none.
func (p *placement) pickNative(now time.Time, need func(*member)) (int, error) {
	native, err := p.nativeOf(now, need)
	if err != nil {
		return 0, err
	}
	var s search
	for _, i := range p.tried() {
		m := p.members[i]
		usable, stop := s.see(m, now, need)
		switch {
		case stop:
			return 0, errUndecided
		case !usable, m.native != native && native != "":
		case m.full():
			s.full = true
		default:
			return i, nil
		}
	}
	return 0, s.result()
}

// nativeOf is the platform of a build that names none; "" where all are of one node.
func (p *placement) nativeOf(now time.Time, need func(*member)) (string, error) {
	nodes := map[string]bool{}
	for _, m := range p.members {
		nodes[m.Node.Name] = true
	}
	if len(nodes) == 1 {
		return "", nil
	}
	var s search
	for _, m := range p.members {
		if m.Node.Name != p.first {
			continue
		}
		switch usable, stop := s.see(m, now, need); {
		case usable:
			return m.native, nil
		case stop:
			return "", errUndecided
		}
	}
	known := ""
	for _, m := range p.members {
		if m.Node.Name == p.first && known == "" {
			known = m.was
		}
	}
	switch {
	case known != "":
		return known, nil
	case s.waiting:
		return "", errUndecided
	case s.down == nil:
		return "", nil
	}
	return "", hint.Wrap(s.down, "the platform to build for is that of node "+p.first,
		"name one, and another node that offers it may build: --platform linux/amd64")
}

// nobody says who offers what, and how to change that.
func (p *placement) nobody(w ocispecs.Platform) error {
	builder, want := p.members[0].Node.Builder, platforms.FormatAll(w)
	who := make([]string, 0, len(p.members))
	for _, m := range p.members {
		offered := strings.Join(formatAll(plain(m.offered)), ", ")
		if offered == "" {
			offered = "nothing"
		}
		who = append(who, fmt.Sprintf("%s offers %s", m.Node.Name, offered))
	}
	return hint.New(fmt.Sprintf("no node of builder %s offers %s: %s", builder, want, strings.Join(who, "; ")),
		fmt.Sprintf("add a node for it: berth create --append --name %s --platform %s ENDPOINT", hint.Quote(builder), hint.Quote(want)),
		fmt.Sprintf("if the Dockerfile cross-builds for it, or a node emulates it, say which: berth create --append --name %s --node %s --platform %s %s",
			hint.Quote(builder), hint.Quote(p.members[0].Node.Name), hint.Quote(want), hint.Quote(p.members[0].Node.Endpoint)))
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

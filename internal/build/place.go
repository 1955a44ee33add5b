package build

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

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
	node    builder.Node
	target  remote.Target
	conn    *remote.Conn
	offered []ocispecs.Platform
	err     error
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
	prefix string // before the names of its steps, when several nodes build
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
			one.prefix = strings.Join(formatAll(want), " ")
		}
		parts = append(parts, one)
	}
	return parts, nil
}

// place connects to the nodes that the request needs and shares its platforms
// out among them. On error all connections are closed.
func place(ctx context.Context, b *builder.Builder, req request.Request, o Options) (*placement, error) {
	if b.Err != nil {
		return nil, b.Err
	}
	if len(b.Nodes) == 0 {
		return nil, hint.New(fmt.Sprintf("builder %s has no nodes", b.Name),
			fmt.Sprintf("add one: berth create --append --name %s ENDPOINT", b.Name))
	}
	p := &placement{}
	for _, n := range needed(b.Nodes, req.Platforms) {
		p.members = append(p.members, &member{node: n})
	}
	var wg sync.WaitGroup
	askWorkers := len(p.members) > 1
	for _, m := range p.members {
		wg.Go(func() { m.connect(ctx, askWorkers, o) })
	}
	wg.Wait()
	if err := p.choose(req.Platforms); err != nil {
		p.close()
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, err
	}
	return p, nil
}

// needed leaves out the nodes that cannot be chosen: without a platform the
// first one builds, and when the platforms that owners fixed cover all that is
// wanted, the others need not be woken.
func needed(nodes []builder.Node, want []ocispecs.Platform) []builder.Node {
	if len(want) == 0 || len(nodes) == 1 {
		return nodes[:1]
	}
	var fixed []builder.Node
	covered := map[int]bool{}
	for _, n := range nodes {
		use := false
		for i, w := range want {
			if !covered[i] && offers(n.Platforms, w) {
				covered[i], use = true, true
			}
		}
		if use {
			fixed = append(fixed, n)
		}
	}
	if len(covered) == len(want) {
		return fixed
	}
	return nodes
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

// choose gives every platform to a member: one whose owner fixed it, else the
// first that offers it, else the first that answers, which may be able to
// cross-build it.
func (p *placement) choose(want []ocispecs.Platform) error {
	p.chosen = map[int][]ocispecs.Platform{}
	if len(p.members) == 1 {
		p.chosen[0] = want
		return p.members[0].err
	}
	for _, w := range want {
		i := slices.IndexFunc(p.members, func(m *member) bool { return m.err == nil && offers(m.node.Platforms, w) })
		if i < 0 {
			i = slices.IndexFunc(p.members, func(m *member) bool { return m.err == nil && offers(m.offered, w) })
		}
		if i < 0 {
			// An unreachable node may be the one that offers it; building
			// elsewhere would hide that, so its failure is the answer.
			if err := p.firstError(); err != nil {
				return err
			}
			i = 0
		}
		p.chosen[i] = append(p.chosen[i], w)
	}
	return nil
}

func (p *placement) firstError() error {
	for _, m := range p.members {
		if m.err != nil {
			return m.err
		}
	}
	return nil
}

func offers(list []ocispecs.Platform, w ocispecs.Platform) bool {
	m := platforms.OnlyStrict(w)
	return slices.ContainsFunc(list, func(p ocispecs.Platform) bool { return m.Match(platforms.Normalize(p)) })
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
	last    string
	shown   time.Duration // the time left when last was shown
}

// waitEvery is how often an unchanged cause is said again.
const waitEvery = 5 * time.Second

func (w *waitStep) show(now remote.Waiting) {
	if w.step == nil {
		w.step = w.printer.Step("[internal] connecting to " + w.node)
	}
	cause := ""
	if now.Cause != nil {
		cause = now.Cause.Error()
	}
	if cause == w.last && w.shown-now.Left < waitEvery {
		return
	}
	w.last, w.shown = cause, now.Left
	w.step.Log(now.String())
}

func (w *waitStep) done(err error) {
	if w.step != nil {
		w.step.Done(err)
	}
}

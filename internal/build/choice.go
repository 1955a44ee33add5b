package build

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
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

// patience is how long a member alone is waited for before the next one is
// connected to, too.
const patience = 500 * time.Millisecond

// The times between two rounds.
const (
	firstRest = 50 * time.Millisecond // where nobody could be reached; it grows
	maxRest   = time.Second
	regather  = 10 * time.Second // how often is looked for members that are new
)

// Lapses remembers daemons that could not be reached, for all processes, so that
// others are tried first for a while. internal/state has the real one. All methods
// may be called by several goroutines; what cannot be remembered is forgotten.
type Lapses interface {
	// Away tells whether the daemon at an address is better tried last.
	Away(address string) bool
	// Lapsed remembers that it could not be reached, or was lost.
	Lapsed(ctx context.Context, address, why string)
	// Recovered forgets that, since it has answered.
	Recovered(ctx context.Context, address string)
	// Unfit remembers that it answers, but cannot build.
	Unfit(ctx context.Context, address, why string)
	// Built forgets that, too.
	Built(ctx context.Context, address string)
	// Native is the OS and architecture that the daemon at an address had when it
	// answered last; "" where that is not known.
	Native(address string) string
	// SetNative remembers them.
	SetNative(ctx context.Context, address, native string)
}

// choice is the choosing of daemons out of several, for one run.
type choice struct {
	b      *builder.Builder
	nodes  []builder.Node // those that may get builds
	want   []ocispecs.Platform
	native bool // some build wants no platform
	all    bool // there is work for many
	o      Options

	step *progress.Step // shown while nobody can be had; nil until then
	said string
	when time.Time
}

// place makes rounds until members are found, or the time is over.
func (c *choice) place(ctx context.Context) (_ *placement, err error) {
	defer func() {
		if c.step != nil {
			c.step.Done(err)
		}
	}()
	settings := pool.SettingsOf(c.b.Nodes)
	var p *placement
	rest := firstRest
	var gathered, failing time.Time // when they were found; since when they cannot be reached
	full := false
	q := c.o.queue
	if q == nil {
		q = &queue{}
	}
	for {
		if p == nil || time.Since(gathered) > regather || !full {
			if p != nil {
				p.close()
			}
			p, gathered = c.gather(ctx, settings.Policy), time.Now()
			if n, ok := alone(c.nodes, p); ok {
				return placeOnOne(ctx, n, c.want, c.o)
			}
		}
		began := time.Now()
		err := c.round(ctx, p)
		switch {
		case err == nil:
			c.settle(ctx, p)
			return p, nil
		case ctx.Err() != nil:
			p.close()
			return nil, context.Cause(ctx)
		case errors.Is(err, errFull):
			full, failing = true, time.Time{}
			took := time.Since(began)
			q.begin()
			waited := time.Since(q.since)
			if waited > settings.Queue {
				p.close()
				return nil, c.tooLong(p, settings.Queue)
			}
			c.tell("[internal] waiting for a daemon of "+c.b.Name, fmt.Sprintf("%s, %s of %s waited", c.crowd(p), waited.Round(time.Second), settings.Queue))
			between := q.rest(waited, took)
			if !sleep(ctx, between/2+rand.N(between)) {
				p.close()
				return nil, context.Cause(ctx)
			}
		default:
			if full = false; failing.IsZero() {
				failing, rest = began, firstRest
			}
			left := c.budget() - time.Since(failing)
			if !heals(err) || left <= 0 {
				p.close()
				return nil, err
			}
			if time.Since(failing) > patience {
				c.tell("[internal] connecting to "+c.b.Name, fmt.Sprintf("waiting for one of %d daemons: %v, %s left", len(p.members), err, left.Round(time.Second)))
			}
			if !sleep(ctx, min(left, rest*4/5+rand.N(rest*2/5))) {
				p.close()
				return nil, context.Cause(ctx)
			}
			rest = min(rest*8/5, maxRest)
		}
	}
}

// alone is the node of a builder with one daemon and no limit. It is dialled as it
// stands, which finds another daemon when that one goes.
func alone(nodes []builder.Node, p *placement) (builder.Node, bool) {
	return nodes[0], len(nodes) == 1 && len(p.members) == 1 && p.members[0].Target.Options.MaxBuilds == 0
}

// tell shows why it takes time: what is new at once, and what is not now and then.
func (c *choice) tell(step, text string) {
	if c.step == nil {
		c.step = c.o.Progress.Step(step)
	}
	cause, _, _ := strings.Cut(text, ", ")
	if cause == c.said && time.Since(c.when) < 5*time.Second {
		return
	}
	c.said, c.when = cause, time.Now()
	c.step.Log(text)
}

// budget is how long the connecting may take.
func (c *choice) budget() time.Duration {
	longest := c.o.Budget
	for _, n := range c.nodes {
		if t, err := n.Target(); err == nil && c.o.Budget <= 0 {
			longest = max(longest, t.Options.ConnectTimeout)
		}
	}
	if longest <= 0 {
		return remote.DefaultBudget
	}
	return longest
}

// heals tells whether what failed may be better soon: any part of it.
func heals(err error) bool {
	switch e := err.(type) { //nolint:errorlint // the whole tree is walked here
	case *remote.Failure:
		return e.Heals
	case interface{ Unwrap() error }:
		return heals(e.Unwrap())
	case interface{ Unwrap() []error }:
		return slices.ContainsFunc(e.Unwrap(), heals)
	}
	return false
}

// gather finds the members, in the order in which they are to be tried.
func (c *choice) gather(ctx context.Context, policy endpoint.Pool) *placement {
	nodes := c.nodes
	if allOwned(nodes, c.want) && !c.native { // the others need not be woken
		nodes = slices.DeleteFunc(slices.Clone(nodes), func(n builder.Node) bool {
			return !slices.ContainsFunc(c.want, func(w ocispecs.Platform) bool { return offers(n.Platforms, w) })
		})
	}
	found := pool.Members(ctx, nodes, c.o.Schemes)
	away := func(m pool.Member) bool {
		return c.o.avoid[m.Key()] || c.o.Lapses != nil && c.o.Lapses.Away(m.Key())
	}
	order := pool.Order(policy, c.o.Affinity, found, away)
	if len(order) > pool.MaxMembers {
		order = order[:pool.MaxMembers]
	}
	p := &placement{policy: policy, first: c.nodes[0].Name}
	kept := slices.Sorted(slices.Values(order))
	for _, i := range kept {
		m := found[i]
		one := &member{Member: m}
		if c.o.Lapses != nil {
			one.was = c.o.Lapses.Native(m.Key())
		}
		p.members = append(p.members, one)
	}
	for _, i := range order {
		at, _ := slices.BinarySearch(kept, i)
		if c.o.prefer != "" && found[i].Key() == c.o.prefer {
			p.order = append([]int{at}, p.order...)
			continue
		}
		p.order = append(p.order, at)
	}
	return p
}

// round asks members until it is known which of them build, or that none can now.
// Those that were found full are asked again whether they still are.
func (c *choice) round(ctx context.Context, p *placement) error {
	ctx, enough := context.WithCancelCause(ctx)
	defer enough(errNotNeeded)
	began := time.Now()
	done := make(chan *member)
	running := 0
	begin := func(m *member) {
		m.asked, m.answered, m.err = time.Now(), false, nil
		running++
		go func() {
			c.ask(ctx, m)
			done <- m
		}()
	}
	for _, m := range p.members {
		if m.answered && m.err == nil && m.full() {
			begin(m)
		}
	}
	everybody := c.all || p.policy == endpoint.PoolLeastBusy
	if everybody {
		for _, m := range p.members {
			if m.asked.IsZero() {
				begin(m)
			}
		}
	}
	tick := time.NewTicker(patience / 5)
	defer tick.Stop()
	var err error
	for {
		err = errUndecided
		if !everybody || running == 0 || time.Since(began) >= patience {
			if p.policy == endpoint.PoolLeastBusy {
				p.byLoad()
			}
			var asking []*member
			err = c.decide(p, func(m *member) { asking = append(asking, m) })
			for _, m := range asking {
				if m.asked.IsZero() {
					begin(m)
				}
			}
		}
		if !errors.Is(err, errUndecided) {
			break
		}
		select {
		case m := <-done:
			running--
			m.answered = true
			c.note(ctx, m)
		case <-tick.C:
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
		if ctx.Err() != nil {
			break
		}
	}
	enough(errNotNeeded)
	for ; running > 0; running-- {
		m := <-done
		m.answered = m.err == nil || !errors.Is(m.err, errNotNeeded)
		if !m.answered {
			m.asked, m.err = time.Time{}, nil
		}
	}
	return err
}

// decide chooses for all that is wanted.
func (c *choice) decide(p *placement, need func(*member)) error {
	now := time.Now()
	chosen := map[int][]ocispecs.Platform{}
	var err error
	if len(c.want) > 0 {
		chosen, err = p.choose(c.want, now, need)
	}
	if c.native && (err == nil || errors.Is(err, errUndecided)) {
		own, nerr := p.choose(nil, now, need)
		for i := range own {
			if _, ok := chosen[i]; !ok && chosen != nil {
				chosen[i] = nil
			}
		}
		if err == nil {
			err = nerr
		}
	}
	if err == nil {
		p.chosen = chosen
	}
	return err
}

// byLoad puts those first that have fewer builds; who does not say comes last.
func (p *placement) byLoad() {
	slices.SortStableFunc(p.order, func(a, b int) int {
		x, y := p.members[a], p.members[b]
		switch {
		case x.told && y.told:
			return x.active - y.active
		case x.told:
			return -1
		case y.told:
			return 1
		}
		return 0
	})
}

// ask connects to a member, if that was not done, and asks what it builds for and
// how busy it is.
func (c *choice) ask(ctx context.Context, m *member) {
	if m.Err != nil {
		m.err = m.Err
		return
	}
	if m.conn != nil && m.conn.Lost() != nil {
		m.hangUp()
	}
	if m.conn == nil {
		m.connect(ctx, remote.Config{Schemes: c.o.Schemes, Budget: c.budget(), Once: true, Ask: true, KeepAlive: true}, c.o)
		if m.err != nil {
			return
		}
	}
	workers, err := m.conn.Workers(ctx)
	if err != nil {
		m.err = err
		m.hangUp()
		return
	}
	m.offered = builder.Offered(m.Node, builder.Status{Workers: workers})
	if len(workers) > 0 && len(workers[0].Platforms) > 0 {
		own := platforms.Normalize(workers[0].Platforms[0])
		m.native = own.OS + "/" + own.Architecture
	}
	m.told, m.mute = false, nil
	if request.CapabilitiesOf(m.conn.Version()).ActiveBuilds() {
		switch all, err := pool.Active(ctx, m.conn.Client()); {
		case err == nil:
			m.active, m.told = len(all), true
		case m.Target.Options.MaxBuilds > 0 && pool.Busy(err):
			m.mute = err
		}
	}
}

// note remembers how a member answered.
func (c *choice) note(ctx context.Context, m *member) {
	var f *remote.Failure
	switch {
	case c.o.Lapses == nil || ctx.Err() != nil || m.Err != nil:
	case m.err == nil:
		c.o.Lapses.Recovered(ctx, m.Key())
		if m.native != "" && m.Node.Name == c.nodes[0].Name {
			c.o.Lapses.SetNative(ctx, m.Key(), m.native)
		}
	case errors.As(m.err, &f):
		c.o.Lapses.Lapsed(ctx, m.Key(), f.Cause.Error())
	}
}

// settle closes what is not needed, and says what was chosen.
func (c *choice) settle(ctx context.Context, p *placement) {
	healthy := 0
	var using []string
	for i, m := range p.members {
		if m.err == nil && (m.answered || c.o.Lapses == nil || !c.o.Lapses.Away(m.Key())) {
			healthy++
		}
		_, ok := p.chosen[i]
		if ok {
			using = append(using, m.Name)
		}
		if !ok && !c.all {
			m.hangUp()
		}
	}
	if len(p.members) < 2 || c.all || ctx.Err() != nil {
		return
	}
	name := using[0]
	if len(using) > 1 {
		slices.Sort(using)
		name = strings.Join(using, " and ")
	}
	load := ""
	if len(p.chosen) == 1 {
		load = p.one().load()
	}
	c.o.Progress.Step(fmt.Sprintf("[internal] using node %s (%s, %d of %d healthy%s)", name, p.policy, healthy, len(p.members), load)).Done(nil)
	if c.o.Debug {
		c.explain(p)
	}
}

// load is how many builds the member has, for a sentence.
func (m *member) load() string {
	switch {
	case !m.told:
		return ""
	case m.active == 1:
		return ", 1 active build"
	}
	return fmt.Sprintf(", %d active builds", m.active)
}

// explain says how the choice was made.
func (c *choice) explain(p *placement) {
	step := c.o.Progress.Step("[internal] how the node was chosen")
	defer step.Done(nil)
	step.Log(fmt.Sprintf("policy %s, affinity key %q; in this order:", p.policy, c.o.Affinity))
	for _, i := range p.tried() {
		m := p.members[i]
		state := "not asked"
		switch {
		case m.err != nil:
			state = m.err.Error()
		case m.answered:
			state = "answers" + m.load()
		}
		if c.o.Lapses != nil && c.o.Lapses.Away(m.Key()) {
			state += " (failed a short time ago)"
		}
		step.Log("  " + m.Name + ": " + state)
	}
}

// crowd says how many daemons have no room.
func (c *choice) crowd(p *placement) string {
	n, mute := 0, 0
	for _, m := range p.members {
		if m.err == nil && m.full() {
			n++
			if m.mute != nil {
				mute++
			}
		}
	}
	switch {
	case n == 1 && mute == 1:
		return "the daemon has so much to do that it does not say how many builds it has"
	case n == 1:
		return "the daemon has as many builds as max-builds allows"
	case mute > 0:
		return fmt.Sprintf("all %d daemons that answer have as many builds as max-builds allows, or (%d of them) so much to do that they do not say so", n, mute)
	}
	return fmt.Sprintf("all %d daemons that answer have as many builds as max-builds allows", n)
}

// tooLong is for a build that waited for room in vain.
func (c *choice) tooLong(p *placement, queue time.Duration) error {
	return hint.New(fmt.Sprintf("no daemon of builder %s had room within %s: %s", c.b.Name, queue, c.crowd(p)),
		"see what they build: berth history ls --builder "+hint.Quote(c.b.Name),
		"wait longer: the driver option "+endpoint.OptQueueTimeout, "allow more: the driver option "+endpoint.OptMaxBuilds)
}

// sleep waits, and tells whether ctx still lives.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

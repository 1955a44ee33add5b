package build

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/berthbuild/berth/internal/builder"
	"github.com/berthbuild/berth/internal/buildkittest"
	"github.com/berthbuild/berth/internal/dial/dialtest"
	"github.com/berthbuild/berth/internal/endpoint"
	"github.com/berthbuild/berth/internal/remote"
	"github.com/containerd/platforms"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// short is what was chosen: "0:linux/amd64,linux/386 1:linux/arm64".
func short(chosen map[int][]ocispecs.Platform) string {
	var all []string
	for i := range 9 {
		if list, ok := chosen[i]; ok {
			all = append(all, fmt.Sprintf("%d:%s", i, strings.Join(formatAll(list), ",")))
		}
	}
	return strings.Join(all, " ")
}

func TestChoose(t *testing.T) {
	up := func(offered ...string) *member { return &member{answered: true, offered: plats(offered...)} }
	fixed := func(m *member, list ...string) *member {
		m.Node.Platforms = plats(list...)
		return m
	}
	down := func(name string) *member { return &member{answered: true, err: errors.New(name + " is down")} }
	now := time.Unix(1_000_000, 0)
	pending := func() *member { return &member{asked: now} }
	slow := func() *member { return &member{asked: now.Add(-patience)} }
	idle := func() *member { return &member{} }
	busy := func(m *member) *member {
		m.told, m.active, m.Target.Options.MaxBuilds = true, 2, 2
		return m
	}
	mute := func(m *member) *member {
		m.mute, m.Target.Options.MaxBuilds = errors.New("too much to do"), 2
		return m
	}
	was := func(m *member, native string) *member {
		m.was = native
		return m
	}
	kind := func(m *member, native string) *member {
		m.native = native
		return m
	}
	for _, c := range []struct {
		name    string
		members []*member
		want    string // platforms
		chosen  string
		err     string
	}{
		{"one node takes all", []*member{up()}, "linux/arm64 linux/amd64", "0:linux/arm64,linux/amd64", ""},
		{"one node, no platform", []*member{up()}, "", "0:", ""},
		{"one node, down", []*member{down("a")}, "", "", "a is down"},
		{"the first that offers", []*member{up("linux/amd64"), up("linux/amd64", "linux/arm64")}, "linux/amd64 linux/arm64", "0:linux/amd64 1:linux/arm64", ""},
		{"the owner's word before what is offered", []*member{up("linux/amd64", "linux/arm64"), fixed(up("linux/arm64"), "linux/arm64")}, "linux/arm64 linux/amd64", "0:linux/amd64 1:linux/arm64", ""},
		{"variants are told apart", []*member{up("linux/arm/v6"), up("linux/arm/v7")}, "linux/arm/v7", "1:linux/arm/v7", ""},
		{"arm64 is arm64/v8", []*member{up("linux/amd64"), up("linux/arm64/v8")}, "linux/arm64", "1:linux/arm64", ""},
		{"nobody offers it", []*member{up("linux/amd64", "linux/386"), up()}, "linux/amd64 linux/s390x", "",
			"no node of builder b offers linux/s390x: n0 offers linux/amd64, linux/386; n1 offers nothing"},
		{"nobody's owner fixed it, and nobody offers it", []*member{fixed(up("linux/arm64"), "linux/arm64"), up("linux/amd64")}, "linux/arm64 linux/s390x", "",
			"no node of builder b offers linux/s390x: n0 offers linux/arm64; n1 offers linux/amd64"},
		{"one that does not say how much it has gets nothing", []*member{mute(up("linux/amd64")), up("linux/amd64")}, "linux/amd64", "1:linux/amd64", ""},
		{"nobody says so", []*member{mute(up("linux/amd64")), busy(up("linux/amd64"))}, "linux/amd64", "", errFull.Error()},
		{"one node is the only choice", []*member{fixed(up("linux/arm64"), "linux/arm64")}, "linux/s390x", "0:linux/s390x", ""},
		{"a newer variant runs the older", []*member{up("linux/amd64"), up("linux/arm/v7")}, "linux/arm/v5", "1:linux/arm/v5", ""},
		{"an older variant does not run the newer", []*member{up("linux/amd64"), up("linux/amd64/v2")}, "linux/amd64/v3", "",
			"no node of builder b offers linux/amd64/v3: n0 offers linux/amd64; n1 offers linux/amd64/v2"},
		{"another architecture does not, whatever it can run", []*member{up("linux/amd64"), up("linux/arm64")}, "linux/386", "",
			"no node of builder b offers linux/386: n0 offers linux/amd64; n1 offers linux/arm64"},
		{"one is down and not needed", []*member{up("linux/amd64"), down("b")}, "linux/amd64", "0:linux/amd64", ""},
		{"the first is down, the second does", []*member{down("a"), up("linux/amd64")}, "linux/amd64", "1:linux/amd64", ""},
		{"the one that is down may be meant", []*member{up("linux/amd64"), down("b")}, "linux/arm64", "", "no node for linux/arm64: b is down"},
		{"the owner's node is down", []*member{up("linux/amd64", "linux/arm64"), fixed(down("b"), "linux/arm64")}, "linux/amd64 linux/arm64", "", "no node for linux/arm64: b is down"},
		{"one of two owner's nodes is down", []*member{fixed(down("a"), "linux/arm64"), fixed(up(), "linux/arm64")}, "linux/arm64", "1:linux/arm64", ""},
		{"all are down", []*member{down("a"), down("b"), down("c")}, "linux/amd64", "", "no node for linux/amd64: a is down; b is down; c is down"},
		{"a later one need not be waited for", []*member{up("linux/amd64"), pending()}, "linux/amd64", "0:linux/amd64", ""},
		{"an earlier one must be", []*member{pending(), up("linux/amd64")}, "linux/amd64", "", "an answer is missing"},
		{"one that might offer it must be", []*member{up("linux/amd64"), pending()}, "linux/arm64", "", "an answer is missing"},
		{"nobody waits for others than the owner's", []*member{pending(), fixed(up(), "linux/arm64")}, "linux/arm64", "1:linux/arm64", ""},
		{"nobody waits for one that is slow", []*member{slow(), up("linux/amd64")}, "linux/amd64", "1:linux/amd64", ""},
		{"unless nobody else can", []*member{slow(), down("b")}, "linux/amd64", "", "an answer is missing"},
		{"the next is asked when one is slow", []*member{slow(), idle()}, "linux/amd64", "", "an answer is missing; asked n1"},
		{"only the first is asked at first", []*member{idle(), idle()}, "linux/amd64", "", "an answer is missing; asked n0"},
		{"one that has enough builds is passed over", []*member{busy(up("linux/amd64")), up("linux/amd64")}, "linux/amd64", "1:linux/amd64", ""},
		{"all have enough", []*member{busy(up("linux/amd64")), busy(up("linux/amd64"))}, "linux/amd64", "", "every daemon has as many builds as it may have"},
		{"one has enough, and one is down", []*member{busy(up("linux/amd64")), down("b")}, "linux/amd64", "", "every daemon has as many builds as it may have"},
		{"no platform: the first node's own", []*member{kind(up(), "linux/amd64"), kind(up(), "linux/arm64")}, "", "0:", ""},
		{"no platform, the first has enough", []*member{busy(kind(up(), "linux/amd64")), kind(up(), "linux/arm64"), kind(up(), "linux/amd64")}, "", "2:", ""},
		{"no platform, the first is down", []*member{was(down("a"), "linux/amd64"), kind(up(), "linux/arm64"), kind(up(), "linux/amd64")}, "", "2:", ""},
		{"no platform, the first is slow", []*member{was(slow(), "linux/amd64"), kind(up(), "linux/amd64")}, "", "1:", ""},
		{"no platform, the first is slow, and nobody knows its platform", []*member{slow(), kind(up(), "linux/amd64")}, "", "", "an answer is missing"},
		{"no platform, the first is down, and nobody knows its platform", []*member{down("a"), kind(up(), "linux/arm64")}, "", "",
			"the platform to build for is that of node n0: a is down"},
		{"no platform, the first is down, and another is not there yet", []*member{was(down("a"), "linux/arm64"), pending()}, "", "", "an answer is missing"},
		{"no platform, all are down", []*member{was(down("a"), "linux/arm64"), down("b")}, "", "", "a is down; b is down"},
		{"the owner's are down: no need to wait", []*member{fixed(down("a"), "linux/arm64"), pending()}, "linux/arm64", "", "no node for linux/arm64: a is down"},
	} {
		p := &placement{members: c.members, first: "n0"}
		for i, m := range c.members {
			m.Node.Builder, m.Node.Name = "b", fmt.Sprint("n", i)
		}
		asked := ""
		chosen, err := p.choose(plats(strings.Fields(c.want)...), now, func(m *member) { asked += "; asked " + m.Node.Name })
		if asked != "" && err != nil {
			err = errors.New(err.Error() + asked)
		}
		switch {
		case c.err == "" && (err != nil || short(chosen) != c.chosen):
			t.Errorf("%s: %q, %v; want %q", c.name, short(chosen), err, c.chosen)
		case c.err != "" && (err == nil || err.Error() != c.err):
			t.Errorf("%s: %v, want %q", c.name, err, c.err)
		}
	}
}

// A member that has to emulate a platform is taken when no other is there.
func TestForeign(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	emulates := func() *member {
		return &member{answered: true, native: "linux/amd64", offered: plats("linux/amd64", "linux/arm64")}
	}
	own := func() *member { return &member{answered: true, native: "linux/arm64", offered: plats("linux/arm64")} }
	full := func(m *member) *member {
		m.told, m.active, m.Target.Options.MaxBuilds = true, 1, 1
		return m
	}
	down := &member{answered: true, err: errors.New("b is down")}
	for _, c := range []struct {
		name    string
		policy  endpoint.Pool
		members []*member
		chosen  string
		err     error
	}{
		{"the one of that kind", endpoint.PoolAffinity, []*member{emulates(), own()}, "1:linux/arm64", nil},
		{"which is waited for when it is full", endpoint.PoolAffinity, []*member{emulates(), full(own())}, "", errFull},
		{"and not when it is down", endpoint.PoolAffinity, []*member{emulates(), down}, "0:linux/arm64", nil},
		{"nor when it is slow", endpoint.PoolAffinity, []*member{emulates(), {asked: now.Add(-patience)}}, "0:linux/arm64", nil},
		{"its answer is waited for", endpoint.PoolAffinity, []*member{emulates(), {asked: now}}, "", errUndecided},
		{"the owner's order", endpoint.PoolFirst, []*member{emulates(), own()}, "0:linux/arm64", nil},
	} {
		p := &placement{members: c.members, policy: c.policy}
		chosen, err := p.choose(plats("linux/arm64"), now, func(*member) {})
		if !errors.Is(err, c.err) || short(chosen) != c.chosen {
			t.Errorf("%s: %q, %v", c.name, short(chosen), err)
		}
	}
}

func TestOffers(t *testing.T) {
	for _, c := range []struct {
		list, want string
		ok         bool
	}{
		{"linux/amd64", "linux/amd64", true},
		{"linux/amd64", "linux/amd64/v2", false},
		{"linux/amd64/v2", "linux/amd64", false},
		{"linux/arm/v7", "linux/arm", true},
		{"linux/arm64", "linux/arm/v7", false},
		{"windows/amd64", "linux/amd64", false},
	} {
		list := []ocispecs.Platform{platforms.MustParse(c.list)} // as stored, not normalised
		if got := offers(list, plats(c.want)[0]); got != c.ok {
			t.Errorf("%s offers %s: %v", c.list, c.want, got)
		}
	}
}

// run places a build and gives the nodes that got it.
func run(t *testing.T, o Options, want []string, nodes ...builder.Node) ([]string, error) {
	t.Helper()
	r := req(t)
	r.Platforms = plats(want...)
	res, err := Run(t.Context(), builderOf(nodes...), r, o)
	if err != nil {
		return nil, err
	}
	var got []string
	for _, p := range res.Parts {
		got = append(got, p.Node+" "+strings.Join(formatAll(p.Platforms), ","))
	}
	return got, nil
}

// A node that is not needed neither fails the build nor holds it up, and is
// left alone as soon as that is known.
func TestNodeNotNeeded(t *testing.T) {
	dialtest.NoLeaks(t)
	amd := daemon(t, nil, "linux/amd64")
	arm := daemon(t, nil, "linux/arm64")
	hangs := buildkittest.Raw(t, buildkittest.Silence)
	dead := "tcp://" + buildkittest.FreeAddr(t)
	o := options(t)
	o.Budget = time.Hour // whoever waits for a dead node waits longer than the test may
	for _, c := range []struct {
		name  string
		want  []string
		nodes []builder.Node
		got   []string
	}{
		{"after the one that does", []string{"linux/amd64"}, []builder.Node{node("a", amd.Endpoint()), node("dead", dead), node("hangs", hangs)}, []string{"a linux/amd64"}},
		{"no platform", nil, []builder.Node{node("a", amd.Endpoint()), node("dead", dead)}, []string{"a "}},
		{"before, with an owner's word", []string{"linux/arm64"}, []builder.Node{node("dead", dead), node("b", arm.Endpoint(), "linux/arm64")}, []string{"b linux/arm64"}},
		{"two of three", []string{"linux/amd64", "linux/arm64"}, []builder.Node{node("a", amd.Endpoint()), node("b", arm.Endpoint()), node("hangs", hangs)}, []string{"a linux/amd64", "b linux/arm64"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := run(t, o, c.want, c.nodes...)
			if err != nil {
				t.Fatal(err)
			}
			equal(t, "parts", got, c.got)
		})
	}
	if got, err := run(t, o, []string{"linux/amd64"}, builder.Node{Builder: "b", Name: "odd", Driver: "docker"}, node("a", amd.Endpoint())); err != nil || len(got) != 1 {
		t.Errorf("a node that this version cannot dial: %v, %v", got, err)
	}
}

// A node that is needed names itself.
func TestNodeNeeded(t *testing.T) {
	dialtest.NoLeaks(t)
	amd := daemon(t, nil, "linux/amd64")
	dead := "tcp://" + buildkittest.FreeAddr(t)
	o := options(t)
	o.Budget = 500 * time.Millisecond
	for name, nodes := range map[string][]builder.Node{
		"the owner's word":         {node("a", amd.Endpoint()), node("dead", dead, "linux/arm64")},
		"the only one that may be": {node("a", amd.Endpoint()), node("dead", dead)},
	} {
		_, err := run(t, o, []string{"linux/amd64", "linux/arm64"}, nodes...)
		var f *remote.Failure
		if !errors.As(err, &f) || !strings.Contains(err.Error(), "node dead of builder b at "+dead) || !strings.Contains(err.Error(), "linux/arm64") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if len(amd.Requests()) > 0 {
		t.Error("half of it was built")
	}
}

// An unreachable node that comes up in time is used.
func TestNodeComesUp(t *testing.T) {
	amd := daemon(t, nil, "linux/amd64")
	addr := buildkittest.FreeAddr(t)
	var late sync.Once
	o := optionsShowing(t, writer(func(b []byte) (int, error) {
		if strings.Contains(string(b), "connecting to b") { // it is said that it is waited for
			late.Do(func() {
				buildkittest.New(t, buildkittest.Options{Address: addr, Workers: []buildkittest.Worker{{ID: "w", Platforms: []string{"linux/arm64"}}}})
			})
		}
		return len(b), nil
	}))
	got, err := run(t, o, []string{"linux/amd64", "linux/arm64"}, node("a", amd.Endpoint()), node("b", "tcp://"+addr))
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "parts", got, []string{"a linux/amd64", "b linux/arm64"})
}

// When one node's part fails, the others are cancelled, and the failure says
// whose it was.
func TestOnePartFails(t *testing.T) {
	dialtest.NoLeaks(t)
	cancelled := make(chan struct{})
	started := make(chan struct{})
	slow := daemon(t, func(ctx context.Context, _ *buildkittest.Build) (map[string]string, error) {
		close(started)
		<-ctx.Done()
		close(cancelled)
		return nil, ctx.Err()
	})
	bad := daemon(t, func(ctx context.Context, _ *buildkittest.Build) (map[string]string, error) {
		<-started
		return nil, theirs(ctx, errors.New("no such file"))
	})
	_, err := run(t, options(t), []string{"linux/amd64", "linux/arm64"}, node("a", slow.Endpoint(), "linux/amd64"), node("b", bad.Endpoint(), "linux/arm64"))
	if err == nil || err.Error() != "linux/arm64 on node b: failed to solve: no such file" {
		t.Errorf("%v", err)
	}
	<-cancelled
}

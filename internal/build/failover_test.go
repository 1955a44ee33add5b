package build

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/berthbuild/berth/internal/builder"
	"github.com/berthbuild/berth/internal/buildflag"
	"github.com/berthbuild/berth/internal/buildkittest"
	"github.com/berthbuild/berth/internal/dial/dialtest"
	"github.com/berthbuild/berth/internal/outcome"
	"github.com/berthbuild/berth/internal/request"
	controlapi "github.com/moby/buildkit/api/services/control"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// first has the nodes tried as they stand.
func first(nodes ...builder.Node) *builder.Builder {
	for i := range nodes {
		nodes[i].DriverOpts = map[string]string{"pool": "first"}
	}
	return builderOf(nodes...)
}

// A daemon that is lost in the middle is stood in for by another one, once its part
// may be done again; what was made there is not.
func TestFailover(t *testing.T) {
	dialtest.NoLeaks(t)
	for _, c := range []struct {
		name   string
		step   string // that the daemon has begun when it is lost
		output buildflag.Output
		opts   string // of the builder
		again  bool
	}{
		{name: "in the middle", step: "RUN", output: output(buildflag.OutputImage, ""), again: true},
		{name: "while it exports into its own store", step: "exporting to image", output: output(buildflag.OutputImage, ""), again: true},
		{name: "before it pushes", step: "RUN", output: output(buildflag.OutputImage, "", "push", "true", "name", "localhost:1/a"), again: true},
		{name: "when it may have pushed", step: "exporting to image", output: output(buildflag.OutputImage, "", "push", "true", "name", "localhost:1/a")},
		{name: "when it may have written to the standard output", step: "exporting to client tarball", output: output(buildflag.OutputTar, buildflag.Stdout)},
		{name: "where that is not wanted", step: "RUN", output: output(buildflag.OutputImage, ""), opts: "0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out buffer
			var once sync.Once
			shown := make(chan struct{})
			o := optionsShowing(t, writer(func(b []byte) (int, error) {
				n, err := out.Write(b)
				if strings.Contains(out.String(), c.step) {
					once.Do(func() { close(shown) })
				}
				return n, err
			}))
			var bad *buildkittest.Server
			bad = daemon(t, func(ctx context.Context, b *buildkittest.Build) (map[string]string, error) {
				b.Step(c.step)
				go func() {
					<-shown
					bad.Kill()
				}()
				<-ctx.Done()
				return nil, ctx.Err()
			}, "linux/amd64")
			good := daemon(t, nil, "linux/amd64")
			lapses := &recall{}
			o.Lapses = lapses
			b := first(node("bad", bad.Endpoint()), node("good", good.Endpoint()))
			if c.opts != "" {
				b.Nodes[0].DriverOpts["retries"] = c.opts
			}
			res, err := Run(t.Context(), b, req(t, c.output), o)
			o.Progress.Close()
			var lost *Lost
			switch {
			case c.again && (err != nil || res.Parts[0].Node != "good"):
				t.Fatalf("%v, %v", res, err)
			case !c.again && !errors.As(err, &lost):
				t.Fatalf("%v, %v", res, err)
			}
			if said := strings.Contains(out.String(), "building again: connection to node bad"); said != c.again {
				t.Errorf("that it is built again is said: %v\n%s", said, out.String())
			}
			if c.again != lapses.Away(bad.Endpoint()) || lapses.Away(good.Endpoint()) {
				t.Errorf("remembered: %v", lapses.away)
			}
			if !c.again && len(good.Requests()) > 0 {
				t.Error("it was built again")
			}
		})
	}
}

// A connection that is cut while its daemon lives is made again to the same one, and
// to another one when that happens twice.
func TestFailoverPrefersTheSame(t *testing.T) {
	dialtest.NoLeaks(t)
	for cuts, want := range map[int][]string{1: {"a", "a"}, 2: {"a", "a", "b"}} {
		var mu sync.Mutex
		var built []string
		left := cuts
		solve := func(name string, s **buildkittest.Server) solveFunc {
			return func(ctx context.Context, b *buildkittest.Build) (map[string]string, error) {
				b.Step("RUN")
				mu.Lock()
				built = append(built, name)
				cut := left > 0
				left--
				mu.Unlock()
				if !cut {
					return nil, nil
				}
				go (*s).Cut()
				<-ctx.Done()
				return nil, ctx.Err()
			}
		}
		var a, b *buildkittest.Server
		a, b = daemon(t, solve("a", &a), "linux/amd64"), daemon(t, solve("b", &b), "linux/amd64")
		if _, err := Run(t.Context(), first(node("a", a.Endpoint()), node("b", b.Endpoint())), req(t), options(t)); err != nil {
			t.Fatal(err)
		}
		equal(t, fmt.Sprintf("%d cuts", cuts), built, want)
	}
}

// The only daemon of a builder builds again what was cut, when it is there, and not
// when that is not wanted; for one that is gone nobody waits.
func TestFailoverAlone(t *testing.T) {
	dialtest.NoLeaks(t)
	for _, c := range []struct {
		name, retries string
		fault         func(*buildkittest.Server)
		solves        int
		kind          outcome.Kind // "" is that it was built
	}{
		{"cut", "", (*buildkittest.Server).Cut, 2, ""},
		{"cut, and so be it", "0", (*buildkittest.Server).Cut, 1, outcome.Cut},
		{"killed", "", (*buildkittest.Server).Kill, 1, outcome.Ended},
	} {
		var s *buildkittest.Server
		solves := 0
		s = daemon(t, func(ctx context.Context, b *buildkittest.Build) (map[string]string, error) {
			b.Step("RUN")
			if solves++; solves > 1 { // one after the other
				return nil, nil
			}
			go c.fault(s)
			<-ctx.Done()
			return nil, ctx.Err()
		}, "linux/amd64")
		b := builderOf(node("a", s.Endpoint()))
		if c.retries != "" {
			b.Nodes[0].DriverOpts = map[string]string{"retries": c.retries}
		}
		_, err := Run(t.Context(), b, req(t), options(t))
		var lost *Lost
		kind := outcome.Kind("")
		if errors.As(err, &lost) {
			kind = lost.Verdict.Kind
		}
		if solves != c.solves || kind != c.kind || (err == nil) != (c.kind == "") {
			t.Errorf("%s: %d solves: %v", c.name, solves, err)
		}
	}
	solves := 0
	s := daemon(t, func(ctx context.Context, _ *buildkittest.Build) (map[string]string, error) {
		solves++
		return nil, theirs(ctx, context.Canceled)
	})
	_, err := Run(t.Context(), builderOf(node("a", s.Endpoint())), req(t), options(t))
	lostAs(t, "canceled each time", err, outcome.Dropped, "the daemon canceled it")
	if solves != 2 {
		t.Errorf("canceled each time: %d solves", solves)
	}
}

// A daemon that is lost each time is given up in the end; a failure of the build
// itself is never repeated.
func TestFailoverEnds(t *testing.T) {
	dialtest.NoLeaks(t)
	var mu sync.Mutex
	solves := 0
	count := func() {
		mu.Lock()
		defer mu.Unlock()
		solves++
	}
	var a *buildkittest.Server
	a = daemon(t, func(ctx context.Context, b *buildkittest.Build) (map[string]string, error) {
		count()
		b.Step("RUN")
		go a.Cut()
		<-ctx.Done()
		return nil, ctx.Err()
	}, "linux/amd64")
	b := builderOf(node("a", a.Endpoint()))
	b.Nodes[0].DriverOpts = map[string]string{"retries": "3"}
	var lost *Lost
	if _, err := Run(t.Context(), b, req(t), options(t)); !errors.As(err, &lost) || solves != 4 {
		t.Errorf("%d solves: %v", solves, err)
	}
	solves = 0
	fails := daemon(t, func(ctx context.Context, _ *buildkittest.Build) (map[string]string, error) {
		count()
		return nil, theirs(ctx, errors.New("no such file"))
	}, "linux/amd64")
	if _, err := Run(t.Context(), first(node("a", fails.Endpoint()), node("b", fails.Endpoint())), req(t), options(t)); err == nil || solves != 1 {
		t.Errorf("%d solves: %v", solves, err)
	}
}

// What was remembered to be away is tried last, and forgotten when it answers.
func TestLapsesAreTriedLast(t *testing.T) {
	dialtest.NoLeaks(t)
	a, b := daemon(t, nil, "linux/amd64"), daemon(t, nil, "linux/amd64")
	lapses := &recall{}
	o := options(t)
	o.Lapses = lapses
	nodes := first(node("a", a.Endpoint()), node("b", b.Endpoint())).Nodes
	for _, c := range []struct{ away, want string }{{"", "a"}, {a.Endpoint(), "b"}} {
		if c.away != "" {
			lapses.Lapsed(t.Context(), c.away, "refused")
		}
		res, err := Run(t.Context(), builderOf(nodes...), req(t).WithPlatforms(plats("linux/amd64")), o)
		if err != nil || res.Parts[0].Node != c.want {
			t.Errorf("without %q: %v, %v", c.away, res, err)
		}
	}
	// A build for the first node's own platform has to ask it.
	if _, err := Run(t.Context(), builderOf(nodes...), req(t), o); err != nil || lapses.Away(a.Endpoint()) {
		t.Errorf("it answered, and is remembered: %v, %v", lapses.away, err)
	}
}

// busy is a daemon that lists the builds that it has, and others of its own.
type busy struct {
	mu   sync.Mutex
	own  map[string]time.Time
	s    *buildkittest.Server
	late func() // called before a list is made
}

func (b *busy) records(*controlapi.BuildHistoryRequest) ([]*controlapi.BuildHistoryRecord, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.late != nil {
		b.late()
	}
	var all []*controlapi.BuildHistoryRecord
	for ref, at := range b.own {
		all = append(all, &controlapi.BuildHistoryRecord{Ref: ref, CreatedAt: timestamppb.New(at)})
	}
	for _, r := range b.s.Requests() {
		all = append(all, &controlapi.BuildHistoryRecord{Ref: r.Ref, CreatedAt: timestamppb.Now()})
	}
	return all, nil
}

// A member with as many builds as it may have is passed over; with all of them full
// the build waits until one has room, or its time is over.
func TestLimit(t *testing.T) {
	dialtest.NoLeaks(t)
	full := &busy{own: map[string]time.Time{"x": time.Unix(1, 0)}}
	limited := func(b *busy) *buildkittest.Server {
		b.s = buildkittest.New(t, buildkittest.Options{
			Records: b.records, Workers: []buildkittest.Worker{{ID: "w", Platforms: []string{"linux/amd64"}}},
			Call: func(context.Context, *buildkittest.Build, map[string]string) (map[string][]byte, error) {
				return nil, nil
			},
		})
		return b.s
	}
	a, free := limited(full), limited(&busy{})
	b := first(node("a", a.Endpoint()), node("free", free.Endpoint()))
	for i := range b.Nodes {
		b.Nodes[i].DriverOpts["max-builds"] = "1"
	}
	res, err := Run(t.Context(), b, req(t), options(t))
	if err != nil || res.Parts[0].Node != "free" {
		t.Fatalf("%v, %v", res, err)
	}
	alone := first(node("a", a.Endpoint()))
	alone.Nodes[0].DriverOpts["max-builds"], alone.Nodes[0].DriverOpts["queue-timeout"] = "1", "1ms"
	if _, err := Run(t.Context(), alone, req(t), options(t)); err == nil || !strings.Contains(err.Error(), "no daemon of builder b had room within 1ms") {
		t.Errorf("%v", err)
	}
	alone.Nodes[0].DriverOpts["queue-timeout"] = "1h"
	asked := 0
	full.late = func() {
		if asked++; asked == 3 {
			clear(full.own)
		}
	}
	if res, err := Run(t.Context(), alone, req(t), options(t)); err != nil || res.Parts[0].Node != "a" || asked < 3 {
		t.Errorf("asked %d times: %v, %v", asked, res, err)
	}
}

func TestAffinityKey(t *testing.T) {
	at := func(dir, name string) request.Request {
		return request.Request{Context: request.Context{Dir: dir}, Dockerfile: request.Dockerfile{Dir: filepath.Join(dir, "docker"), Name: name}, Target: "app"}
	}
	git := request.VCS{Source: "https://git.example.com/a.git", Context: "sub", Dockerfile: "sub/docker", Revision: "abc"}
	one := affinityKey(at("/home/me/a/sub", "Dockerfile"), git)
	if one != "https://git.example.com/a.git#sub sub/docker/Dockerfile app" {
		t.Errorf("%q", one)
	}
	git.Revision = "def"
	if other := affinityKey(at("/ci/checkout-7/sub", "Dockerfile"), git); other != one {
		t.Errorf("another checkout and commit have another key: %q", other)
	}
	if other := affinityKey(at("/ci/checkout-7/sub", "Dockerfile.dev"), git); other == one {
		t.Error("another Dockerfile has the same key")
	}
	if got := affinityKey(at("/w", "Dockerfile"), request.VCS{}); got != "/w docker/Dockerfile app" {
		t.Errorf("%q", got)
	}
	for url, want := range map[string]string{
		"https://user:secret@git.example.com/a.git#main:sub": "a.git#:sub", "https://git.example.com/a.git#v1": "a.git ",
	} {
		got := affinityKey(request.Request{Context: request.Context{URL: url}}, request.VCS{})
		if !strings.Contains(got, want) || strings.Contains(got, "secret") || strings.Contains(got, "main") || strings.Contains(got, "v1") {
			t.Errorf("%s: %q", url, got)
		}
	}
}

func TestTogether(t *testing.T) {
	j := func(name, dir string, links ...string) *job {
		one := &job{target: Target{Name: name, Links: map[string]string{}}, req: request.Request{Context: request.Context{Dir: dir}}}
		for _, l := range links {
			one.target.Links["c-"+l] = l
		}
		return one
	}
	var got []string
	for _, group := range together([]*job{j("a", "/1"), j("b", "/2"), j("c", "/1"), j("d", "/3", "b"), j("e", "/4"), j("f", "", "d", "unknown"), j("g", "")}) {
		var names []string
		for _, one := range group {
			names = append(names, one.target.Name)
		}
		got = append(got, strings.Join(names, "+"))
	}
	equal(t, "groups", got, []string{"a+c", "b+d+f", "e", "g"})
}

func TestSpread(t *testing.T) {
	p := &placement{policy: "affinity"}
	for i := range 3 {
		m := &member{answered: true, offered: plats("linux/amd64")}
		m.Name = fmt.Sprint("n", i)
		p.members = append(p.members, m)
	}
	const jobs = 24
	for i := range jobs {
		p.spread(fmt.Sprint("target ", i), jobs)
		chosen, err := p.chooseFor(plats("linux/amd64"))
		if err != nil {
			t.Fatal(err)
		}
		for k := range chosen {
			p.members[k].wins++
		}
	}
	for _, m := range p.members {
		if m.wins > 10 || m.wins < 4 {
			t.Errorf("%s has %d of %d", m.Name, m.wins, jobs)
		}
	}
	p.policy = "least-busy"
	p.members[0].active, p.members[0].wins, p.members[1].wins, p.members[2].wins = 5, 0, 3, 4
	p.spread("x", 1)
	if !slices.Equal(p.order, []int{1, 2, 0}) {
		t.Errorf("%v", p.order)
	}
}

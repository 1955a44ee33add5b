package diskuse

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/berthbuild/berth/internal/builder"
	"github.com/berthbuild/berth/internal/buildkittest"
	"github.com/berthbuild/berth/internal/dial"
	"github.com/berthbuild/berth/internal/dial/schemes"
	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/remote"
	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/client"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// on is a builder called b with nodes b0, b1, … at the endpoints.
func on(endpoints ...string) *builder.Builder {
	b := &builder.Builder{Name: "b", Driver: builder.DriverRemote}
	for i, e := range endpoints {
		b.Nodes = append(b.Nodes, builder.Node{Builder: "b", Driver: builder.DriverRemote, Name: "b" + string(rune('0'+i)), Endpoint: e})
	}
	return b
}

func options() Options {
	return Options{Schemes: schemes.All(dial.Env{}), Budget: 2 * time.Second}
}

func ids(records []client.UsageInfo) string {
	var all []string
	for _, r := range records {
		all = append(all, r.ID)
	}
	return strings.Join(all, " ")
}

func TestListAsksAllNodes(t *testing.T) {
	one := buildkittest.New(t, buildkittest.Options{Usage: func(r *controlapi.DiskUsageRequest) ([]*controlapi.UsageRecord, error) {
		if !slices.Equal(r.Filter, []string{"type==regular"}) || time.Duration(r.AgeLimit) != time.Hour {
			t.Errorf("asked for %v, %v", r.Filter, r.AgeLimit)
		}
		return []*controlapi.UsageRecord{{ID: "big", Size: 9}, {ID: "small", Size: 1, InUse: true}}, nil
	}})
	broken := buildkittest.New(t, buildkittest.Options{Usage: func(*controlapi.DiskUsageRequest) ([]*controlapi.UsageRecord, error) {
		return nil, status.Error(codes.Internal, "the disk is gone")
	}})
	f, err := ParseFilter([]string{"type=regular", "until=1h"})
	if err != nil {
		t.Fatal(err)
	}
	dead := "tcp://" + buildkittest.FreeAddr(t)
	all, err := List(t.Context(), on(one.Endpoint(), dead, broken.Endpoint()), f, options())
	if err != nil {
		t.Fatal(err)
	}
	if all[0].Err != nil || ids(all[0].Records) != "small big" || all[0].Node.Name != "b0" {
		t.Errorf("b0: %+v", all[0])
	}
	for i, want := range map[int]string{1: "node b1 of builder b at " + dead, 2: "the disk is gone"} {
		if all[i].Err == nil || !strings.Contains(all[i].Err.Error(), want) || !strings.Contains(all[i].Err.Error(), all[i].Node.Name) {
			t.Errorf("%s: %v", all[i].Node.Name, all[i].Err)
		}
	}
	if len(hint.Of(all[1].Err)) == 0 {
		t.Error("no hint for a daemon that is down")
	}
}

// A daemon that does not know ages is not believed to have looked at them.
func TestListOldDaemon(t *testing.T) {
	usage := func(*controlapi.DiskUsageRequest) ([]*controlapi.UsageRecord, error) {
		ago := func(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(time.Now().Add(-d)) }
		return []*controlapi.UsageRecord{{ID: "new", LastUsedAt: ago(time.Minute)}, {ID: "never"}, {ID: "old", LastUsedAt: ago(2 * time.Hour)}}, nil
	}
	f, err := ParseFilter([]string{"until=1h"})
	if err != nil {
		t.Fatal(err)
	}
	for version, want := range map[string]string{"v0.16.0": "never old", "v0.17.0": "never new old", "": "never old"} {
		o := buildkittest.Options{Version: version, Usage: usage}
		if version == "" {
			o.Version, o.NoInfo = "v0.10.6", true
		}
		all, err := List(t.Context(), on(buildkittest.New(t, o).Endpoint()), f, options())
		if err != nil || all[0].Err != nil || ids(all[0].Records) != want {
			t.Errorf("%q: %q, want %q; %v %v", version, ids(all[0].Records), want, err, all[0].Err)
		}
	}
}

func TestListInUse(t *testing.T) {
	s := buildkittest.New(t, buildkittest.Options{Usage: func(r *controlapi.DiskUsageRequest) ([]*controlapi.UsageRecord, error) {
		return []*controlapi.UsageRecord{{ID: "free"}, {ID: "used", InUse: true}}, nil
	}})
	f, err := ParseFilter([]string{"inuse=false"})
	if err != nil {
		t.Fatal(err)
	}
	all, err := List(t.Context(), on(s.Endpoint()), f, options())
	if err != nil || ids(all[0].Records) != "free" {
		t.Errorf("%+v, %v", all, err)
	}
}

func TestBuilderThatCannotBeAsked(t *testing.T) {
	broken := errors.New("damaged")
	for _, b := range []*builder.Builder{{Name: "b", Err: broken}, {Name: "b"}} {
		if _, err := List(t.Context(), b, Filter{}, options()); err == nil || b.Err != nil && !errors.Is(err, broken) {
			t.Errorf("list: %v", err)
		}
		if _, err := (Prune{}).Run(t.Context(), b, options(), nil); err == nil {
			t.Error("pruned what is not there")
		}
	}
	b := on("tcp://127.0.0.1:1")
	b.Nodes[0].Driver = "kubernetes"
	all, err := List(t.Context(), b, Filter{}, options())
	if err != nil || all[0].Err == nil || !strings.Contains(all[0].Err.Error(), "kubernetes") {
		t.Errorf("%+v, %v", all, err)
	}
}

// pruner is a daemon that removes some records and keeps what it was asked.
type pruner struct {
	mu       sync.Mutex
	requests []*controlapi.PruneRequest
}

func (p *pruner) prune(ids ...string) func(context.Context, *controlapi.PruneRequest, func(*controlapi.UsageRecord) error) error {
	return func(_ context.Context, r *controlapi.PruneRequest, removed func(*controlapi.UsageRecord) error) error {
		p.mu.Lock()
		p.requests = append(p.requests, r)
		p.mu.Unlock()
		for _, id := range ids {
			if err := removed(&controlapi.UsageRecord{ID: id, Size: 100}); err != nil {
				return err
			}
		}
		return nil
	}
}

func TestPrune(t *testing.T) {
	var p pruner
	one := buildkittest.New(t, buildkittest.Options{Prune: p.prune("x", "y")})
	two := buildkittest.New(t, buildkittest.Options{Prune: p.prune("z")})
	f, err := ParseFilter([]string{"until=1h", "mutable=true", "inuse=false"})
	if err != nil {
		t.Fatal(err)
	}
	var seen []string
	all, err := Prune{Filter: f, All: true, Reserved: 1, MaxUsed: 2, MinFree: 3}.Run(t.Context(), on(one.Endpoint(), two.Endpoint(), "tcp://"+buildkittest.FreeAddr(t)), options(),
		func(node int, r client.UsageInfo) { seen = append(seen, string(rune('0'+node))+r.ID) })
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(seen)
	if got := strings.Join(seen, " "); got != "0x 0y 1z" {
		t.Errorf("seen %q", got)
	}
	if all[0].Bytes != 200 || all[0].Records != 2 || all[0].Err != nil || all[1].Bytes != 100 || all[2].Err == nil {
		t.Errorf("%+v", all)
	}
	for _, r := range p.requests {
		if !r.All || r.KeepDuration != int64(time.Hour) || r.ReservedSpace != 1 || r.MaxUsedSpace != 2 || r.MinFreeSpace != 3 || !slices.Equal(r.Filter, []string{"mutable"}) {
			t.Errorf("asked for %v", r)
		}
	}
}

// An old daemon would take a limit that it does not know for none.
func TestPruneLimitsOfOldDaemon(t *testing.T) {
	for _, o := range []buildkittest.Options{{Version: "v0.16.0"}, {Version: "v0.10.0", NoInfo: true}} {
		var p pruner
		o.Prune = p.prune("x")
		s := buildkittest.New(t, o)
		for _, limits := range []Prune{{MaxUsed: 1}, {MinFree: 1}} {
			all, err := limits.Run(t.Context(), on(s.Endpoint()), options(), nil)
			if err != nil {
				t.Fatal(err)
			}
			text := all[0].Err.Error()
			if !strings.Contains(text, "buildkit v0.17.0+ is required for max-used-space and min-free-space filters") || !strings.Contains(text, o.Version) {
				t.Errorf("%v: %v", limits, text)
			}
		}
		all, err := Prune{Reserved: 1}.Run(t.Context(), on(s.Endpoint()), options(), nil)
		if err != nil || all[0].Err != nil || all[0].Records != 1 || len(p.requests) != 1 {
			t.Errorf("reserved: %+v, %v, asked %d times", all, err, len(p.requests))
		}
	}
}

// Daemons do not look at parents when they remove, so the records are named.
func TestPruneByParents(t *testing.T) {
	var p pruner
	found := []*controlapi.UsageRecord{{ID: "c1"}, {ID: "c2"}}
	s := buildkittest.New(t, buildkittest.Options{
		Prune: p.prune("c1", "c2"),
		Usage: func(r *controlapi.DiskUsageRequest) ([]*controlapi.UsageRecord, error) {
			if !slices.Equal(r.Filter, []string{"parents==p1,mutable"}) {
				t.Errorf("listed by %q", r.Filter)
			}
			return found, nil
		},
	})
	f, err := ParseFilter([]string{"parents=p1", "mutable=true"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (Prune{Filter: f}).Run(t.Context(), on(s.Endpoint()), options(), nil); err != nil {
		t.Fatal(err)
	}
	if len(p.requests) != 1 || !slices.Equal(p.requests[0].Filter, []string{"id==c1,mutable", "id==c2,mutable"}) {
		t.Errorf("asked for %v", p.requests)
	}
	found = nil
	all, err := Prune{Filter: f}.Run(t.Context(), on(s.Endpoint()), options(), nil)
	if err != nil || all[0].Err != nil || len(p.requests) != 1 {
		t.Errorf("nothing was found, and %d times asked to remove; %v %+v", len(p.requests), err, all)
	}
}

// What went before the end of the context is known.
func TestPruneCancelled(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	stopped := errors.New("stopped")
	ended := make(chan struct{})
	s := buildkittest.New(t, buildkittest.Options{Prune: func(ctx context.Context, _ *controlapi.PruneRequest, removed func(*controlapi.UsageRecord) error) error {
		defer close(ended)
		if err := removed(&controlapi.UsageRecord{ID: "x", Size: 5}); err != nil {
			return err
		}
		<-ctx.Done()
		return ctx.Err()
	}})
	all, err := Prune{}.Run(ctx, on(s.Endpoint()), options(), func(int, client.UsageInfo) { cancel(stopped) })
	if err != nil || !errors.Is(all[0].Err, stopped) || all[0].Bytes != 5 {
		t.Errorf("%+v, %v", all, err)
	}
	<-ended // the daemon was told
}

// The daemon dies, or hangs up, in the middle.
func TestPruneLost(t *testing.T) {
	s := buildkittest.New(t, buildkittest.Options{Prune: func(ctx context.Context, _ *controlapi.PruneRequest, removed func(*controlapi.UsageRecord) error) error {
		_ = removed(&controlapi.UsageRecord{ID: "x", Size: 5})
		<-ctx.Done()
		return ctx.Err()
	}})
	all, err := Prune{}.Run(t.Context(), on(s.Endpoint()), options(), func(int, client.UsageInfo) { s.Kill() })
	if err != nil || all[0].Err == nil || all[0].Bytes != 5 || !strings.Contains(all[0].Err.Error(), "node b0 of builder b at ") || !strings.Contains(all[0].Err.Error(), "lost") {
		t.Errorf("%+v, %v", all, err)
	}
}

// The daemon hangs in the middle of a call that may take long.
func TestPruneSilent(t *testing.T) {
	var s *buildkittest.Server
	s = buildkittest.New(t, buildkittest.Options{Prune: func(ctx context.Context, _ *controlapi.PruneRequest, removed func(*controlapi.UsageRecord) error) error {
		s.Mute()
		_ = removed(&controlapi.UsageRecord{ID: "x", Size: 5})
		<-ctx.Done()
		return ctx.Err()
	}})
	o := options()
	o.pulse, o.patience = time.Millisecond, 50*time.Millisecond
	all, err := Prune{}.Run(t.Context(), on(s.Endpoint()), o, nil)
	if err != nil || !errors.Is(all[0].Err, remote.ErrSilent) || all[0].Bytes != 5 || len(hint.Of(all[0].Err)) == 0 {
		t.Errorf("%+v, %v", all, err)
	}
}

// A daemon that is only slow, and answers when asked how it is, is waited for.
func TestSlowIsNotSilent(t *testing.T) {
	var s *buildkittest.Server
	asked := func() int {
		return len(slices.DeleteFunc(s.Calls(), func(c buildkittest.Call) bool { return !strings.HasSuffix(c.Method, "/Info") }))
	}
	s = buildkittest.New(t, buildkittest.Options{Usage: func(*controlapi.DiskUsageRequest) ([]*controlapi.UsageRecord, error) {
		for asked() < 5 { // each of them is answered
			time.Sleep(time.Millisecond)
		}
		return []*controlapi.UsageRecord{{ID: "x"}}, nil
	}})
	o := options()
	o.pulse, o.patience = time.Millisecond, time.Minute
	all, err := List(t.Context(), on(s.Endpoint()), Filter{}, o)
	if err != nil || all[0].Err != nil || ids(all[0].Records) != "x" {
		t.Errorf("%+v, %v", all, err)
	}
}

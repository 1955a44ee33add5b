package build

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/berthbuild/berth/internal/buildkittest"
	"github.com/berthbuild/berth/internal/dial/dialtest"
	controlapi "github.com/moby/buildkit/api/services/control"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// Of two builds in one place the one that was listed first has it. The other gives
// way, or waits for its turn when it cannot be sent twice.
func TestClaim(t *testing.T) {
	dialtest.NoLeaks(t)
	asked := 0
	s := buildkittest.New(t, buildkittest.Options{Records: func(*controlapi.BuildHistoryRequest) ([]*controlapi.BuildHistoryRecord, error) {
		asked++
		record := func(ref string, at int64) *controlapi.BuildHistoryRecord {
			return &controlapi.BuildHistoryRecord{Ref: ref, CreatedAt: timestamppb.New(time.Unix(at, 0))}
		}
		all := []*controlapi.BuildHistoryRecord{record("later", 3)}
		if asked > 1 { // it takes a moment until a build is listed
			all = append(all, record("own", 2))
		}
		if asked < 5 {
			all = append(all, record("first", 1))
		}
		return all, nil
	}})
	placed, err := place(t.Context(), builderOf(node("a", s.Endpoint())), req(t), options(t))
	if err != nil {
		t.Fatal(err)
	}
	defer placed.close()
	m := placed.one()
	m.Target.Options.MaxBuilds = 1
	gives := &claim{m: m, budget: time.Minute}
	var over *overtaken
	if err := gives.check(t.Context(), "own"); !errors.As(err, &over) || !gives.lost || asked != 2 {
		t.Errorf("asked %d times: %v", asked, err)
	}
	if err := (&claim{m: m, stay: true, queue: time.Minute}).check(t.Context(), "own"); err != nil || asked != 5 {
		t.Errorf("asked %d times: %v", asked, err)
	}
	if err := (&claim{m: m, budget: time.Minute}).check(t.Context(), "own"); err != nil || asked != 6 {
		t.Errorf("asked %d times: %v", asked, err)
	}
}

// busyDaemon is a member with one place, and what it answers when it is asked for its
// builds.
func busyDaemon(t *testing.T, answer func() ([]*controlapi.BuildHistoryRecord, error)) *member {
	t.Helper()
	quiet := true // while it is placed
	s := buildkittest.New(t, buildkittest.Options{Records: func(*controlapi.BuildHistoryRequest) ([]*controlapi.BuildHistoryRecord, error) {
		if quiet {
			return nil, nil
		}
		return answer()
	}})
	placed, err := place(t.Context(), builderOf(node("a", s.Endpoint())), req(t), options(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(placed.close)
	quiet = false
	m := placed.one()
	m.Target.Options.MaxBuilds = 1
	return m
}

// A daemon that has too much to do to say what it builds is not taken for one that
// has room: it is asked again, and left when that lasts. One that cannot say it is
// taken as it is.
func TestClaimOnBusyDaemon(t *testing.T) {
	dialtest.NoLeaks(t)
	asked := 0
	code, times := codes.Unavailable, 3
	m := busyDaemon(t, func() ([]*controlapi.BuildHistoryRecord, error) {
		if asked++; asked <= times {
			return nil, status.Error(code, "too much to do")
		}
		return []*controlapi.BuildHistoryRecord{{Ref: "own", CreatedAt: timestamppb.New(time.Unix(1, 0))}}, nil
	})
	if err := (&claim{m: m, budget: time.Minute}).check(t.Context(), "own"); err != nil || asked != 4 {
		t.Errorf("asked %d times: %v", asked, err)
	}
	asked, times = 0, 1000
	left := &claim{m: m}
	var over *overtaken
	if err := left.check(t.Context(), "own"); !errors.As(err, &over) || !left.lost {
		t.Errorf("%v", err)
	}
	if err := (&claim{m: m, stay: true}).check(t.Context(), "own"); err == nil || !strings.Contains(err.Error(), "node a had no room within 0s") {
		t.Errorf("%v", err)
	}
	asked, code = 0, codes.Unimplemented
	if err := (&claim{m: m, budget: time.Minute}).check(t.Context(), "own"); err != nil || asked != 1 {
		t.Errorf("asked %d times: %v", asked, err)
	}
}

// A place that was taken meanwhile is not asked for.
func TestClaimLooks(t *testing.T) {
	dialtest.NoLeaks(t)
	var all []*controlapi.BuildHistoryRecord
	m := busyDaemon(t, func() ([]*controlapi.BuildHistoryRecord, error) { return all, nil })
	if err := (&claim{m: m}).look(t.Context()); err != nil {
		t.Errorf("an idle daemon: %v", err)
	}
	all = append(all, &controlapi.BuildHistoryRecord{Ref: "other", CreatedAt: timestamppb.New(time.Unix(1, 0))})
	var over *overtaken
	if err := (&claim{m: m}).look(t.Context()); !errors.As(err, &over) {
		t.Errorf("a full daemon: %v", err)
	}
	if err := (&claim{m: m, stay: true}).look(t.Context()); err != nil {
		t.Errorf("one that waits where it is: %v", err)
	}
}

// Who has waited longest asks most often; who has lost a place to others, or is slow
// to be answered, asks less often.
func TestQueueRest(t *testing.T) {
	for _, c := range []struct {
		races              int
		waited, took, want time.Duration
	}{
		{0, 0, 0, time.Second},
		{0, 10 * time.Second, 0, 500 * time.Millisecond},
		{0, time.Hour, 0, minRest},
		{2, 0, 0, 4 * time.Second},
		{1000, 0, 0, 16 * time.Second},
		{1000, time.Hour, 0, minRest},
		{0, time.Hour, time.Second, 2 * time.Second},
	} {
		q := &queue{races: c.races}
		if got := q.rest(c.waited, c.took); got.Round(10*time.Millisecond) != c.want {
			t.Errorf("%d races, %s waited, %s to answer: %s, not %s", c.races, c.waited, c.took, got, c.want)
		}
	}
}

// A daemon's clock may be wrong by any time. Who came first is told by that clock
// alone, and never by ours.
func TestClaimBesideWrongClocks(t *testing.T) {
	dialtest.NoLeaks(t)
	for _, wrong := range []time.Duration{-24 * time.Hour, 24 * time.Hour} {
		now := timestamppb.New(time.Now().Add(wrong))
		before, after := timestamppb.New(now.AsTime().Add(-time.Second)), timestamppb.New(now.AsTime().Add(time.Second))
		other := now
		m := busyDaemon(t, func() ([]*controlapi.BuildHistoryRecord, error) {
			return []*controlapi.BuildHistoryRecord{{Ref: "own", CreatedAt: now}, {Ref: "other", CreatedAt: other}}, nil
		})
		var over *overtaken
		other = before
		if err := (&claim{m: m, budget: time.Minute}).check(t.Context(), "own"); !errors.As(err, &over) {
			t.Errorf("wrong by %s, the other came first: %v", wrong, err)
		}
		other = after
		if err := (&claim{m: m, budget: time.Minute}).check(t.Context(), "own"); err != nil {
			t.Errorf("wrong by %s, ours came first: %v", wrong, err)
		}
	}
}

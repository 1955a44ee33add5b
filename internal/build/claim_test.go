package build

import (
	"errors"
	"testing"
	"time"

	"github.com/berthbuild/berth/internal/buildkittest"
	"github.com/berthbuild/berth/internal/dial/dialtest"
	controlapi "github.com/moby/buildkit/api/services/control"
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
	gives := &claim{m: m}
	var over *overtaken
	if err := gives.check(t.Context(), "own"); !errors.As(err, &over) || !gives.lost || asked != 2 {
		t.Errorf("asked %d times: %v", asked, err)
	}
	if err := (&claim{m: m, stay: true}).check(t.Context(), "own"); err != nil || asked != 5 {
		t.Errorf("asked %d times: %v", asked, err)
	}
	if err := (&claim{m: m}).check(t.Context(), "own"); err != nil || asked != 6 {
		t.Errorf("asked %d times: %v", asked, err)
	}
}

package cli

import (
	"strings"
	"testing"
	"time"

	"github.com/berthbuild/berth/internal/pool"
)

// A build on a daemon whose clock is ahead of ours began in our future: it has run
// for no time yet, and not for less.
func TestTopBesideWrongClock(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	seen := []pool.Sight{{Known: true, Builds: []pool.Build{
		{Ref: "ahead", Started: now.Add(time.Hour)},
		{Ref: "right", Started: now.Add(-time.Minute)},
	}}}
	all := newTopView("b", seen, now).Members[0].Builds
	if all[0].Seconds != 0 || all[1].Seconds != 60 {
		t.Errorf("%v and %v seconds", all[0].Seconds, all[1].Seconds)
	}
	text := topText("b", seen, now)
	for _, want := range []string{"ahead, for 0s\n", "right, for 1m0s\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}

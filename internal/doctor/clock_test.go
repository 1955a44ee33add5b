package doctor

import (
	"strings"
	"testing"
	"time"

	"github.com/moby/buildkit/client"
)

func TestClock(t *testing.T) {
	for _, c := range []struct {
		name   string
		ahead  time.Duration
		status Status
		text   string
	}{
		{"same", 0, OK, "agrees with ours"},
		{"a little ahead", 5 * time.Second, OK, "ahead of ours by"},
		{"far ahead", time.Hour, Warning, "ahead of ours by"},
		{"far behind", -time.Hour, Warning, "behind ours by"},
	} {
		k := &clocks{began: time.Now()}
		ch := k.statuses()
		at := time.Now().Add(c.ahead)
		ch <- &client.SolveStatus{Vertexes: []*client.Vertex{{}, {Started: &at, Completed: &at}}}
		close(ch)
		k.wait()
		if s := k.step(); s.Status != c.status || !strings.Contains(s.Text, c.text) {
			t.Errorf("%s: %+v", c.name, s)
		}
	}
	k := &clocks{began: time.Now()}
	close(k.statuses())
	k.wait()
	if s := k.step(); s.Status != Skipped {
		t.Errorf("no times: %+v", s)
	}
}

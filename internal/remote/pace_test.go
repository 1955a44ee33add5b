package remote

import (
	"errors"
	"testing"
	"time"
)

func TestPace(t *testing.T) {
	refused, silent := errors.New("refused"), errors.New("silent")
	var p Pace
	for i, c := range []struct {
		cause error
		left  time.Duration
		want  bool
	}{
		{nil, 20 * time.Second, true},
		{nil, 19 * time.Second, false},
		{refused, 18 * time.Second, true},
		{refused, 14 * time.Second, false},
		{refused, 13 * time.Second, true},
		{silent, 13 * time.Second, true},
		{refused, 12 * time.Second, true},
	} {
		if got := p.Due(Waiting{Cause: c.cause, Left: c.left}); got != c.want {
			t.Errorf("step %d: %v, wanted %v", i, got, c.want)
		}
	}
}

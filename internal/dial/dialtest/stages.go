package dialtest

import (
	"context"
	"slices"
	"sync"
	"testing"

	"github.com/berthbuild/berth/internal/dial"
	"github.com/berthbuild/berth/internal/endpoint"
)

// testStages holds what a dial tells of itself against what the scheme says
// that it will: the stages in their order, none failed where it did not. A dial
// that fails tells of the stage where, unless that is the last, which the first
// read may prove.
func testStages(t *testing.T, p Peer) {
	if p.Scheme.Stages == nil {
		return
	}
	e := p.Serve(t, echoBack)
	told := traced(t, p, e)
	want := p.Scheme.Stages(e)
	at := 0
	for _, s := range told {
		i := slices.Index(want, s.Name)
		switch {
		case i < 0:
			t.Errorf("told of %q, which is none of %q", s.Name, want)
		case i < at:
			t.Errorf("told of %q after %q; the order is %q", s.Name, want[at], want)
		default:
			at = i
		}
		if s.Err != nil || s.Took < 0 {
			t.Errorf("a dial that succeeds tells of %+v", s)
		}
	}
	if len(told) == 0 {
		t.Error("told of nothing")
	}
	e = p.Refused(t)
	want, told = p.Scheme.Stages(e), traced(t, p, e)
	failed := slices.ContainsFunc(told, func(s dial.Stage) bool { return s.Err != nil })
	proven := len(told) >= len(want)-1 // all but the last were told to be good
	if !failed && !proven {
		t.Errorf("a dial that fails tells of %+v; the stages are %q", told, want)
	}
}

// traced dials once, and gives what was told until the dial returned.
func traced(t *testing.T, p Peer, e endpoint.Endpoint) []dial.Stage {
	t.Helper()
	var mu sync.Mutex
	var told []dial.Stage
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	defer cancel()
	c, err := p.Scheme.Dial(dial.WithTracer(ctx, func(s dial.Stage) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, s)
	}), e)
	if err == nil {
		_ = c.Close()
	}
	mu.Lock()
	defer mu.Unlock()
	return slices.Clone(told)
}

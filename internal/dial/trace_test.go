package dial_test

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/berthbuild/berth/internal/dial"
)

// tell gathers what a tracer is told.
type tell struct {
	mu     sync.Mutex
	stages []dial.Stage
}

func (l *tell) hear(s dial.Stage) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stages = append(l.stages, s)
}

func (l *tell) names() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []string
	for _, s := range l.stages {
		name := s.Name
		if s.Err != nil {
			name += " failed"
		}
		all = append(all, name)
	}
	return all
}

func TestBegin(t *testing.T) {
	l := &tell{}
	ctx := dial.WithTracer(t.Context(), l.hear)
	why := errors.New("why")
	dial.Begin(ctx, "one")("text", nil, dial.Fact{Name: "n", Value: "v"})
	dial.Begin(ctx, "two")("", why)
	dial.Report(ctx, dial.Stage{Name: "three", Took: time.Second})
	if len(l.stages) != 3 || l.stages[0].Text != "text" || len(l.stages[0].Facts) != 1 || !errors.Is(l.stages[1].Err, why) || l.stages[2].Took != time.Second {
		t.Errorf("%+v", l.stages)
	}
	if !dial.Traced(ctx) || dial.Traced(t.Context()) {
		t.Error("Traced is wrong")
	}
	dial.Begin(t.Context(), "nobody")("hears it", nil)
	dial.Report(t.Context(), dial.Stage{Name: "nobody"})
}

func TestTraceNetwork(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	open := l.Addr().String()
	_, port, _ := net.SplitHostPort(open)
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	shut := gone.Addr().String()
	_ = gone.Close()
	t.Cleanup(func() { _ = l.Close() })
	expired, cancel := context.WithDeadline(t.Context(), time.Unix(1, 0))
	defer cancel()
	for _, c := range []struct {
		name, addr string
		ctx        context.Context
		want       []string
		text       string // of the resolving
	}{
		{"address", open, t.Context(), []string{"resolve", "connect"}, "an address, no name"},
		{"name", "localhost:" + port, t.Context(), []string{"resolve", "connect"}, "localhost is "},
		{"refused", shut, t.Context(), []string{"resolve", "connect failed"}, "an address"},
		{"no such name", "nosuch.invalid:1", t.Context(), []string{"resolve failed"}, ""},
		{"no time", open, expired, []string{"resolve failed"}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			told := &tell{}
			ctx, done := dial.TraceNetwork(dial.WithTracer(c.ctx, told.hear))
			conn, err := done((&net.Dialer{}).DialContext(ctx, "tcp", c.addr))
			if (conn == nil) == (err == nil) {
				t.Errorf("%v, %v", conn, err)
			}
			if conn != nil {
				_ = conn.Close()
			}
			if got := told.names(); !slices.Equal(got, c.want) {
				t.Errorf("told of %q, want %q", got, c.want)
			}
			if !strings.HasPrefix(told.stages[0].Text, c.text) {
				t.Errorf("text %q, want %q", told.stages[0].Text, c.text)
			}
		})
	}
	ctx, done := dial.TraceNetwork(t.Context())
	if ctx != t.Context() {
		t.Error("where nobody watches, the context is another")
	}
	if _, err := done(nil, net.ErrClosed); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}

func TestShort(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-1: "0s", 1234 * time.Nanosecond: "0s", 1234567: "1.23ms", 123456789: "123ms", 12345678901: "12.35s",
	} {
		if got := dial.Short(d); got != want {
			t.Errorf("Short(%d) = %q, want %q", d, got, want)
		}
	}
}

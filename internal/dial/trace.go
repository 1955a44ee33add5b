package dial

import (
	"context"
	"net"
	"net/http/httptrace"
	"slices"
	"strings"
	"sync"
	"time"
)

// The stages that more than one scheme has. Their names are stable: they are
// printed, and compared by scripts.
const (
	StageResolve = "resolve" // a name to its addresses
	StageConnect = "connect" // a socket to one of them
	StageProxy   = "proxy"   // what stands between lets us through
)

// Stage is one stretch of the way to a daemon, as it was just walked.
type Stage struct {
	Name  string        // a word, one of the scheme's Stages
	Text  string        // what was seen, on one line; may be empty
	Facts []Fact        // more of it, in an order for reading
	Addrs []string      // StageResolve: all addresses that the name stands for
	Took  time.Duration // how long it took
	Err   error         // why it went no further; nil where it did
}

// Fact is one thing that was seen, for people; neither part is ever a secret.
type Fact struct {
	Name  string
	Value string
}

// Tracer is told of each stage when it has ended. It may be called by several
// goroutines at once, and also after the dial has returned: a name server or an
// address that lost the race answers late.
type Tracer func(Stage)

type tracerKey struct{}

// WithTracer makes what is dialled under the context tell t how it goes, as
// package httptrace does; nil is nobody. It changes nothing of what a dial does.
func WithTracer(ctx context.Context, t Tracer) context.Context {
	return context.WithValue(ctx, tracerKey{}, t)
}

// tracerOf is nil where nobody wants to know.
func tracerOf(ctx context.Context) Tracer {
	t, _ := ctx.Value(tracerKey{}).(Tracer)
	return t
}

// Traced tells whether anybody wants to know, for what is costly to find out.
func Traced(ctx context.Context) bool { return tracerOf(ctx) != nil }

// Report tells of a stage that has ended.
func Report(ctx context.Context, s Stage) {
	if t := tracerOf(ctx); t != nil {
		t(s)
	}
}

// Begin says that a stage begins; the function that it returns ends it, by what
// was seen or by why it failed. Facts may be nil. Both are cheap where nobody
// wants to know.
func Begin(ctx context.Context, name string) (end func(text string, err error, facts ...Fact)) {
	t := tracerOf(ctx)
	if t == nil {
		return func(string, error, ...Fact) {}
	}
	began := time.Now()
	return func(text string, err error, facts ...Fact) {
		t(Stage{Name: name, Text: text, Facts: facts, Took: time.Since(began), Err: err})
	}
}

// TraceNetwork watches what a net.Dialer does under the context that it
// returns: StageResolve, told as soon as there is an answer, and StageConnect.
// The dial's result is given to done, which returns it as it is.
func TraceNetwork(ctx context.Context) (watched context.Context, done func(net.Conn, error) (net.Conn, error)) {
	t := tracerOf(ctx)
	if t == nil {
		return ctx, func(c net.Conn, err error) (net.Conn, error) { return c, err }
	}
	w := &watch{tell: t, began: time.Now(), tries: map[string]time.Time{}}
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
			DNSStart:     func(i httptrace.DNSStartInfo) { w.asks(i.Host) },
			DNSDone:      w.answered,
			ConnectStart: w.tried,
			ConnectDone:  w.connected,
		}), func(c net.Conn, err error) (net.Conn, error) {
			w.over(c, err)
			return c, err
		}
}

// watch is what was seen of one dial.
type watch struct {
	tell  Tracer
	began time.Time

	mu       sync.Mutex
	name     string    // that was asked for; "" for an address
	resolved time.Time // when that stage was told of
	tries    map[string]time.Time
	ended    []Fact
}

func (w *watch) asks(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.name = name
}

func (w *watch) answered(i httptrace.DNSDoneInfo) {
	s := Stage{Name: StageResolve, Err: i.Err}
	for _, a := range i.Addrs {
		s.Addrs = append(s.Addrs, a.String())
	}
	w.resolve(s)
}

// resolve tells of the first stage, once.
func (w *watch) resolve(s Stage) {
	w.mu.Lock()
	first := w.resolved.IsZero()
	if first {
		w.resolved = time.Now()
	}
	s.Took = w.resolved.Sub(w.began)
	if len(s.Addrs) > 0 {
		s.Text = w.name + " is " + strings.Join(s.Addrs, ", ")
	}
	w.mu.Unlock()
	if first {
		w.tell(s)
	}
}

func (w *watch) tried(_, addr string) {
	w.resolve(Stage{Name: StageResolve, Text: "an address, no name"}) // where nothing was asked
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tries[addr] = time.Now()
}

func (w *watch) connected(_, addr string, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	text := Short(time.Since(w.tries[addr]))
	if err != nil {
		text = "failed after " + text
	}
	w.ended = append(w.ended, Fact{addr, text})
}

// over tells of the second stage, unless nothing was tried.
func (w *watch) over(c net.Conn, err error) {
	w.mu.Lock()
	tried := len(w.tries) > 0
	w.mu.Unlock()
	if err != nil && !tried {
		w.resolve(Stage{Name: StageResolve, Err: err})
		return
	}
	w.resolve(Stage{Name: StageResolve})
	w.mu.Lock()
	s := Stage{Name: StageConnect, Took: time.Since(w.resolved), Err: err, Facts: slices.Clone(w.ended)}
	w.mu.Unlock()
	if c != nil {
		s.Text = "to " + c.RemoteAddr().String()
	}
	w.tell(s)
}

// Short is a duration in a form for people.
func Short(d time.Duration) string {
	switch {
	case d < 0:
		return "0s"
	case d < 10*time.Millisecond:
		return d.Round(10 * time.Microsecond).String()
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	}
	return d.Round(10 * time.Millisecond).String()
}

package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/util/grpcerrors"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc/codes"

	"github.com/berthbuild/berth/internal/builder"
	"github.com/berthbuild/berth/internal/dial"
	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/remote"
)

const (
	pings         = 3
	pingBudget    = 5 * time.Second
	sessionBudget = 10 * time.Second
)

// talk takes the steps that need a daemon that answers.
func (w *walk) talk(ctx context.Context, conn *remote.Conn) {
	var wg sync.WaitGroup
	wg.Go(func() { w.workers(ctx, conn) })
	wg.Go(func() { w.latency(ctx, conn) })
	wg.Go(func() { w.build(ctx, conn) })
	wg.Wait()
}

// workers is StepWorkers.
func (w *walk) workers(ctx context.Context, conn *remote.Conn) {
	began := time.Now()
	all, err := conn.Workers(ctx)
	s := Step{Name: StepWorkers, Status: OK, Took: time.Since(began)}
	switch {
	case err != nil && over(ctx):
		return
	case err != nil:
		s.fail(ClassLost, err)
	case len(all) == 0:
		s.fail(ClassWorkers, hint.New("the daemon has no workers", "look at the daemon's log, and at [worker] in its buildkitd.toml"))
	default:
		w.describeWorkers(&s, all)
	}
	w.plan.set(s)
}

func (w *walk) describeWorkers(s *Step, all []*client.WorkerInfo) {
	s.Text = count(len(all), "worker") + ": " + platformText(builder.Offered(builder.Node{}, builder.Status{Workers: all}))
	for _, one := range all {
		s.Facts = append(s.Facts, dial.Fact{Name: "worker", Value: workerText(one)})
	}
	offered := builder.Offered(builder.Node{}, builder.Status{Workers: all})
	for _, want := range w.node.Platforms {
		m := platforms.Only(want)
		if !slices.ContainsFunc(offered, m.Match) {
			s.Status = Warning
			s.Hints = append(s.Hints, fmt.Sprintf("the node was made with --platform %s, which the daemon does not offer; steps that run programs of it will fail", platforms.FormatAll(want)))
		}
	}
}

// workerText is what a worker says of itself.
func workerText(one *client.WorkerInfo) string {
	text := one.ID
	for _, l := range []struct{ label, name string }{
		{"org.mobyproject.buildkit.worker.hostname", "host"},
		{"org.mobyproject.buildkit.worker.executor", "executor"},
		{"org.mobyproject.buildkit.worker.snapshotter", "snapshotter"},
		{"org.mobyproject.buildkit.worker.network", "network"},
	} {
		if v := one.Labels[l.label]; v != "" {
			text += ", " + l.name + " " + v
		}
	}
	return text
}

// latency is StepLatency: the shortest of a few questions, one after the other.
func (w *walk) latency(ctx context.Context, conn *remote.Conn) {
	pctx, cancel := context.WithTimeout(ctx, pingBudget)
	defer cancel()
	began := time.Now()
	best := time.Duration(-1)
	s := Step{Name: StepLatency, Status: OK}
	for range pings {
		start := time.Now()
		_, err := conn.Client().Info(pctx)
		if err != nil && grpcerrors.Code(err) != codes.Unimplemented { // which is an answer too
			s.Took = time.Since(began)
			w.broke(ctx, conn, &s, ClassLost, err, over(pctx))
			return
		}
		if took := time.Since(start); best < 0 || took < best {
			best = took
		}
	}
	s.Took = time.Since(began)
	s.Text = "a question and its answer take " + dial.Short(best)
	w.plan.set(s)
}

// over tells whether the time of a step has run out, or as good as: a daemon
// knows the deadline too, and may give up just before it.
func over(ctx context.Context) bool {
	const almost = 100 * time.Millisecond
	deadline, ok := ctx.Deadline()
	return ctx.Err() != nil || ok && time.Until(deadline) < almost
}

// broke sets a step that failed on a connection that stands, unless all of it
// was ended.
func (w *walk) broke(ctx context.Context, conn *remote.Conn, s *Step, class remote.Class, err error, late bool) {
	if over(ctx) {
		return // not this step's own doing; the first that is not set says so
	}
	var own *dial.Error
	switch lost := conn.Lost(); {
	case lost != nil && errors.As(lost, &own):
		s.fail(own.Class, own)
	case lost != nil:
		s.fail(ClassLost, hint.Wrap(lost, "the connection was lost", "was the daemon stopped, or is a proxy in between that ends long streams? look at its log"))
	case late:
		s.fail(remote.Silent, hint.New("no answer within "+s.Took.Round(time.Second).String(), "is the daemon hanging? look at its log"))
	default:
		s.fail(class, err)
		if st, ok := grpcerrors.AsGRPCStatus(err); ok && st.Message() != "" {
			s.Text = st.Message()
		}
	}
	w.plan.set(*s)
}

// describeInfo is the daemon's version beside ours.
func describeInfo(conn *remote.Conn, ours string) string {
	text := "BuildKit " + conn.Version().Version
	if conn.Version().Version == "" {
		text = "BuildKit, older than v0.11: it does not tell its version"
	}
	if conn.Host() != "" {
		text += " inside " + conn.Host()
	}
	if ours != "" {
		text += "; berth was built with " + ours
	}
	return text
}

// opened is a session of ours that the daemon has spoken into.
type opened struct {
	session *session.Session
	close   func()
}

// session is StepSession: it opens the stream over which the daemon asks for
// files, and waits for its first word there. The caller closes what it returns;
// nil where it failed.
func (w *walk) session(ctx context.Context, conn *remote.Conn, offer ...session.Attachable) *opened {
	began := time.Now()
	s := Step{Name: StepSession, Status: OK}
	sess, err := session.NewSession(ctx, sharedKey)
	if err != nil {
		s.fail(ClassSession, err)
		w.plan.set(s)
		return nil
	}
	for _, a := range offer {
		sess.Allow(a)
	}
	heard := make(chan struct{})
	sctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	var end error // of Run, once it has ended
	go func() {
		defer close(ended)
		end = sess.Run(sctx, func(ctx context.Context, proto string, meta map[string][]string) (net.Conn, error) {
			c, err := conn.SessionDialer()(ctx, proto, meta)
			if err != nil {
				return nil, err
			}
			return &listening{Conn: c, heard: heard}, nil
		})
	}()
	o := &opened{session: sess, close: func() {
		cancel()
		_ = sess.Close() // waits for Run
		<-ended
	}}
	late := time.NewTimer(sessionBudget)
	defer late.Stop()
	select {
	case <-heard:
		s.Took = time.Since(began)
		s.Text = "the daemon asks back over it after " + dial.Short(s.Took)
		w.plan.set(s)
		return o
	case <-ended:
		s.Took = time.Since(began)
		if end == nil {
			end = hint.New("the daemon ended the session at once", "is there a proxy in between that does not pass on streams in both directions?")
		}
		w.broke(ctx, conn, &s, ClassSession, end, false)
	case <-late.C:
		s.Took = time.Since(began)
		w.broke(ctx, conn, &s, ClassSession, nil, true)
	case <-ctx.Done():
	}
	o.close()
	return nil
}

// listening notes the first byte that it reads.
type listening struct {
	net.Conn
	once  sync.Once
	heard chan struct{}
}

// Read implements net.Conn.
func (l *listening) Read(p []byte) (int, error) {
	n, err := l.Conn.Read(p)
	if n > 0 {
		l.once.Do(func() { close(l.heard) })
	}
	return n, err
}

// platformText lists platforms; variants of one that is listed are counted.
func platformText(all []ocispecs.Platform) string {
	var names []string
	more := map[string]int{}
	for _, p := range all {
		name := platforms.FormatAll(p)
		p.Variant, p.OSVersion = "", ""
		if base := platforms.Format(p); base != name && slices.Contains(names, base) {
			more[base]++
			continue
		}
		names = append(names, name)
	}
	for i, name := range names {
		if n := more[name]; n > 0 {
			names[i] = fmt.Sprintf("%s (+%d)", name, n)
		}
	}
	return strings.Join(names, ", ")
}

package doctor

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/identity"
	"github.com/moby/buildkit/session/filesync"
	"github.com/moby/buildkit/util/staticfs"
	"github.com/tonistiigi/fsutil"
	fstypes "github.com/tonistiigi/fsutil/types"
	"google.golang.org/grpc"

	"github.com/berthbuild/berth/internal/dial"
	"github.com/berthbuild/berth/internal/remote"
)

const (
	solveBudget = 30 * time.Second
	// cancelGrace is how long a daemon may take to confirm that the trial was
	// cancelled, before the connection is closed.
	cancelGrace = 300 * time.Millisecond

	// payload is how much is sent to measure by, in bytes: enough to be more
	// than one window of HTTP/2, and little enough for a slow line.
	payload = 256 << 10

	frontend = "dockerfile.v0"
	// sharedKey names the copy of the trial's files that the daemon keeps. They
	// are the same for everybody.
	sharedKey = "berth doctor"
	// trial is built. What is copied is the same each time, so that a daemon
	// builds it once and has it in its cache afterwards; only its time differs,
	// so that it is sent again.
	trial = "FROM scratch\nCOPY berth-doctor /\n"
	// skewed is how far apart two clocks may be without a word.
	skewed = 30 * time.Second
)

// build takes StepSession, StepSolve, StepSend and StepClock.
func (w *walk) build(ctx context.Context, conn *remote.Conn) {
	files := newOffer()
	sess := w.session(ctx, conn, files)
	if sess == nil {
		w.plan.need(StepSession, StepSolve, StepSend, StepClock)
		return
	}
	defer sess.close()
	sctx, cancel := context.WithTimeout(ctx, solveBudget)
	defer cancel()
	stop := context.AfterFunc(sctx, func() {
		time.AfterFunc(cancelGrace, func() { _ = conn.Close() }) // closing twice is fine
	})
	clock := &clocks{}
	began := time.Now()
	clock.began = began
	_, err := conn.Client().Solve(sctx, nil, client.SolveOpt{
		Ref: identity.NewID(), Frontend: frontend, Internal: true,
		SharedSession: sess.session, SessionPreInitialized: true,
	}, clock.statuses())
	late := over(sctx)
	if stop() {
		cancel()
	}
	clock.wait()
	s := Step{Name: StepSolve, Status: OK, Took: time.Since(began), Text: "FROM scratch and a COPY"}
	if err != nil {
		w.broke(ctx, conn, &s, ClassSolve, err, late)
		w.plan.need(StepSolve, StepSend, StepClock)
		return
	}
	w.plan.set(s)
	w.plan.set(files.step())
	w.plan.set(clock.step())
}

// offer is the files of the trial, and how they were fetched.
type offer struct {
	filesync.FileSyncServer

	mu      sync.Mutex
	asked   int       // how often the daemon fetched
	opened  time.Time // when the payload was begun to be read
	fetched time.Time // when the fetch that it was a part of had ended
}

func newOffer() *offer {
	o := &offer{}
	now := time.Now().UnixNano()
	dockerfile, files := staticfs.NewFS(), staticfs.NewFS()
	dockerfile.Add("Dockerfile", &fstypes.Stat{Mode: 0o600, ModTime: now}, []byte(trial))
	files.Add("berth-doctor", &fstypes.Stat{Mode: 0o600, ModTime: now}, noise())
	provider := filesync.NewFSSyncProvider(filesync.StaticDirSource{
		"dockerfile": dockerfile, "context": &timed{FS: files, opened: o.begin},
	})
	o.FileSyncServer, _ = provider.(filesync.FileSyncServer) // it is one: it registers itself
	return o
}

// noise is what no line compresses, the same each time.
func noise() []byte {
	data := make([]byte, payload)
	_, _ = rand.NewChaCha8([32]byte([]byte("berth doctor: the trial's ballast"))).Read(data) // never fails
	return data
}

// Register implements session.Attachable.
func (o *offer) Register(s *grpc.Server) { filesync.RegisterFileSyncServer(s, o) }

// DiffCopy implements filesync.FileSyncServer.
func (o *offer) DiffCopy(stream filesync.FileSync_DiffCopyServer) error {
	o.mu.Lock()
	o.asked++
	before := o.opened
	o.mu.Unlock()
	err := o.FileSyncServer.DiffCopy(stream)
	o.mu.Lock()
	defer o.mu.Unlock()
	if err == nil && o.opened != before {
		o.fetched = time.Now()
	}
	return err
}

func (o *offer) begin() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.opened = time.Now()
}

// step is StepSend.
func (o *offer) step() Step {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := Step{Name: StepSend, Status: OK, Took: o.fetched.Sub(o.opened)}
	if o.opened.IsZero() || o.fetched.IsZero() {
		return Step{Name: StepSend, Status: Skipped, Text: "the daemon fetched no files"}
	}
	perSecond := float64(payload) / max(s.Took.Seconds(), 1e-6)
	s.Text = fmt.Sprintf("%d KiB in %s, %s a second", payload>>10, dial.Short(s.Took), size(perSecond))
	return s
}

func size(bytes float64) string {
	switch {
	case bytes >= 1e6:
		return fmt.Sprintf("%.1f MB", bytes/1e6)
	default:
		return fmt.Sprintf("%.0f kB", bytes/1e3)
	}
}

// timed notes when a file is begun to be read.
type timed struct {
	fsutil.FS
	opened func()
}

// Open implements fsutil.FS.
func (t *timed) Open(p string) (io.ReadCloser, error) {
	t.opened()
	return t.FS.Open(p)
}

// clocks compares the daemon's clock with ours by the times of its steps: a
// step that it says to have begun at a time was begun after we asked for it and
// before we heard of it.
type clocks struct {
	began time.Time
	done  chan struct{}

	seen bool
	low  time.Duration // the daemon is ahead by at least this
	high time.Duration // and at most this
}

// statuses is what the solve writes to; wait waits for its end.
func (c *clocks) statuses() chan *client.SolveStatus {
	ch := make(chan *client.SolveStatus)
	c.done = make(chan struct{})
	go func() {
		defer close(c.done)
		for st := range ch {
			now := time.Now()
			for _, v := range st.Vertexes {
				c.note(v.Started, now)
				c.note(v.Completed, now)
			}
		}
	}()
	return ch
}

func (c *clocks) wait() { <-c.done }

func (c *clocks) note(theirs *time.Time, now time.Time) {
	if theirs == nil || theirs.IsZero() {
		return
	}
	low, high := theirs.Sub(now), theirs.Sub(c.began)
	if !c.seen {
		c.seen, c.low, c.high = true, low, high
		return
	}
	c.low, c.high = max(c.low, low), min(c.high, high)
}

// step is StepClock.
func (c *clocks) step() Step {
	s := Step{Name: StepClock, Status: OK}
	if !c.seen {
		s.Status, s.Text = Skipped, "the daemon told no times"
		return s
	}
	ahead := c.low
	if c.low <= 0 && c.high >= 0 {
		ahead = 0
	} else if c.high < 0 {
		ahead = c.high
	}
	switch {
	case ahead == 0:
		s.Text = "the daemon's agrees with ours within " + dial.Short(max(c.high, -c.low))
	case ahead > 0:
		s.Text = "the daemon's is ahead of ours by " + ahead.Round(time.Millisecond).String()
	default:
		s.Text = "the daemon's is behind ours by " + (-ahead).Round(time.Millisecond).String()
	}
	if ahead > skewed || ahead < -skewed {
		s.Status = Warning
		s.Hints = []string{"certificates and registry tokens fail when clocks differ: set the clock of the one that is wrong (timedatectl)"}
	}
	return s
}

package doctor

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/berthbuild/berth/internal/builder"
	"github.com/berthbuild/berth/internal/dial"
	"github.com/berthbuild/berth/internal/endpoint"
	"github.com/berthbuild/berth/internal/remote"
)

// stepSocket is the stage of unix:// that is about the socket itself.
const stepSocket = "socket"

// maxAsked bounds the questions that a scheme asks the person at the terminal.
const maxAsked = 16

// connectBudget bounds the attempt to connect; each of its parts has a smaller
// one of its own.
const connectBudget = 20 * time.Second

// walk is the way to one daemon.
type walk struct {
	d      *doctor
	node   builder.Node
	target remote.Target
	err    error // why there is no target
	shown  string
	stages []string // of the scheme
	plan   *plan
}

// newWalk plans the steps; nothing is contacted.
func (d *doctor) newWalk(n builder.Node) *walk {
	w := &walk{d: d, node: n, shown: n.Endpoint}
	w.target, w.err = n.Target()
	e := w.target.Endpoint
	secrets := []string{w.target.Options.Proxy.Password.Reveal()}
	if e.Scheme == endpoint.SchemeExec {
		w.shown = shownCommand(e)
		secrets = append(secrets, commandSecrets(e)...)
	}
	scrub := newScrubber(append(slices.Clone(d.o.Secrets), secrets...))
	w.stages = []string{dial.StageConnect}
	if s, ok := d.o.Schemes.Lookup(e.Scheme); ok && s.Stages != nil {
		w.stages = s.Stages(e)
	}
	names := []string{StepParse}
	if e.Scheme == endpoint.SchemeTCP {
		names = append(names, StepFiles)
	}
	names = append(names, w.stages...)
	if e.Scheme == endpoint.SchemeTCP {
		names = append(names, StepTLS)
	}
	w.plan = newPlan(scrub, append(names, StepHTTP2, StepInfo, StepWorkers, StepLatency, StepSession, StepSolve, StepSend, StepClock)...)
	return w
}

// run takes the steps. When it returns, all of them are set.
func (w *walk) run(ctx context.Context) {
	defer w.rest(ctx)
	if !w.parse() {
		return
	}
	conn := w.connect(ctx)
	if conn == nil {
		return
	}
	defer conn.Close() //nolint:errcheck // nothing is lost with it
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	w.talk(ctx, conn)
}

// rest skips what was not come to: behind the step that failed, or because the
// time was over.
func (w *walk) rest(ctx context.Context) {
	failed := w.failed()
	if failed == "" && over(ctx) {
		for _, n := range w.plan.names {
			if !w.plan.ended(n) {
				w.plan.set(timeUp(n))
				failed = n
				break
			}
		}
	}
	w.plan.need(failed, w.plan.names...)
}

func timeUp(name string) Step {
	return Step{Name: name, Status: Failed, Class: ClassTimeout, Text: "the time for all steps was over",
		Hints: []string{"give it more: --timeout 5m"}}
}

func (w *walk) failed() string {
	w.plan.mu.Lock()
	defer w.plan.mu.Unlock()
	for _, s := range w.plan.steps {
		if s.Status == Failed {
			return s.Name
		}
	}
	return ""
}

// parse is StepParse.
func (w *walk) parse() bool {
	s := Step{Name: StepParse}
	if w.err != nil {
		s.fail(remote.BadConfig, w.err)
		w.plan.set(s)
		return false
	}
	s.Status, s.Text = OK, describeTarget(w.target, w.shown)
	w.plan.set(s)
	return true
}

// connect takes the steps up to StepInfo; nil where one of them fails.
func (w *walk) connect(ctx context.Context) *remote.Conn {
	files := w.files(ctx)
	if files.Status == Skipped {
		w.plan.set(files)
	}
	for range maxAsked {
		t := &trail{w: w, files: files, stages: map[string][]dial.Stage{}}
		conn, err := remote.Connect(dial.WithTracer(ctx, t.hear(ctx)), w.target, remote.Config{
			Schemes: w.d.o.Schemes, Budget: connectBudget, Once: true, KeepAlive: true,
		})
		if ask := questionOf(err); ask != nil && ctx.Err() == nil && ask(ctx) == nil {
			t.end()
			continue
		}
		t.end()
		if err == nil {
			t.arrived(conn)
			return conn
		}
		if ctx.Err() == nil || errors.As(err, new(*remote.Failure)) {
			t.stopped(ctx, err)
		}
		return nil
	}
	return nil
}

// questionOf is how the person at the terminal is asked for what is lacking,
// nil where nothing is, or nobody is there.
func questionOf(err error) func(context.Context) error {
	var own *dial.Error
	if errors.As(err, &own) {
		return own.Ask
	}
	return nil
}

// trail is what one attempt to connect has told.
type trail struct {
	w      *walk
	files  Step // as it is, unless they cannot be used
	probes sync.WaitGroup

	mu        sync.Mutex
	over      bool
	probing   bool
	stages    map[string][]dial.Stage
	addresses []address // of a name that has several
}

// hear is the tracer of the attempt. What ended well is shown at once, unless
// more is to come.
func (t *trail) hear(ctx context.Context) dial.Tracer {
	return func(s dial.Stage) {
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.over {
			return // the loser of a race
		}
		t.stages[s.Name] = append(t.stages[s.Name], s)
		if s.Name == dial.StageResolve && len(s.Addrs) > 1 && t.w.target.Endpoint.Scheme == endpoint.SchemeTCP && !t.w.proxied() {
			t.probing = true
			t.probes.Go(func() { t.probe(ctx, s.Addrs) })
		}
		if s.Err == nil {
			t.settle(s.Name)
		}
	}
}

// settle sets what is over for good with a stage that has ended well. With ssh a
// jump host has the same ones again; the addresses of a name are looked at on; a
// socket shows what it is when it is connected to; and the last stage may yet
// fail by the first byte.
func (t *trail) settle(name string) {
	w := t.w
	scheme := w.target.Endpoint.Scheme
	switch {
	case name == StepFiles:
		w.plan.set(t.files)
	case name == StepConnect && scheme == endpoint.SchemeUnix:
		t.setStage(stepSocket)
		t.setStage(StepConnect)
	case name == StepConnect && scheme == endpoint.SchemeTCP && !t.probing:
		t.setStage(StepConnect)
		if !w.proxied() {
			t.setStage(StepProxy)
		}
	case name == StepConnect, name == stepSocket, name == last(w.stages), scheme == endpoint.SchemeSSH:
	case slices.Contains(w.stages, name):
		w.plan.set(t.step(name))
	}
}

// end waits for what the attempt has started, and hears no more.
func (t *trail) end() {
	t.probes.Wait()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.over = true
}

// step is a stage as it ended: with several of a name, such as those of jump
// hosts, the last one speaks for all.
func (t *trail) step(name string) Step {
	all := t.stages[name]
	s := Step{Name: name, Status: OK}
	if len(all) == 0 {
		return s
	}
	for _, one := range all {
		s.Took += one.Took
		s.Facts = append(s.Facts, one.Facts...)
	}
	for _, before := range all[:len(all)-1] {
		s.Facts = append(s.Facts, dial.Fact{Name: "before", Value: before.Text})
	}
	s.Text = all[len(all)-1].Text
	return s
}

// arrived sets the steps of an attempt that BuildKit has answered.
func (t *trail) arrived(conn *remote.Conn) {
	w := t.w
	w.plan.set(t.files)
	for _, name := range w.stages {
		t.setStage(name)
	}
	w.plan.set(t.tls(conn))
	w.plan.set(t.step(StepHTTP2))
	info := t.step(StepInfo)
	info.Text = describeInfo(conn, w.d.o.Client)
	w.plan.set(info)
}

// setStage sets a stage of the scheme that ended well.
func (t *trail) setStage(name string) {
	switch {
	case name == StepConnect:
		t.w.plan.set(t.connected())
	case len(t.stages[name]) == 0 && name == StepProxy:
		t.w.plan.set(Step{Name: name, Status: Skipped, Text: "none is set"})
	case len(t.stages[name]) == 0 && name == last(t.w.stages):
		t.w.plan.set(Step{Name: name, Status: OK, Text: "it answers"}) // only the first byte proves it
	default:
		t.w.plan.set(t.step(name))
	}
}

// stopped sets the steps of an attempt that failed, up to the one that did.
func (t *trail) stopped(ctx context.Context, err error) {
	w := t.w
	name := t.where(err)
	if name == StepFiles { // the way can be walked without them
		files := Step{Name: StepFiles, Took: t.step(StepFiles).Took, Facts: t.files.Facts}
		files.fail(remote.BadConfig, err)
		w.plan.set(files)
		t.withoutFiles(ctx)
		return
	}
	w.plan.set(t.files)
	s := t.step(name)
	facts := s.Facts
	if name == StepConnect {
		facts = append(facts, factsOf(t.addresses)...)
	}
	s = Step{Name: name, Took: s.Took, Facts: facts}
	s.fail(remote.ConnectError, err)
	var f *remote.Failure
	if errors.As(err, &f) && name == StepTLS {
		s.Facts = append(s.Facts, chainFacts(f.Presented())...)
	}
	for _, before := range w.plan.names[:w.plan.index(name)] {
		switch {
		case w.plan.ended(before):
		case before == StepTLS:
			w.plan.set(t.handshake())
		case slices.Contains(w.stages, before):
			t.setStage(before)
		default:
			w.plan.set(t.step(before))
		}
	}
	w.plan.set(s)
}

// where is the step that a failed attempt ended in.
func (t *trail) where(err error) string {
	var f *remote.Failure
	if !errors.As(err, &f) {
		return last(t.w.stages)
	}
	name := f.Stage()
	if name == StepInfo && failedStage(t.stages[StepHTTP2]) {
		name = StepHTTP2
	}
	if name != "" && t.w.plan.has(name) {
		return name
	}
	if name != "" { // TLS on a scheme without
		return StepHTTP2
	}
	if slices.Contains([]remote.Class{remote.NoSocket, remote.SocketPermission, remote.BadConfig}, f.Class) && t.w.plan.has(stepSocket) {
		return stepSocket // which the system tells only when it is connected to
	}
	for _, s := range t.w.stages {
		if failedStage(t.stages[s]) {
			return s
		}
	}
	return last(t.w.stages)
}

func failedStage(all []dial.Stage) bool {
	return slices.ContainsFunc(all, func(s dial.Stage) bool { return s.Err != nil })
}

func last(names []string) string { return names[len(names)-1] }

// withoutFiles goes on as far as there is no need of them.
func (t *trail) withoutFiles(ctx context.Context) {
	w := t.w
	target := w.target
	target.Options = endpoint.Options{Proxy: target.Options.Proxy}
	t = &trail{w: w, stages: map[string][]dial.Stage{}}
	c, err := remote.Dial(dial.WithTracer(ctx, t.hear(ctx)), target, remote.Config{Schemes: w.d.o.Schemes, Budget: connectBudget, Once: true})
	t.end()
	if err == nil {
		_ = c.Close()
	}
	for _, name := range w.stages {
		if err != nil && name == t.where(err) {
			s := Step{Name: name, Took: t.step(name).Took, Facts: append(t.step(name).Facts, factsOf(t.addresses)...)}
			s.fail(remote.ConnectError, err)
			w.plan.set(s)
			return
		}
		t.setStage(name)
	}
	w.plan.need(StepFiles, w.plan.names...)
}

package doctor

import (
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/berthbuild/berth/internal/dial"
	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/remote"
)

// The names of the steps, in their order. Between StepFiles and StepTLS stand
// the stages of the scheme (dial.Scheme.Stages): StepResolve, StepConnect and
// others. They are stable: scripts compare them.
const (
	StepState   = "state"           // the builder is found
	StepParse   = "parse"           // its endpoint and options can be read
	StepFiles   = remote.StageFiles // certificates, keys, and their expiry
	StepResolve = dial.StageResolve // the name, with every address
	StepConnect = dial.StageConnect // every address
	StepProxy   = dial.StageProxy   // what stands between
	StepTLS     = remote.StageTLS   // version, chain, names, what the daemon asked for
	StepHTTP2   = remote.StageHTTP2 // the peer's first frame
	StepInfo    = remote.StageInfo  // it is BuildKit
	StepWorkers = "workers"         // what it builds for
	StepLatency = "latency"         // the round trip of a question
	StepSession = "session"         // the daemon can ask us
	StepSolve   = "solve"           // a trial build
	StepSend    = "transfer"        // how fast files go to it
	StepClock   = "clock"           // the daemon's, beside ours
	StepLoad    = "load"            // the Docker engine
	StepPush    = "push"            // the registry
)

// Status is how a step ended. The strings are stable.
type Status string

// The ends of a step.
const (
	OK      Status = "ok"
	Warning Status = "warning" // a build works, but somebody should look at it
	Failed  Status = "failed"
	Skipped Status = "skipped" // it does not apply, or it needs one that failed
)

// The classes of failures that are none of a connection.
const (
	ClassState   remote.Class = "state"   // the state folder, or no such builder
	ClassTimeout remote.Class = "timeout" // the time for it was over
	ClassLost    remote.Class = "closed"  // the connection broke meanwhile
	ClassWorkers remote.Class = "no-workers"
	ClassSession remote.Class = "session" // the daemon does not ask us
	ClassSolve   remote.Class = "solve"   // it does not build
	ClassEngine  remote.Class = "engine"  // there is no Docker engine, and default-load wants one
	ClassPushRef remote.Class = "push-ref"
	ClassLogin   remote.Class = "push-login"  // the registry wants a login, and there is none
	ClassRefused remote.Class = "push-denied" // or does not take the one that there is
)

// Step is one step as it was walked.
type Step struct {
	Name   string
	Status Status
	Text   string       // what was seen, or why not; one line
	Facts  []dial.Fact  // more of it
	Class  remote.Class // of a failure
	Hints  []string     // what to try
	Needs  string       // of a skipped step: the one that it needs and that failed
	Took   time.Duration
}

// fail makes it a failed one. The class is that of a failed connection, where
// err is one.
func (s *Step) fail(class remote.Class, err error) {
	s.Status, s.Class = Failed, classOf(err, class)
	s.Hints = hint.Of(err)
	s.Text = err.Error()
	var f *remote.Failure
	if errors.As(err, &f) {
		s.Text = f.Short()
	}
}

// plan is the steps of one walk: which there are, and in which order, is known
// before the first is taken. Each is set once; a second time is ignored.
type plan struct {
	names []string
	scrub *scrubber

	mu    sync.Mutex
	steps []Step
	ready []chan struct{} // closed when the step is set
}

func newPlan(scrub *scrubber, names ...string) *plan {
	p := &plan{names: names, scrub: scrub, steps: make([]Step, len(names))}
	for range names {
		p.ready = append(p.ready, make(chan struct{}))
	}
	return p
}

func (p *plan) index(name string) int {
	for i, n := range p.names {
		if n == name {
			return i
		}
	}
	return -1
}

func (p *plan) has(name string) bool { return p.index(name) >= 0 }

// set tells how a step of the plan ended. What it says is scrubbed here.
func (p *plan) set(s Step) {
	i := p.index(s.Name)
	if i < 0 {
		return
	}
	s.Text = p.scrub.clean(s.Text)
	facts := make([]dial.Fact, 0, len(s.Facts))
	for _, f := range s.Facts {
		facts = append(facts, dial.Fact{Name: p.scrub.clean(f.Name), Value: p.scrub.clean(f.Value)})
	}
	s.Facts = facts
	hints := make([]string, 0, len(s.Hints))
	for _, h := range s.Hints {
		hints = append(hints, p.scrub.clean(h))
	}
	s.Hints = hints
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.steps[i].Status != "" {
		return
	}
	p.steps[i] = s
	close(p.ready[i])
}

// ended tells whether the step was set.
func (p *plan) ended(name string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := p.index(name)
	return i >= 0 && p.steps[i].Status != ""
}

// need skips the steps that are not set yet, because the one that they need has
// failed.
func (p *plan) need(failed string, names ...string) {
	for _, n := range names {
		p.set(Step{Name: n, Status: Skipped, Needs: failed, Text: "needs " + failed})
	}
}

// slow is how long a step may take before it is worth saying what is waited for.
const slow = 500 * time.Millisecond

// wait gives step i, when it is set; late is called when that takes long.
func (p *plan) wait(i int, late func(name string)) Step {
	timer := time.NewTimer(slow)
	defer timer.Stop()
	select {
	case <-p.ready[i]:
	case <-timer.C:
		late(p.names[i])
		<-p.ready[i]
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.steps[i]
}

// oneLine makes a text fit for a line.
func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

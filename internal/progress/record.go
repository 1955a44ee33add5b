package progress

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/moby/buildkit/client"
	"github.com/opencontainers/go-digest"
)

const (
	// lastLines is how much of a failed step's log is kept.
	lastLines = 50
	// maxLine bounds each of those lines, in bytes.
	maxLine = 8 << 10
)

// FailedStep is a step that ended with an error.
type FailedStep struct {
	Name  string
	Log   []string // its last lines, each after the seconds since the step began
	Error string
}

// record is what is remembered of builds, whatever is shown of them: their
// warnings, what is going on, and, when it is asked to, the logs.
type record struct {
	logs bool // keep logs, for failed

	mu       sync.Mutex
	warnings []client.VertexWarning
	seen     map[string]bool         // keys of warnings
	steps    map[digest.Digest]*step // those that have begun, and those that failed
	errors   []*step                 // in the order in which they ended
}

// step is one of a daemon's.
type step struct {
	vertex  *client.Vertex // as it was told last
	lines   [][]byte
	partial bool // the last line has not ended
}

func newRecord(logs bool) *record {
	return &record{logs: logs, seen: map[string]bool{}, steps: map[digest.Digest]*step{}}
}

// note remembers s, which nobody changes later, and the warnings as they came.
// The steps of our own are not noted: their errors are told anyway.
func (r *record) note(s *client.SolveStatus, warnings []*client.VertexWarning, own bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, w := range warnings {
		if key := warningKey(w); !r.seen[key] {
			r.seen[key] = true
			r.warnings = append(r.warnings, *w)
		}
	}
	if own {
		return
	}
	for _, v := range s.Vertexes {
		r.begin(v)
	}
	if r.logs {
		for _, l := range s.Logs {
			if st := r.steps[l.Vertex]; st != nil {
				st.log(l)
			}
		}
	}
	for _, v := range s.Vertexes {
		r.end(v)
	}
}

func (r *record) begin(v *client.Vertex) {
	st := r.steps[v.Digest]
	if st == nil {
		st = &step{}
		r.steps[v.Digest] = st
	}
	if st.vertex == nil || v.Started != nil { // the first announcement may come twice
		st.vertex = v
	}
}

// end forgets a step that did well.
func (r *record) end(v *client.Vertex) {
	st := r.steps[v.Digest]
	switch {
	case v.Completed == nil || st == nil:
	case v.Error == "" || strings.HasSuffix(v.Error, context.Canceled.Error()):
		// What another step's failure has ended is not to blame. The daemon says
		// it in words only.
		delete(r.steps, v.Digest)
	case !slices.Contains(r.errors, st):
		r.errors = append(r.errors, st)
	}
}

// open is the steps that have begun and not ended, for a display that begins in
// the middle.
func (r *record) open() *client.SolveStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := &client.SolveStatus{}
	for _, st := range r.steps {
		if st.vertex.Completed != nil {
			continue
		}
		out.Vertexes = append(out.Vertexes, st.vertex)
	}
	slices.SortFunc(out.Vertexes, func(a, b *client.Vertex) int { return strings.Compare(string(a.Digest), string(b.Digest)) })
	return out
}

func (r *record) failed() []FailedStep {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.logs {
		return nil
	}
	var all []FailedStep
	for _, st := range r.errors {
		f := FailedStep{Name: st.vertex.Name, Error: st.vertex.Error}
		for _, l := range st.lines {
			f.Log = append(f.Log, string(l))
		}
		all = append(all, f)
	}
	return all
}

// log adds what a step printed to its last lines.
func (st *step) log(l *client.VertexLog) {
	for part := range bytes.Lines(l.Data) {
		text, ended := bytes.CutSuffix(part, []byte{'\n'})
		switch n := len(st.lines); {
		case st.partial:
			text = text[:min(len(text), max(0, maxLine-len(st.lines[n-1])))]
			st.lines[n-1] = append(st.lines[n-1], text...)
		default:
			if n == lastLines {
				st.lines = slices.Delete(st.lines, 0, 1)
			}
			begun := st.since(l.Timestamp)
			st.lines = append(st.lines, append([]byte(begun), text[:min(len(text), maxLine)]...))
		}
		st.partial = !ended
	}
}

// since is the time since the step began, as BuildKit's displays write it
// before a line.
func (st *step) since(t time.Time) string {
	var seconds float64
	if st.vertex.Started != nil {
		seconds = t.Sub(*st.vertex.Started).Seconds()
	}
	decimals := 1
	switch {
	case seconds < 10:
		decimals = 3
	case seconds < 100:
		decimals = 2
	}
	return fmt.Sprintf("%.*f ", decimals, seconds)
}

// warningKey tells warnings apart: two nodes that read one Dockerfile give the
// same one twice, about steps with different names.
func warningKey(w *client.VertexWarning) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%q %q", w.Short, w.URL)
	for _, d := range w.Detail {
		fmt.Fprintf(&b, " %q", d)
	}
	if w.SourceInfo != nil {
		fmt.Fprintf(&b, " in %q", w.SourceInfo.Filename)
	}
	for _, r := range w.Range {
		fmt.Fprintf(&b, " %d:%d-%d:%d", r.GetStart().GetLine(), r.GetStart().GetCharacter(), r.GetEnd().GetLine(), r.GetEnd().GetCharacter())
	}
	return b.String()
}

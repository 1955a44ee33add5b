package history

import (
	"bytes"
	"context"
	"slices"
	"time"

	"github.com/moby/buildkit/client"
	digest "github.com/opencontainers/go-digest"
)

// How much of a build's course is kept. What is beyond that is counted.
const (
	maxSteps     = 10_000
	maxSpanCount = 64       // times that one step ran
	maxParts     = 200      // of one step
	maxInputs    = 1_000    // of one step
	maxWarnings  = 1_000    // of a build
	maxStepLines = 50_000   // of one step
	maxLogBytes  = 32 << 20 // of all steps
	maxLineBytes = 4 << 10
	maxNameBytes = 16 << 10

	keptFirst = 500 // lines of a step that stay when it has too many
)

// Course is how a build went, step by step, as its progress told. The zero value is
// ready. It is one goroutine's at a time.
//
// It is bounded, whatever a daemon sends: of a step with too many lines the middle
// goes, since a log says what it does at its beginning, and why it failed at its end.
type Course struct {
	Steps    []*Step // in the order in which they were first told of
	Warnings []string
	Left     int // steps that there was no room for

	at    map[digest.Digest]*Step
	bytes int
}

// Step is one step of a build.
type Step struct {
	Digest digest.Digest
	Inputs []digest.Digest // steps that it needs
	Name   string
	Spans  []Span // when it ran; several where it ran again
	Cached bool
	Error  string
	Parts  []Part // what it said that it was doing, such as a layer that is sent
	Lines  []Line
	Left   int // lines that there was no room for
	LeftAt int // where in Lines they were

	open map[int]int // by stream: one more than the index of the line that has not ended
}

// Span is a time in which a step ran.
type Span struct{ Started, Completed time.Time } // Completed is zero while it runs

// Part is something that a step did, with how far it came.
type Part struct {
	Name               string
	Current, Total     int64
	Started, Completed time.Time // zero where not known
}

// Line is a line that a step printed, as it was, but for its length.
type Line struct {
	Text   string
	Left   int // bytes that there was no room for
	Time   time.Time
	Stderr bool
}

// Course reads how the build went, of one that runs until it ends.
func (r *Record) Course(ctx context.Context) (*Course, error) {
	c := &Course{}
	err := r.Progress(ctx, c.Add)
	return c, err
}

// Add takes the next of a build's progress.
func (c *Course) Add(s *client.SolveStatus) {
	for _, v := range s.Vertexes {
		if st := c.step(v.Digest); st != nil {
			st.vertex(v)
		}
	}
	for _, p := range s.Statuses {
		if st := c.at[p.Vertex]; st != nil {
			st.part(p)
		}
	}
	for _, w := range s.Warnings {
		if len(c.Warnings) < maxWarnings {
			c.Warnings = append(c.Warnings, string(w.Short[:min(len(w.Short), maxLineBytes)]))
		}
	}
	for _, l := range s.Logs {
		if st := c.at[l.Vertex]; st != nil {
			c.bytes += st.print(l)
			c.fit(st)
		}
	}
}

func (c *Course) step(id digest.Digest) *Step {
	if st := c.at[id]; st != nil {
		return st
	}
	if len(c.Steps) == maxSteps {
		c.Left++
		return nil
	}
	if c.at == nil {
		c.at = map[digest.Digest]*Step{}
	}
	st := &Step{Digest: id, open: map[int]int{}}
	c.at[id] = st
	c.Steps = append(c.Steps, st)
	return st
}

// vertex takes what is new of a step. A step is told of several times, of which
// the last has it all, except that one that runs again begins anew.
func (s *Step) vertex(v *client.Vertex) {
	if v.Name != "" {
		s.Name = v.Name[:min(len(v.Name), maxNameBytes)]
	}
	if len(v.Inputs) > 0 {
		s.Inputs = slices.Clone(v.Inputs[:min(len(v.Inputs), maxInputs)])
	}
	s.Cached = s.Cached || v.Cached
	if v.Error != "" {
		s.Error = v.Error[:min(len(v.Error), maxNameBytes)]
	}
	if v.Started == nil {
		return
	}
	span := Span{Started: *v.Started}
	if v.Completed != nil {
		span.Completed = *v.Completed
	}
	i := slices.IndexFunc(s.Spans, func(o Span) bool { return o.Started.Equal(span.Started) })
	switch {
	case i >= 0:
		if !span.Completed.IsZero() {
			s.Spans[i] = span
		}
	case len(s.Spans) < maxSpanCount:
		s.Spans = append(s.Spans, span)
	case !span.Completed.IsZero(): // the last stands for all that follow
		s.Spans[maxSpanCount-1].Completed = span.Completed
	}
}

func (s *Step) part(p *client.VertexStatus) {
	name := p.Name
	if name == "" {
		name = p.ID
	}
	name = name[:min(len(name), maxLineBytes)]
	now := Part{Name: name, Current: p.Current, Total: p.Total}
	if p.Started != nil {
		now.Started = *p.Started
	}
	if p.Completed != nil {
		now.Completed = *p.Completed
	}
	if i := slices.IndexFunc(s.Parts, func(o Part) bool { return o.Name == name }); i >= 0 {
		s.Parts[i] = now
	} else if len(s.Parts) < maxParts {
		s.Parts = append(s.Parts, now)
	}
}

// print takes what the step printed, which may end in the middle of a line, and
// says by how many bytes its lines have grown.
func (s *Step) print(l *client.VertexLog) int {
	grown := 0
	for part := range bytes.Lines(l.Data) {
		text, ended := bytes.CutSuffix(part, []byte{'\n'})
		i := s.open[l.Stream] - 1
		if i < 0 {
			i = len(s.Lines)
			s.Lines = append(s.Lines, Line{Time: l.Timestamp, Stderr: l.Stream == 2})
		}
		line := &s.Lines[i]
		room := min(len(text), max(0, maxLineBytes-len(line.Text)))
		line.Text += string(text[:room])
		line.Left += len(text) - room
		grown += room
		if s.open[l.Stream] = i + 1; ended {
			delete(s.open, l.Stream)
		}
	}
	return grown
}

// fit takes lines out of the middle of a step when it, or the build, has too many.
func (c *Course) fit(s *Step) {
	if len(s.Lines) > maxStepLines {
		c.bytes -= s.leave(maxStepLines / 4)
	}
	for c.bytes > maxLogBytes {
		most := slices.MaxFunc(c.Steps, func(a, b *Step) int { return len(a.Lines) - len(b.Lines) })
		n := len(most.Lines) / 2
		if n == 0 {
			return
		}
		c.bytes -= most.leave(n)
	}
}

// leave takes n lines out, behind the first ones where there are enough, and says how
// many bytes they had.
func (s *Step) leave(n int) int {
	from := min(keptFirst, len(s.Lines)-n)
	freed := 0
	for _, l := range s.Lines[from : from+n] {
		freed += len(l.Text)
	}
	s.Lines = slices.Delete(s.Lines, from, from+n)
	s.Left += n
	s.LeftAt = from
	for stream, i := range s.open {
		if i-1 >= from+n {
			s.open[stream] = i - n
		} else if i-1 >= from {
			delete(s.open, stream) // the rest begins a line of its own
		}
	}
	return freed
}

package progress

import (
	"sync"
	"time"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/identity"
	"github.com/opencontainers/go-digest"
)

// Step is something that we do ourselves, shown among the build's steps:
// waiting for a daemon, loading an image. It may be used by several goroutines;
// after Done, nothing more is shown.
type Step struct {
	p      *Printer
	name   string
	digest digest.Digest

	mu      sync.Mutex // one writer at a time, so that nothing follows Done
	started time.Time
	parts   map[string]time.Time // id -> when it was first seen
	done    bool
}

// Step starts a step. It must be ended with Done.
func (p *Printer) Step(name string) *Step {
	s := &Step{
		p:       p,
		name:    name,
		digest:  digest.FromString(identity.NewID()),
		started: time.Now(),
		parts:   map[string]time.Time{},
	}
	p.send(&client.SolveStatus{Vertexes: []*client.Vertex{s.vertex()}})
	return s
}

func (s *Step) vertex() *client.Vertex {
	started := s.started
	return &client.Vertex{Digest: s.digest, Name: s.name, Started: &started}
}

// Log shows one line, or several with line breaks between them.
func (s *Step) Log(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.done {
		return
	}
	s.p.send(&client.SolveStatus{Logs: []*client.VertexLog{{
		Vertex: s.digest, Stream: 2, Data: []byte(text + "\n"), Timestamp: time.Now(),
	}}})
}

// Progress shows how far the part called id is, in bytes; a total of 0 is
// unknown. Reaching the total completes the part.
func (s *Step) Progress(id string, current, total int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.done {
		return
	}
	now := time.Now()
	if _, known := s.parts[id]; !known {
		s.parts[id] = now
	}
	started := s.parts[id]
	st := &client.VertexStatus{ID: id, Vertex: s.digest, Current: current, Total: total, Timestamp: now, Started: &started}
	if total > 0 && current >= total {
		st.Completed = &now
	}
	s.p.send(&client.SolveStatus{Statuses: []*client.VertexStatus{st}})
}

// Note shows a part that is complete and has no bytes: a fact. Unlike a log line
// it stays in view on a terminal.
func (s *Step) Note(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.done {
		return
	}
	now := time.Now()
	s.p.send(&client.SolveStatus{Statuses: []*client.VertexStatus{{
		ID: id, Vertex: s.digest, Timestamp: now, Started: &now, Completed: &now,
	}}})
}

// Done ends the step; with an error it is shown as failed. Only the first call
// counts.
func (s *Step) Done(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.done {
		return
	}
	s.done = true
	v, now := s.vertex(), time.Now()
	v.Completed = &now
	if err != nil {
		v.Error = err.Error()
	}
	s.p.send(&client.SolveStatus{Vertexes: []*client.Vertex{v}})
}

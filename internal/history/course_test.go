package history

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/moby/buildkit/client"
	digest "github.com/opencontainers/go-digest"
)

func ran(name string, from, to int, inputs ...digest.Digest) *client.Vertex {
	a, b := begin.Add(time.Duration(from)*time.Second), begin.Add(time.Duration(to)*time.Second)
	return &client.Vertex{Digest: digest.FromString(name), Name: name, Started: &a, Completed: &b, Inputs: inputs}
}

func said(name string, stream int, text string) *client.SolveStatus {
	return &client.SolveStatus{Logs: []*client.VertexLog{{Vertex: digest.FromString(name), Stream: stream, Data: []byte(text), Timestamp: begin}}}
}

func TestCourse(t *testing.T) {
	c := &Course{}
	open := ran("a", 0, 1)
	open.Completed = nil
	c.Add(&client.SolveStatus{Vertexes: []*client.Vertex{open}, Statuses: []*client.VertexStatus{{ID: "layer", Vertex: open.Digest, Current: 1, Total: 5}}})
	c.Add(said("a", 1, "out one\nout t"))
	c.Add(said("a", 2, "err one\n"))
	c.Add(said("a", 1, "wo\n\n"))
	c.Add(said("nobody", 1, "lost\n"))
	c.Add(&client.SolveStatus{
		Vertexes: []*client.Vertex{ran("a", 0, 1), ran("a", 5, 6), ran("b", 1, 2, open.Digest)},
		Statuses: []*client.VertexStatus{{ID: "layer", Vertex: open.Digest, Current: 5, Total: 5}},
		Warnings: []*client.VertexWarning{{Short: []byte("careful")}},
	})
	if len(c.Steps) != 2 || len(c.Warnings) != 1 {
		t.Fatalf("%d steps, %d warnings", len(c.Steps), len(c.Warnings))
	}
	a := c.Steps[0]
	var lines []string
	for _, l := range a.Lines {
		lines = append(lines, fmt.Sprintf("%s %v", l.Text, l.Stderr))
	}
	if got := strings.Join(lines, "|"); got != "out one false|out two false|err one true| false" {
		t.Errorf("lines %q", got)
	}
	if len(a.Spans) != 2 || a.Spans[0].Completed.IsZero() || len(a.Parts) != 1 || a.Parts[0].Current != 5 || len(c.Steps[1].Inputs) != 1 {
		t.Errorf("%+v", a)
	}
}

// Whatever a daemon sends, a course has a bound, and its last lines.
func TestCourseIsBounded(t *testing.T) {
	c := &Course{}
	var all []*client.Vertex
	for i := range maxSteps + 5 {
		all = append(all, ran(fmt.Sprint("s", i), i, i+1))
	}
	c.Add(&client.SolveStatus{Vertexes: all})
	if len(c.Steps) != maxSteps || c.Left != 5 {
		t.Errorf("%d steps, %d left", len(c.Steps), c.Left)
	}
	line := append(bytes.Repeat([]byte("x"), 2*maxLineBytes), '\n')
	for i := range 3 {
		for range 10 {
			c.Add(said(fmt.Sprint("s", i), 1, string(bytes.Repeat(line, 400))))
		}
		c.Add(said(fmt.Sprint("s", i), 1, "the last"))
	}
	total, left := 0, 0
	for _, s := range c.Steps[:3] {
		for _, l := range s.Lines {
			total += len(l.Text)
		}
		left += s.Left
		if last := s.Lines[len(s.Lines)-1]; last.Text != "the last" {
			t.Errorf("the last line is %.20q", last.Text)
		}
		if s.Lines[0].Left != maxLineBytes {
			t.Errorf("%d bytes were left of a line", s.Lines[0].Left)
		}
		if len(s.Lines)+s.Left != 4001 {
			t.Errorf("%d lines and %d left", len(s.Lines), s.Left)
		}
	}
	if total > maxLogBytes || left == 0 || c.bytes != total {
		t.Errorf("%d bytes, counted as %d, %d lines left out", total, c.bytes, left)
	}
}

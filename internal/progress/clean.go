package progress

import (
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"

	"github.com/berthbuild/berth/internal/termtext"
)

// maxName bounds a step's name, in bytes. A long RUN is shown whole.
const maxName = 64 << 10

// cleaner makes statuses fit for a terminal. One goroutine at a time may use
// it; what it is given stays as it is.
type cleaner struct {
	logs map[logOf]*termtext.Filter
	left bool // a log has ended with a colour on
}

// logOf is one output of one step.
type logOf struct {
	vertex digest.Digest
	stream int
}

func newCleaner() *cleaner { return &cleaner{logs: map[logOf]*termtext.Filter{}} }

// clean is s as text: a step has one line as its name, and what it prints can
// do nothing but change colours.
func (c *cleaner) clean(s *client.SolveStatus) *client.SolveStatus {
	out := &client.SolveStatus{}
	for _, l := range s.Logs {
		if data := c.log(l); len(data) > 0 {
			n := *l
			n.Data = data
			out.Logs = append(out.Logs, &n)
		}
	}
	for _, v := range s.Vertexes {
		n := *v
		n.Name, n.Error = line(v.Name), termtext.Clean(v.Error)
		if g := v.ProgressGroup; g != nil {
			n.ProgressGroup = &pb.ProgressGroup{Id: g.Id, Name: line(g.Name), Weak: g.Weak}
		}
		out.Vertexes = append(out.Vertexes, &n)
		if n.Completed != nil {
			c.end(n.Digest)
		}
	}
	for _, st := range s.Statuses {
		n := *st
		n.ID, n.Name = line(st.ID), line(st.Name)
		out.Statuses = append(out.Statuses, &n)
	}
	for _, w := range s.Warnings {
		n := *w
		n.Short = []byte(line(string(w.Short)))
		out.Warnings = append(out.Warnings, &n)
	}
	return out
}

func line(s string) string { return termtext.Line(s, maxName) }

func (c *cleaner) log(l *client.VertexLog) []byte {
	key := logOf{l.Vertex, l.Stream}
	f := c.logs[key]
	if f == nil {
		f = &termtext.Filter{}
		c.logs[key] = f
	}
	return f.Append(nil, l.Data)
}

// end forgets a step's outputs. Both streams of a process have one of the
// numbers 1 and 2.
func (c *cleaner) end(vertex digest.Digest) {
	for _, stream := range []int{1, 2} {
		key := logOf{vertex, stream}
		if f := c.logs[key]; f != nil {
			c.left = c.left || f.Coloured()
			delete(c.logs, key)
		}
	}
}

// coloured says that a log has left a colour on.
func (c *cleaner) coloured() bool {
	for _, f := range c.logs {
		if f.Coloured() {
			return true
		}
	}
	return c.left
}

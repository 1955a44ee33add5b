package progress

import (
	"strings"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
)

// Source is a stream for one client.Solve, which closes it; a caller that does
// not get that far must close it. With a prefix, the stream's steps are told
// apart from those of other streams: "[internal] load" becomes "[PREFIX
// internal] load". The stream is read to its end, also after Close.
func (p *Printer) Source(prefix string) chan *client.SolveStatus {
	ch := make(chan *client.SolveStatus)
	if !p.enter() {
		go drain(ch)
		return ch
	}
	go func() {
		p.forward(ch, prefix)
		drain(ch)
	}()
	return ch
}

// forward passes on until the stream ends or the Printer is closed.
func (p *Printer) forward(ch <-chan *client.SolveStatus, prefix string) {
	defer p.senders.Done()
	for {
		select {
		case s, ok := <-ch:
			if !ok {
				return
			}
			if s != nil {
				p.ch <- sent{status: prefixed(s, prefix)}
			}
		case <-p.closing:
			return
		}
	}
}

func drain(ch <-chan *client.SolveStatus) {
	for range ch { // the sender must not be left waiting
	}
}

// prefixed is a copy of s under a name of its own. The digests change too: two
// daemons that do the same step call it by the same digest, and the display
// would take the two for one.
func prefixed(s *client.SolveStatus, prefix string) *client.SolveStatus {
	if prefix == "" {
		return s
	}
	out := &client.SolveStatus{}
	for _, v := range s.Vertexes {
		c := *v
		c.Name = prefixedName(v.Name, prefix)
		c.Digest = prefixedDigest(v.Digest, prefix)
		c.Inputs = nil
		for _, in := range v.Inputs {
			c.Inputs = append(c.Inputs, prefixedDigest(in, prefix))
		}
		if g := v.ProgressGroup; g != nil {
			c.ProgressGroup = &pb.ProgressGroup{Id: prefix + "/" + g.Id, Name: prefixedName(g.Name, prefix), Weak: g.Weak}
		}
		out.Vertexes = append(out.Vertexes, &c)
	}
	for _, st := range s.Statuses {
		c := *st
		c.Vertex = prefixedDigest(st.Vertex, prefix)
		out.Statuses = append(out.Statuses, &c)
	}
	for _, l := range s.Logs {
		c := *l
		c.Vertex = prefixedDigest(l.Vertex, prefix)
		out.Logs = append(out.Logs, &c)
	}
	for _, w := range s.Warnings {
		c := *w
		c.Vertex = prefixedDigest(w.Vertex, prefix)
		out.Warnings = append(out.Warnings, &c)
	}
	return out
}

// prefixedName puts prefix into the brackets that BuildKit's names begin with.
// A multi-platform build already names the platform there.
func prefixedName(name, prefix string) string {
	rest, bracketed := strings.CutPrefix(name, "[")
	switch {
	case !bracketed:
		return "[" + prefix + "] " + name
	case strings.HasPrefix(rest, prefix+" "), strings.HasPrefix(rest, prefix+"]"):
		return name
	default:
		return "[" + prefix + " " + rest
	}
}

func prefixedDigest(d digest.Digest, prefix string) digest.Digest {
	if d == "" {
		return ""
	}
	return digest.FromString(prefix + "\x00" + d.String())
}

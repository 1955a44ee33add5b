package progress

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
)

const small = 1 << 11

// hostile are statuses as nobody means them; the long texts in them have some
// times size bytes.
func hostile(size int) []*client.SolveStatus {
	now := time.Now()
	past, future := time.Time{}, now.AddDate(5000, 0, 0)
	d := digest.FromString("x")
	evil := "\x1b[2J\x1b]0;title\x07\x1b]52;c;aGk=\x07\x1b[31mname\r\nsecond\tline \x00\u009b1;1H\x7f"
	logs := func(data ...string) *client.SolveStatus {
		s := &client.SolveStatus{}
		for _, text := range data {
			s.Logs = append(s.Logs, &client.VertexLog{Vertex: d, Stream: 1, Data: []byte(text), Timestamp: now})
		}
		return s
	}
	vertexes := func(all ...*client.Vertex) *client.SolveStatus { return &client.SolveStatus{Vertexes: all} }
	return []*client.SolveStatus{
		{},
		vertexes(&client.Vertex{}, &client.Vertex{Completed: &now}, &client.Vertex{Digest: "not a digest", Name: evil, Completed: &past}),
		logs("before it began\n"),
		vertexes(&client.Vertex{Digest: d, Name: evil, Started: &now}),
		logs("", "\n", "\x1b[", "31mred", "\x1b[10A\x1b[2K\x1b[?1049h\x1bc", "\xff\xfe", "\xe4", "\xb8\x96\n", evil),
		logs(strings.Repeat("long ", size), strings.Repeat("\r100%", size/64), "\n"),
		logs(strings.Repeat("many\n", size/8)),
		{Statuses: []*client.VertexStatus{
			{ID: evil, Vertex: d, Total: -1, Current: 1 << 62, Timestamp: past, Started: &future, Completed: &past},
			{Vertex: "nobody"},
			{ID: strings.Repeat("世", size), Vertex: d, Started: &now},
		}},
		{Warnings: []*client.VertexWarning{
			{Vertex: d, Short: []byte(evil), Range: []*pb.Range{nil, {}}}, {Short: bytes.Repeat([]byte("\xff"), size)}, {Vertex: "nobody"},
		}},
		vertexes(
			&client.Vertex{Digest: digest.FromString("g"), Name: "in a group", Started: &past, ProgressGroup: &pb.ProgressGroup{Id: d.String(), Name: evil}},
			&client.Vertex{Digest: digest.FromString("h"), Name: "in another", Completed: &now, ProgressGroup: &pb.ProgressGroup{Id: "w", Weak: true}, Error: evil},
			&client.Vertex{Digest: digest.FromString("f"), Name: "too early", Started: &future, Completed: &past, Inputs: []digest.Digest{"", d}},
		),
		vertexes(&client.Vertex{Digest: d, Name: strings.Repeat("very long ", size), Started: &now}),
		vertexes(&client.Vertex{Digest: d, Name: "name", Started: &now, Completed: &past, Error: evil + "\nof two lines"}),
		logs("after it ended, with a colour left on \x1b[41m\n"),
		vertexes(&client.Vertex{Digest: d, Name: "again", Started: &future}),
	}
}

// checkOutput fails the test when out has a control sequence that allowed does
// not know, or a control character.
func checkOutput(t *testing.T, out []byte, allowed func(seq string) bool) {
	t.Helper()
	if !utf8.Valid(out) {
		t.Errorf("not UTF-8")
	}
	for rest := string(out); rest != ""; {
		r, n := utf8.DecodeRuneInString(rest)
		switch {
		case r == 0x1b:
			n = 2 + strings.IndexFunc(rest[min(2, len(rest)):], func(r rune) bool { return r >= '@' && r <= '~' }) + 1
			if seq := rest[1:max(1, n)]; !allowed(seq) {
				t.Fatalf("the terminal gets ESC %q before %.40q", seq, rest[n:])
			}
		case r < ' ' && !strings.ContainsRune("\n\t\r\b", r), r >= 0x7f && r < 0xa0:
			t.Fatalf("the terminal gets %U", r)
		}
		rest = rest[n:]
	}
}

// colour is a control sequence that only changes colours.
func colour(seq string) bool {
	return strings.HasPrefix(seq, "[") && strings.HasSuffix(seq, "m") && strings.Trim(seq[1:len(seq)-1], "0123456789;:") == ""
}

func TestHostileTextInPlain(t *testing.T) {
	var out bytes.Buffer
	p := open(t, &out, Plain, Options{Builder: "b"})
	src := p.Source("")
	for _, s := range hostile(1 << 18) { // lines of more than a megabyte
		src <- s
	}
	close(src)
	closed(t, p)
	checkOutput(t, out.Bytes(), colour)
}

// What is harmless in it is shown. Of a step that begins again when it has ended,
// the display may leave out what came before: here it ends once.
func TestHostileTextIsShown(t *testing.T) {
	var out bytes.Buffer
	p := open(t, &out, Plain, Options{Builder: "b"})
	src := p.Source("")
	all, now := hostile(small), time.Now()
	for _, s := range []*client.SolveStatus{all[3], all[4], all[6]} {
		src <- s
	}
	src <- &client.SolveStatus{Vertexes: []*client.Vertex{{Digest: digest.FromString("x"), Name: "name", Started: &now, Completed: &now}}}
	close(src)
	closed(t, p)
	checkOutput(t, out.Bytes(), colour)
	for _, want := range []string{"name second line 1;1H\n", "世", "\x1b[31mred", "many\n"} {
		if !bytes.Contains(out.Bytes(), []byte(want)) {
			t.Errorf("%q is not shown", want)
		}
	}
}

// Every mode takes each of them, in any order, and ends.
func TestHostileStatuses(t *testing.T) {
	for _, mode := range []Mode{Plain, RawJSON, Quiet} {
		for first := range hostile(small) {
			var out bytes.Buffer
			p := open(t, &out, mode, Options{Builder: "b"})
			src := p.Source([]string{"", "linux/amd64"}[first%2])
			all := hostile(small)
			for i := range all {
				src <- all[(i+first)%len(all)]
			}
			close(src)
			closed(t, p)
			if mode == RawJSON {
				lines(t, out.Bytes())
			}
			for _, f := range p.Failed() {
				checkOutput(t, []byte(f.Name+f.Error+strings.Join(f.Log, "")), colour)
			}
		}
	}
}

func failed(name, problem string) *client.Vertex {
	v := vertex(name)
	v.Error = problem
	return v
}

func TestFailedSteps(t *testing.T) {
	for _, mode := range []Mode{Quiet, None, Plain} {
		p := open(t, &bytes.Buffer{}, mode, Options{})
		src := p.Source("linux/arm64")
		started := time.Now()
		begun := &client.Vertex{Digest: digest.FromString("[2/2] RUN make"), Name: "[2/2] RUN make", Started: &started}
		src <- &client.SolveStatus{Vertexes: []*client.Vertex{begun, vertex("[1/2] COPY")}}
		log := func(after time.Duration, text string) *client.VertexLog {
			return &client.VertexLog{Vertex: begun.Digest, Stream: 1, Data: []byte(text), Timestamp: started.Add(after)}
		}
		for i := range 2 * lastLines {
			src <- &client.SolveStatus{Logs: []*client.VertexLog{log(time.Second, fmt.Sprintf("line %d\n", i))}}
		}
		src <- &client.SolveStatus{Logs: []*client.VertexLog{log(12*time.Second, "a "), log(13*time.Second, "whole\nlong"), log(0, strings.Repeat("x", 2*maxLine))}}
		// The last words may come together with the end, or after it.
		ended := *begun
		ended.Completed, ended.Error = &started, "exit code: 2"
		src <- &client.SolveStatus{
			Vertexes: []*client.Vertex{&ended, failed("other", "rpc error: context canceled")},
			Logs:     []*client.VertexLog{log(123*time.Second, "\nlast \x1b[2Jword\n")},
		}
		src <- &client.SolveStatus{Vertexes: []*client.Vertex{&ended}, Logs: []*client.VertexLog{log(124*time.Second, "afterthought\n")}}
		close(src)
		s := p.Step("[internal] our own")
		s.Done(fmt.Errorf("told elsewhere"))
		closed(t, p)
		got := p.Failed()
		if mode == Plain {
			if got != nil {
				t.Errorf("%s has shown it, and would again: %v", mode, got)
			}
			continue
		}
		if len(got) != 1 || got[0].Name != "[linux/arm64 2/2] RUN make" || got[0].Error != "exit code: 2" {
			t.Fatalf("%s: %+v", mode, got)
		}
		l := got[0].Log
		if len(l) != lastLines || l[0] != fmt.Sprintf("1.000 line %d", lastLines+4) || l[lastLines-4] != "12.00 a whole" ||
			!strings.HasPrefix(l[lastLines-3], "13.00 longxxx") || len(l[lastLines-3]) > maxLine+10 ||
			l[lastLines-2] != "123.0 last word" || l[lastLines-1] != "124.0 afterthought" {
			t.Errorf("%s: %d lines, %.40q … %.40q", mode, len(l), l[0], l[lastLines-4:])
		}
	}
}

func TestWarningsEachOnce(t *testing.T) {
	warning := func(text string, line int32) *client.VertexWarning {
		return &client.VertexWarning{
			Vertex: digest.FromString(text), Short: []byte(text), SourceInfo: &pb.SourceInfo{Filename: "Dockerfile"},
			Range: []*pb.Range{{Start: &pb.Position{Line: line}, End: &pb.Position{Line: line}}},
		}
	}
	p := open(t, &bytes.Buffer{}, Quiet, Options{})
	for _, prefix := range []string{"linux/amd64", "linux/arm64"} {
		src := p.Source(prefix)
		src <- &client.SolveStatus{Warnings: []*client.VertexWarning{warning("a", 1), warning("a", 2), warning("b\x1b[2J", 1), warning("a", 1)}}
		close(src)
	}
	var got []string
	for _, w := range closed(t, p) {
		got = append(got, fmt.Sprintf("%s:%d", w.Short, w.Range[0].Start.Line))
	}
	if fmt.Sprintf("%q", got) != `["a:1" "a:2" "b\x1b[2J:1"]` { // as they came: whoever prints them cleans them
		t.Errorf("warnings = %q", got)
	}
}

// clumsy panics once.
type clumsy struct {
	bytes.Buffer
	fell bool
}

func (c *clumsy) Write(b []byte) (int, error) {
	if !c.fell && bytes.Contains(b, []byte("stumble")) {
		c.fell = true
		panic("what a strange escape sequence")
	}
	return c.Buffer.Write(b)
}

// A display that falls over one thing shows the rest, and what is going on.
func TestDisplayIsBegunAnew(t *testing.T) {
	out := &clumsy{}
	p := open(t, out, Plain, Options{Builder: "b"})
	src := p.Source("")
	long := vertex("a long step")
	long.Completed = nil
	src <- &client.SolveStatus{Vertexes: []*client.Vertex{long}}
	src <- status("stumble")
	src <- &client.SolveStatus{Logs: []*client.VertexLog{{Vertex: long.Digest, Data: []byte("still there\n"), Timestamp: time.Now()}}}
	now := time.Now()
	end := *long
	end.Completed = &now
	src <- &client.SolveStatus{Vertexes: []*client.Vertex{&end}}
	close(src)
	closed(t, p)
	for _, want := range []string{"a long step", "still there", "DONE"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not shown in %q", want, out.String())
		}
	}
	if !out.fell {
		t.Error("the test itself is wrong: nothing fell over")
	}
}

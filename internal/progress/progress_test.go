package progress

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"

	"github.com/berthbuild/berth/internal/hint"
)

func open(t *testing.T, out io.Writer, mode Mode, o Options) *Printer {
	t.Helper()
	p, err := New(out, mode, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = p.Close() })
	return p
}

func closed(t *testing.T, p *Printer) []client.VertexWarning {
	t.Helper()
	warnings, err := p.Close()
	if err != nil {
		t.Fatal(err)
	}
	return warnings
}

// vertex is a step of a build that has run.
func vertex(name string) *client.Vertex {
	now := time.Now()
	return &client.Vertex{Digest: digest.FromString(name), Name: name, Started: &now, Completed: &now}
}

func status(names ...string) *client.SolveStatus {
	s := &client.SolveStatus{}
	for _, n := range names {
		s.Vertexes = append(s.Vertexes, vertex(n))
	}
	return s
}

func TestParseMode(t *testing.T) {
	for in, want := range map[string]Mode{"": Auto, "auto": Auto, "tty": TTY, "plain": Plain, "rawjson": RawJSON, "quiet": Quiet, "none": None} {
		if got, err := ParseMode(in); err != nil || got != want {
			t.Errorf("%q = %q, %v", in, got, err)
		}
	}
	_, err := ParseMode("fancy")
	if err == nil || !strings.Contains(err.Error(), `"fancy"`) || !strings.Contains(strings.Join(hint.Of(err), ""), "rawjson") {
		t.Errorf("error = %v, hints %q", err, hint.Of(err))
	}
	if _, err := New(io.Discard, "fancy", Options{}); err == nil {
		t.Error("New takes an unknown mode")
	}
}

func TestPlain(t *testing.T) {
	for _, mode := range []Mode{Plain, Auto} {
		var out bytes.Buffer
		p := open(t, &out, mode, Options{Builder: "remote"})
		src := p.Source("")
		src <- status("[internal] load build definition")
		src <- nil
		close(src)
		closed(t, p)
		if got := out.String(); !strings.HasPrefix(got, "#0 building with \"remote\" instance using remote driver\n\n#1 [internal] load build definition\n") {
			t.Errorf("%s: %q", mode, got)
		}
	}
}

func TestTTYNeedsATerminal(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	for _, out := range []io.Writer{&bytes.Buffer{}, file} {
		_, err := New(out, TTY, Options{})
		if err == nil || !strings.Contains(err.Error(), "needs a terminal") || len(hint.Of(err)) == 0 {
			t.Errorf("%T: %v", out, err)
		}
	}
}

func TestQuietShowsNothingAndStillDrains(t *testing.T) {
	for _, mode := range []Mode{Quiet, None} {
		var out bytes.Buffer
		p := open(t, &out, mode, Options{Builder: "x"})
		src := p.Source("a")
		s := status("one")
		s.Warnings = []*client.VertexWarning{{Short: []byte("careful")}}
		src <- s
		close(src)
		if w := closed(t, p); len(w) != 1 || string(w[0].Short) != "careful" {
			t.Errorf("warnings = %v", w)
		}
		if out.Len() != 0 {
			t.Errorf("%s wrote %q", mode, out.String())
		}
	}
}

// lines reads rawjson back.
func lines(t *testing.T, out []byte) []client.SolveStatus {
	t.Helper()
	var all []client.SolveStatus
	for line := range bytes.Lines(out) {
		var s client.SolveStatus
		if err := json.Unmarshal(line, &s); err != nil {
			t.Fatalf("line %q: %v", line, err)
		}
		all = append(all, s)
	}
	return all
}

func TestRawJSONIsOneStatusPerLine(t *testing.T) {
	var out bytes.Buffer
	p := open(t, &out, RawJSON, Options{Builder: "x"})
	src := p.Source("")
	src <- status("a")
	src <- status("b", "c")
	close(src)
	closed(t, p)
	got := lines(t, out.Bytes())
	if len(got) != 2 || len(got[1].Vertexes) != 2 || got[1].Vertexes[1].Name != "c" || got[0].Vertexes[0].Digest != digest.FromString("a") {
		t.Errorf("got %s", out.String())
	}
}

func TestStep(t *testing.T) {
	var out bytes.Buffer
	p := open(t, &out, RawJSON, Options{})
	s := p.Step("connecting to remote0")
	s.Log("connection refused")
	s.Progress("image", 1, 2)
	s.Progress("image", 2, 2)
	s.Done(errors.New("gave up"))
	s.Done(nil)
	s.Log("too late")
	s.Progress("image", 3, 4)
	closed(t, p)
	got := lines(t, out.Bytes())
	if len(got) != 5 {
		t.Fatalf("%d lines: %s", len(got), out.String())
	}
	first, last := got[0].Vertexes[0], got[4].Vertexes[0]
	if first.Name != "connecting to remote0" || first.Started == nil || first.Completed != nil {
		t.Errorf("first = %+v", first)
	}
	if string(got[1].Logs[0].Data) != "connection refused\n" {
		t.Errorf("log = %q", got[1].Logs[0].Data)
	}
	if a, b := got[2].Statuses[0], got[3].Statuses[0]; a.Completed != nil || b.Completed == nil || !a.Started.Equal(*b.Started) || b.Vertex != first.Digest {
		t.Errorf("progress = %+v, %+v", a, b)
	}
	if last.Error != "gave up" || last.Completed == nil || last.Digest != first.Digest {
		t.Errorf("last = %+v", last)
	}
}

func TestPrefixedName(t *testing.T) {
	for _, tc := range []struct{ in, want string }{
		{"[internal] load .dockerignore", "[linux/arm64 internal] load .dockerignore"},
		{"[stage-1 2/3] RUN x", "[linux/arm64 stage-1 2/3] RUN x"},
		{"exporting to image", "[linux/arm64] exporting to image"},
		{"[linux/arm64 stage-1 1/2] FROM x", "[linux/arm64 stage-1 1/2] FROM x"},
		{"[linux/arm64] x", "[linux/arm64] x"},
		{"[linux/arm64/v7 1/2] x", "[linux/arm64 linux/arm64/v7 1/2] x"},
		{"", "[linux/arm64] "},
	} {
		if got := prefixedName(tc.in, "linux/arm64"); got != tc.want {
			t.Errorf("%q = %q, want %q", tc.in, got, tc.want)
		}
	}
}

func TestPrefixedKeepsStepsOfTwoSourcesApart(t *testing.T) {
	in := status("one")
	in.Vertexes[0].Inputs = []digest.Digest{digest.FromString("input")}
	in.Vertexes[0].ProgressGroup = &pb.ProgressGroup{Id: "g", Name: "[group] x", Weak: true}
	d := in.Vertexes[0].Digest
	in.Statuses = []*client.VertexStatus{{ID: "s", Vertex: d}}
	in.Logs = []*client.VertexLog{{Vertex: d, Data: []byte("l")}}
	in.Warnings = []*client.VertexWarning{{Vertex: d, Short: []byte("w")}, {}}
	before, _ := json.Marshal(in)

	a, b := prefixed(in, "a"), prefixed(in, "b")
	if after, _ := json.Marshal(in); !bytes.Equal(before, after) {
		t.Errorf("the original was changed: %s", after)
	}
	for _, s := range []*client.SolveStatus{a, b} {
		own := s.Vertexes[0].Digest
		if own == d || s.Statuses[0].Vertex != own || s.Logs[0].Vertex != own || s.Warnings[0].Vertex != own {
			t.Errorf("digests do not hang together: %+v", s)
		}
		if s.Vertexes[0].Inputs[0] == digest.FromString("input") || s.Warnings[1].Vertex != "" {
			t.Errorf("inputs = %v, warning of nothing = %q", s.Vertexes[0].Inputs, s.Warnings[1].Vertex)
		}
	}
	if a.Vertexes[0].Digest == b.Vertexes[0].Digest || a.Vertexes[0].ProgressGroup.GetId() == b.Vertexes[0].ProgressGroup.GetId() {
		t.Error("two sources share a digest")
	}
	if g := a.Vertexes[0].ProgressGroup; g.GetName() != "[a group] x" || !g.GetWeak() {
		t.Errorf("group = %v", g)
	}
	if prefixed(in, "") != in {
		t.Error("without a prefix, the stream must pass untouched")
	}
}

func TestCloseWithoutSourcesAndTwice(t *testing.T) {
	var out bytes.Buffer
	p := open(t, &out, Plain, Options{Builder: "x"})
	closed(t, p)
	closed(t, p)
	if out.Len() != 0 {
		t.Errorf("wrote %q about nothing", out.String())
	}
}

func TestSendersOutliveClose(t *testing.T) {
	var out bytes.Buffer
	p := open(t, &out, RawJSON, Options{})
	left, step := p.Source("left"), p.Step("step")
	left <- status("before")
	closed(t, p)
	size := out.Len()
	late := p.Source("late")
	for _, ch := range []chan *client.SolveStatus{left, late} {
		ch <- status("after")
		ch <- status("after")
		close(ch)
	}
	step.Log("after")
	step.Done(nil)
	p.Step("after").Done(nil)
	if out.Len() != size || bytes.Contains(out.Bytes(), []byte("after")) {
		t.Errorf("drawn after Close: %s", out.String())
	}
}

// failing takes some writes and then fails, as a closed pipe does.
type failing struct {
	after, calls int
	err          error
}

func (f *failing) Write(b []byte) (int, error) {
	if f.calls++; f.calls > f.after {
		return 0, f.err
	}
	return len(b), nil
}

func TestWriterThatFailsDoesNotStopTheBuild(t *testing.T) {
	for _, mode := range []Mode{Plain, RawJSON} {
		out := &failing{after: 1, err: syscall.EPIPE}
		p := open(t, out, mode, Options{Builder: "x"})
		src := p.Source("")
		for i := range 200 {
			src <- status(fmt.Sprint(i))
		}
		close(src)
		for range 2 {
			if _, err := p.Close(); !errors.Is(err, syscall.EPIPE) {
				t.Errorf("%s: %v", mode, err)
			}
		}
		if out.calls != 2 {
			t.Errorf("%s: %d writes; a writer that failed must be left alone", mode, out.calls)
		}
	}
}

func TestShortWriteIsAFailure(t *testing.T) {
	w := &tolerant{out: shortWriter{}}
	if n, err := w.Write([]byte("abc")); n != 3 || err != nil {
		t.Errorf("Write = %d, %v", n, err)
	}
	if err := w.failure(); !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("failure = %v", err)
	}
}

type shortWriter struct{}

func (shortWriter) Write([]byte) (int, error) { return 1, nil }

// panicking stands for a display that falls over a build's output.
type panicking struct{}

func (panicking) Write([]byte) (int, error) { panic("what a strange escape sequence") }

func TestDisplayThatPanicsDoesNotStopTheBuild(t *testing.T) {
	p := open(t, panicking{}, RawJSON, Options{})
	src := p.Source("")
	for range 50 {
		src <- status("x")
	}
	close(src)
	if _, err := p.Close(); err == nil || !strings.Contains(err.Error(), "strange escape") {
		t.Errorf("error = %v", err)
	}
}

func TestManySourcesAndStepsAtOnce(t *testing.T) {
	var out bytes.Buffer
	p := open(t, &out, RawJSON, Options{})
	const each = 50
	var all sync.WaitGroup
	for i := range 4 {
		src := p.Source(fmt.Sprint(i))
		all.Go(func() {
			defer close(src)
			for j := range each {
				src <- status(fmt.Sprint(j))
			}
		})
		all.Go(func() {
			s := p.Step("step")
			for j := range int64(each) {
				s.Progress("p", j, each)
			}
			s.Done(nil)
		})
	}
	all.Wait()
	closed(t, p)
	if got, want := len(lines(t, out.Bytes())), 4*each+4*(each+2); got != want {
		t.Errorf("%d lines, want %d: something that was sent was not drawn", got, want)
	}
}

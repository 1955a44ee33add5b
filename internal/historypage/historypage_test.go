package historypage

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/berthbuild/berth/internal/history"
	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/client"
	digest "github.com/opencontainers/go-digest"
	"google.golang.org/protobuf/types/known/timestamppb"
)

func begun() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) }

func at(ms int) *time.Time { t := begun().Add(time.Duration(ms) * time.Millisecond); return &t }

func id(name string) digest.Digest { return digest.FromString(name) }

// vertex is a step that ran from one millisecond to another, and needs others.
func vertex(name string, from, to int, needs ...string) *client.Vertex {
	v := &client.Vertex{Digest: id(name), Name: name, Started: at(from), Completed: at(to)}
	for _, n := range needs {
		v.Inputs = append(v.Inputs, id(n))
	}
	return v
}

func printed(name, text string) *client.SolveStatus {
	return &client.SolveStatus{Logs: []*client.VertexLog{{Vertex: id(name), Stream: 1, Data: []byte(text), Timestamp: *at(1)}}}
}

func ended(took int, attrs map[string]string) *history.Record {
	return &history.Record{Builder: "b", Node: "b0", BuildHistoryRecord: &controlapi.BuildHistoryRecord{
		Ref: "id", CreatedAt: timestamppb.New(begun()), CompletedAt: timestamppb.New(*at(took)), FrontendAttrs: attrs,
	}}
}

func made(t *testing.T, took int, all ...*client.SolveStatus) *Build {
	t.Helper()
	c := &history.Course{}
	for _, s := range all {
		c.Add(s)
	}
	return Make(Facts{Record: ended(took, nil), Course: c, Detail: history.Detail{Status: "completed"}, Now: *at(took)})
}

// path is the names of the steps on the critical path, in the order in which they began.
func path(b *Build) string {
	var names []string
	for _, s := range b.Steps {
		if s.Critical > 0 {
			names = append(names, s.Name)
		}
	}
	return strings.Join(names, " ")
}

func TestCriticalPathAndLanes(t *testing.T) {
	for _, c := range []struct {
		name     string
		steps    []*client.Vertex
		path     string
		critical int64
		lanes    int
	}{
		{"nothing", nil, "", 0, 0},
		{"one", []*client.Vertex{vertex("a", 0, 10)}, "a", 10, 1},
		{"the longer input", []*client.Vertex{vertex("a", 0, 100), vertex("b", 0, 700), vertex("c", 700, 900, "a", "b")}, "b c", 900, 2},
		{"an export names no inputs", []*client.Vertex{vertex("a", 0, 500), vertex("x", 0, 50), vertex("export", 500, 900)}, "a export", 900, 2},
		{"waiting is nobody's", []*client.Vertex{vertex("a", 0, 100), vertex("b", 400, 500, "a")}, "a b", 200, 1},
		{"a step that begins before its input ends", []*client.Vertex{vertex("a", 0, 500), vertex("b", 300, 600, "a")}, "a b", 600, 2},
		{"a cycle", []*client.Vertex{vertex("a", 0, 500, "b"), vertex("b", 0, 600, "a")}, "a b", 600, 2},
	} {
		b := made(t, 900, &client.SolveStatus{Vertexes: c.steps})
		if got := path(b); got != c.path || b.Critical != c.critical || b.Lanes != c.lanes {
			t.Errorf("%s: path %q of %d, %d lanes; wanted %q of %d, %d", c.name, got, b.Critical, b.Lanes, c.path, c.critical, c.lanes)
		}
	}
}

// Steps that ran at once are never in one lane, whatever the times are.
func TestLanesDoNotOverlap(t *testing.T) {
	seed := uint32(1)
	random := func(n int) int { seed = seed*1664525 + 1013904223; return int(seed>>8) % n }
	var steps []*client.Vertex
	for i := range 300 {
		from := random(10_000)
		steps = append(steps, vertex(fmt.Sprint("s", i), from, from+random(3_000)))
	}
	b := made(t, 13_000, &client.SolveStatus{Vertexes: steps})
	for i, x := range b.Steps {
		for _, y := range b.Steps[i+1:] {
			if x.Lane == y.Lane && x.Start < y.End && y.Start < x.End {
				t.Fatalf("lane %d has %+v and %+v", x.Lane, x, y)
			}
		}
	}
}

func TestStatesOfSteps(t *testing.T) {
	run := &client.Vertex{Digest: id("open"), Name: "open", Started: at(10)}
	cached := vertex("cached", 1, 1)
	cached.Cached = true
	failed := vertex("failed", 2, 20)
	failed.Error = "exit code: 1"
	canceled := vertex("canceled", 3, 20)
	canceled.Error = "Canceled: context canceled"
	again := vertex("again", 4, 10)
	b := made(t, 100, &client.SolveStatus{Vertexes: []*client.Vertex{run, cached, failed, canceled, again, {Digest: id("waits"), Name: "[st 1/2] RUN x"}}},
		&client.SolveStatus{Vertexes: []*client.Vertex{vertex("again", 30, 50), vertex("again", 40, 60)}})
	got := map[string]string{}
	for _, s := range b.Steps {
		got[s.Name] = fmt.Sprintf("%s %d-%d %d", s.State, s.Start, s.End, s.Busy)
	}
	for name, want := range map[string]string{
		"open": "canceled 10-100 90", "cached": "cached 1-1 0", "failed": "failed 2-20 18", "canceled": "canceled 3-20 17",
		"again": "done 4-60 36", "[st 1/2] RUN x": "waiting -1--1 0",
	} {
		if got[name] != want {
			t.Errorf("%s: %q, wanted %q", name, got[name], want)
		}
	}
	if last := b.Steps[len(b.Steps)-1]; last.Stage != "st 1/2" || last.Text != "RUN x" || last.Lane != -1 {
		t.Errorf("%+v", last)
	}
}

func TestCompare(t *testing.T) {
	a := made(t, 1000, &client.SolveStatus{Vertexes: []*client.Vertex{vertex("[s 1/3] RUN x", 0, 100), vertex("[s 2/3] RUN y", 100, 900), vertex("[s 3/3] RUN new", 900, 910)}})
	b := made(t, 400, &client.SolveStatus{Vertexes: []*client.Vertex{vertex("[s 1/3] RUN gone", 0, 5), vertex("[s 2/3] RUN x", 5, 205), vertex("[s 3/3] RUN y", 205, 305)}})
	var got []string
	for _, r := range Compare(a, b).Rows {
		got = append(got, fmt.Sprintf("%s %d %d %+d", r.Name, r.A, r.B, r.Delta))
	}
	want := []string{"[s 2/3] RUN y 1 2 +700", "[s 3/3] RUN new 2 -1 +10", "[s 1/3] RUN gone -1 0 -5", "[s 1/3] RUN x 0 1 -100"}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	changed := Compare(made(t, 9, &client.SolveStatus{Vertexes: []*client.Vertex{vertex("[s 2/2] RUN make V=1", 0, 9)}}), made(t, 4, &client.SolveStatus{Vertexes: []*client.Vertex{vertex("[s 2/2] RUN make V=2", 0, 4), vertex("x", 0, 1)}})).Rows
	if len(changed) != 2 || changed[0].A != 0 || changed[0].B != 0 || changed[0].Delta != 5 {
		t.Errorf("an argument has changed: %+v", changed)
	}
	for _, r := range Compare(a, a).Rows {
		if r.A != r.B || r.Delta != 0 {
			t.Errorf("beside itself: %+v", r)
		}
	}
}

func TestLogsAreWhatWasPrinted(t *testing.T) {
	b := made(t, 100, &client.SolveStatus{Vertexes: []*client.Vertex{vertex("a", 0, 50)}},
		printed("a", "one\ntw"), printed("a", "o\r\n10%\r100%\n\x1b[31mred\x1b[0m\x1b]0;title\a\x00\u202e\x9b\xff\n"), printed("a", strings.Repeat("x", 1<<20)+"\nlast"))
	all, err := b.Logs.Unpack()
	if err != nil || len(all) != 1 {
		t.Fatal(all, err)
	}
	lines := strings.Split(all[0].Text, "\n")
	want := []string{"one", "two", "100%", "red\\u{202e}\ufffd\ufffd", strings.Repeat("x", 4<<10) + "… (1044480 bytes more)", "last"}
	if !slices.Equal(lines, want) || len(all[0].Times) != len(want) || b.Steps[0].Lines != len(want) || b.Logs.Lines != len(want) {
		t.Errorf("%.200q\n%v", lines, all[0].Times)
	}
	if b.Logs.Zip == "" || len(b.Logs.Zip) > 1000 {
		t.Errorf("packed: %d", len(b.Logs.Zip))
	}
}

// What a daemon sends without end is bounded, and counted.
func TestLogsAreBounded(t *testing.T) {
	c := &history.Course{}
	c.Add(&client.SolveStatus{Vertexes: []*client.Vertex{vertex("a", 0, 50)}})
	const n = 130_000
	for i := range n / 1000 {
		var chunk bytes.Buffer
		for k := range 1000 {
			fmt.Fprintf(&chunk, "line %d\n", i*1000+k)
		}
		c.Add(printed("a", chunk.String()))
	}
	b := Make(Facts{Record: ended(100, nil), Course: c, Now: *at(100)})
	all, err := b.Logs.Unpack()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(all[0].Text, "\n")
	if len(lines)+all[0].Left != n || b.Steps[0].Lines != n || len(lines) > 50_000 {
		t.Errorf("%d lines and %d left out of %d", len(lines), all[0].Left, n)
	}
	if lines[0] != "line 0" || lines[len(lines)-1] != fmt.Sprintf("line %d", n-1) || lines[all[0].LeftAt] != fmt.Sprintf("line %d", all[0].LeftAt+all[0].Left) {
		t.Errorf("first %q, last %q, behind the gap %q", lines[0], lines[len(lines)-1], lines[all[0].LeftAt])
	}
}

// Hostile text gets into the page as JSON that cannot end its element, and without what
// works on a reader's eyes.
func TestReportOfAHostileBuild(t *testing.T) {
	const evil = "</script><script>alert(1)</script><!--<script>\u2028\u202e\x1b[2J/*SCRIPT*/<!--POLICY-->/*DATA*/"
	c := &history.Course{}
	v := vertex(evil, 0, 50)
	v.Error = evil
	c.Add(&client.SolveStatus{Vertexes: []*client.Vertex{v}, Warnings: []*client.VertexWarning{{Short: []byte(evil)}}})
	c.Add(&client.SolveStatus{Logs: []*client.VertexLog{{Vertex: v.Digest, Data: []byte(evil + strings.Repeat("m", 1<<20))}}})
	r := ended(100, map[string]string{"build-arg:GITHUB_TOKEN": `hunter2"quoted`})
	r.Exporters = []*controlapi.Exporter{{Type: evil, Attrs: map[string]string{evil: evil, "password": "hunter2"}}}
	kv := []history.KeyValue{{Name: evil, Value: evil}, {Name: "GITHUB_TOKEN", Value: `hunter2"quoted`}}
	b := Make(Facts{Record: r, Course: c, Now: *at(100), Notes: []string{evil}, Contents: map[string][]byte{"d": []byte(`{"x":"hunter2\"quoted","y":"` + "\u202e" + `</script>"}`)}, Detail: history.Detail{
		Name: evil, Status: "failed", Error: &history.Failure{Message: evil, Sources: []byte(evil)}, Context: evil, BuildArgs: kv, Labels: kv[:1], NamedContexts: kv[:1], Platform: []string{evil},
		Materials: []history.Material{{URI: evil, Digests: []string{evil}}}, Attachments: []history.Attachment{{Digest: "d", Type: evil}}, Config: history.Config{Network: evil, RestRaw: kv[:1]}, Errors: []string{evil},
	}})
	var doc bytes.Buffer
	if err := Report(&doc, b); err != nil {
		t.Fatal(err)
	}
	text := doc.String()
	if n := strings.Count(strings.ToLower(text), "</script"); n != 2 {
		t.Errorf("%d script elements end, wanted those of the data and of the script", n)
	}
	for _, bad := range []string{"<script>alert", "\u2028", "\u202e", "\x1b", "hunter2"} {
		if strings.Contains(text, bad) {
			t.Errorf("the report has %q", bad)
		}
	}
	if len(text) > 400_000 {
		t.Errorf("%d bytes", len(text))
	}
}

// The page loads nothing, has no handlers or styles in attributes, and never makes
// markup out of text.
func TestPageIsOnItsOwn(t *testing.T) {
	for _, bad := range []string{"innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "http://", "https://", "import(", "DOMParser", "srcdoc"} {
		if strings.Contains(pageJS, bad) {
			t.Errorf("the script has %s", bad)
		}
	}
	for _, bad := range []string{"url(", "@import", "expression("} {
		if strings.Contains(pageCSS, bad) {
			t.Errorf("the style has %s", bad)
		}
	}
	for _, bad := range []string{" style=", " onclick", " onload", " src="} {
		if strings.Contains(pageHTML, bad) {
			t.Errorf("the page has %s", bad)
		}
	}
	if strings.Contains(pageJS, "</script") || strings.Contains(pageJS, "<!--") || strings.Contains(pageCSS, "</style") {
		t.Error("an asset ends its own element")
	}
}

// Whatever a build is called and prints, its report is one element of data and one of
// script, and the log comes back.
func FuzzReport(f *testing.F) {
	f.Add("[stage 1/2] RUN x", "line\nother\r\n\x1b[31m", "</script>")
	f.Add("[", "\xff\u202e", "]]>")
	f.Fuzz(func(t *testing.T, name, log, value string) {
		c := &history.Course{}
		v := vertex("x", 0, 50)
		v.Name, v.Error = name, value
		c.Add(&client.SolveStatus{Vertexes: []*client.Vertex{v}})
		c.Add(printed("x", log))
		b := Make(Facts{Record: ended(100, map[string]string{"build-arg:TOKEN": value}), Course: c, Now: *at(100), Contents: map[string][]byte{"d": []byte(value)},
			Detail: history.Detail{Name: name, Context: value, Attachments: []history.Attachment{{Digest: "d"}}}})
		if _, err := b.Logs.Unpack(); err != nil {
			t.Fatal(err)
		}
		var doc bytes.Buffer
		if err := Report(&doc, b); err != nil {
			t.Fatal(err)
		}
		if strings.Count(strings.ToLower(doc.String()), "</script") != 2 || bytes.ContainsAny(doc.Bytes(), "\x1b\x00\u202e\u2028") {
			t.Fatalf("%q", doc.String()[len(pageCSS):])
		}
	})
}

// FuzzUnpack holds the reading of packed logs against damage.
func FuzzUnpack(f *testing.F) {
	f.Add("", "[]")
	f.Add("S0ktLgEA", "")
	f.Fuzz(func(_ *testing.T, zip, plain string) {
		_, _ = Logs{Zip: zip, Plain: plain}.Unpack() // it does not panic
	})
}

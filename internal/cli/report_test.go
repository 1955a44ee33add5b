package cli

import (
	"bytes"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/berthbuild/berth/internal/build"
	"github.com/berthbuild/berth/internal/buildflag"
	"github.com/berthbuild/berth/internal/progress"
	"github.com/berthbuild/berth/internal/request"
	"github.com/berthbuild/berth/internal/ui"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/solver/pb"
)

// "RlJPTSBzY3JhdGNoIGFzIHgKQ09QWSBhIC8K" is a Dockerfile of two lines.
const source = `{"filename":"Dockerfile","data":"RlJPTSBzY3JhdGNoIGFzIHgKQ09QWSBhIC8K"}`

func at(line, source string) string {
	return `{"sourceIndex":` + source + `,"ranges":[{"start":{"line":` + line + `},"end":{"line":` + line + `}}]}`
}

func answer(kv ...string) map[string]string {
	m := map[string]string{build.AnswerVersion: "1.0.0"}
	for i := 0; i < len(kv); i += 2 {
		m[kv[i]] = kv[i+1]
	}
	return m
}

const oneFinding = `Check complete, 1 warning has been found!

WARNING: FromAsCasing - https://docs.example/rule
'as' and 'FROM' keywords' casing do not match
sub/Dockerfile:1
--------------------
   1 | >>> FROM scratch as x
   2 |     COPY a /
   3 |     
--------------------
`

func TestReports(t *testing.T) {
	finding := `{"ruleName":"FromAsCasing","url":"https://docs.example/rule","detail":"'as' and 'FROM' keywords' casing do not match","location":` + at("1", "0") + `}`
	lint := `{"warnings":[` + finding + `],"sources":[` + source + `]}`
	broken := `{"warnings":null,"sources":[` + source + `],"buildError":{"message":"unknown instruction: COPPY","location":` + at("2", "0") + `}}`
	both := `{"warnings":[` + finding + `],"sources":[` + source + `],"buildError":{"message":"no such stage"}}`
	text, jsonText := buildflag.Call{Method: "check"}, buildflag.Call{Method: "check", JSON: true}
	for name, c := range map[string]struct {
		call   buildflag.Call
		answer map[string]string
		want   string
		err    string
	}{
		"nothing found":             {text, answer("result.json", `{"warnings":null,"sources":[]}`, "result.statuscode", "0"), "Check complete, no warnings found.\n", ""},
		"found":                     {text, answer("result.json", lint, "result.statuscode", "1"), oneFinding, errReported.Error()},
		"found, by its other name":  {buildflag.Call{Method: "lint"}, answer("result.json", lint, "result.statuscode", "1"), oneFinding, errReported.Error()},
		"found and passed over":     {buildflag.Call{Method: "check", IgnoreStatus: true}, answer("result.json", lint, "result.statuscode", "1"), oneFinding, ""},
		"JSON":                      {jsonText, answer("result.json", lint, "result.statuscode", "1"), lint + "\n", errReported.Error()},
		"broken":                    {text, answer("result.json", broken, "result.statuscode", "1"), "", "unknown instruction: COPPY"},
		"broken, JSON":              {jsonText, answer("result.json", broken, "result.statuscode", "1"), broken + "\n", "unknown instruction: COPPY"},
		"broken is not passed over": {buildflag.Call{Method: "check", IgnoreStatus: true}, answer("result.json", broken, "result.statuscode", "1"), "", "unknown instruction: COPPY"},
		"found and broken":          {text, answer("result.json", both), oneFinding + "\n", "no such stage"},
		"outline": {
			buildflag.Call{Method: "outline"}, answer("result.json", `{"name":"x","args":[{"name":"A","value":"1","description":"is it"}],"secrets":[{"name":"s","required":true}]}`),
			"TARGET: x\n\nBUILD ARG   VALUE   DESCRIPTION\nA           1       is it\n\nSECRET   REQUIRED\ns        true\n\n", "",
		},
		"targets": {
			buildflag.Call{Method: "targets"}, answer("result.json", `{"targets":[{"name":"a","description":"is the first"},{"default":true}]}`),
			"TARGET    DESCRIPTION\na         is the first\n(default) \n", "",
		},
		"describe": {
			buildflag.Call{Method: "subrequests.describe"}, answer("result.json", `[{"name":"frontend.x","version":"1","description":"does it"}]`),
			"NAME VERSION DESCRIPTION\nx    1       does it\n", "",
		},
		"another form":    {buildflag.Call{Method: "targets"}, map[string]string{"version": "2.0.0", "result.json": `{"targets":{}}`, "result.txt": "in new words"}, "in new words\n", ""},
		"not its JSON":    {buildflag.Call{Method: "targets"}, answer("result.json", `[`, "result.txt", "in words\n"), "in words\n", ""},
		"own method":      {buildflag.Call{Method: "sums"}, answer("result.txt", "1+1=2", "result.statuscode", "3"), "1+1=2\n", errReported.Error()},
		"JSON only":       {buildflag.Call{Method: "sums"}, answer("result.json", `{"a":1}`), "{\"a\":1}\n", ""},
		"text only":       {buildflag.Call{Method: "sums", JSON: true}, answer("result.txt", "1+1=2"), "", "not JSON"},
		"hostile text":    {buildflag.Call{Method: "sums"}, answer("result.txt", "a\x1b[2J\x1b]0;x\x07b\u009bc"), "abc\n", ""},
		"not a check":     {text, answer("result.txt", "fine"), "", "it is empty"},
		"check in words":  {text, answer("result.json", "fine"), "", "cannot be read"},
		"status in words": {buildflag.Call{Method: "sums"}, answer("result.txt", "x", "result.statuscode", "many"), "x\n", ""},
	} {
		var out bytes.Buffer
		err := printReport(&out, c.call, c.answer, sourceName{"Dockerfile", "sub/Dockerfile"})
		if out.String() != c.want {
			t.Errorf("%s:\n%s\nwant:\n%s", name, out.String(), c.want)
		}
		if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %v, want %q", name, err, c.err)
		}
	}
}

// A frontend is a program that somebody else wrote.
func TestHostileFindings(t *testing.T) {
	for _, location := range []string{
		`null`, `{}`, at("1", "-1"), at("1", "7"), at("1", "1"), at("0", "0"), at("-5", "0"), at("2147483647", "0"),
		`{"ranges":[null]}`, `{"ranges":[{}]}`, `{"ranges":[{"start":{"line":1}}]}`, `{"ranges":[{"end":{"line":1}}]}`, `{"ranges":[{"start":{"line":2},"end":{"line":1}}]}`,
	} {
		raw := `{"warnings":[{"ruleName":"\u001b[2JA","detail":"d","location":` + location + `},{"location":` + at("2", "0") + `}],` +
			`"sources":[` + source + `,null],"buildError":{"message":"m\u001b[2J","location":` + location + `}}`
		var out bytes.Buffer
		err := printReport(&out, buildflag.Call{Method: "check"}, answer("result.json", raw), sourceName{"Dockerfile", "sub/Dockerfile"})
		if err == nil || !strings.Contains(out.String(), "2 warnings have been found!") || strings.ContainsRune(out.String(), 0x1b) {
			t.Errorf("%s: %v, %q", location, err, out.String())
		}
		if text := printed(func(a *app) { a.printError(err) }); !strings.HasSuffix(text, "ERROR: m\n") || strings.ContainsRune(text, 0x1b) {
			t.Errorf("%s: %q", location, text)
		}
	}
}

// printed is what f writes to standard error.
func printed(f func(*app)) string {
	var out bytes.Buffer
	f(&app{io: &ui.Streams{Err: &out}, lookupEnv: func(string) (string, bool) { return "", false }})
	return out.String()
}

func TestFindings(t *testing.T) {
	info := &pb.SourceInfo{Filename: "Dockerfile", Data: []byte("FROM scratch as x\nCOPY a /\n")}
	line := func(n int32) []*pb.Range {
		return []*pb.Range{{Start: &pb.Position{Line: n}, End: &pb.Position{Line: n}}}
	}
	found := []client.VertexWarning{
		{Short: []byte("Casing: do not match (line 1)"), Detail: [][]byte{[]byte("They should match")}, URL: "https://docs.example/rule", SourceInfo: info, Range: line(1)},
		{Short: []byte("says no line\x1b[2J"), Range: line(2)},
		{Short: []byte("of nothing"), Range: []*pb.Range{nil}},
	}
	show := func(debug bool, mode string, found ...client.VertexWarning) string {
		return printed(func(a *app) {
			a.debug = debug
			a.printFindings(found, display{mode: progress.Mode(mode)})
		})
	}
	if got, want := show(false, "plain", found...), `
 3 warnings found (use docker --debug to expand):
 - Casing: do not match (line 1)
 - says no line (line 2)
 - of nothing
`; got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	if got, want := show(true, "tty", found[0]), `
 1 warning found:
 - Casing: do not match (line 1)
They should match
More info: https://docs.example/rule
Dockerfile:1
--------------------
   1 | >>> FROM scratch as x
   2 |     COPY a /
   3 |     
--------------------

`; got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	for _, mode := range []string{"quiet", "none", "rawjson"} {
		if got := show(true, mode, found...); got != "" {
			t.Errorf("%s: %q", mode, got)
		}
	}
	if got := show(false, "plain"); got != "" {
		t.Errorf("of nothing: %q", got)
	}
}

// Only a terminal is coloured, and not when the user says no.
func TestHighlight(t *testing.T) {
	for _, c := range []struct {
		tty     bool
		noColor string
		want    string
	}{{true, "", "\x1b[33mx\x1b[0m"}, {true, "1", "x"}, {false, "", "x"}} {
		a := &app{io: &ui.Streams{ErrTTY: c.tty}, lookupEnv: func(string) (string, bool) { return c.noColor, c.noColor != "" }}
		if got := a.highlight("x"); got != c.want {
			t.Errorf("%+v: %q", c, got)
		}
	}
}

func TestPrintErrorWithSources(t *testing.T) {
	err := errdefs.WithSource(errors.New("process \"\x1b[2J\" failed"), &errdefs.Source{
		Info:   &pb.SourceInfo{Filename: "Dockerfile", Data: []byte("FROM x\nRUN \x1b]0;title\x07y\n")},
		Ranges: []*pb.Range{nil, {}, {Start: &pb.Position{Line: 2}}},
	})
	got := printed(func(a *app) { a.printError(err) })
	want := `Dockerfile:2
--------------------
   1 |     FROM x
   2 | >>> RUN y
   3 |     
--------------------
ERROR: process "" failed
`
	if got != want {
		t.Errorf("%q\nwant %q", got, want)
	}
	if got := printed(func(a *app) { a.printError(errReported) }); got != "" {
		t.Errorf("what was reported is told again: %q", got)
	}
}

func TestNoticesWaitForTheDisplay(t *testing.T) {
	got := printed(func(a *app) {
		a.warn("before")
		a.notices.hold()
		a.warn("during, of\x1b[2J %d", 1)
		a.warn("and 2")
		a.io.Err.Write([]byte("the display\n")) //nolint:errcheck // a buffer
		for _, line := range a.notices.release() {
			a.io.Err.Write([]byte(line)) //nolint:errcheck // a buffer
		}
		a.warn("after")
	})
	if want := "WARNING: before\nthe display\nWARNING: during, of 1\nWARNING: and 2\nWARNING: after\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestShownDockerfile(t *testing.T) {
	folder := request.Request{Context: request.Context{Dir: "/x/y"}, Dockerfile: request.Dockerfile{Dir: "/x/y", Name: "Dockerfile"}}
	remote := request.Request{Context: request.Context{URL: "https://example.com/a.git"}}
	for _, c := range []struct {
		r    request.Request
		o    buildOptions
		want string
	}{
		{folder, buildOptions{context: "."}, "Dockerfile"},
		{folder, buildOptions{context: "sub"}, "sub/Dockerfile"},
		{folder, buildOptions{context: "sub", file: "-"}, "stdin"},
		{folder, buildOptions{context: ".", file: "./other/D"}, "./other/D"},
		{remote, buildOptions{context: "https://example.com/a.git"}, "Dockerfile"},
	} {
		if got := shownDockerfile(c.r, c.o).shown; filepath.ToSlash(got) != c.want {
			t.Errorf("%+v: %q, want %q", c.o, got, c.want)
		}
	}
	// Another file that the frontend names stays what it is.
	n := sourceName{"Dockerfile", "sub/Dockerfile"}
	if got := n.source(&pb.SourceInfo{Filename: "other"}, nil).Info.Filename; got != "other" {
		t.Errorf("%q", got)
	}
}

package history

import (
	"strings"
	"testing"
	"time"

	"github.com/berthbuild/berth/internal/state"
	controlapi "github.com/moby/buildkit/api/services/control"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
)

func TestFilter(t *testing.T) {
	all := map[string]*Record{
		"run": {BuildHistoryRecord: rec("run", 50, runs)},
		"good": {BuildHistoryRecord: rec("good", 1, func(r *controlapi.BuildHistoryRecord) {
			r.FrontendAttrs = map[string]string{"vcs:source": "https://h/o/r.git"}
		})},
		"bad":      {BuildHistoryRecord: rec("bad", 30, failing)},
		"canceled": {BuildHistoryRecord: rec("canceled", 40, func(r *controlapi.BuildHistoryRecord) { r.Error = &spb.Status{Code: int32(codes.Canceled)} })},
		"remote": {BuildHistoryRecord: rec("remote", 20, func(r *controlapi.BuildHistoryRecord) {
			r.FrontendAttrs = map[string]string{"context": "https://me:pw@h/p/q.git#main:sub"}
		})},
	}
	now := begin.Add(time.Hour)
	for text, want := range map[string]string{
		"status=running": "run", "status=completed": "good remote", "status=error": "bad", "status=canceled": "canceled", "status!=completed": "run bad canceled",
		"ref=oo": "good", "ref!=good": "run bad canceled remote", "repository=o/r": "good", "repository=h/": "good remote", "repository=pw": "", "repository=#": "",
		"repository!=https://h/o/r.git": "run bad canceled remote",
		"startedAt>25m":                 "run canceled", "startedAt<=2026-01-02T03:05:05.000000006Z": "good", "completedAt>25m": "canceled",
		"completedAt<35m": "good remote", "duration>=1s": "good bad canceled remote", "duration>1s": "", "duration<1s": "run",
		"status=completed;ref=re": "remote", "status=completed;status=error": "", "": "run good bad canceled remote",
	} {
		var values []string
		if text != "" {
			values = strings.Split(text, ";")
		}
		f, err := ParseFilter(values, now)
		if err != nil {
			t.Fatal(err)
		}
		for id, r := range all {
			wanted := false
			for _, w := range strings.Fields(want) {
				wanted = wanted || w == id
			}
			if f.Match(r, now) != wanted {
				t.Errorf("%q and %s: not %v", text, id, wanted)
			}
		}
	}
	if f := (Filter{}).OfRepository("https://h/o/r.git"); !f.Match(all["good"], now) || f.Match(all["remote"], now) {
		t.Error("--local")
	}
	for _, bad := range []string{"", "x", "x=y", "status", "status>error", "status=nope", "status=", "ref=", "duration=1s", "duration>1", "startedAt>yesterday", "=", "Status=error", " status=error"} {
		if _, err := ParseFilter([]string{bad}, now); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func FuzzParseFilter(f *testing.F) {
	for _, s := range []string{"status=error", "ref!=x", "duration>=30s", "startedAt<2026-01-02T03:04:05Z", "", "=", "status=", "x<>=", "completedAt>9999999h"} {
		f.Add(s)
	}
	r := &Record{BuildHistoryRecord: rec("x", 1)}
	f.Fuzz(func(_ *testing.T, s string) {
		if c, err := ParseFilter([]string{s}, begin); err == nil {
			c.Match(r, begin)
		}
	})
}

func TestParseReference(t *testing.T) {
	for text, want := range map[string]Reference{
		"": {}, "^0": {}, "^12": {Offset: 12}, "abc": {ID: "abc"}, "b/n/abc": {Builder: "b", Node: "n", ID: "abc"}, ".imported/_/x": {Builder: ".imported", Node: "_", ID: "x"},
	} {
		got, err := ParseReference(text)
		want.text = text
		if err != nil || got != want {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
	for _, bad := range []string{"^", "^x", "^-1", "^+1", "^99999999999999999999", "a/b", "a/b/c/d", "/b/c", "a//c", "a/b/", strings.Repeat("x", 600)} {
		if r, err := ParseReference(bad); err == nil {
			t.Errorf("%q: %+v", bad, r)
		}
	}
}

func FuzzParseReference(f *testing.F) {
	for _, s := range []string{"", "^1", "a/b/c", "abc", "^^", "//", "^-0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseReference(s)
		if err == nil && (r.Offset < 0 || r.ID == "" && r.Builder != "") {
			t.Errorf("%q: %+v", s, r)
		}
	})
}

// The names are those that buildx gives the same records.
func TestName(t *testing.T) {
	for _, c := range []struct {
		attrs string // KEY=VALUE, apart by spaces
		local state.Ref
		want  string
	}{
		{"", state.Ref{}, ""},
		{"filename=Dockerfile", state.Ref{LocalPath: "/src/app"}, "app"},
		{"", state.Ref{LocalPath: "/src/app/", DockerfilePath: "/src/app/Dockerfile"}, "app"},
		{"filename=Mat", state.Ref{LocalPath: "/src/app", DockerfilePath: "/src/app/Mat"}, "app/Mat"},
		{"filename=x", state.Ref{LocalPath: "/src/app", DockerfilePath: "/src/app/sub/Dockerfile"}, "app/sub"},
		{"filename=x.Dockerfile", state.Ref{LocalPath: "/src/app", DockerfilePath: "/src/x.Dockerfile"}, "src/x.Dockerfile"},
		{"filename=Dockerfile", state.Ref{LocalPath: "/src/app", DockerfilePath: "/other/Dockerfile"}, "other"},
		{"filename=Dockerfile", state.Ref{LocalPath: "-"}, ""},
		{"target=t", state.Ref{LocalPath: "/src/app"}, "app (t)"},
		{"target=t", state.Ref{}, "t"},
		{"context=https://h/r.git#main:sub", state.Ref{LocalPath: "https://h/r.git#main:sub"}, "https://h/r.git#main:sub"},
		{"context=https://h/r.git target=x", state.Ref{}, "https://h/r.git (x)"},
		{"context=https://me:secret@h/r.git", state.Ref{}, "https://h/r.git"},
		{"context=docker-image://a@sha256:b", state.Ref{}, "docker-image://a@sha256:b"},
		{"vcs:source=https://x/y.git", state.Ref{}, "https://x/y.git"},
		{"vcs:source=https://x/y.git target=t", state.Ref{}, "t"},
		{"vcs:localdir:context=.", state.Ref{}, ""},
		{"vcs:localdir:context=a/b/c vcs:localdir:dockerfile=d/e", state.Ref{}, "a/b/c"},
		{"filename=Other", state.Ref{}, "Other"},
		{"filename=sub/Dockerfile", state.Ref{}, "sub"},
		{"filename=sub/Other.Dockerfile", state.Ref{}, "sub/Other.Dockerfile"},
		{"vcs:localdir:dockerfile=d/e", state.Ref{}, "d/e"},
		{"vcs:localdir:dockerfile=d/e filename=Other", state.Ref{}, "d/e/Other"},
		{"build-arg:BUILDKIT_BUILD_NAME=nm target=x", state.Ref{LocalPath: "/a"}, "nm"},
	} {
		r := &Record{BuildHistoryRecord: &controlapi.BuildHistoryRecord{FrontendAttrs: map[string]string{}}}
		for _, kv := range strings.Fields(c.attrs) {
			k, v, _ := strings.Cut(kv, "=")
			r.FrontendAttrs[k] = v
		}
		if c.local != (state.Ref{}) {
			r.Local = &c.local
		}
		if got := r.Name(); got != c.want {
			t.Errorf("%q %+v: %q, want %q", c.attrs, c.local, got, c.want)
		}
	}
}

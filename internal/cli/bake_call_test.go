package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/berthbuild/berth/internal/bake"
	"github.com/berthbuild/berth/internal/bake/eval"
	"github.com/berthbuild/berth/internal/build"
	"github.com/berthbuild/berth/internal/buildflag"
	"github.com/berthbuild/berth/internal/request"
)

// Reports in JSON are one document, in the form of buildx.
func TestBakeCallJSON(t *testing.T) {
	def, err := bake.Evaluate(t.Context(), bake.Source{Input: eval.Input{Files: []eval.File{{Name: "docker-bake.hcl", Data: []byte(`
group "default" { targets = ["a", "b"] }
target "a" { dockerfile-inline = "FROM <x>" }
target "b" {}`)}}}})
	if err != nil {
		t.Fatal(err)
	}
	plan, err := bake.Resolve(def, bake.Selection{Set: []string{"*.call=lint"}})
	if err != nil {
		t.Fatal(err)
	}
	call := buildflag.Call{Method: "check", JSON: true}
	asked := []build.Target{{Name: "a", Request: request.Request{Call: call}}, {Name: "b", Request: request.Request{Call: call}}}
	report := func(answer, status string) *build.Report {
		return &build.Report{Answer: map[string]string{build.AnswerJSON: answer, build.AnswerStatus: status}}
	}
	for name, c := range map[string]struct {
		a, b *build.Report
		ok   func(error) bool
	}{
		"nothing found": {report(`{"warnings":[]}`, "0"), report(`{"warnings":null}`, "0"), func(err error) bool { return err == nil }},
		"found":         {report(`{"warnings":[]}`, "1"), report(`{"warnings":null}`, "0"), func(err error) bool { return errors.Is(err, errReported) }},
		"broken": {
			report(`{"warnings":[],"buildError":{"message":"no such stage"}}`, "0"), report(`{"warnings":null}`, "1"),
			func(err error) bool {
				return err != nil && strings.Contains(err.Error(), "target a") && !errors.Is(err, errReported)
			},
		},
	} {
		var out bytes.Buffer
		a := bakeApp(t.TempDir(), nil)
		a.io.Out = &out
		if err := a.printCalls(plan, bakeCalls{targets: asked, reports: map[string]*build.Report{"a": c.a, "b": c.b}}); !c.ok(err) {
			t.Errorf("%s: %v", name, err)
		}
		var got struct {
			Group  map[string]struct{ Targets []string }
			Target map[string]struct {
				Build struct {
					Inline string `json:"dockerfile-inline"`
				}
				Check map[string]any
			}
		}
		if err := json.Unmarshal(out.Bytes(), &got); err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out.String())
		}
		if _, found := got.Target["b"].Check["warnings"]; !found || got.Target["a"].Build.Inline != "FROM <x>" || len(got.Group["default"].Targets) != 2 {
			t.Errorf("%s: %s", name, out.String())
		}
	}
}

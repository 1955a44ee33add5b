package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/berthbuild/berth/internal/bake"
	"github.com/berthbuild/berth/internal/build"
	"github.com/berthbuild/berth/internal/builder"
	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/termtext"
	"github.com/moby/buildkit/solver/errdefs"
)

// callTargets asks the targets' frontends and prints the reports, of those that
// answered and of those that did not.
func (a *app) callTargets(ctx context.Context, b *builder.Builder, plan *bake.Plan, targets []build.Target, opts build.Options, d *bakeDisplay, files *resultFiles) error {
	reports, err := build.CallAll(ctx, b, targets, opts)
	findings := d.close()
	var failures *build.Failures
	if err != nil {
		if ctx.Err() == nil {
			a.printFailedSteps(d.printer)
			a.printFindings(findings, d.display)
		}
		if !errors.As(err, &failures) {
			return bakeError(ctx, err)
		}
	}
	if err == nil { // the file has all reports, or is not written
		if err := files.commit(callReports(reports)); err != nil {
			return err
		}
	}
	calls := bakeCalls{targets: targets, reports: reports, failed: map[string]error{}}
	if failures != nil {
		for i, name := range failures.Targets {
			calls.failed[name] = errors.Unwrap(failures.Causes[i]) // without the target's name
		}
	}
	return a.printCalls(plan, calls)
}

// bakeCalls are the calls of a bake, and what became of each.
type bakeCalls struct {
	targets []build.Target // those that are builds are not asked
	reports map[string]*build.Report
	failed  map[string]error // why there is no report
}

// printCalls prints the reports in the order of the names, or those that are
// wanted in JSON as one document, beside what would be built. Its error is a
// *build.Failures of the targets that have none, or whose Dockerfile could not be
// read to its end, and else errReported where a report is bad news.
func (a *app) printCalls(plan *bake.Plan, calls bakeCalls) error {
	var found error
	failures := &build.Failures{}
	documents := map[string]map[string]json.RawMessage{}
	for _, t := range slices.SortedFunc(slices.Values(calls.targets), func(x, y build.Target) int { return strings.Compare(x.Name, y.Name) }) {
		call := t.Request.Call
		if call.IsBuild() {
			continue
		}
		var text bytes.Buffer
		err := calls.failed[t.Name]
		if report := calls.reports[t.Name]; report != nil {
			if err = printReport(&text, call, report.Answer, bakeDockerfileShown(t)); errors.Is(err, errReported) {
				found, err = err, nil
			}
		}
		if failures.Of++; err != nil {
			failures.Targets = append(failures.Targets, t.Name)
			failures.Causes = append(failures.Causes, hint.New("target "+t.Name+": "+err.Error(), hint.Of(err)...)) // the report has the lines
		}
		if call.JSON {
			documents[t.Name] = document(call.Method, text.Bytes(), err)
			continue
		}
		if err := a.printSection(plan, t.Name, text.String(), err, failures.Of == 1); err != nil {
			return err
		}
	}
	if len(documents) > 0 {
		if err := a.printDocuments(plan, documents); err != nil {
			return err
		}
	}
	if len(failures.Targets) > 0 {
		return failures
	}
	return found
}

// printSection prints one report below its target's name, and what went wrong.
func (a *app) printSection(plan *bake.Plan, name, report string, err error, first bool) error {
	head := "\n"
	if first {
		head = ""
	}
	head += termtext.Line(name, maxFinding) + "\n"
	i := slices.IndexFunc(plan.Targets, func(t bake.Target) bool { return t.Name == name })
	if i >= 0 && plan.Targets[i].Description != "" {
		head += termtext.Clean(plan.Targets[i].Description) + "\n"
	}
	if err != nil {
		report += "error: " + callError(err) + "\n"
	}
	if _, err := io.WriteString(a.io.Out, head+"\n"+report); err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	return nil
}

// callError is an error as a report has it: with the lines that it is about.
func callError(err error) string {
	var text strings.Builder
	text.WriteString(strings.TrimSpace(err.Error()))
	for _, s := range errdefs.Sources(err) {
		text.WriteString("\n")
		_ = sourceName{}.source(s.Info, s.Ranges).Print(&text) // a builder takes everything
	}
	return termtext.Clean(strings.TrimRight(text.String(), "\n"))
}

// document is a report in JSON, with what went wrong: the answer's own keys, or
// all of it under the name of the call where it has none.
func document(method string, answer []byte, err error) map[string]json.RawMessage {
	out := map[string]json.RawMessage{}
	if len(answer) > 0 && json.Unmarshal(answer, &out) != nil {
		out = map[string]json.RawMessage{method: answer}
	}
	if err != nil {
		text, _ := json.Marshal(callError(err)) // a string
		out["error"] = text
	}
	return out
}

// bakeDockerfileShown is a target's Dockerfile as people know it.
func bakeDockerfileShown(t build.Target) sourceName {
	shown := shownDockerfile(t.Request, buildOptions{context: t.Request.Context.Dir})
	if t.Request.Dockerfile.Inline != nil {
		shown.shown = "inline"
	}
	return shown
}

// printDocuments prints what --print does, with each target's build and reports
// side by side.
func (a *app) printDocuments(plan *bake.Plan, reports map[string]map[string]json.RawMessage) error {
	text, err := plan.JSON()
	if err != nil {
		return err
	}
	var printed struct {
		Group  json.RawMessage            `json:"group,omitempty"`
		Target map[string]json.RawMessage `json:"target"`
	}
	if err := json.Unmarshal(text, &printed); err != nil {
		return fmt.Errorf("printing the definition: %w", err)
	}
	out := struct {
		Group  json.RawMessage           `json:"group,omitempty"`
		Target map[string]map[string]any `json:"target"`
	}{Group: printed.Group, Target: map[string]map[string]any{}}
	calls := map[string]string{}
	for _, t := range plan.Targets {
		calls[t.Name] = callKey(value(t.Call, ""))
	}
	for name, definition := range printed.Target {
		out.Target[name] = map[string]any{"build": definition}
		if report, asked := reports[name]; asked {
			out.Target[name][calls[name]] = report
		}
	}
	return a.indentedJSON(out)
}

// callKey is the key of a call's report.
func callKey(call string) string {
	if method, _, _ := strings.Cut(call, ","); method != "lint" {
		return method
	}
	return "check"
}

// callReports are the reports by target.
type callReports map[string]*build.Report

// ImageID implements outcome.
func (callReports) ImageID() string { return "" }

// Metadata implements outcome.
func (r callReports) Metadata() map[string]any {
	out := map[string]any{}
	for name, rep := range maps.All(r) {
		out[name] = rep.Metadata()
	}
	return out
}

package eval

import (
	"fmt"
	"strings"
	"unicode"

	"github.com/hashicorp/hcl/v2"
)

// maxErrors bounds the diagnostics of one evaluation.
const maxErrors = 20

// Diagnostic is one thing that is wrong, or strange, in a file.
type Diagnostic struct {
	File      string // as File.Name; "" where it is of no file
	Line      int    // from 1 on; 0 where it is the whole file
	Column    int    // from 1 on, in characters
	EndLine   int
	EndColumn int      // the column after the last
	Summary   string   // "Unknown variable"
	Detail    string   // a sentence: what is wrong, and what would be right
	Tries     []string // hints, each to read or to paste

	source []byte // of the whole file, for Excerpt
	cause  error
}

// String is FILE:LINE,COLUMN-COLUMN: Summary; Detail, as buildx writes it, with
// the last line before the last column where that is another.
func (d Diagnostic) String() string {
	text := printable(d.Summary)
	if d.Detail != "" {
		text += "; " + printable(d.Detail)
	}
	switch {
	case d.File == "":
		return text
	case d.Line == 0:
		return fmt.Sprintf("%s: %s", d.File, text)
	case d.EndLine != d.Line:
		return fmt.Sprintf("%s:%d,%d-%d,%d: %s", d.File, d.Line, d.Column, d.EndLine, d.EndColumn, text)
	}
	return fmt.Sprintf("%s:%d,%d-%d: %s", d.File, d.Line, d.Column, d.EndColumn, text)
}

// Excerpt shows the line in its file, with its neighbours; "" where there is
// none to show. It ends with a newline.
func (d Diagnostic) Excerpt() string {
	if d.Line == 0 || d.source == nil {
		return ""
	}
	lines := strings.Split(string(d.source), "\n")
	if d.Line > len(lines) {
		return ""
	}
	const around = 2
	const rule = "--------------------\n"
	var b strings.Builder
	fmt.Fprintf(&b, "%s:%d\n%s", printable(d.File), d.Line, rule)
	for n := max(1, d.Line-around); n <= min(len(lines), d.Line+around); n++ {
		mark := "   "
		if n == d.Line {
			mark = ">>>"
		}
		fmt.Fprintf(&b, "%s\n", strings.TrimRight(fmt.Sprintf("%4d | %s %s", n, mark, clip(printable(lines[n-1]))), " "))
	}
	b.WriteString(rule)
	return b.String()
}

// clip shortens a line that would fill a screen.
func clip(line string) string {
	const most = 200
	if r := []rune(line); len(r) > most {
		return string(r[:most]) + "…"
	}
	return line
}

// printable keeps what a file says from steering a terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t', r == '\n':
			return r
		case unicode.IsControl(r), unicode.Is(unicode.Bidi_Control, r):
			return unicode.ReplacementChar
		}
		return r
	}, s)
}

// Error is why a definition has no value.
type Error struct {
	Diagnostics []Diagnostic // at least one, the first cause first
}

// Error is the first diagnostic, and how many more there are.
func (e *Error) Error() string {
	text := e.Diagnostics[0].String()
	if n := len(e.Diagnostics) - 1; n > 0 {
		text += fmt.Sprintf(", and %d other diagnostic(s)", n)
	}
	return text
}

// Unwrap gives the causes that code can tell apart: a *LimitError.
func (e *Error) Unwrap() []error {
	var causes []error
	for _, d := range e.Diagnostics {
		if d.cause != nil {
			causes = append(causes, d.cause)
		}
	}
	return causes
}

// Hints implements hint.Hinter.
func (e *Error) Hints() []string {
	var all []string
	for _, d := range e.Diagnostics {
		all = append(all, d.Tries...)
	}
	return all
}

// Excerpt shows where the first diagnostic is; see Diagnostic.Excerpt.
func (e *Error) Excerpt() string { return e.Diagnostics[0].Excerpt() }

// extra is what our own diagnostics carry on their way through HCL's.
type extra struct {
	tries    []string
	cause    error
	reported bool          // the same failure has been recorded where it happened
	suggest  func() string // the name that was probably meant, or ""; may be slow
}

// fault is a diagnostic of our own.
func fault(at hcl.Range, summary, detail string, tries ...string) *hcl.Diagnostic {
	return &hcl.Diagnostic{Severity: hcl.DiagError, Summary: summary, Detail: detail, Subject: &at, Extra: &extra{tries: tries}}
}

func faults(at hcl.Range, summary, detail string, tries ...string) hcl.Diagnostics {
	return hcl.Diagnostics{fault(at, summary, detail, tries...)}
}

// alreadyReported stands for a failure that has been recorded where it happened.
func alreadyReported() hcl.Diagnostics {
	return hcl.Diagnostics{{Severity: hcl.DiagError, Summary: "Not evaluated", Extra: &extra{reported: true}}}
}

// record takes the errors among diags, until there are enough of them.
func (e *evaluator) record(diags hcl.Diagnostics) {
	for _, d := range diags {
		if d.Severity != hcl.DiagError || len(e.errs) >= maxErrors {
			continue
		}
		if x, ok := d.Extra.(*extra); ok && x.reported {
			continue
		}
		e.errs = append(e.errs, e.diagnostic(d))
	}
}

// warn notes what is allowed, but hardly meant.
func (e *evaluator) warn(at hcl.Range, summary, detail string) {
	if len(e.warnings) < maxErrors {
		e.warnings = append(e.warnings, e.diagnostic(fault(at, summary, detail)))
	}
}

// diagnostic makes one of ours of one of HCL's.
func (e *evaluator) diagnostic(d *hcl.Diagnostic) Diagnostic {
	out := Diagnostic{Summary: d.Summary, Detail: d.Detail}
	if x, ok := d.Extra.(*extra); ok {
		out.Tries, out.cause = x.tries, x.cause
		if x.suggest != nil {
			if near := x.suggest(); near != "" {
				out.Detail += fmt.Sprintf(" Did you mean %q?", near)
				out.Tries = nil
			}
		}
	}
	if d.Subject != nil {
		out.File, out.Line = d.Subject.Filename, d.Subject.Start.Line
		out.Column, out.EndLine, out.EndColumn = d.Subject.Start.Column, d.Subject.End.Line, d.Subject.End.Column
		out.source = e.sources[out.File]
	}
	return out
}

// failure is what the evaluation ends with, or nil. That a limit was reached
// goes before what came of it: try() may have hidden it.
func (e *evaluator) failure() error {
	if err := e.budget.ended; err != nil {
		return fmt.Errorf("evaluating the definition: %w", err)
	}
	if l := e.budget.reached; l != nil {
		return &Error{Diagnostics: []Diagnostic{e.diagnostic(l)}}
	}
	if len(e.errs) > 0 {
		return &Error{Diagnostics: e.errs}
	}
	return nil
}

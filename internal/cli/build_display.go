package cli

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/berthbuild/berth/internal/builder"
	"github.com/berthbuild/berth/internal/progress"
	"github.com/berthbuild/berth/internal/termtext"
	"github.com/moby/buildkit/client"
)

// display is the progress of one build, from its beginning to its end.
type display struct {
	printer *progress.Printer
	mode    progress.Mode
}

// openDisplay starts it. Until closeDisplay, standard error is the display's
// alone: warnings wait.
func (a *app) openDisplay(mode progress.Mode, b *builder.Builder) (display, error) {
	printer, err := progress.New(a.io.Err, mode, progress.Options{Builder: b.Name, Driver: b.Driver})
	if err != nil {
		return display{}, err
	}
	a.notices.hold()
	return display{printer: printer, mode: mode}, nil
}

// closeDisplay ends it and gives what the frontend found on the way. The
// build's own error matters more than the display's.
func (a *app) closeDisplay(d display) []client.VertexWarning {
	found, err := d.printer.Close()
	for _, line := range a.notices.release() {
		_, _ = io.WriteString(a.io.Err, line)
	}
	var fault *progress.Fault
	if errors.As(err, &fault) {
		a.warn("%v", fault)
	}
	return found
}

// quiet says that nothing but the result, or the error, is wanted.
func (d display) quiet() bool { return d.mode == progress.Quiet || d.mode == progress.None }

// printFailedSteps shows the last lines of the steps that failed, where the
// display has not: with -q. A failure must not need a second run to be
// understood.
func (a *app) printFailedSteps(p *progress.Printer) {
	for _, s := range p.Failed() {
		fmt.Fprintf(a.io.Err, "------\n > %s:\n", s.Name)
		for _, line := range s.Log {
			fmt.Fprintln(a.io.Err, line)
		}
		fmt.Fprintln(a.io.Err, "------")
	}
}

// printFindings lists what the Dockerfile's frontend found; with --debug each
// with its lines and where to read more. Programs have it in the JSON.
func (a *app) printFindings(found []client.VertexWarning, d display) {
	if len(found) == 0 || d.quiet() || d.mode == progress.RawJSON {
		return
	}
	fmt.Fprintf(a.io.Err, "\n %s\n", a.highlight(findingsTitle(len(found), a.debug)))
	for _, w := range found {
		fmt.Fprintf(a.io.Err, " - %s\n", findingLine(w))
		if a.debug {
			a.printFindingDetail(w)
		}
	}
}

// findingsTitle is a line that scripts look for.
func findingsTitle(n int, expanded bool) string {
	title := strconv.Itoa(n) + " warnings found"
	if n == 1 {
		title = "1 warning found"
	}
	if !expanded {
		title += " (use docker --debug to expand)"
	}
	return title + ":"
}

// findingLine names the line, which most frontends say themselves.
func findingLine(w client.VertexWarning) string {
	text := termtext.Line(string(w.Short), maxFinding)
	if n := firstLine(w.Range); n > 0 {
		if at := fmt.Sprintf(" (line %d)", n); !strings.HasSuffix(text, at) {
			text += at
		}
	}
	return text
}

// maxFinding bounds the one line of a finding, in bytes.
const maxFinding = 4 << 10

func (a *app) printFindingDetail(w client.VertexWarning) {
	for _, line := range w.Detail {
		fmt.Fprintln(a.io.Err, termtext.Clean(string(line)))
	}
	if w.URL != "" {
		fmt.Fprintf(a.io.Err, "More info: %s\n", termtext.Line(w.URL, maxFinding))
	}
	var excerpt strings.Builder
	_ = sourceName{}.source(w.SourceInfo, w.Range).Print(&excerpt) // a buffer takes everything
	fmt.Fprintf(a.io.Err, "%s\n", termtext.Clean(excerpt.String()))
}

// highlight colours a title on a terminal, unless NO_COLOR says no.
func (a *app) highlight(text string) string {
	if !a.io.ErrTTY || a.env("NO_COLOR") != "" {
		return text
	}
	return "\x1b[33m" + text + "\x1b[0m"
}

package cli

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/termtext"
	"github.com/moby/buildkit/solver/errdefs"
)

// printError ends a failed command: the source lines that a build failed at,
// what to try, and last of all the error, since scripts read the last line.
// Stderr may be gone; there is nobody left to tell.
func (a *app) printError(err error) {
	if errors.Is(err, errReported) {
		return
	}
	for _, s := range errdefs.Sources(err) {
		var excerpt strings.Builder
		_ = sourceName{}.source(s.Info, s.Ranges).Print(&excerpt) // a buffer takes everything
		_, _ = io.WriteString(a.io.Err, termtext.Clean(excerpt.String()))
	}
	for _, line := range hint.Of(err) {
		fmt.Fprintf(a.io.Err, "hint: %s\n", termtext.Clean(line))
	}
	fmt.Fprintf(a.io.Err, "ERROR: %s\n", strings.TrimSpace(termtext.Clean(err.Error())))
}

// warn says something that does not stop the command; once the display of a
// build has ended, when there is one.
func (a *app) warn(format string, args ...any) {
	line := termtext.Clean(fmt.Sprintf("WARNING: "+format, args...)) + "\n"
	if !a.notices.take(line) {
		_, _ = io.WriteString(a.io.Err, line)
	}
}

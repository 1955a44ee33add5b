package cli

import (
	"fmt"
	"strings"

	"github.com/berthbuild/berth/internal/hint"
	"github.com/moby/buildkit/solver/errdefs"
)

// printError ends a failed command: the source lines that a build failed at,
// what to try, and last of all the error, since scripts read the last line.
func (a *app) printError(err error) {
	for _, s := range errdefs.Sources(err) {
		_ = s.Print(a.io.Err) // stderr may be gone; there is nobody left to tell
	}
	for _, line := range hint.Of(err) {
		fmt.Fprintf(a.io.Err, "hint: %s\n", line)
	}
	fmt.Fprintf(a.io.Err, "ERROR: %s\n", strings.TrimSpace(err.Error()))
}

// warn says something that does not stop the command.
func (a *app) warn(format string, args ...any) {
	fmt.Fprintf(a.io.Err, "WARNING: "+format+"\n", args...)
}

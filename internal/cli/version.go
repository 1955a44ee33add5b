package cli

import (
	"fmt"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
)

// version and commit are set by the linker (see the Makefile).
var (
	version = "v1.0.0"
	commit  = ""
)

// Version is this build's version.
func Version() string { return version }

func newVersionCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Show berth's version",
		Long: `Show berth's version, and the commit that it was built from where that is known.
The first word is the module, as scripts that read buildx's version expect.`,
		Example: "  berth version",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintln(a.io.Out, strings.TrimSpace("github.com/berthbuild/berth "+Version()+" "+revision()))
			return err
		},
	}
}

// revision is the commit, as the Makefile or the go command recorded it; empty
// when neither did.
func revision() string {
	if commit != "" {
		return commit
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return s.Value
		}
	}
	return ""
}

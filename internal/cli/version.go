package cli

import (
	"fmt"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version is set by the linker (see the Makefile).
var version = "v1.0.0"

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
			_, err := fmt.Fprintf(a.io.Out, "github.com/berthbuild/berth %s %s\n", Version(), revision())
			return err
		},
	}
}

// revision is the commit, as the go command recorded it.
func revision() string {
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

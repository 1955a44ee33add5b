package cli

import (
	"errors"
	"fmt"

	"github.com/berthbuild/berth/internal/hint"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func hideFlag(f *pflag.Flag) { f.Hidden = true }

// hideFlags keeps flags that are taken for compatibility out of the help.
func hideFlags(cmd *cobra.Command, names ...string) {
	for _, name := range names {
		cmd.Flags().Lookup(name).Hidden = true
	}
}

// usageError is a call with the wrong arguments: said in one line, with where
// to read more.
func usageError(cmd *cobra.Command, msg string) error {
	return hint.Wrap(errors.New(msg), "", fmt.Sprintf("usage: %s; see %s --help", cmd.UseLine(), cmd.CommandPath()))
}

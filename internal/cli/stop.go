package cli

import (
	"fmt"

	"github.com/berthbuild/berth/internal/builder"
	"github.com/spf13/cobra"
)

func newStopCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "stop [NAME]",
		Short: "Stop a builder's daemons, where berth may",
		Long: `Stop the daemons of a builder. Those of the remote driver belong to whoever runs
them and go on; the command then does nothing and succeeds, as scripts expect.`,
		Example:           "  berth stop remote",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: a.completeOneBuilder,
		RunE: func(cmd *cobra.Command, args []string) error {
			b, err := a.service().Find(cmd.Context(), a.builderName(args))
			if err != nil {
				return err
			}
			if b.Driver == builder.DriverDocker {
				fmt.Fprintf(a.io.Err, "%s: its daemon is a part of the Docker engine and goes on\n", b.Name)
				return nil
			}
			fmt.Fprintf(a.io.Err, "%s: its daemons are run by their owner and go on\n", b.Name)
			return nil
		},
	}
}

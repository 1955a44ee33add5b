package cli

import (
	"context"

	"github.com/spf13/cobra"
)

func newDrainCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "drain NODE",
		Short: "Give a node no new builds",
		Long: `Give a node of the chosen builder (or of --builder) no new builds. Those that it
has go on; see them with berth top. It is remembered with the builder, and travels
with it: berth export writes it into the definition file, for all who share that.`,
		Example: `  berth drain --builder team n1
  berth undrain --builder team n1`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeNodes,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.runDrain(cmd.Context(), args[0], true)
		},
	}
}

func newUndrainCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:               "undrain NODE",
		Short:             "Give a drained node builds again",
		Example:           `  berth undrain --builder team n1`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeNodes,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.runDrain(cmd.Context(), args[0], false)
		},
	}
}

func (a *app) runDrain(ctx context.Context, node string, on bool) error {
	_, err := a.service().Drain(ctx, a.builderName(nil), node, on)
	return err
}

// completeNodes offers the nodes of the builder.
func (a *app) completeNodes(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	b, err := a.service().Find(cmd.Context(), a.builderName(nil))
	if err != nil || len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, n := range b.Nodes {
		names = append(names, n.Name+"\t"+n.Endpoint)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

package cli

import (
	"github.com/berthbuild/berth/internal/builder"
	"github.com/spf13/cobra"
)

func newUseCmd(a *app) *cobra.Command {
	var o builder.UseOptions
	cmd := &cobra.Command{
		Use:   "use [OPTIONS] NAME",
		Short: "Choose the builder that commands use",
		Long: `Choose the builder that commands use when none is named.

The choice belongs to the docker context (or DOCKER_HOST) that is current;
--global makes it hold for all of them. Each docker context is a builder, too:
its engine's own BuildKit. The name of the context that is current ("default"
where none was chosen) takes a choice back.`,
		Example: `  berth use remote
  berth use --global remote`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: a.completeOneBuilder,
		RunE: func(cmd *cobra.Command, args []string) error {
			name := a.builderName(args)
			if name == "" {
				return usageError(cmd, "which builder?")
			}
			return a.service().Use(cmd.Context(), name, o)
		},
	}
	cmd.Flags().BoolVar(&o.Default, "default", false, "keep the builder as this docker context's default")
	cmd.Flags().BoolVar(&o.Global, "global", false, "keep the choice when the docker context changes")
	return cmd
}

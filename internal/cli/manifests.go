package cli

import "github.com/spf13/cobra"

func newManifestsCmd(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "manifests COMMAND",
		Short: "Print what runs BuildKit daemons elsewhere",
		Long: `Print what another system needs to run BuildKit daemons for berth. Nothing is
contacted, and nothing is written but the text.`,
		Example: `  berth manifests kubernetes | kubectl apply -f -`,
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newManifestsKubernetesCmd(a))
	return cmd
}

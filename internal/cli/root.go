package cli

import (
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
)

// commands is the list of all commands, in the order of the help.
func commands(a *app) []*cobra.Command {
	return []*cobra.Command{
		newBakeCmd(a),
		newBuildCmd(a),
		newCertsCmd(a),
		newCreateCmd(a),
		newDialStdioCmd(a),
		newExportCmd(a),
		newDoctorCmd(a),
		newDrainCmd(a),
		newDuCmd(a),
		newHistoryCmd(a),
		newImagetoolsCmd(a),
		newInspectCmd(a),
		newLsCmd(a),
		newManifestsCmd(a),
		newPruneCmd(a),
		newRmCmd(a),
		newStopCmd(a),
		newTopCmd(a),
		newTrustCmd(a),
		newUndrainCmd(a),
		newUseCmd(a),
		newVersionCmd(a),
	}
}

// newRoot makes the command for this invocation: our own, or, when docker
// calls us as its plugin, docker's with ours below it.
func newRoot(a *app, args []string) *cobra.Command {
	name := strings.TrimSuffix(filepath.Base(args[0]), ".exe")
	rest := args[1:]
	if isPluginCall(name, rest) {
		a.asPlugin = true
		return newPluginRoot(a, rest)
	}
	root := newBerthCmd(a, name)
	root.AddCommand(newMetadataCmd(a))
	root.SetArgs(rest)
	return finish(a, root)
}

// newBerthCmd is the command that all others hang on.
func newBerthCmd(a *app, name string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   name + " COMMAND",
		Short: "Build container images on the BuildKit daemons you run",
		Long: `berth builds container images on BuildKit daemons that are already running: on a
VM, in a container, in Kubernetes, in a Docker engine. It takes the commands, flags and state folder
of docker buildx and its remote driver.`,
		Example: `  berth create --name remote --driver remote tcp://buildkitd.example.com:1234
  berth use remote
  berth build -t app --load .`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	flags := cmd.PersistentFlags()
	flags.StringVar(&a.builderFlag, "builder", "", "the builder to use, or the URL of an endpoint (default: the chosen one)")
	flags.BoolVarP(&a.debug, "debug", "D", false, "say more about what is done")
	completeWith(cmd, "builder", a.completeBuilders)
	cmd.AddCommand(commands(a)...)
	return cmd
}

// finish sets what holds for every tree of commands.
func finish(a *app, root *cobra.Command) *cobra.Command {
	root.SilenceErrors, root.SilenceUsage = true, true
	root.SetIn(a.io.In)
	root.SetOut(a.io.Out)
	root.SetErr(a.io.Err)
	root.CompletionOptions.HiddenDefaultCmd = false
	return root
}

// completer is what cobra asks for the words that a shell may offer.
type completer = func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective)

// completeBuilders offers the names of builders; a broken state folder offers
// none, since a shell's completion is no place for errors.
func (a *app) completeBuilders(cmd *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
	all, _ := a.service().List(cmd.Context())
	var names []string
	for _, b := range all {
		if b.Err == nil && strings.HasPrefix(b.Name, typed) {
			names = append(names, b.Name+"\t"+b.Driver)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// completeWords offers fixed words.
func completeWords(words ...string) completer {
	return func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return words, cobra.ShellCompDirectiveNoFileComp
	}
}

// completeOneBuilder offers names for the first argument only.
func (a *app) completeOneBuilder(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return a.completeBuilders(cmd, args, typed)
}

// completeWith sets a flag's completion. It can only fail for a flag that the
// command does not have, which is a mistake in this package.
func completeWith(cmd *cobra.Command, flag string, f completer) {
	if err := cmd.RegisterFlagCompletionFunc(flag, f); err != nil {
		panic(err)
	}
}

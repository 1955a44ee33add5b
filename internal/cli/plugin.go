package cli

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// pluginName is what docker knows us by: `docker buildx`.
const pluginName = "buildx"

// metadataCommand is how docker asks a plugin what it is.
const metadataCommand = "docker-cli-plugin-metadata"

// isPluginCall tells `docker-buildx [docker's flags] buildx CMD …`, which is
// how docker calls its plugins, from `docker-buildx CMD …`, which is how
// Compose and people do.
func isPluginCall(name string, args []string) bool {
	return name == "docker-buildx" && slices.Contains(firstWords(args), pluginName)
}

// firstWords are the arguments up to and with the first that is a command;
// docker's own flags, some with a value, and cobra's completion request may
// stand before it.
func firstWords(args []string) []string {
	for i := 0; i < len(args); i++ {
		switch arg := args[i]; {
		case takesValue(arg):
			i++
		case strings.HasPrefix(arg, "-"), arg == cobra.ShellCompRequestCmd, arg == cobra.ShellCompNoDescRequestCmd:
		default:
			return args[:i+1]
		}
	}
	return nil
}

// takesValue says whether a flag of docker's is followed by its value.
func takesValue(arg string) bool {
	return slices.Contains([]string{
		"--config", "-c", "--context", "-H", "--host", "-l", "--log-level",
		"--tlscacert", "--tlscert", "--tlskey",
	}, arg)
}

// newPluginRoot stands in for docker above our commands, so that its flags are
// taken and usage lines read `docker buildx …`.
func newPluginRoot(a *app, args []string) *cobra.Command {
	docker := &cobra.Command{Use: "docker"}
	f := docker.PersistentFlags()
	f.StringVar(&a.docker.config, "config", "", "location of docker's configuration")
	f.StringVarP(&a.docker.context, "context", "c", "", "docker context to use")
	f.StringVarP(&a.docker.host, "host", "H", "", "docker engine to use")
	f.StringVarP(&a.docker.logLevel, "log-level", "l", "", "docker's logging level")
	f.BoolVarP(&a.debug, "debug", "D", false, "docker's debug mode")
	f.BoolVar(&a.docker.tls, "tls", false, "use TLS")
	f.BoolVar(&a.docker.tlsVerify, "tlsverify", false, "use TLS and verify the engine")
	f.StringVar(&a.docker.tlsCACert, "tlscacert", "", "trust certificates signed only by this CA")
	f.StringVar(&a.docker.tlsCert, "tlscert", "", "path to the TLS certificate file")
	f.StringVar(&a.docker.tlsKey, "tlskey", "", "path to the TLS key file")
	f.VisitAll(hideFlag)
	docker.PersistentPreRun = func(*cobra.Command, []string) {
		if a.docker.tlsCACert+a.docker.tlsCert+a.docker.tlsKey != "" {
			a.warn("--tlscacert, --tlscert and --tlskey are not used; set DOCKER_CERT_PATH to a folder with ca.pem, cert.pem and key.pem")
		}
	}
	docker.AddCommand(newBerthCmd(a, pluginName), newMetadataCmd(a))
	docker.CompletionOptions.DisableDefaultCmd = true
	docker.SetArgs(args)
	return finish(a, docker)
}

// newMetadataCmd answers docker's question what this plugin is. Compose
// refuses a version below v0.17.0.
func newMetadataCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use: metadataCommand, Hidden: true, Args: cobra.ArbitraryArgs,
		RunE: func(*cobra.Command, []string) error {
			out, err := json.MarshalIndent(struct {
				SchemaVersion, Vendor, Version, ShortDescription string
			}{"0.1.0", "berth", Version(), "Build on the BuildKit daemons you run"}, "", "     ")
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(a.io.Out, "%s\n", out)
			return err
		},
	}
}

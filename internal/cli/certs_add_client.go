package cli

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/berthbuild/berth/internal/certs"
	"github.com/spf13/cobra"
)

type certsAddClientOptions struct {
	certIssue
	name       string
	kubernetes bool
}

func newCertsAddClientCmd(a *app) *cobra.Command {
	var o certsAddClientOptions
	cmd := &cobra.Command{
		Use:   "add-client [OPTIONS] NAME",
		Short: "Make a certificate for one more client",
		Long: `Make a certificate for one more client of the daemon, signed by the CA that
certs create made, in the folder client-NAME, and print the line that makes a
builder with it. The daemon needs no restart.`,
		Example: `  berth certs add-client ci
  berth certs add-client --days 30 alice@example.com`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError(cmd, fmt.Sprintf("one client is named, not %d", len(args)))
			}
			return nil
		},
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(_ *cobra.Command, args []string) error {
			o.name = args[0]
			return a.runCertsAddClient(o)
		},
	}
	o.addFlags(cmd)
	f := cmd.Flags()
	f.BoolVar(&o.kubernetes, "kubernetes", false, "write it as a Secret of Kubernetes, too")
	f.BoolVarP(&o.force, "force", "f", false, "overwrite a client of this name")
	return cmd
}

func (a *app) runCertsAddClient(o certsAddClientOptions) error {
	dir, err := a.certPath(o.dir)
	if err != nil {
		return err
	}
	kind, err := certs.ParseKeyType(o.keyType)
	if err != nil {
		return err
	}
	r, err := certs.AddClient(certs.AddClientOptions{
		Dir: dir, Name: o.name, Days: o.days, KeyType: kind, Kubernetes: o.kubernetes, Force: o.force, Now: time.Now(),
	})
	if err != nil {
		return err
	}
	a.warnCut(r)
	client := r.Certs[0]
	var text strings.Builder
	fmt.Fprintf(&text, "# Made: a certificate for the client %s, valid until %s.\n\n", o.name, date(client.NotAfter))
	fmt.Fprintf(&text, "# Make a builder, where only the folder %s is needed:\n%s\n", client.Folder, builderLine(client, o.dir, certs.DaemonNames(dir)))
	if o.kubernetes {
		text.WriteString("\n# The same as a Secret:\n" + applyLines(r, o.dir))
	}
	_, err = io.WriteString(a.io.Out, text.String())
	return err
}

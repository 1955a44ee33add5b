package cli

import (
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"github.com/berthbuild/berth/internal/certs"
	"github.com/berthbuild/berth/internal/hint"
	"github.com/spf13/cobra"
)

type certsCreateOptions struct {
	certIssue
	names      []string
	client     string
	kubernetes bool
}

func newCertsCreateCmd(a *app) *cobra.Command {
	var o certsCreateOptions
	cmd := &cobra.Command{
		Use:   "create [OPTIONS] NAME [NAME…]",
		Short: "Make a CA, a daemon's certificate and a client's",
		Long: `Make a CA, a certificate for a BuildKit daemon and one for a client, and print the
lines that start the daemon and make a builder with them.

NAME is a host name or IP address by which clients reach the daemon; *.NAME is
any one name below NAME. The first is the one in the printed endpoint.

Nothing that is there is overwritten without --force.`,
		Example: `  berth certs create buildkitd.example.com 192.0.2.7
  berth certs create --client ci --days 90 build.internal
  berth certs create --kubernetes buildkitd.default.svc`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError(cmd, "no name for the daemon is given")
			}
			return nil
		},
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(_ *cobra.Command, args []string) error {
			o.names = args
			return a.runCertsCreate(o)
		},
	}
	o.addFlags(cmd)
	f := cmd.Flags()
	f.StringVar(&o.client, "client", certs.DefaultClient, "the name in the client's certificate")
	f.BoolVar(&o.kubernetes, "kubernetes", false, "write them as Secrets of Kubernetes, too")
	f.BoolVarP(&o.force, "force", "f", false, "overwrite what is there: clients of the old CA are refused then")
	return cmd
}

func (a *app) runCertsCreate(o certsCreateOptions) error {
	dir, err := a.certPath(o.dir)
	if err != nil {
		return err
	}
	kind, err := certs.ParseKeyType(o.keyType)
	if err != nil {
		return err
	}
	if o.client == "" {
		return hint.New("--client is empty", "leave it out for "+certs.DefaultClient)
	}
	r, err := certs.Create(certs.CreateOptions{
		Dir: dir, Names: o.names, Client: o.client, Days: o.days, KeyType: kind,
		Kubernetes: o.kubernetes, Force: o.force, Now: time.Now(),
	})
	if err != nil {
		return err
	}
	daemon, client := r.Certs[0], r.Certs[1]
	var text strings.Builder
	fmt.Fprintf(&text, "# Made in %s: certificates for %s, valid until %s (the CA until %s).\n",
		o.dir, strings.Join(daemon.Names, ", "), date(daemon.NotAfter), date(r.CAUntil))
	fmt.Fprintf(&text, "# The key in ca/ signs more of them: keep it to yourself.\n\n")
	fmt.Fprintf(&text, "# Start the daemon, whose machine needs only the folder daemon:\n%s\n\n", daemonLine(daemon, o.dir))
	fmt.Fprintf(&text, "# Make a builder, where only the folder client is needed:\n%s\n", builderLine(client, o.dir, daemon.Names))
	if o.kubernetes {
		text.WriteString("\n# The same as Secrets:\n" + applyLines(r, o.dir))
	}
	_, err = io.WriteString(a.io.Out, text.String())
	return err
}

// applyLines gives the Secrets to Kubernetes.
func applyLines(r *certs.Result, dir string) string {
	var text strings.Builder
	for _, i := range r.Certs {
		if i.Secret != "" {
			text.WriteString("kubectl apply -f " + hint.Quote(filepath.Join(dir, i.Secret)) + "\n")
		}
	}
	return text.String()
}

func date(t time.Time) string { return t.UTC().Format(time.DateOnly) }

// warnCut says that certificates end earlier than was asked for.
func (a *app) warnCut(r *certs.Result) {
	if r.CutDays > 0 {
		a.warn("the CA expires on %s, and what it signs with it, %d days before what --days says; prolong it: berth certs renew --ca", date(r.CAUntil), r.CutDays)
	}
}

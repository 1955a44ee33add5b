package cli

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/berthbuild/berth/internal/certs"
	"github.com/berthbuild/berth/internal/hint"
	"github.com/spf13/cobra"
)

type certsRenewOptions struct {
	certIssue
	daemon  bool
	clients []string
	ca      bool
	names   []string
	newKey  bool
}

func newCertsRenewCmd(a *app) *cobra.Command {
	var o certsRenewOptions
	cmd := &cobra.Command{
		Use:   "renew [OPTIONS]",
		Short: "Prolong certificates",
		Long: `Prolong the daemon's and all clients' certificates, or only those that are named,
with the names, keys and CA that they have. The ones before stay valid until they
expire. Each file is replaced at once, so that builds go on meanwhile; the daemon
reads its own when it starts.

--ca prolongs the CA, too. Its key and name stay, so that whoever has the CA of
before and whoever has the new one take each other's certificates.

--new-key makes new private keys as well. Who reads certificate and key in the
moment between the two gets halves that do not fit.

Secrets of Kubernetes that certs create wrote are renewed with them.`,
		Example: `  berth certs renew
  berth certs renew --client ci --days 30
  berth certs renew --daemon --san buildkitd.example.com --san 192.0.2.8`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(*cobra.Command, []string) error {
			return a.runCertsRenew(o)
		},
	}
	o.addFlags(cmd)
	f := cmd.Flags()
	f.BoolVar(&o.daemon, "daemon", false, "only the daemon's, and those of --client")
	f.StringSliceVar(&o.clients, "client", nil, "only this client's, and what else is named")
	f.BoolVar(&o.ca, "ca", false, "the CA's, too")
	f.StringSliceVar(&o.names, "san", nil, "the daemon's names from now on (default: as they are)")
	f.BoolVar(&o.newKey, "new-key", false, "with new private keys")
	f.BoolVarP(&o.force, "force", "f", false, "sign also what another CA signed before")
	return cmd
}

func (a *app) runCertsRenew(o certsRenewOptions) error {
	dir, err := a.certPath(o.dir)
	if err != nil {
		return err
	}
	kind, err := certs.ParseKeyType(o.keyType)
	switch {
	case err != nil:
		return err
	case o.keyType == "":
		kind = "" // as the old ones
	case !o.newKey:
		return hint.New("--key-type is for new keys, and the old ones are kept", "add --new-key")
	}
	r, err := certs.Renew(certs.RenewOptions{
		Dir: dir, Daemon: o.daemon, Clients: o.clients, CA: o.ca, Names: o.names,
		Days: o.days, NewKey: o.newKey, KeyType: kind, Force: o.force, Now: time.Now(),
	})
	if err != nil {
		return err
	}
	a.warnCut(r)
	var text strings.Builder
	if o.ca {
		fmt.Fprintf(&text, "ca: valid until %s; give the new ca.pem to the daemon and to clients before the old one expires\n", date(r.CAUntil))
	}
	for _, i := range r.Certs {
		fmt.Fprintf(&text, "%s (%s): valid until %s", i.Folder, strings.Join(i.Names, ", "), date(i.NotAfter))
		if i.Role == certs.RoleDaemon {
			text.WriteString("; restart buildkitd, which reads it when it starts")
		}
		text.WriteString("\n")
	}
	text.WriteString(applyLines(r, o.dir))
	_, err = io.WriteString(a.io.Out, text.String())
	return err
}

package cli

import (
	"encoding/csv"
	"net/netip"
	"path/filepath"
	"strings"

	"github.com/berthbuild/berth/internal/certs"
	"github.com/berthbuild/berth/internal/hint"
	"github.com/spf13/cobra"
)

func newCertsCmd(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "certs COMMAND",
		Short: "Make, prolong and look at certificates for mutual TLS",
		Long: `Make certificates for mutual TLS between a BuildKit daemon and its clients, prolong
them, and look at them. No network, no Docker and no other program is needed.

They lie in one folder, laid out as in BuildKit's guides:
  daemon/{ca,cert,key}.pem   for buildkitd
  client/{ca,cert,key}.pem   for the first client; client-NAME/ for each other
  ca/{cert,key}.pem          signs more of them; its key is for nobody else`,
		Example: `  berth certs create buildkitd.example.com
  berth certs add-client ci
  berth certs inspect --warn 30d
  berth certs renew`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newCertsCreateCmd(a), newCertsAddClientCmd(a), newCertsRenewCmd(a), newCertsInspectCmd(a))
	return cmd
}

// certIssue is what the commands that make certificates have in common.
type certIssue struct {
	dir     string
	days    int
	keyType string
	force   bool
}

func (o *certIssue) addFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.dir, "dir", certs.DefaultDir, "the folder of the certificates")
	f.IntVar(&o.days, "days", certs.DefaultDays, "how many days they are valid; none outlives the CA, which has ten years")
	f.StringVar(&o.keyType, "key-type", "", "kind of new keys: "+strings.Join(certs.KeyTypes(), ", ")+" (default "+certs.KeyTypes()[0]+")")
	completeWith(cmd, "key-type", completeWords(certs.KeyTypes()...))
}

// certPath is a folder that the user named, made absolute.
func (a *app) certPath(path string) (string, error) {
	if rest, ok := strings.CutPrefix(filepath.ToSlash(path), "~/"); ok && a.home() != "" {
		path = filepath.Join(a.home(), rest)
	}
	switch {
	case path == "":
		return "", hint.New("--dir is empty", "leave it out for "+certs.DefaultDir)
	case filepath.IsAbs(path):
		return filepath.Clean(path), nil
	}
	return filepath.Join(a.dir, path), nil
}

// certPort is where BuildKit's guides have the daemon listen.
const certPort = "1234"

// daemonLine starts buildkitd with the certificates, in words of a shell.
func daemonLine(i certs.Issued, dir string) string {
	ca, cert, key := i.Files(dir)
	return "buildkitd --addr tcp://0.0.0.0:" + certPort +
		" --tlscacert " + hint.Quote(ca) + " --tlscert " + hint.Quote(cert) + " --tlskey " + hint.Quote(key)
}

// builderLine makes a builder for the daemon of that name with the client's
// certificate, in words of a shell.
func builderLine(i certs.Issued, dir string, names []string) string {
	ca, cert, key := i.Files(dir)
	opts := csvFields("cacert="+ca, "cert="+cert, "key="+key)
	return "berth create --name remote --driver remote --driver-opt " + hint.Quote(opts) + " " + hint.Quote("tcp://"+dialled(names)+":"+certPort)
}

// csvFields is the value of an option that reads a comma as its separator.
func csvFields(fields ...string) string {
	var b strings.Builder
	w := csv.NewWriter(&b)
	_ = w.Write(fields) // a strings.Builder takes all
	w.Flush()
	return strings.TrimSuffix(b.String(), "\n")
}

// dialled is the first of the daemon's names that a client can dial, as it
// stands in an endpoint.
func dialled(names []string) string {
	for _, n := range names {
		if strings.HasPrefix(n, "*") {
			continue
		}
		if addr, err := netip.ParseAddr(n); err == nil && addr.Is6() {
			return "[" + n + "]"
		}
		return n
	}
	if len(names) > 0 {
		return "NAME" + strings.TrimPrefix(names[0], "*")
	}
	return "HOST"
}

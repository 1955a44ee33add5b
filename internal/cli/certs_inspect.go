package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/berthbuild/berth/internal/builder"
	"github.com/berthbuild/berth/internal/certs"
	"github.com/berthbuild/berth/internal/endpoint"
	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/ui"
	"github.com/spf13/cobra"
)

type certsInspectOptions struct {
	target string // a folder, or a builder's name
	warn   string
	format string
}

// certsView is what certs inspect says in JSON.
type certsView struct {
	Dir          string `json:",omitempty"`
	Builder      string `json:",omitempty"`
	OK           bool   // nothing is broken, and nothing ends within --warn
	Certificates []certs.Set
}

func newCertsInspectCmd(a *app) *cobra.Command {
	var o certsInspectOptions
	cmd := &cobra.Command{
		Use:   "inspect [OPTIONS] [DIR|BUILDER]",
		Short: "Show certificates, and what is wrong with them",
		Long: `Show whom certificates are for, who signed them, until when they are valid, and
whether key, certificate and CA belong together: those of a folder, or those that
a builder uses. Without an argument, and without --builder, the folder is .certs.
A folder comes before a builder of the same name.

It exits with 1 when something does not work, has expired, or expires within
--warn. Nothing is contacted.`,
		Example: `  berth certs inspect
  berth certs inspect --warn 30d remote
  berth certs inspect --format json /etc/buildkit/certs`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				o.target = args[0]
			}
			return a.runCertsInspect(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.warn, "warn", "0", "fail for what expires within this time, such as 30d or 12h")
	f.StringVar(&o.format, "format", "", "json, or a template over the same fields")
	completeWith(cmd, "format", completeWords(ui.FormatJSON))
	return cmd
}

func (a *app) runCertsInspect(ctx context.Context, o certsInspectOptions) error {
	warn, err := certs.ParsePeriod(o.warn)
	if err != nil {
		return hint.Wrap(err, "--warn")
	}
	format, err := ui.ParseFormat(o.format)
	if err != nil {
		return err
	}
	v, err := a.lookAtCerts(ctx, o.target, time.Now(), warn)
	if err != nil {
		return err
	}
	failed := v.failure()
	v.OK = failed == nil
	switch {
	case format.IsJSON():
		err = ui.WriteJSON(a.io.Out, v)
	case format.IsTable():
		_, err = io.WriteString(a.io.Out, certsText(v, time.Now()))
	default:
		err = format.Execute(a.io.Out, nil, []any{v})
	}
	if err != nil {
		return err
	}
	return failed
}

// lookAtCerts finds out what target is, and looks at its certificates.
func (a *app) lookAtCerts(ctx context.Context, target string, now time.Time, warn time.Duration) (*certsView, error) {
	if target == "" && a.builderFlag != "" {
		return a.builderCerts(ctx, a.builderFlag, now, warn)
	}
	if strings.Contains(target, "://") {
		return a.builderCerts(ctx, target, now, warn)
	}
	isPath := target == "" || strings.ContainsAny(target, `/\`) || strings.HasPrefix(target, ".")
	if target == "" {
		target = certs.DefaultDir
	}
	dir, err := a.certPath(target)
	if err != nil {
		return nil, err
	}
	if !isPath && !certs.IsCertDir(dir) {
		return a.builderCerts(ctx, target, now, warn)
	}
	sets, err := certs.InspectDir(dir, now, warn)
	return &certsView{Dir: dir, Certificates: sets}, err
}

// builderCerts looks at the files that a builder's nodes use.
func (a *app) builderCerts(ctx context.Context, name string, now time.Time, warn time.Duration) (*certsView, error) {
	b, err := a.service().Find(ctx, name)
	if err == nil {
		err = b.Err
	}
	if err != nil {
		return nil, hint.Wrap(err, "", "or name a folder of certificates: berth certs inspect ./DIR")
	}
	v := &certsView{Builder: b.Name}
	var unusable error
	for _, n := range b.Nodes {
		ca, cert, key, err := nodeCerts(n)
		if ca.Path != "" || cert.Path != "" || key.Path != "" {
			v.Certificates = append(v.Certificates, certs.Inspect(n.Name, ca, cert, key, now, warn))
		} else if unusable == nil {
			unusable = err
		}
	}
	switch {
	case len(v.Certificates) == 0 && unusable != nil:
		return nil, unusable
	case len(v.Certificates) == 0:
		return nil, hint.New(fmt.Sprintf("builder %s uses no certificate files", b.Name), "its endpoints and options: berth inspect "+hint.Quote(b.Name))
	}
	return v, nil
}

// nodeCerts is the files that a node's options name, or what its definition
// holds in place of them; files without a path when there are none. The error
// says why the options could not be read.
func nodeCerts(n builder.Node) (ca, cert, key certs.File, err error) {
	t, err := n.Target()
	o := t.Options
	if dir := o.TLSDir; dir != "" {
		trio, found := certs.FindTrio(dir)
		if !found {
			trio.Cert, trio.Key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem") // said to be missing
		}
		return certs.ReadFile(trio.CA), certs.ReadFile(trio.Cert), certs.ReadFile(trio.Key), err
	}
	get := func(option, path string, text endpoint.Secret) certs.File {
		if text.IsZero() {
			return certs.ReadFile(path)
		}
		return certs.File{Path: "the embedded " + option, Data: []byte(text.Reveal())}
	}
	return get(endpoint.OptCACert, o.CACert, o.Inline.CACert), get(endpoint.OptCert, o.Cert, o.Inline.Cert),
		get(endpoint.OptKey, o.Key, o.Inline.Key), err
}

// failure is the worst of what is wrong, as an error; nil when nothing is.
func (v *certsView) failure() error {
	var all []certs.Problem
	var name string
	expiry, ca := false, false
	for _, s := range v.Certificates {
		for _, p := range s.Problems {
			if p.Level == certs.Note {
				continue
			}
			if len(all) == 0 || p.Level == certs.Broken && all[0].Level != certs.Broken {
				name, all = s.Name, append([]certs.Problem{p}, all...)
			} else {
				all = append(all, p)
			}
			if p.Kind == certs.KindExpired || p.Kind == certs.KindExpiring {
				expiry = true
				ca = ca || s.Role == certs.RoleCA || p.File == s.Files.CA
			}
		}
	}
	if len(all) == 0 {
		return nil
	}
	text := name + ": " + all[0].Text
	if len(all) > 1 {
		text += fmt.Sprintf(" (and %d more)", len(all)-1)
	}
	var tries []string
	if expiry {
		tries = append(tries, v.renewHint(ca))
	}
	return hint.Wrap(errors.New(text), "", tries...)
}

func (v *certsView) renewHint(ca bool) string {
	line := "berth certs renew"
	if ca {
		line += " --ca"
	}
	if v.Dir == "" {
		return "prolong them where they were made: " + line
	}
	return "prolong them: " + line + " --dir " + hint.Quote(v.Dir)
}

// certsText is the view for people.
func certsText(v *certsView, now time.Time) string {
	var text strings.Builder
	head := []field{{"Folder", v.Dir}, {"Builder", v.Builder}}
	writeFields(&text, "", slices.DeleteFunc(head, func(f field) bool { return f.value == "" }))
	for _, s := range v.Certificates {
		text.WriteString("\n")
		writeFields(&text, "", setFields(s, now))
	}
	return text.String()
}

func setFields(s certs.Set, now time.Time) []field {
	fields := []field{{"Name", s.Name}}
	add := func(name, value string) {
		if value != "" {
			fields = append(fields, field{name, value})
		}
	}
	c := s.Cert
	if c == nil && len(s.CAs) > 0 {
		c = &s.CAs[0] // a builder whose daemon asks for no certificate
	}
	if c != nil {
		add("Subject", c.Subject)
		add("Names", strings.Join(c.Names, ", "))
		add("Issuer", c.Issuer)
		add("Serial", c.Serial)
		add("Valid", fmt.Sprintf("%s to %s, %s", c.NotBefore.Format("2006-01-02 15:04 MST"), c.NotAfter.Format("2006-01-02 15:04 MST"), leftOf(*c, now)))
		add("Uses", strings.Join(c.Uses, ", "))
		add("Key", keyText(s, *c))
	}
	if s.Cert != nil && (len(s.CAs) > 0 || s.Role == certs.RoleCA) {
		add("Chain", map[bool]string{true: "verifies", false: "does not verify"}[s.Verifies])
	}
	for _, p := range s.Problems {
		name := "Problem"
		if p.Level == certs.Note {
			name = "Note"
		}
		add(name, p.Text)
	}
	return fields
}

func leftOf(c certs.Cert, now time.Time) string {
	switch {
	case now.Before(c.NotBefore):
		return "not yet"
	case now.After(c.NotAfter):
		return "expired"
	}
	return certs.Left(c.NotAfter.Sub(now)) + " left"
}

func keyText(s certs.Set, c certs.Cert) string {
	switch {
	case s.KeyMatches:
		return c.Key + ", matches"
	case s.HasKey && s.Cert != nil:
		return c.Key + ", does not match"
	}
	return c.Key
}

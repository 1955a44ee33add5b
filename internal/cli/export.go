package cli

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/berthbuild/berth/internal/atomicfile"
	"github.com/berthbuild/berth/internal/builder"
	"github.com/berthbuild/berth/internal/builderfile"
	"github.com/berthbuild/berth/internal/hint"
	"github.com/spf13/cobra"
)

// formatYAML is the --format of inspect that is an export.
const formatYAML = "yaml"

type exportOptions struct {
	names  []string
	output string
	embed  bool
	force  bool
}

func newExportCmd(a *app) *cobra.Command {
	var o exportOptions
	cmd := &cobra.Command{
		Use:   "export [OPTIONS] [NAME…]",
		Short: "Write builders into a file that travels",
		Long: `Write builders into a definition file, from which berth create --from makes them
again elsewhere, or which a repository carries as berth.yaml: nodes, endpoints,
platforms and options. Without NAME it is the chosen builder.

Paths of certificates that lie in the file's folder (or, on standard output, in
the working directory) are written relative to it, others below your home begin
with ~. Certificates themselves, keys and the password of a proxy go with the
file only with --embed-certs; a file written with -o is then yours alone to read.`,
		Example: `  berth export remote > berth.yaml
  berth export --embed-certs -o remote.yaml remote`,
		ValidArgsFunction: a.completeBuilders,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.names = args
			return a.runExport(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&o.output, "output", "o", "", "the file to write (default: standard output)")
	f.BoolVar(&o.embed, "embed-certs", false, "put certificates and keys into the file")
	f.BoolVarP(&o.force, "force", "f", false, "overwrite a file that is there")
	return cmd
}

func (a *app) runExport(ctx context.Context, o exportOptions) error {
	if o.output == "-" {
		o.output = ""
	}
	dir := a.dir
	if o.output != "" {
		o.output = a.abs(o.output)
		dir = filepath.Dir(o.output)
		if exists(o.output) && !o.force {
			return hint.New(o.output+" is there already", "add --force to overwrite it, or choose another name")
		}
	}
	if len(o.names) == 0 {
		o.names = []string{a.builderName(nil)}
	}
	s := a.service()
	var file builderfile.File
	for _, name := range o.names {
		b, err := s.Find(ctx, name)
		if err != nil {
			return err
		}
		def, err := a.exported(s, b, o.embed)
		if err != nil {
			return err
		}
		if other, dup := file.Find(def.Name); dup {
			return hint.New(fmt.Sprintf("builder %s is named twice", other.Name), "leave one out")
		}
		file.Builders = append(file.Builders, def)
	}
	text, err := builderfile.Print(file, dir, a.home())
	if err != nil {
		return err
	}
	return a.writeExport(o, text)
}

// exported describes a builder, and says on stderr what does not go with it.
func (a *app) exported(s *builder.Service, b *builder.Builder, embed bool) (builderfile.Builder, error) {
	def, left, err := s.Export(b, embed)
	for _, text := range left {
		a.warn("builder %s: not exported: %s", b.Name, text)
	}
	return def, err
}

func (a *app) writeExport(o exportOptions, text []byte) error {
	if o.output == "" {
		_, err := a.io.Out.Write(text)
		return err
	}
	mode := plainFile
	if o.embed {
		mode = secretFile
	}
	return hint.Wrap(atomicfile.Write(o.output, text, mode), "writing "+o.output)
}

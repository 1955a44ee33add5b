package cli

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/history"
	"github.com/spf13/cobra"
)

type historyImportOptions struct{ files []string }

func newHistoryImportCmd(a *app) *cobra.Command {
	var o historyImportOptions
	cmd := &cobra.Command{
		Use:   "import [OPTIONS] -",
		Short: "Take build records out of a bundle",
		Long: `Take build records out of .dockerbuild bundles, as berth, buildx and Docker Desktop
write them, and print their references.

A daemon takes no records of others, so they are kept in the state folder, as
those of a builder called .imported: berth --builder .imported history ls lists
them, and .imported/_/ID is a reference wherever one can be given. They stay until
they are removed with berth history rm. A record that is there already is
replaced.

A bundle is checked before anything is kept: what is not what its digest says,
lies outside of the bundle, or is absurdly large, is refused.`,
		Example: `  berth history import -f build.dockerbuild
  berth history import <build.dockerbuild
  berth --builder .imported history inspect`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 || len(args) == 1 && args[0] != "-" {
				return hint.New(fmt.Sprintf("%q is no argument of import", args[0]), "name a file with -f, or give the bundle on standard input")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.traced(cmd, func(ctx context.Context) error { return a.runHistoryImport(ctx, o) })
		},
	}
	cmd.Flags().StringArrayVarP(&o.files, "file", "f", nil, "a bundle; may be repeated")
	return cmd
}

func (a *app) runHistoryImport(ctx context.Context, o historyImportOptions) error {
	if len(o.files) == 0 {
		if a.io.InTTY {
			return hint.New("refusing to read a bundle from a terminal", "name a file: berth history import -f build.dockerbuild")
		}
		return a.importFrom(ctx, "standard input", a.io.In)
	}
	for _, file := range o.files {
		if err := a.importFile(ctx, file); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) importFile(ctx context.Context, file string) error {
	if file == "-" {
		return a.importFrom(ctx, "standard input", a.io.In)
	}
	f, err := openUntilDone(ctx, a.abs(file))
	if err != nil {
		return fmt.Errorf("failed to open file %s: %w", file, err)
	}
	defer f.Close() //nolint:errcheck // only read
	return a.importFrom(ctx, file, f)
}

// openUntilDone opens a file, which with one that is a pipe lasts until somebody writes
// into it, or until the context ends.
func openUntilDone(ctx context.Context, path string) (*os.File, error) {
	type answer struct {
		f   *os.File
		err error
	}
	answers := make(chan answer, 1)
	go func() {
		f, err := os.Open(path)
		answers <- answer{f, err}
	}()
	select {
	case got := <-answers:
		return got.f, got.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (a *app) importFrom(ctx context.Context, name string, in io.Reader) error {
	all, err := history.Import(ctx, a.store(), in)
	if err != nil {
		return hint.Wrap(err, name)
	}
	for _, r := range all {
		if _, err := fmt.Fprintln(a.io.Out, r.Reference()); err != nil {
			return err
		}
	}
	return nil
}

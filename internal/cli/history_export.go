package cli

import (
	"context"
	"errors"
	"io"

	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/history"
	"github.com/spf13/cobra"
)

type historyExportOptions struct {
	*historyOptions
	args     []string
	all      bool
	finalize bool
	output   string
}

func newHistoryExportCmd(a *app, shared *historyOptions) *cobra.Command {
	o := historyExportOptions{historyOptions: shared}
	cmd := &cobra.Command{
		Use:   "export [OPTIONS] [REF...]",
		Short: "Write build records into a bundle",
		Long: `Write build records into a .dockerbuild bundle, which berth history import and
Docker Desktop read: the records with their logs, traces, attestations and
manifests, but not what was built. Build arguments are among it; the file is the
user's alone.

Daemons wait some seconds for traces that clients send. With --finalize a record
is completed at once.`,
		Example: `  berth history export -o build.dockerbuild
  berth history export ^0 ^1 >two.dockerbuild
  berth history export --all --finalize -o all.dockerbuild`,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.args = args
			return a.traced(cmd, func(ctx context.Context) error { return a.runHistoryExport(ctx, o) })
		},
	}
	f := cmd.Flags()
	f.BoolVar(&o.all, "all", false, "export all records of the builder")
	f.BoolVar(&o.finalize, "finalize", false, "complete the records first")
	f.StringVarP(&o.output, "output", "o", "", "the file to write; without it standard output")
	return cmd
}

func (a *app) runHistoryExport(ctx context.Context, o historyExportOptions) error {
	if o.all && len(o.args) > 0 {
		return errors.New("cannot specify refs when using --all")
	}
	path := a.outputFile(o.output)
	if path == "" && a.io.OutTTY {
		return hint.New("refusing to write to console, use --output to specify a file", "berth history export -o build.dockerbuild")
	}
	if path != "" {
		if err := folderExists(path); err != nil {
			return err
		}
	}
	args := o.args
	if len(args) == 0 {
		args = []string{""}
	}
	refs, err := references(args)
	if err != nil {
		return err
	}
	hs, err := a.newHistories(o.historyOptions)
	if err != nil {
		return err
	}
	defer hs.close()
	bundle, err := history.NewBundle()
	if err != nil {
		return err
	}
	defer bundle.Close() //nolint:errcheck // a temporary folder
	if o.all {
		err = a.bundleAll(ctx, hs, bundle, o)
	} else {
		err = a.bundleThese(ctx, hs, bundle, refs, o)
	}
	if err != nil {
		return err
	}
	return a.writeOutput(path, func(out io.Writer) error { return bundle.Write(out) })
}

// bundleThese adds records that were named; none of them may be missing.
func (a *app) bundleThese(ctx context.Context, hs *histories, bundle *history.Bundle, refs []history.Reference, o historyExportOptions) error {
	seen := map[string]bool{}
	for _, ref := range refs {
		h, r, err := hs.find(ctx, ref)
		if err != nil {
			return err
		}
		if seen[r.Reference()] {
			continue
		}
		seen[r.Reference()] = true
		if err := addRecord(ctx, h, bundle, r, o); err != nil {
			return err
		}
	}
	return nil
}

// bundleAll adds what there is. A record that vanishes meanwhile is told of; a
// node that cannot be asked fails the command, since all were wanted.
func (a *app) bundleAll(ctx context.Context, hs *histories, bundle *history.Bundle, o historyExportOptions) error {
	h, err := hs.of(ctx, "")
	if err != nil {
		return err
	}
	all, err := h.Records(ctx, history.Filter{})
	hs.wait.close()
	if err != nil {
		return err
	}
	if err := a.nodesFailed(h.Name(), h.Failed(), "asked"); err != nil {
		return err
	}
	for _, r := range all {
		switch err := addRecord(ctx, h, bundle, r, o); {
		case errors.Is(err, history.ErrGone):
			a.warn("%v", err)
		case err != nil:
			return err
		}
	}
	if bundle.Len() == 0 {
		return hint.New("no records found", "list the records: berth history ls")
	}
	return nil
}

func addRecord(ctx context.Context, h *history.History, bundle *history.Bundle, r *history.Record, o historyExportOptions) error {
	if o.finalize && r.Status() != history.Running {
		if err := r.Finalize(ctx); err != nil {
			return err
		}
	}
	return h.Add(ctx, bundle, r)
}

package cli

import (
	"context"
	"io"

	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/history"
	"github.com/berthbuild/berth/internal/historypage"
	"github.com/spf13/cobra"
)

type historyReportOptions struct {
	*historyOptions
	args   []string
	output string
}

func newHistoryReportCmd(a *app, shared *historyOptions) *cobra.Command {
	o := historyReportOptions{historyOptions: shared}
	cmd := &cobra.Command{
		Use:   "report [OPTIONS] [REF]",
		Short: "Write a build as one HTML file",
		Long: `Write what a build was made of and how it went as one HTML file, such as for an
artifact of CI: a timeline of its steps, what its length hung on, its log, inputs,
outputs and provenance. The file needs nothing else and loads nothing.

Build arguments and logs are in it, so mind who gets it. Values of arguments whose
names look like those of secrets are left out.`,
		Example: `  berth history report -o build.html
  berth history report ^1 -o - >build.html`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.args = args
			return a.traced(cmd, func(ctx context.Context) error { return a.runHistoryReport(ctx, o) })
		},
	}
	cmd.Flags().StringVarP(&o.output, "output", "o", "", "the file to write; - is standard output")
	return cmd
}

func (a *app) runHistoryReport(ctx context.Context, o historyReportOptions) error {
	path := a.outputFile(o.output)
	if path == "" && a.io.OutTTY {
		return hint.New("refusing to write to console, use --output to specify a file", "berth history report -o build.html")
	}
	if path != "" {
		if err := folderExists(path); err != nil {
			return err
		}
	}
	return a.withRecord(ctx, o.historyOptions, o.args, func(h *history.History, r *history.Record, _ history.Reference) error {
		b, err := historypage.Read(ctx, h, r, a.dir)
		if err != nil {
			return err
		}
		for _, text := range b.Notes {
			a.warn("%s", text)
		}
		return a.writeOutput(path, func(out io.Writer) error { return historypage.Report(out, b) })
	})
}

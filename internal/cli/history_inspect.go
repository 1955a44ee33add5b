package cli

import (
	"context"
	"encoding/json"
	"io"

	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/history"
	"github.com/berthbuild/berth/internal/ui"
	"github.com/docker/cli/templates"
	"github.com/spf13/cobra"
)

type historyInspectOptions struct {
	*historyOptions
	args   []string
	format string
}

func newHistoryInspectCmd(a *app, shared *historyOptions) *cobra.Command {
	o := historyInspectOptions{historyOptions: shared}
	cmd := &cobra.Command{
		Use:   "inspect [OPTIONS] [REF]",
		Short: "Show what a build was made of, how it went and what it left",
		Long: `Show what a build was made of, how it was set up, how it went and what hangs on its
record; of one that failed, the lines of the Dockerfile and the last of the log.

--format takes pretty, json, or a template over the fields that the JSON has.`,
		Example: `  berth history inspect
  berth history inspect ^1 --format json
  berth history inspect --format '{{.Status}} {{.Duration}}'`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.args = args
			return a.traced(cmd, func(ctx context.Context) error { return a.runHistoryInspect(ctx, o) })
		},
	}
	cmd.Flags().StringVar(&o.format, "format", formatPretty, "pretty, json, or a template")
	completeWith(cmd, "format", completeWords(formatPretty, ui.FormatJSON))
	cmd.AddCommand(newHistoryAttachmentCmd(a, shared))
	return cmd
}

func (a *app) runHistoryInspect(ctx context.Context, o historyInspectOptions) error {
	show, err := a.detailView(o)
	if err != nil {
		return err
	}
	return a.withRecord(ctx, o.historyOptions, o.args, func(h *history.History, r *history.Record, _ history.Reference) error {
		d := h.Detail(ctx, r, a.dir)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		for _, text := range d.Errors {
			a.warn("%s", text)
		}
		return show(d, a.io.Out)
	})
}

// detailView is how a record is shown. A template is tried out before anybody is
// asked.
func (a *app) detailView(o historyInspectOptions) (func(history.Detail, io.Writer) error, error) {
	switch o.format {
	case "", formatPretty:
		return func(d history.Detail, out io.Writer) error {
			return a.printDetail(d, len(o.args) == 0 || o.args[0] == "", out)
		}, nil
	case ui.FormatJSON:
		return func(d history.Detail, out io.Writer) error {
			enc := json.NewEncoder(out) // with < and > escaped, as buildx writes it
			enc.SetIndent("", "  ")
			return enc.Encode(d)
		}, nil
	}
	tmpl, err := templates.Parse(o.format)
	if err != nil {
		return nil, hint.Wrap(err, "failed to parse format template")
	}
	execute := func(d history.Detail, out io.Writer) error {
		if err := tmpl.Execute(out, d); err != nil {
			return hint.Wrap(err, "failed to execute format template")
		}
		_, err := io.WriteString(out, "\n")
		return err
	}
	sample := history.Detail{Error: &history.Failure{}}
	show := func(d history.Detail, out io.Writer) error {
		return a.printMade(out, func(w io.Writer) error { return execute(d, w) })
	}
	return show, execute(sample, io.Discard)
}

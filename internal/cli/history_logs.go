package cli

import (
	"context"
	"errors"

	"github.com/berthbuild/berth/internal/history"
	"github.com/berthbuild/berth/internal/progress"
	"github.com/moby/buildkit/client"
	"github.com/spf13/cobra"
)

type historyLogsOptions struct {
	*historyOptions
	args     []string
	progress string
}

func newHistoryLogsCmd(a *app, shared *historyOptions) *cobra.Command {
	o := historyLogsOptions{historyOptions: shared}
	cmd := &cobra.Command{
		Use:   "logs [OPTIONS] [REF]",
		Short: "Print the log of a build, or follow it while it runs",
		Long: `Print what a build showed, as its own client saw it. A build that runs is followed
until it ends, whoever started it; to stop following it does not end the build.

As in buildx, the log goes to standard error, whatever its form.`,
		Example: `  berth history logs
  berth history logs ^1 --progress rawjson
  berth history logs remote/remote0/qu2gsuo8ejqrwdfii23xkkckt 2>build.log`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.args = args
			return a.traced(cmd, func(ctx context.Context) error { return a.runHistoryLogs(ctx, o) })
		},
	}
	cmd.Flags().StringVar(&o.progress, "progress", string(progress.Plain), "how it is shown: plain, rawjson, tty, auto, quiet or none")
	completeWith(cmd, "progress", completeWords(string(progress.Plain), string(progress.RawJSON), string(progress.TTY)))
	return cmd
}

func (a *app) runHistoryLogs(ctx context.Context, o historyLogsOptions) error {
	mode, err := progress.ParseMode(o.progress)
	if err != nil {
		return err
	}
	return a.withRecord(ctx, o.historyOptions, o.args, func(_ *history.History, r *history.Record, _ history.Reference) error {
		return a.replay(ctx, r, mode)
	})
}

// replay shows a build's progress, as it was or as it goes on.
func (a *app) replay(ctx context.Context, r *history.Record, mode progress.Mode) error {
	printer, err := progress.New(a.io.Err, mode, progress.Options{Phase: "Replaying"})
	if err != nil {
		return err
	}
	source := printer.Source("")
	err = r.Progress(ctx, func(s *client.SolveStatus) { source <- s })
	close(source)
	_, shown := printer.Close()
	var fault *progress.Fault
	if errors.As(shown, &fault) {
		a.warn("%v", fault)
		shown = nil
	}
	return errors.Join(err, shown)
}

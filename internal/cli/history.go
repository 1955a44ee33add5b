package cli

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/berthbuild/berth/internal/builder"
	"github.com/berthbuild/berth/internal/history"
	"github.com/berthbuild/berth/internal/pool"
	"github.com/berthbuild/berth/internal/termtext"
	"github.com/spf13/cobra"
)

func newHistoryCmd(a *app) *cobra.Command {
	var o historyOptions
	cmd := &cobra.Command{
		Use:   "history COMMAND",
		Short: "Look at the records that daemons keep of their builds",
		Long: `Look at the records that a builder's daemons keep of their builds: list them, see
what one was made of and what it left, read its log and its trace, follow it
while it runs, remove it, and take it elsewhere as a bundle.

A record is named by builder/node/id, by its id or the beginning of one, or by
^N: ^0 is the newest, ^1 the one before it. Without a name the newest is meant.

All daemons are asked at once. One that does not answer is told of, and hides
nothing that the others have. Builds that came in bundles are those of the builder
.imported: see berth history import --help.`,
		Example: `  berth history ls --filter status=error
  berth history inspect
  berth history logs ^1
  berth history export -o build.dockerbuild`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.PersistentFlags().DurationVar(&o.timeout, "timeout", 0, "how long to wait for each daemon (default: the node's connect-timeout, 20s)")
	cmd.AddCommand(newHistoryExportCmd(a, &o), newHistoryImportCmd(a), newHistoryInspectCmd(a, &o), newHistoryLogsCmd(a, &o),
		newHistoryLsCmd(a, &o), newHistoryOpenCmd(a, &o), newHistoryReportCmd(a, &o), newHistoryRmCmd(a, &o), newHistoryTraceCmd(a, &o))
	return cmd
}

// historyOptions are those of all its commands.
type historyOptions struct{ timeout time.Duration }

// histories are those that a command has asked, by builder. They must be closed.
type histories struct {
	a      *app
	o      historyOptions
	wait   *waiting
	opened map[string]*history.History
}

func (a *app) newHistories(o *historyOptions) (*histories, error) {
	if err := checkTimeout(o.timeout); err != nil {
		return nil, err
	}
	return &histories{a: a, o: *o, wait: a.newWaiting(), opened: map[string]*history.History{}}, nil
}

func (hs *histories) close() {
	hs.wait.close()
	for _, h := range hs.opened {
		h.Close()
	}
}

// of gives the records of a builder; of the chosen one for "".
func (hs *histories) of(ctx context.Context, name string) (*history.History, error) {
	if name == "" {
		name = hs.a.builderName(nil)
	}
	if h := hs.opened[name]; h != nil {
		return h, nil
	}
	if name == history.Imported {
		hs.opened[name] = history.OpenImported(hs.a.store())
		return hs.opened[name], nil
	}
	s := hs.a.service()
	b, err := s.Find(ctx, name)
	if err != nil {
		return nil, err
	}
	b = hs.a.expand(ctx, b)
	h, err := history.Open(b, history.Options{Schemes: s.Schemes, Budget: hs.o.timeout, OnWait: hs.wait.show, Store: s.Store})
	if err != nil {
		return nil, err
	}
	hs.opened[name] = h
	return h, nil
}

// expand gives a node for each daemon of a builder.
func (a *app) expand(ctx context.Context, b *builder.Builder) *builder.Builder {
	return pool.Expand(ctx, b, a.service().Schemes, snapshotBudget)
}

// find finds a record, and tells of nodes that could not be asked when it may be
// another one for that.
func (hs *histories) find(ctx context.Context, ref history.Reference) (*history.History, *history.Record, error) {
	h, err := hs.of(ctx, ref.Builder)
	if err != nil {
		return nil, nil, err
	}
	r, err := h.Find(ctx, ref)
	hs.wait.close()
	if err == nil {
		hs.a.warnUnasked(h)
	}
	return h, r, err
}

// withRecord finds the record that a command's first argument names, and calls do with
// it.
func (a *app) withRecord(ctx context.Context, o *historyOptions, args []string, do func(*history.History, *history.Record, history.Reference) error) error {
	ref, err := oneReference(args)
	if err != nil {
		return err
	}
	hs, err := a.newHistories(o)
	if err != nil {
		return err
	}
	defer hs.close()
	h, r, err := hs.find(ctx, ref)
	if err != nil {
		return err
	}
	return do(h, r, ref)
}

// warnUnasked tells of the nodes whose records are missing.
func (a *app) warnUnasked(h *history.History) {
	for _, err := range h.Failed() {
		a.warn("%v", err)
	}
}

// oneReference reads the argument of a command that is about one record.
func oneReference(args []string) (history.Reference, error) {
	if len(args) == 0 {
		return history.ParseReference("")
	}
	return history.ParseReference(args[0])
}

// references reads several, before anybody is asked.
func references(args []string) ([]history.Reference, error) {
	var all []history.Reference
	for _, arg := range args {
		ref, err := history.ParseReference(arg)
		if err != nil {
			return nil, err
		}
		all = append(all, ref)
	}
	return all, nil
}

// called is how the user calls us, for lines to paste.
func (a *app) called() string {
	if a.asPlugin {
		return "docker buildx"
	}
	return "berth"
}

// printClean writes text of others on standard output.
func (a *app) printClean(text string) error {
	_, err := io.WriteString(a.io.Out, termtext.Clean(text))
	return err
}

// printMade writes what a template makes out of text of others, which a terminal gets
// clean.
func (a *app) printMade(out io.Writer, write func(io.Writer) error) error {
	var made bytes.Buffer
	if err := write(&made); err != nil {
		return err
	}
	text := made.String()
	if a.io.OutTTY {
		text = termtext.Clean(text)
	}
	_, err := io.WriteString(out, text)
	return err
}

// outputFile is where a result goes that is a file: "" and "-" are standard
// output.
func (a *app) outputFile(path string) string {
	if path == "" || path == "-" {
		return ""
	}
	return a.abs(path)
}

// folderExists says early that a file cannot be written.
func folderExists(path string) error {
	_, err := os.Stat(filepath.Dir(path))
	return err
}

package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/berthbuild/berth/internal/gitinfo"
	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/history"
	"github.com/berthbuild/berth/internal/ui"
	"github.com/docker/go-units"
	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"
)

type historyLsOptions struct {
	*historyOptions
	filters []string
	format  string
	local   bool
	noTrunc bool
	limit   int
}

func newHistoryLsCmd(a *app, shared *historyOptions) *cobra.Command {
	o := historyLsOptions{historyOptions: shared}
	cmd := &cobra.Command{
		Use:     "ls [OPTIONS]",
		Aliases: []string{"list"},
		Short:   "List build records",
		Long: `List the build records of a builder's daemons, the newest first; builds that run
are among them.

--filter may be repeated, and all must hold: ref, repository and status take =
and != (part of a ref or of a repository's URL is enough; the statuses are running,
completed, error and canceled), and startedAt, completedAt and duration take <,
<=, > and >=: a duration such as 30s, and for times also 2026-01-02T15:04:05Z.
startedAt>24h is within the last day.

Of each daemon the 50 newest are listed that have ended, as docker buildx does, and
it is said when there are more: --limit 0 lists them all.

--format takes table, json (one object a line), "table TEMPLATE", or a template
over .Ref .Name .Status .CreatedAt .Duration .Builder .Node .Link.`,
		Example: `  berth history ls --filter status=error --filter startedAt\>24h
  berth history ls --local
  berth history ls --format 'table {{.Ref}}\t{{.Name}}\t{{.Node}}'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.traced(cmd, func(ctx context.Context) error { return a.runHistoryLs(ctx, o) })
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&o.filters, "filter", nil, `only these records (format: "status=error", "duration>30s")`)
	f.StringVar(&o.format, "format", ui.FormatTable, "table, json, or a template")
	f.BoolVar(&o.local, "local", false, "only builds of the repository that the working directory is in")
	f.IntVar(&o.limit, "limit", 50, "how many of each daemon, beside those that run; 0 is all")
	f.BoolVar(&o.noTrunc, "no-trunc", false, "show names in full")
	completeWith(cmd, "format", completeWords(ui.FormatTable, ui.FormatJSON))
	completeWith(cmd, "filter", completeHistoryFilters)
	return cmd
}

func completeHistoryFilters(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return []string{"status=", "ref=", "repository=", "startedAt>", "completedAt>", "duration>"},
		cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
}

func (a *app) runHistoryLs(ctx context.Context, o historyLsOptions) error {
	filter, err := history.ParseFilter(o.filters, time.Now())
	if err != nil {
		return err // in buildx's words
	}
	show, err := a.recordsView(o)
	if err != nil {
		return err
	}
	if o.limit < 0 {
		return hint.New(fmt.Sprintf("--limit %d is negative", o.limit), "all of them: --limit 0")
	}
	if o.local {
		info, err := gitinfo.Read(ctx, a.dir, false)
		switch {
		case err != nil:
			return hint.Wrap(err, "--local")
		case info.Source == "":
			return hint.New("--local: no remote URL found for either origin or upstream", "the working directory is to be in a Git repository that was cloned")
		}
		filter = filter.OfRepository(info.Source)
	}
	hs, err := a.newHistories(o.historyOptions)
	if err != nil {
		return err
	}
	defer hs.close()
	h, err := hs.of(ctx, "")
	if err != nil {
		return err
	}
	all, more, err := h.Newest(ctx, filter, o.limit)
	hs.wait.close()
	if err != nil {
		return err
	}
	failed := h.Failed()
	if len(failed) < h.Nodes() || len(all) > 0 {
		out := bufio.NewWriter(a.io.Out)
		if err := errors.Join(show(historyRows(all, time.Now()), out), out.Flush()); err != nil {
			return err
		}
	}
	if more {
		fmt.Fprintf(a.io.Err, "Of each daemon the newest %d that ended are listed; there are more.\nhint: list them all: --limit 0\n", o.limit)
	}
	return a.nodesFailed(h.Name(), failed, "asked")
}

// recordsView is how records are shown. A template is tried out before anybody is asked.
func (a *app) recordsView(o historyLsOptions) (func([]historyRow, io.Writer) error, error) {
	format, err := ui.ParseFormat(o.format)
	switch {
	case err != nil:
		return nil, err
	case format.IsJSON():
		return historyJSON, nil
	case format.IsTable():
		return func(rows []historyRow, out io.Writer) error { return historyTable(rows, out, !o.noTrunc) }, nil
	}
	now := timestamppb.Now()
	sample := &history.Record{BuildHistoryRecord: &controlapi.BuildHistoryRecord{Ref: "id", CreatedAt: now}}
	if err := format.Execute(io.Discard, historyHeader(), []any{newHistoryRow(sample, time.Now())}); err != nil {
		return nil, err
	}
	return func(rows []historyRow, out io.Writer) error {
		items := make([]any, len(rows))
		for i, r := range rows {
			if format.HasHeader() {
				r = r.safe().truncated(!o.noTrunc)
			}
			items[i] = r
		}
		return a.printMade(out, func(w io.Writer) error { return format.Execute(w, historyHeader(), items) })
	}, nil
}

// historyRow is a record for templates, with the fields and the texts that buildx
// has; Builder and Node are ours.
type historyRow struct {
	Ref, Name, Status, CreatedAt, Duration, Link, Builder, Node string

	record *history.Record
}

func historyHeader() map[string]string {
	return map[string]string{
		"Ref": "BUILD ID", "Name": "NAME", "Status": "STATUS", "CreatedAt": "CREATED AT", "Duration": "DURATION",
		"Link": "LINK", "Builder": "BUILDER", "Node": "NODE",
	}
}

func historyRows(all []*history.Record, now time.Time) []historyRow {
	rows := make([]historyRow, len(all))
	for i, r := range all {
		rows[i] = newHistoryRow(r, now)
	}
	return rows
}

func newHistoryRow(r *history.Record, now time.Time) historyRow {
	row := historyRow{
		Ref: r.Ref, Name: r.Name(), Status: historyStatus(r.Status()), Duration: buildTime(r.Duration(now)),
		CreatedAt: units.HumanDuration(max(0, now.Sub(r.Created()))) + " ago",
		Link:      "docker-desktop://dashboard/build/" + r.Reference(), Builder: r.Builder, Node: r.Node, record: r,
	}
	if r.Status() == history.Running {
		row.Duration += "+"
	}
	return row
}

// historyStatus is the status in the words of buildx's table.
func historyStatus(s history.Status) string {
	switch s {
	case history.Running:
		return "Running"
	case history.Completed:
		return "Completed"
	}
	return "Error"
}

// buildTime is a duration as buildx writes it.
func buildTime(d time.Duration) string {
	if d < time.Minute {
		return fmt.Sprintf("%.1fs", d.Seconds())
	}
	return fmt.Sprintf("%dm %2ds", d/time.Minute, d%time.Minute/time.Second)
}

// MarshalJSON is what buildx writes with --format json.
func (r historyRow) MarshalJSON() ([]byte, error) {
	v := map[string]any{
		"ref": r.record.Reference(), "name": r.Name, "status": r.Status, "created_at": r.record.Created(),
		"total_steps": r.record.NumTotalSteps, "completed_steps": r.record.NumCompletedSteps, "cached_steps": r.record.NumCachedSteps,
	}
	if r.record.CompletedAt != nil {
		v["completed_at"] = r.record.Ended()
	}
	return json.Marshal(v)
}

func historyJSON(rows []historyRow, out io.Writer) error {
	enc := json.NewEncoder(out)
	for _, r := range rows {
		if err := enc.Encode(r); err != nil {
			return err
		}
	}
	return nil
}

// safe is the row fit for a terminal.
func (r historyRow) safe() historyRow {
	r.Ref, r.Name, r.Node = safe(r.Ref), safe(r.Name), safe(r.Node)
	return r
}

// maxHistoryName is how much of a name is shown.
const maxHistoryName = 36

// truncated shows the end of a long name, which says more than its beginning.
func (r historyRow) truncated(yes bool) historyRow {
	if name := []rune(r.Name); yes && len(name) > maxHistoryName {
		r.Name = ".." + string(name[len(name)-maxHistoryName+2:])
	}
	return r
}

func historyTable(rows []historyRow, out io.Writer, truncate bool) error {
	lines := [][]string{{"BUILD ID", "NAME", "STATUS", "CREATED AT", "DURATION", ""}}
	for _, r := range rows {
		r = r.safe().truncated(truncate)
		lines = append(lines, []string{r.Ref, r.Name, r.Status, r.CreatedAt, r.Duration, ""})
	}
	least := []string{"1234567", "1234567", "1234567", "1234567", "1234567", ""} // as docker's tables
	table := ui.NewTable(out, least, lines...)
	for _, line := range lines {
		if err := table.Row(line...); err != nil {
			return err
		}
	}
	return nil
}

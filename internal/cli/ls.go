package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/berthbuild/berth/internal/builder"
	"github.com/berthbuild/berth/internal/endpoint"
	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/pool"
	"github.com/berthbuild/berth/internal/ui"
	"github.com/spf13/cobra"
)

// snapshotBudget is how long a daemon may take to say how it is. Asking is not
// waiting for it to come up, so the budget only has to cover a slow link.
const snapshotBudget = 3 * time.Second

type lsOptions struct {
	format  string
	noTrunc bool
	timeout time.Duration
}

func newLsCmd(a *app) *cobra.Command {
	var o lsOptions
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List builders and how their daemons are",
		Long: `List builders, their nodes, and how each daemon is. All daemons are asked at
once; on a terminal the rows of those that answer are shown as they do. What kind
of failure keeps a node from answering is in its status, and said in words below
the table.

--format takes table, json, or a template over .Name .DriverEndpoint
.LastActivity .Status .Buildkit .Platforms .Error .ErrClass .Current, applied to
each builder and each node.`,
		Example: `  berth ls
  berth ls --format '{{.Name}}: {{.Status}} {{.Error}}'
  berth ls --format json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.runLs(cmd.Context(), o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.format, "format", ui.FormatTable, "table, json, or a template")
	f.BoolVar(&o.noTrunc, "no-trunc", false, "list every platform variant")
	f.DurationVar(&o.timeout, "timeout", snapshotBudget, "how long to wait for each daemon's answer")
	completeWith(cmd, "format", completeWords(ui.FormatTable, ui.FormatJSON))
	return cmd
}

func (a *app) runLs(ctx context.Context, o lsOptions) error {
	format, err := ui.ParseFormat(o.format)
	if err != nil {
		return err
	}
	if o.timeout <= 0 {
		return hint.New(fmt.Sprintf("--timeout %s leaves no time to ask", o.timeout), "give a time such as 3s")
	}
	s := a.service()
	all, unknown := s.List(ctx) // unknown: which one is chosen; the others list all the same
	if all == nil && unknown != nil {
		return unknown
	}
	list := newListing(expanded(ctx, s, all, o.timeout), o.noTrunc)
	if format.IsTable() && a.io.OutTTY {
		err = list.stream(ctx, a, s, o.timeout)
	} else {
		if err = list.ask(ctx, s, o.timeout, func(int) error { return nil }); err == nil {
			err = list.print(a, format)
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return err
	}
	if format.IsTable() {
		list.explain(a)
		list.explainHost(a)
	}
	return unknown
}

// expanded are the builders with a node for each daemon; all are looked for at once.
func expanded(ctx context.Context, s *builder.Service, all []*builder.Builder, budget time.Duration) []*builder.Builder {
	out := make([]*builder.Builder, len(all))
	var looking sync.WaitGroup
	for i, b := range all {
		looking.Go(func() { out[i] = pool.Expand(ctx, b, s.Schemes, budget) })
	}
	looking.Wait()
	return out
}

// listing is the builders and what their nodes have answered so far.
type listing struct {
	builders []*builder.Builder
	statuses [][]builder.Status
	waiting  []int // nodes that have not answered yet, by builder
	noTrunc  bool
}

func newListing(all []*builder.Builder, noTrunc bool) *listing {
	l := &listing{builders: all, noTrunc: noTrunc}
	for _, b := range all {
		l.statuses = append(l.statuses, make([]builder.Status, len(b.Nodes)))
		l.waiting = append(l.waiting, len(b.Nodes))
	}
	return l
}

// ask asks all nodes, and tells ready of each builder whose last answer came.
// It returns ready's first error, when all have answered.
func (l *listing) ask(ctx context.Context, s *builder.Service, budget time.Duration, ready func(i int) error) error {
	var failed error
	s.ProbeAll(ctx, l.builders, builder.ProbeOptions{Budget: budget, Once: true}, func(b, n int, st builder.Status) {
		l.statuses[b][n] = st
		if l.waiting[b]--; l.waiting[b] == 0 && failed == nil {
			failed = ready(b)
		}
	})
	return failed
}

// lsRow is a line of the list: a builder's, or one of its nodes'. Its methods
// and fields are the words of --format.
type lsRow struct {
	Name, DriverEndpoint, LastActivity, Status, Buildkit, Platforms, Error, ErrClass string
	Current                                                                          bool

	shown string // Status with the kind of failure, for the table
}

// lsHeader is the line above the rows, by the same words.
func lsHeader() map[string]string {
	return map[string]string{
		"Name": "NAME/NODE", "DriverEndpoint": "DRIVER/ENDPOINT", "LastActivity": "LAST ACTIVITY",
		"Status": "STATUS", "Buildkit": "BUILDKIT", "Platforms": "PLATFORMS", "Error": "ERROR", "ErrClass": "ERROR CLASS", "Current": "CURRENT",
	}
}

// nodePrefix draws a node below its builder.
const nodePrefix = ` \_ `

func (l *listing) rows(i int, drawn bool) []lsRow {
	b := l.builders[i]
	head := lsRow{Name: b.Name, DriverEndpoint: b.Driver, Current: b.Current, Error: errText(b.Err)}
	if !b.LastActivity.IsZero() {
		head.LastActivity = b.LastActivity.UTC().Format(time.RFC3339)
	}
	prefix := ""
	if drawn {
		prefix = nodePrefix
		if b.Current {
			head.Name += "*"
		}
	}
	if b.Err != nil {
		head.Status = string(builder.Failing)
		head.shown = head.Status
	}
	rows := []lsRow{head}
	for j, n := range b.Nodes {
		st := l.statuses[i][j]
		rows = append(rows, lsRow{
			Name: prefix + n.Name, DriverEndpoint: prefix + n.Endpoint, Status: string(st.State),
			Buildkit: st.Version, Platforms: platformList(n, st, l.noTrunc), Error: errText(st.Err), ErrClass: errClass(st.Err), Current: b.Current,
			shown: statusText(st),
		})
	}
	return rows
}

func (r lsRow) cells() []string {
	return []string{r.Name, r.DriverEndpoint, r.shown, r.Buildkit, r.Platforms}
}

func headerCells() []string {
	h := lsHeader()
	return []string{h["Name"], h["DriverEndpoint"], h["Status"], h["Buildkit"], h["Platforms"]}
}

// stream prints a builder's rows when its last node has answered. The widths
// come from what is known without asking.
func (l *listing) stream(ctx context.Context, a *app, s *builder.Service, budget time.Duration) error {
	samples := [][]string{{"", "", "error (tls-client-cert)", "v0.00.0-rc0", ""}} // of the usual, the longest
	for i := range l.builders {
		for _, r := range l.rows(i, true) {
			samples = append(samples, r.cells())
		}
	}
	table := ui.NewTable(a.io.Out, headerCells(), samples...)
	if err := table.Row(headerCells()...); err != nil {
		return err
	}
	show := func(i int) error {
		for _, r := range l.rows(i, true) {
			if err := table.Row(r.cells()...); err != nil {
				return err
			}
		}
		return nil
	}
	for i, b := range l.builders {
		if len(b.Nodes) == 0 {
			if err := show(i); err != nil {
				return err
			}
		}
	}
	return l.ask(ctx, s, budget, show)
}

// print writes everything, in order.
func (l *listing) print(a *app, format ui.Format) error {
	var rows []lsRow
	for i, b := range l.builders {
		if format.IsJSON() {
			if err := ui.WriteJSON(a.io.Out, viewBuilder(b, l.statuses[i])); err != nil {
				return err
			}
			continue
		}
		rows = append(rows, l.rows(i, true)...)
	}
	switch {
	case format.IsJSON():
		return nil
	case format.IsTable():
		cells := make([][]string, len(rows))
		for i, r := range rows {
			cells[i] = r.cells()
		}
		table := ui.NewTable(a.io.Out, headerCells(), cells...)
		for _, row := range append([][]string{headerCells()}, cells...) {
			if err := table.Row(row...); err != nil {
				return err
			}
		}
		return nil
	}
	items := make([]any, len(rows))
	for i, r := range rows {
		items[i] = r
	}
	return format.Execute(a.io.Out, lsHeader(), items)
}

// explainHost says which daemon is used when no builder is named, where that is
// none of the list.
func (l *listing) explainHost(a *app) {
	if a.env(envHost) == "" || a.env(envBuilder) != "" || slices.ContainsFunc(l.builders, func(b *builder.Builder) bool { return b.Current }) {
		return
	}
	if e, _, err := endpoint.Locate(a.env(envHost)); err == nil {
		fmt.Fprintf(a.io.Err, "no builder is chosen: commands that name none use %s (%s)\n", e, envHost)
	}
}

// explain says on stderr why nodes are not running, so that the table stays
// what scripts know.
func (l *listing) explain(a *app) {
	var errs []error // that somebody should do something about
	for i, b := range l.builders {
		if b.Err != nil {
			fmt.Fprintf(a.io.Err, "%s: %v\n", b.Name, b.Err)
			errs = append(errs, b.Err)
		}
		for j, n := range b.Nodes {
			if err := l.statuses[i][j].Err; err != nil {
				fmt.Fprintf(a.io.Err, "%s (%s): %s\n", n.Name, n.Endpoint, shortReason(err))
				if b.Driver != builder.DriverDocker || b.Current { // nobody asked for the others
					errs = append(errs, err)
				}
			}
		}
	}
	if len(errs) == 0 {
		return
	}
	if hints := hint.Of(errors.Join(errs...)); len(errs) == 1 && len(hints) > 0 {
		fmt.Fprintf(a.io.Err, "hint: %s\n", hints[0])
		return
	}
	fmt.Fprintln(a.io.Err, "hint: what to do about one: berth inspect NAME")
}

package cli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/berthbuild/berth/internal/builder"
	"github.com/berthbuild/berth/internal/diskuse"
	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/ui"
	"github.com/docker/go-units"
	"github.com/moby/buildkit/client"
	"github.com/spf13/cobra"
)

type pruneOptions struct {
	all      bool
	filters  []string
	force    bool
	reserved bytesFlag
	maxUsed  bytesFlag
	minFree  bytesFlag
	verbose  bool
	timeout  time.Duration
}

// What is asked before anything is removed, in the words that users know.
const (
	warnDangling = "WARNING! This will remove all dangling build cache. Are you sure you want to continue?"
	warnAll      = "WARNING! This will remove all build cache. Are you sure you want to continue?"
)

func newPruneCmd(a *app) *cobra.Command {
	var o pruneOptions
	cmd := &cobra.Command{
		Use:   "prune [OPTIONS]",
		Short: "Remove from the caches of a builder's daemons",
		Long: `Remove what is not in use from the caches of all of a builder's daemons, and say
what and how much. Without --all, what frontends and the daemon itself keep
stays, and what it shares with images.

--filter takes what du's takes, and with it du shows what would be removed. With
a limit, the records that were not used for longest go, until it holds. Sizes are
in steps of 1024: 512mb, 20gb. pruneFilters in docker's configuration file hold
here, too.`,
		Example: `  berth prune --force --filter until=168h
  berth prune --force --max-used-space 20gb --builder remote
  berth prune --all`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("keep-storage") { // cobra would say it among the results
				fmt.Fprintln(a.io.Err, "Flag --keep-storage has been deprecated, keep-storage flag has been changed to reserved-space")
			}
			return a.traced(cmd, func(ctx context.Context) error { return a.runPrune(ctx, o) })
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&o.all, "all", "a", false, "include internal and frontend images")
	f.StringArrayVar(&o.filters, "filter", nil, `only these records (format: "type=regular", "until=24h", "description~=golang")`)
	f.BoolVarP(&o.force, "force", "f", false, "do not ask")
	f.Var(&o.reserved, "reserved-space", "how much of the cache is always kept")
	f.Var(&o.maxUsed, "max-used-space", "how much space the cache may take")
	f.Var(&o.minFree, "min-free-space", "how much of the disk is to be free")
	f.Var(&o.reserved, "keep-storage", "how much of the cache is kept")
	f.BoolVar(&o.verbose, "verbose", false, "say more of each record")
	f.DurationVar(&o.timeout, "timeout", 0, "how long to wait for each daemon (default: the node's connect-timeout, 20s)")
	hideFlags(cmd, "keep-storage") // the older name of reserved-space
	completeWith(cmd, "filter", completeFilters)
	return cmd
}

// bytesFlag is a size as a flag.
type bytesFlag int64

// String implements pflag.Value.
func (b *bytesFlag) String() string {
	if *b == 0 {
		return "0"
	}
	return units.BytesSize(float64(*b))
}

// Set implements pflag.Value.
func (b *bytesFlag) Set(text string) error {
	n, err := diskuse.ParseSize(text)
	*b = bytesFlag(n)
	return err
}

// Type implements pflag.Value.
func (*bytesFlag) Type() string { return "bytes" }

func (a *app) runPrune(ctx context.Context, o pruneOptions) error {
	filter, err := a.pruneFilter(o)
	if err != nil {
		return err
	}
	if err := checkTimeout(o.timeout); err != nil {
		return err
	}
	s := a.service()
	b, err := s.Find(ctx, a.builderName(nil))
	if err != nil {
		return err
	}
	b = a.expand(ctx, b)
	if !o.force {
		question := warnDangling
		if o.all {
			question = warnAll
		}
		if ok, err := a.askYes(ctx, question+" [y/N] "); err != nil || !ok {
			if err == nil && !a.io.InTTY {
				fmt.Fprintln(a.io.Err, "\nnothing is removed: the answer was not yes; --force does not ask")
			}
			return err
		}
	}
	return a.prune(ctx, s, b, diskuse.Prune{
		Filter: filter, All: o.all,
		Reserved: int64(o.reserved), MaxUsed: int64(o.maxUsed), MinFree: int64(o.minFree),
	}, o)
}

// pruneFilter is --filter with what docker's configuration has besides.
func (a *app) pruneFilter(o pruneOptions) (diskuse.Filter, error) {
	given, err := parseFilter(o.filters)
	if err != nil {
		return diskuse.Filter{}, err
	}
	config, err := a.dockerConfig()
	if err != nil {
		return diskuse.Filter{}, err
	}
	all, unknown, err := given.With(config.File().PruneFilters)
	if err != nil {
		return diskuse.Filter{}, hint.Wrap(err, "pruneFilters in docker's configuration, with --filter")
	}
	for _, key := range unknown {
		a.warn("pruneFilters in docker's configuration: no record of a build cache has a %q", strings.TrimRight(key, "!~"))
	}
	return all, hint.Wrap(all.CheckPrune(), "--filter")
}

func (a *app) prune(ctx context.Context, s *builder.Service, b *builder.Builder, p diskuse.Prune, o pruneOptions) error {
	w := a.newWaiting()
	defer w.close()
	list := &pruned{out: a.io.Out, nodes: b.Nodes, verbose: o.verbose}
	all, err := p.Run(ctx, b, diskuse.Options{Schemes: s.Schemes, Budget: o.timeout, OnWait: w.show},
		func(node int, r client.UsageInfo) {
			w.close()
			list.show(node, r)
		})
	w.close()
	if err != nil {
		return err
	}
	list.total(all)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var failed []error
	for _, n := range all {
		failed = append(failed, n.Err)
	}
	if err := a.nodesFailed(b.Name, failed, "pruned"); err != nil {
		return err
	}
	return list.err
}

// pruned shows what goes, as it goes.
type pruned struct {
	out     io.Writer
	nodes   []builder.Node
	verbose bool
	rows    *ui.Table
	err     error // the first of writing; what is removed is removed all the same
}

func (l *pruned) several() bool { return len(l.nodes) > 1 }

func (l *pruned) show(node int, r client.UsageInfo) {
	if l.err != nil {
		return
	}
	row := newRecordRow(l.nodes[node].Name, r, time.Now()).safe()
	if l.verbose {
		l.err = l.paragraph(row)
		return
	}
	if l.rows == nil {
		// The widths of what usually comes; nothing is held back to know more.
		usual := []string{strings.Repeat("x", 26), "", "1023.9MB*", "Less than a second ago"}
		l.rows = ui.NewTable(l.out, recordCells(l.several()), append(usual, "")[:len(recordCells(l.several()))])
		l.err = l.rows.Row(recordCells(l.several())...)
	}
	if l.err == nil {
		l.err = l.rows.Row(row.starred().cells(l.several())...)
	}
}

func (l *pruned) paragraph(r recordRow) error {
	tw := tabwriter.NewWriter(l.out, 1, 8, 1, '\t', 0)
	line := func(name string, value any) { fmt.Fprintf(tw, "%s:\t%v\n", name, value) }
	line("ID", r.ID)
	if l.several() {
		line("Node", r.Node)
	}
	if len(r.Parents) > 0 {
		line("Parent", strings.Join(r.Parents, ","))
	}
	line("Created at", r.CreatedAt)
	line("Mutable", r.Mutable)
	line("Reclaimable", r.Reclaimable)
	line("Shared", r.Shared)
	line("Size", r.Size)
	if r.Description != "" {
		line("Description", r.Description)
	}
	line("Usage count", r.UsageCount)
	if r.LastUsedAt != "" {
		line("Last used", r.LastUsedAt)
	}
	if r.Type != "" {
		line("Type", r.Type)
	}
	fmt.Fprintln(tw)
	return tw.Flush()
}

// total says how much space is free now that was not before.
func (l *pruned) total(all []diskuse.Removed) {
	var sum int64
	reached := 0
	for _, n := range all {
		sum += n.Bytes
		if n.Err == nil || n.Records > 0 {
			reached++
		}
	}
	if reached == 0 || l.err != nil {
		return
	}
	tw := tabwriter.NewWriter(l.out, 1, 8, 1, '\t', 0)
	fmt.Fprintf(tw, "Total:\t%s\n", units.HumanSize(float64(sum)))
	for _, n := range all {
		if l.several() && (n.Err == nil || n.Records > 0) {
			fmt.Fprintf(tw, "  %s:\t%s\n", n.Node.Name, units.HumanSize(float64(n.Bytes)))
		}
	}
	l.err = tw.Flush()
}

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/berthbuild/berth/internal/diskuse"
	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/ui"
	"github.com/spf13/cobra"
)

// formatPretty is du's format with a paragraph for each record.
const formatPretty = "pretty"

type duOptions struct {
	filters []string
	format  string
	verbose bool
	timeout time.Duration
}

func newDuCmd(a *app) *cobra.Command {
	var o duOptions
	cmd := &cobra.Command{
		Use:   "du [OPTIONS]",
		Short: "Show what the caches of a builder's daemons hold",
		Long: `Show the records in the caches of a builder's daemons, and the space that they
take. All daemons are asked at once; those that answer are shown also when
others do not. With several, NODE says where a record is.

* after an ID: the record is mutable; a build may be writing to it.
* after a SIZE: the space is shared with something else, such as an image.

--filter takes KEY=VALUE, KEY!=VALUE or KEY~=REGEXP, and may be repeated: until
(a duration: records that were not used for so long), id, parents, description,
type, and the properties inuse, mutable, immutable, shared and private.

--format takes table, pretty, json (one object a line), "table TEMPLATE", or a
template over .ID .Node .Parents .CreatedAt .Mutable .Reclaimable .Shared .Size
.Description .UsageCount .LastUsedAt .Type.`,
		Example: `  berth du
  berth du --filter type=exec.cachemount --filter until=168h
  berth du --format 'table {{.ID}}\t{{.Size}}\t{{.Description}}'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.traced(cmd, func(ctx context.Context) error { return a.runDu(ctx, o) })
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&o.filters, "filter", nil, `only these records (format: "type=regular", "until=24h", "description~=golang")`)
	f.StringVar(&o.format, "format", "", "table, pretty, json, or a template")
	f.BoolVar(&o.verbose, "verbose", false, "the same as --format=pretty")
	f.DurationVar(&o.timeout, "timeout", 0, "how long to wait for each daemon (default: the node's connect-timeout, 20s)")
	completeWith(cmd, "format", completeWords(ui.FormatTable, formatPretty, ui.FormatJSON))
	completeWith(cmd, "filter", completeFilters)
	return cmd
}

// completeFilters offers the keys.
func completeFilters(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return []string{"until=", "id=", "parents=", "description~=", "type=", "inuse=", "mutable=", "immutable=", "shared=", "private="},
		cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
}

func (a *app) runDu(ctx context.Context, o duOptions) error {
	filter, err := parseFilter(o.filters)
	if err != nil {
		return err
	}
	show, err := o.view()
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
	w := a.newWaiting()
	defer w.close()
	all, err := diskuse.List(ctx, b, filter, diskuse.Options{Schemes: s.Schemes, Budget: o.timeout, OnWait: w.show})
	w.close()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return err
	}
	u := usage{nodes: all, several: len(b.Nodes) > 1, filtered: !filter.Empty(), now: time.Now()}
	if u.answers() > 0 {
		if err := show(u, a.io.Out); err != nil {
			return err
		}
	}
	var failed []error
	for _, n := range all {
		failed = append(failed, n.Err)
	}
	return a.nodesFailed(b.Name, failed, "asked")
}

// parseFilter reads --filter.
func parseFilter(values []string) (diskuse.Filter, error) {
	f, err := diskuse.ParseFilter(values)
	return f, hint.Wrap(err, "--filter")
}

func checkTimeout(d time.Duration) error {
	if d < 0 {
		return hint.New(fmt.Sprintf("--timeout %s is negative", d), "give a time such as 20s")
	}
	return nil
}

// view is how the usage is shown. A template is tried out on a record that has
// everything, so that a mistake in it is told before anybody is asked.
func (o duOptions) view() (func(usage, io.Writer) error, error) {
	if o.verbose {
		if o.format != "" {
			return nil, hint.Wrap(errors.New("--format and --verbose cannot be used together"), "", "leave one out")
		}
		o.format = formatPretty
	}
	if o.format == formatPretty {
		return usage.pretty, nil
	}
	format, err := ui.ParseFormat(o.format)
	switch {
	case err != nil:
		return nil, err
	case format.IsJSON():
		return usage.json, nil
	case format.IsTable():
		return usage.table, nil
	}
	if err := format.Execute(io.Discard, recordHeader(), []any{sampleRecord()}); err != nil {
		return nil, err
	}
	return func(u usage, out io.Writer) error {
		rows := u.rows(format.HasHeader())
		items := make([]any, len(rows))
		for i := range rows {
			items[i] = rows[i]
		}
		return format.Execute(out, recordHeader(), items)
	}, nil
}

// nodesFailed is the error of a command that worked on all nodes of a builder,
// some of which failed. It is nil when none did. Where several did, each is
// told now.
func (a *app) nodesFailed(name string, all []error, done string) error {
	var failed []error
	for _, err := range all {
		if err != nil {
			failed = append(failed, err)
		}
	}
	switch len(failed) {
	case 0:
		return nil
	case 1:
		return failed[0]
	}
	for _, err := range failed {
		fmt.Fprintln(a.io.Err, err)
	}
	return hint.Wrap(fmt.Errorf("%d of the %d nodes of builder %s could not be %s", len(failed), len(all), name, done), "", hint.Of(errors.Join(failed...))...)
}

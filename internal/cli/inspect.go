package cli

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/berthbuild/berth/internal/builder"
	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/pool"
	"github.com/berthbuild/berth/internal/ui"
	"github.com/containerd/platforms"
	"github.com/docker/go-units"
	"github.com/moby/buildkit/client"
	"github.com/spf13/cobra"
)

type inspectOptions struct {
	format    string
	bootstrap bool
	timeout   time.Duration
}

func newInspectCmd(a *app) *cobra.Command {
	var o inspectOptions
	cmd := &cobra.Command{
		Use:   "inspect [OPTIONS] [NAME]",
		Short: "Show a builder, its daemons, and why one does not answer",
		Long: `Show a builder and what its daemons answer: version, platforms, labels, and the
rules by which they collect garbage. For a daemon that does not answer, show why
and what to try.

With --bootstrap, wait until all of them answer, and fail when one does not.`,
		Example: `  berth inspect remote
  berth inspect --bootstrap --timeout 2m remote
  berth inspect --format json remote`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: a.completeOneBuilder,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.runInspect(cmd.Context(), a.builderName(args), o)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&o.bootstrap, "bootstrap", false, "wait until the daemons answer")
	f.DurationVar(&o.timeout, "timeout", 0, "how long to wait (default: 3s, with --bootstrap the node's connect-timeout, 20s)")
	f.StringVar(&o.format, "format", "", "json, yaml (a definition file, as berth export writes it), or a template")
	completeWith(cmd, "format", completeWords(ui.FormatJSON, formatYAML))
	return cmd
}

func (a *app) runInspect(ctx context.Context, name string, o inspectOptions) error {
	if o.timeout < 0 {
		return hint.New(fmt.Sprintf("--timeout %s is negative", o.timeout), "give a time such as 20s")
	}
	if o.format == formatYAML {
		if o.bootstrap {
			return hint.New("--format yaml asks no daemon, and --bootstrap waits for them", "leave one out")
		}
		return a.runExport(ctx, exportOptions{names: []string{name}})
	}
	format, err := ui.ParseFormat(o.format)
	if err != nil {
		return err
	}
	s := a.service()
	b, err := s.Find(ctx, name)
	if err != nil {
		return err
	}
	if !o.bootstrap {
		b = a.expand(ctx, b)
	}
	statuses, failed := a.look(ctx, s, b, o)
	var seen []pool.Sight // what each of several has to do
	if len(b.Nodes) > 1 && ctx.Err() == nil {
		seen = pool.Survey(ctx, pool.Members(ctx, b.Nodes, s.Schemes), s.Schemes, snapshotBudget)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	switch {
	case format.IsJSON():
		err = ui.WriteJSON(a.io.Out, viewBuilder(b, statuses).with(seen))
	case format.IsTable():
		err = printInspect(a.io.Out, b, statuses, seen)
	default:
		err = format.Execute(a.io.Out, nil, []any{viewBuilder(b, statuses).with(seen)})
	}
	if err != nil {
		return err
	}
	return failed
}

// look asks the nodes how they are; only with --bootstrap is a node that does
// not answer an error.
func (a *app) look(ctx context.Context, s *builder.Service, b *builder.Builder, o inspectOptions) ([]builder.Status, error) {
	if o.bootstrap {
		return a.bootstrap(ctx, s, b, o.timeout)
	}
	budget := o.timeout
	if budget == 0 {
		budget = snapshotBudget
	}
	all := make([]builder.Status, len(b.Nodes))
	s.ProbeAll(ctx, []*builder.Builder{b}, builder.ProbeOptions{Budget: budget, Once: true},
		func(_, n int, st builder.Status) { all[n] = st })
	return all, nil
}

// field is a line of inspect's output.
type field struct{ name, value string }

func printInspect(out io.Writer, b *builder.Builder, statuses []builder.Status, seen []pool.Sight) error {
	var text strings.Builder
	head := []field{{"Name", b.Name}, {"Driver", b.Driver}}
	if !b.LastActivity.IsZero() {
		head = append(head, field{"Last Activity", b.LastActivity.UTC().String()})
	}
	writeFields(&text, "", head)
	text.WriteString("\nNodes:\n")
	for i, n := range b.Nodes {
		if i > 0 {
			text.WriteString("\n")
		}
		writeNode(&text, n, statuses[i])
		if len(seen) == len(b.Nodes) {
			writeLoad(&text, seen[i])
		}
	}
	_, err := io.WriteString(out, text.String())
	return err
}

// writeLoad is what a daemon has to do.
func writeLoad(text *strings.Builder, s pool.Sight) {
	var fields []field
	if s.Known {
		fields = append(fields, field{"Active Builds", fmt.Sprint(len(s.Builds))})
	}
	if s.Cache >= 0 {
		fields = append(fields, field{"Cache", units.HumanSize(float64(s.Cache))})
	}
	writeFields(text, "", fields)
}

func writeNode(text *strings.Builder, n builder.Node, st builder.Status) {
	fields := []field{{"Name", n.Name}, {"Endpoint", n.Endpoint}}
	add := func(name, value string) {
		if value != "" {
			fields = append(fields, field{name, value})
		}
	}
	add("Driver Options", optionList(n.DriverOpts))
	add("Error", shortReasonOf(st))
	add("Error Class", errClass(st.Err))
	add("Status", string(st.State))
	add("BuildKit daemon flags", strings.Join(n.Flags, " "))
	add("BuildKit version", st.Version)
	add("Platforms", platformList(n, st, true))
	writeFields(text, "", fields)
	for _, h := range hint.Of(st.Err) {
		fmt.Fprintf(text, "Hint: %s\n", h)
	}
	if len(st.Workers) == 0 {
		return
	}
	w := st.Workers[0]
	if len(w.Labels) > 0 {
		text.WriteString("Labels:\n")
		var labels []field
		for _, k := range slices.Sorted(maps.Keys(w.Labels)) {
			labels = append(labels, field{k, w.Labels[k]})
		}
		writeFields(text, " ", labels)
	}
	for i, rule := range w.GCPolicy {
		fmt.Fprintf(text, "GC Policy rule#%d:\n", i)
		writeFields(text, " ", gcFields(rule))
	}
	for _, more := range st.Workers[1:] {
		fmt.Fprintf(text, "Worker %s: ", more.ID)
		for i, p := range more.Platforms {
			if i > 0 {
				text.WriteString(", ")
			}
			text.WriteString(platforms.FormatAll(p))
		}
		text.WriteString("\n")
	}
}

func shortReasonOf(st builder.Status) string {
	if st.Err == nil {
		return ""
	}
	return shortReason(st.Err)
}

func gcFields(rule client.PruneInfo) []field {
	fields := []field{{"All", fmt.Sprint(rule.All)}}
	if len(rule.Filter) > 0 {
		fields = append(fields, field{"Filters", strings.Join(rule.Filter, " ")})
	}
	if rule.KeepDuration > 0 {
		fields = append(fields, field{"Keep Duration", rule.KeepDuration.String()})
	}
	for _, size := range []struct {
		name  string
		bytes int64
	}{{"Reserved Space", rule.ReservedSpace}, {"Max Used Space", rule.MaxUsedSpace}, {"Min Free Space", rule.MinFreeSpace}} {
		if size.bytes > 0 {
			fields = append(fields, field{size.name, units.BytesSize(float64(size.bytes))})
		}
	}
	return fields
}

// writeFields aligns the values of one group.
func writeFields(text *strings.Builder, indent string, fields []field) {
	width := 0
	for _, f := range fields {
		width = max(width, len(f.name))
	}
	for _, f := range fields {
		fmt.Fprintf(text, "%s%-*s %s\n", indent, width+1, f.name+":", f.value)
	}
}

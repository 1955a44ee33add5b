package cli

import (
	"context"
	"io"

	"github.com/berthbuild/berth/internal/atomicfile"
	"github.com/berthbuild/berth/internal/history"
	"github.com/spf13/cobra"
)

type historyTraceOptions struct {
	*historyOptions
	args    []string
	compare string
	output  string
	addr    string
}

func newHistoryTraceCmd(a *app, shared *historyOptions) *cobra.Command {
	o := historyTraceOptions{historyOptions: shared}
	cmd := &cobra.Command{
		Use:   "trace [OPTIONS] [REF]",
		Short: "Write the OpenTelemetry trace of a build",
		Long: `Write the trace of a build that has ended, in OTLP's JSON form, which Jaeger,
Grafana Tempo and OpenTelemetry collectors read. A record that has no trace yet is
finalized first.

With --compare the spans of both builds are written; each has a trace id of its
own.`,
		Example: `  berth history trace >trace.json
  berth history trace ^1 -o trace.json
  berth history trace --compare ^1`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.args = args
			if cmd.Flags().Changed("addr") {
				a.warn("--addr is not used: the trace is written, and no server is started for it")
			}
			return a.traced(cmd, func(ctx context.Context) error { return a.runHistoryTrace(ctx, o) })
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.compare, "compare", "", "write the trace of this build, too")
	f.StringVarP(&o.output, "output", "o", "", "the file to write; without it standard output")
	f.StringVar(&o.addr, "addr", "", "of buildx; not used")
	hideFlags(cmd, "addr")
	return cmd
}

func (a *app) runHistoryTrace(ctx context.Context, o historyTraceOptions) error {
	ref, err := oneReference(o.args)
	if err != nil {
		return err
	}
	refs := []history.Reference{ref}
	if o.compare != "" {
		other, err := history.ParseReference(o.compare)
		if err != nil {
			return err
		}
		refs = append(refs, other)
	}
	path := a.outputFile(o.output)
	if path != "" {
		if err := folderExists(path); err != nil {
			return err
		}
	}
	hs, err := a.newHistories(o.historyOptions)
	if err != nil {
		return err
	}
	defer hs.close()
	var traces []*history.Trace
	for _, ref := range refs {
		_, r, err := hs.find(ctx, ref)
		if err != nil {
			return err
		}
		t, err := r.ReadTrace(ctx)
		if err != nil {
			return err
		}
		traces = append(traces, t)
	}
	return a.writeOutput(path, func(out io.Writer) error { return history.WriteOTLP(out, traces...) })
}

// writeOutput writes a file whole or not at all, or standard output for "". The
// file is the user's alone: what builds were given may be secret.
func (a *app) writeOutput(path string, write func(io.Writer) error) error {
	if path == "" {
		return write(a.io.Out)
	}
	f, err := atomicfile.Create(path, 0o600)
	if err != nil {
		return err
	}
	if err := write(f); err != nil {
		_ = f.Abort() // the first error says more
		return err
	}
	return f.Commit()
}

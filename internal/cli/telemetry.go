package cli

import (
	"context"
	"time"

	"github.com/berthbuild/berth/internal/telemetry"
	"github.com/spf13/cobra"
)

// How long the end of a command may wait for its traces to be sent; less where
// it was cancelled.
const (
	traceBudget       = time.Second
	traceBudgetCancel = 250 * time.Millisecond
)

// traced runs a command that works on daemons, under a span of its own where
// the environment asks for traces (OTEL_…, TRACEPARENT). What goes wrong with
// them is said with --debug only: who set those variables may be somebody else.
func (a *app) traced(cmd *cobra.Command, run func(context.Context) error) error {
	ctx, traces, err := telemetry.Start(cmd.Context(), a.lookupEnv, "berth", Version())
	if err != nil && a.debug {
		a.warn("nothing is traced: %v", err)
	}
	if traces == nil {
		return run(ctx)
	}
	a.traces = traces
	ctx, end := traces.Command(ctx, "berth "+cmd.Name())
	err = settled(ctx, run(ctx))
	end(exitCode(err), err)
	budget := traceBudget
	if ctx.Err() != nil {
		budget = traceBudgetCancel
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), budget)
	defer cancel()
	if lost := traces.Close(last); lost != nil && a.debug {
		a.warn("the trace is not complete: %v", lost)
	}
	return err
}

package build

import (
	"context"

	"github.com/berthbuild/berth/internal/telemetry"
	"go.opentelemetry.io/otel/attribute"
)

// attributes say in a trace which part of a build it is.
func (p part) attributes() []attribute.KeyValue {
	return []attribute.KeyValue{
		attribute.String("berth.node.name", p.Node.Name),
		attribute.StringSlice("berth.platforms", formatAll(p.req.Platforms)),
	}
}

// settleTraces gets what the part's daemon recorded of the build. Who cancels
// does not wait for it, and a connection that was lost has nothing more to say.
func (o Options) settleTraces(ctx context.Context, p part, ref string) {
	if o.Traces == nil || ctx.Err() != nil || p.conn.Lost() != nil {
		return
	}
	o.Traces.Settle(ctx, telemetry.Daemon{Name: p.Node.Name, Client: p.conn.Client(), Spans: p.conn.Spans()}, ref)
}

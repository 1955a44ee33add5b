package telemetry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/client"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

const (
	// settleBudget bounds Settle: the daemon writes a small file, and we read it.
	settleBudget = 2 * time.Second
	// maxTrace is how much of a daemon's record is read, in bytes.
	maxTrace = 32 << 20
	// mediaTrace is the one form in which daemons keep traces.
	mediaTrace = "application/vnd.buildkit.otlp.json.v0"
)

// Daemon is a connection to a daemon that has done a build.
type Daemon struct {
	Name   string // which of the daemons of this command it is
	Client *client.Client
	// Spans takes our own spans to the daemon, which keeps them with its record
	// of the build and sends them on, where it has a collector. It may be nil.
	Spans sdktrace.SpanExporter
}

// Settle ends the tracing of the build ref on a daemon: the daemon gets our own
// spans, and we get those that it recorded, for Close to send. A daemon that
// cannot do this, or not within two seconds, changes nothing but the trace.
func (t *Tracing) Settle(ctx context.Context, d Daemon, ref string) {
	if t == nil || !trace.SpanFromContext(ctx).IsRecording() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, settleBudget)
	defer cancel()
	ctx, end := Span(ctx, "collect daemon spans")
	t.handOver(ctx, d)
	spans, err := recorded(ctx, d.Client, ref)
	end(err)
	t.keep(spans)
}

// handOver gives the daemon those of our spans that it has not got.
func (t *Tracing) handOver(ctx context.Context, d Daemon) {
	t.mu.Lock()
	spans := t.own[min(t.sent[d.Name], len(t.own)):]
	t.sent[d.Name] = len(t.own)
	t.mu.Unlock()
	if d.Spans == nil || len(spans) == 0 {
		return
	}
	_ = d.Spans.ExportSpans(ctx, spans) // a daemon without a collector refuses them, which is its right
}

// keep takes spans for the collector: those below ours. A daemon's record has
// everything that it saw of a trace, which may be other builds of the same job,
// and what we handed over ourselves.
func (t *Tracing) keep(spans []sdktrace.ReadOnlySpan) {
	t.mu.Lock()
	defer t.mu.Unlock()
	parents := make(map[trace.SpanID]trace.SpanID, len(spans))
	for _, s := range spans {
		parents[s.SpanContext().SpanID()] = s.Parent().SpanID()
	}
	verdicts := map[trace.SpanID]bool{}
	below := func(id trace.SpanID) bool {
		var way []trace.SpanID
		for id.IsValid() && !t.begun[id] {
			if _, seen := verdicts[id]; seen {
				break
			}
			verdicts[id] = false // a daemon could send us a circle
			way = append(way, id)
			id = parents[id]
		}
		verdict := t.begun[id] || verdicts[id]
		for _, one := range way {
			verdicts[one] = verdict
		}
		return verdict
	}
	for _, s := range spans {
		if id := s.SpanContext().SpanID(); !t.begun[id] && below(id) {
			t.found = append(t.found, s)
		}
	}
}

// recorded are the spans that the daemon has of a build. The record is closed
// for that: without it the daemon would wait a few seconds for more.
func recorded(ctx context.Context, c *client.Client, ref string) ([]sdktrace.ReadOnlySpan, error) {
	control := c.ControlClient()
	if _, err := control.UpdateBuildHistory(ctx, &controlapi.UpdateBuildHistoryRequest{Ref: ref, Finalize: true}); err != nil {
		return nil, fmt.Errorf("closing the record: %w", err)
	}
	events, err := control.ListenBuildHistory(ctx, &controlapi.BuildHistoryRequest{Ref: ref, EarlyExit: true})
	if err != nil {
		return nil, fmt.Errorf("the record: %w", err)
	}
	var found *controlapi.Descriptor
	for {
		event, err := events.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("the record: %w", err)
		}
		if r := event.GetRecord(); r.GetRef() == ref && r.GetTrace() != nil {
			found = r.GetTrace()
		}
	}
	if found == nil || found.GetMediaType() != mediaTrace {
		return nil, nil // a daemon that records none
	}
	data, err := content(ctx, c.ContentClient(), found)
	if err != nil {
		return nil, fmt.Errorf("the recorded spans: %w", err)
	}
	return parseStubs(bytes.NewReader(data))
}

// content reads a blob from the daemon.
func content(ctx context.Context, c contentapi.ContentClient, d *controlapi.Descriptor) ([]byte, error) {
	if d.GetSize() > maxTrace {
		return nil, fmt.Errorf("%d bytes are too many", d.GetSize())
	}
	stream, err := c.Read(ctx, &contentapi.ReadContentRequest{Digest: d.GetDigest()})
	if err != nil {
		return nil, err
	}
	var all bytes.Buffer
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return all.Bytes(), nil
		}
		if err != nil {
			return nil, err
		}
		if all.Len()+len(part.GetData()) > maxTrace {
			return nil, errors.New("it does not end")
		}
		all.Write(part.GetData())
	}
}

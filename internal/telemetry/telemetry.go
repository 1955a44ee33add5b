// Package telemetry tells an OpenTelemetry collector how a command went: spans
// of what this process does, and those that a daemon recorded of a build.
//
// It is not for metrics or logs, and it decides nothing: a command runs the
// same with it and without. Where the environment asks for no traces, nothing
// is set up, and Span costs one look into the context.
//
// Rules: a collector that is down, silent or wrong never fails a command, and
// holds it up for the budget of Close at most. Headers, which carry keys, are
// in no error. Which variables there are is OpenTelemetry's specification;
// this package reads those that say whether and how to send, and the
// OpenTelemetry library the others (timeouts, batches, samplers) by itself.
package telemetry

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync"

	"github.com/go-logr/logr"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
)

// scope is the instrumentation scope of our spans.
const scope = "github.com/berthbuild/berth"

// Tracing is one command's traces. A nil one takes everything and does nothing.
// Its methods may be called by several goroutines.
type Tracing struct {
	provider *sdktrace.TracerProvider
	exporter sdktrace.SpanExporter
	secrets  []string // never to be in an error

	mu    sync.Mutex
	begun map[trace.SpanID]bool   // all of ours
	own   []sdktrace.ReadOnlySpan // ended here, for Settle to hand on
	sent  map[string]int          // by daemon: how many of own it has got
	found []sdktrace.ReadOnlySpan // recorded by daemons
	err   error                   // the first of an export
}

// Start sets up what the environment asks for: nil, and no error, where it asks
// for no traces. The context that it gives has the parent that TRACEPARENT
// names. The error says which variable is wrong, and that nothing is traced.
// The caller closes the Tracing.
func Start(ctx context.Context, env func(string) (string, bool), name, version string) (context.Context, *Tracing, error) {
	get := func(key string) string {
		if v, ok := env(key); ok {
			return strings.TrimSpace(v)
		}
		return ""
	}
	if disabled(get) {
		return ctx, nil, nil
	}
	ctx = withParent(ctx, get)
	want, err := read(get)
	if want == nil || err != nil {
		return ctx, nil, err
	}
	t := &Tracing{secrets: want.secrets, sent: map[string]int{}, begun: map[trace.SpanID]bool{}}
	// The library says what it finds wrong to these two, which would print it,
	// with the values.
	otel.SetLogger(logr.Discard())
	otel.SetErrorHandler(otel.ErrorHandlerFunc(t.failed))
	if t.exporter, err = otlptrace.New(ctx, want.client()); err != nil {
		return ctx, nil, t.scrubbed(err)
	}
	about, err := resource.New(ctx,
		resource.WithAttributes(semconv.ServiceName(name), semconv.ServiceVersion(version)),
		resource.WithFromEnv(), resource.WithTelemetrySDK())
	if err != nil && about == nil {
		about = resource.Default()
	}
	t.provider = sdktrace.NewTracerProvider(
		sdktrace.WithResource(about),
		sdktrace.WithBatcher(batches{t}),
		sdktrace.WithSpanProcessor(keeper{t}),
	)
	return ctx, t, nil
}

// client is what speaks to the collector. It is not told to try again: what
// cannot be sent now would hold up the end of the command.
func (s *settings) client() otlptrace.Client {
	if s.protocol == protocolGRPC {
		return otlptracegrpc.NewClient(otlptracegrpc.WithRetry(otlptracegrpc.RetryConfig{}))
	}
	return otlptracehttp.NewClient(otlptracehttp.WithRetry(otlptracehttp.RetryConfig{}))
}

// withParent makes the span that the caller's environment names the parent of
// ours, so that a CI job's trace has the build in it.
func withParent(ctx context.Context, get func(string) string) context.Context {
	parent := propagation.MapCarrier{"traceparent": get("TRACEPARENT"), "tracestate": get("TRACESTATE")}
	if parent["traceparent"] == "" {
		return ctx
	}
	return propagation.TraceContext{}.Extract(ctx, parent)
}

// Command begins the span of the whole command, called as in "berth build". The
// function that it gives ends it, with the exit code.
func (t *Tracing) Command(ctx context.Context, name string) (context.Context, func(code int, err error)) {
	if t == nil {
		return ctx, func(int, error) {}
	}
	program, _, _ := strings.Cut(name, " ")
	ctx, span := t.provider.Tracer(scope).Start(ctx, name, trace.WithAttributes(
		semconv.ProcessExecutableName(program), semconv.ProcessPID(os.Getpid()),
	))
	return ctx, func(code int, err error) {
		span.SetAttributes(semconv.ProcessExitCode(code))
		finish(span, err)
	}
}

// Span begins a span within the one in ctx, when there is one that is recorded.
// The function that it gives ends it; its error may be nil.
func Span(ctx context.Context, name string, attrs ...attribute.KeyValue) (context.Context, func(error)) {
	parent := trace.SpanFromContext(ctx)
	if !parent.IsRecording() {
		return ctx, func(error) {}
	}
	ctx, span := parent.TracerProvider().Tracer(scope).Start(ctx, name, trace.WithAttributes(attrs...))
	return ctx, func(err error) { finish(span, err) }
}

func finish(span trace.Span, err error) {
	if err != nil {
		span.SetStatus(codes.Error, err.Error())
	}
	span.End()
}

// Close sends what is not sent yet, and ends everything. It takes no longer
// than ctx lives. The error is why spans did not reach the collector.
func (t *Tracing) Close(ctx context.Context) error {
	if t == nil {
		return nil
	}
	t.mu.Lock()
	found := t.found
	t.found = nil
	t.mu.Unlock()
	sent := make(chan struct{})
	go func() { // beside our own
		defer close(sent)
		if len(found) > 0 {
			t.failed(t.exporter.ExportSpans(ctx, found))
		}
	}()
	err := t.provider.ForceFlush(ctx)
	select {
	case <-sent:
	case <-ctx.Done():
	}
	if err == nil {
		err = t.provider.Shutdown(ctx)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		err = errors.New("the collector does not answer")
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err != nil {
		return t.err
	}
	return t.scrubbed(err)
}

// failed keeps the first error of the export.
func (t *Tracing) failed(err error) {
	if err == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err == nil {
		t.err = t.scrubbed(err)
	}
}

// scrubbed is err without what the collector's headers say: it may have quoted
// them.
func (t *Tracing) scrubbed(err error) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	for _, secret := range t.secrets {
		text = strings.ReplaceAll(text, secret, "…")
	}
	return errors.New(text)
}

// batches is the exporter as the batches of our own spans see it: it fails
// here, and not where the library would print it.
type batches struct{ t *Tracing }

// ExportSpans implements sdktrace.SpanExporter.
func (b batches) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	b.t.failed(b.t.exporter.ExportSpans(ctx, spans))
	return nil
}

// Shutdown implements sdktrace.SpanExporter.
func (b batches) Shutdown(ctx context.Context) error { return b.t.exporter.Shutdown(ctx) }

// maxKept bounds what a daemon can be given of our own spans; each of its calls
// into the session is one.
const maxKept = 2048

// keeper keeps our own spans that have ended, and knows all that have begun.
type keeper struct{ t *Tracing }

// OnStart implements sdktrace.SpanProcessor.
func (k keeper) OnStart(_ context.Context, s sdktrace.ReadWriteSpan) {
	k.t.mu.Lock()
	defer k.t.mu.Unlock()
	k.t.begun[s.SpanContext().SpanID()] = true
}

// OnEnd implements sdktrace.SpanProcessor.
func (k keeper) OnEnd(s sdktrace.ReadOnlySpan) {
	k.t.mu.Lock()
	defer k.t.mu.Unlock()
	if len(k.t.own) < maxKept {
		k.t.own = append(k.t.own, s)
	}
}

// Shutdown implements sdktrace.SpanProcessor.
func (keeper) Shutdown(context.Context) error { return nil }

// ForceFlush implements sdktrace.SpanProcessor.
func (keeper) ForceFlush(context.Context) error { return nil }

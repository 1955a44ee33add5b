package telemetry

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/instrumentation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
)

// stub is a span as daemons keep it: the OpenTelemetry library's SpanStub in
// JSON, which that library can write and not read.
type stub struct {
	Name                 string
	SpanContext, Parent  stubContext
	SpanKind             int
	StartTime, EndTime   time.Time
	Attributes           []stubAttribute
	Events               []stubEvent
	Links                []stubLink
	Status               stubStatus
	DroppedAttributes    int
	DroppedEvents        int
	DroppedLinks         int
	ChildSpanCount       int
	Resource             []stubAttribute
	InstrumentationScope struct{ Name, Version, SchemaURL string }
}

type stubContext struct {
	TraceID, SpanID, TraceFlags, TraceState string
	Remote                                  bool
}

type stubAttribute struct {
	Key   string
	Value struct {
		Type  string
		Value json.RawMessage
	}
}

type stubEvent struct {
	Name                  string
	Attributes            []stubAttribute
	DroppedAttributeCount int
	Time                  time.Time
}

type stubLink struct {
	SpanContext           stubContext
	Attributes            []stubAttribute
	DroppedAttributeCount int
}

type stubStatus struct {
	Code        codes.Code
	Description string
}

// parseStubs reads spans, one JSON object after the other. A span without ids
// is an error; an attribute of a kind that is not known is left out.
func parseStubs(r io.Reader) ([]sdktrace.ReadOnlySpan, error) {
	var all []sdktrace.ReadOnlySpan
	for dec := json.NewDecoder(r); ; {
		var s stub
		err := dec.Decode(&s)
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, fmt.Errorf("span %d: %w", len(all)+1, err)
		}
		span, err := s.span()
		if err != nil {
			return nil, fmt.Errorf("span %d: %w", len(all)+1, err)
		}
		all = append(all, span)
	}
}

func (s stub) span() (sdktrace.ReadOnlySpan, error) {
	self, err := s.SpanContext.context()
	if err != nil {
		return nil, err
	}
	if !self.IsValid() {
		return nil, errors.New("it has no id")
	}
	parent, err := s.Parent.context()
	if err != nil {
		return nil, err
	}
	out := tracetest.SpanStub{
		Name: s.Name, SpanContext: self, Parent: parent, SpanKind: trace.SpanKind(s.SpanKind),
		StartTime: s.StartTime, EndTime: s.EndTime, Attributes: attributes(s.Attributes),
		Status:            sdktrace.Status{Code: s.Status.Code, Description: s.Status.Description},
		DroppedAttributes: s.DroppedAttributes, DroppedEvents: s.DroppedEvents, DroppedLinks: s.DroppedLinks,
		ChildSpanCount: s.ChildSpanCount,
		Resource:       resource.NewSchemaless(attributes(s.Resource)...),
		InstrumentationScope: instrumentation.Scope{
			Name: s.InstrumentationScope.Name, Version: s.InstrumentationScope.Version, SchemaURL: s.InstrumentationScope.SchemaURL,
		},
	}
	for _, e := range s.Events {
		out.Events = append(out.Events, sdktrace.Event{
			Name: e.Name, Attributes: attributes(e.Attributes), DroppedAttributeCount: e.DroppedAttributeCount, Time: e.Time,
		})
	}
	for _, l := range s.Links {
		to, err := l.SpanContext.context()
		if err != nil {
			return nil, err
		}
		out.Links = append(out.Links, sdktrace.Link{SpanContext: to, Attributes: attributes(l.Attributes), DroppedAttributeCount: l.DroppedAttributeCount})
	}
	return out.Snapshot(), nil
}

// context reads the ids; those of the parent of a root are zeros.
func (c stubContext) context() (trace.SpanContext, error) {
	cfg := trace.SpanContextConfig{Remote: c.Remote}
	for _, id := range []struct {
		text string
		into []byte
	}{{c.TraceID, cfg.TraceID[:]}, {c.SpanID, cfg.SpanID[:]}} {
		if err := readHex(id.text, id.into); err != nil {
			return trace.SpanContext{}, err
		}
	}
	var flags [1]byte
	if err := readHex(c.TraceFlags, flags[:]); err != nil {
		return trace.SpanContext{}, err
	}
	cfg.TraceFlags = trace.TraceFlags(flags[0])
	state, err := trace.ParseTraceState(c.TraceState)
	if err != nil {
		return trace.SpanContext{}, err
	}
	cfg.TraceState = state
	return trace.NewSpanContext(cfg), nil
}

// readHex fills into from its hexadecimal text; an empty one leaves zeros.
func readHex(text string, into []byte) error {
	if text == "" {
		return nil
	}
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != len(into) {
		return fmt.Errorf("%.40q is no id", text)
	}
	copy(into, b)
	return nil
}

func attributes(list []stubAttribute) []attribute.KeyValue {
	var all []attribute.KeyValue
	for _, a := range list {
		if v, ok := a.value(); ok && a.Key != "" {
			all = append(all, attribute.KeyValue{Key: attribute.Key(a.Key), Value: v})
		}
	}
	return all
}

func (a stubAttribute) value() (attribute.Value, bool) {
	raw := a.Value.Value
	switch a.Value.Type {
	case "BOOL":
		return scalar(raw, attribute.BoolValue)
	case "INT64":
		return scalar(raw, attribute.Int64Value)
	case "FLOAT64":
		return scalar(raw, attribute.Float64Value)
	case "STRING":
		return scalar(raw, attribute.StringValue)
	case "BOOLSLICE":
		return scalar(raw, attribute.BoolSliceValue)
	case "INT64SLICE":
		return scalar(raw, attribute.Int64SliceValue)
	case "FLOAT64SLICE":
		return scalar(raw, attribute.Float64SliceValue)
	case "STRINGSLICE":
		return scalar(raw, attribute.StringSliceValue)
	}
	return attribute.Value{}, false
}

func scalar[T any](raw json.RawMessage, value func(T) attribute.Value) (attribute.Value, bool) {
	var v T
	if err := json.Unmarshal(raw, &v); err != nil {
		return attribute.Value{}, false
	}
	return value(v), true
}

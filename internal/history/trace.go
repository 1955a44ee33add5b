package history

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/berthbuild/berth/internal/hint"
)

// Trace is the spans of one build, as daemons keep them.
type Trace struct{ spans []span }

// maxSpans bounds a trace. A build has some for each step.
const maxSpans = 1_000_000

// span is one as a daemon keeps it, which is the form of OpenTelemetry's Go
// library.
type span struct {
	Name              string
	SpanContext       spanContext
	Parent            spanContext
	SpanKind          int
	StartTime         time.Time
	EndTime           time.Time
	Attributes        []attribute
	Events            []event
	Links             []link
	Status            spanStatus
	DroppedAttributes uint32
	DroppedEvents     uint32
	DroppedLinks      uint32
	Resource          []attribute

	InstrumentationScope   scope
	InstrumentationLibrary scope // its older name
}

type spanContext struct{ TraceID, SpanID, TraceState string }

type attribute struct {
	Key   string
	Value struct {
		Type  string
		Value json.RawMessage
	}
}

type event struct {
	Name                  string
	Attributes            []attribute
	DroppedAttributeCount uint32
	Time                  time.Time
}

type link struct {
	SpanContext           spanContext
	Attributes            []attribute
	DroppedAttributeCount uint32
}

type spanStatus struct {
	Code        json.RawMessage // a number, or a word
	Description string
}

type scope struct {
	Name       string
	Version    string
	SchemaURL  string
	Attributes json.RawMessage
}

// ReadTrace reads the build's trace. A record that has none yet is finalized first.
func (r *Record) ReadTrace(ctx context.Context) (*Trace, error) {
	if r.GetTrace() == nil && r.CompletedAt != nil {
		if err := r.Finalize(ctx); err != nil {
			return nil, err
		}
	}
	switch {
	case r.CompletedAt == nil:
		return nil, hint.New(fmt.Sprintf("build %s still runs; its trace is there when it has ended", r.Ref), "follow it: berth history logs "+r.Ref)
	case r.GetTrace() == nil:
		return nil, r.explain(errors.New("the record has no trace"))
	}
	desc, err := descriptor(r.GetTrace())
	if err != nil {
		return nil, r.explain(err)
	}
	data, err := r.blob(ctx, desc, maxTrace)
	if err != nil {
		return nil, r.explain(err)
	}
	t, err := parseTrace(data)
	return t, r.explain(err)
}

func parseTrace(data []byte) (*Trace, error) {
	t := &Trace{}
	dec := json.NewDecoder(bytes.NewReader(data))
	for {
		var s span
		err := dec.Decode(&s)
		switch {
		case errors.Is(err, io.EOF):
			return t, nil
		case err != nil:
			return nil, fmt.Errorf("the trace is damaged: %w", err)
		case len(t.spans) == maxSpans:
			return nil, fmt.Errorf("the trace has more than %d spans", maxSpans)
		}
		t.spans = append(t.spans, s)
	}
}

// bundledSpan is a span in a bundle, whose readers know the older name of the scope
// only. The rest stays as the daemon wrote it.
type bundledSpan struct {
	Name, SpanContext, Parent, SpanKind, StartTime, EndTime, Attributes, Events, Links, Status json.RawMessage
	DroppedAttributes, DroppedEvents, DroppedLinks, ChildSpanCount, Resource                   json.RawMessage
	InstrumentationLibrary                                                                     json.RawMessage
}

func bundledTrace(data []byte) ([]byte, error) {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetIndent("", "  ")
	dec := json.NewDecoder(bytes.NewReader(data))
	for {
		var s struct {
			bundledSpan
			InstrumentationScope json.RawMessage
		}
		err := dec.Decode(&s)
		if errors.Is(err, io.EOF) {
			return out.Bytes(), nil
		}
		if err != nil {
			return nil, fmt.Errorf("the trace is damaged: %w", err)
		}
		if s.InstrumentationLibrary == nil {
			s.InstrumentationLibrary = s.InstrumentationScope
		}
		if err := enc.Encode(s.bundledSpan); err != nil {
			return nil, err
		}
	}
}

// WriteOTLP writes traces as one document in OTLP's JSON form.
func WriteOTLP(out io.Writer, traces ...*Trace) error {
	doc := otlpDocument{ResourceSpans: []*otlpResource{}}
	type key struct{ resource, scope string }
	resources := map[string]*otlpResource{}
	scopes := map[key]*otlpScopeSpans{}
	for _, t := range traces {
		for _, s := range t.spans {
			from, err := json.Marshal(s.Resource)
			if err != nil {
				return err
			}
			res := resources[string(from)]
			if res == nil {
				res = &otlpResource{Resource: otlpAttributes{otlpAttrs(s.Resource)}}
				resources[string(from)] = res
				doc.ResourceSpans = append(doc.ResourceSpans, res)
			}
			by := s.InstrumentationScope
			if by.Name == "" {
				by = s.InstrumentationLibrary
			}
			k := key{string(from), by.Name + "\x00" + by.Version + "\x00" + by.SchemaURL}
			if scopes[k] == nil {
				scopes[k] = &otlpScopeSpans{Scope: otlpScope{by.Name, by.Version}, SchemaURL: by.SchemaURL}
				res.ScopeSpans = append(res.ScopeSpans, scopes[k])
			}
			scopes[k].Spans = append(scopes[k].Spans, s.otlp())
		}
	}
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	return enc.Encode(doc)
}

// The JSON form of OTLP: ids are hexadecimal, 64-bit numbers are strings.
type otlpDocument struct {
	ResourceSpans []*otlpResource `json:"resourceSpans"`
}

type otlpResource struct {
	Resource   otlpAttributes    `json:"resource"`
	ScopeSpans []*otlpScopeSpans `json:"scopeSpans"`
}

type otlpAttributes struct {
	Attributes []otlpAttr `json:"attributes,omitempty"`
}

type otlpScopeSpans struct {
	Scope     otlpScope  `json:"scope"`
	Spans     []otlpSpan `json:"spans"`
	SchemaURL string     `json:"schemaUrl,omitempty"`
}

type otlpScope struct {
	Name    string `json:"name,omitempty"`
	Version string `json:"version,omitempty"`
}

type otlpSpan struct {
	TraceID                string      `json:"traceId"`
	SpanID                 string      `json:"spanId"`
	TraceState             string      `json:"traceState,omitempty"`
	ParentSpanID           string      `json:"parentSpanId,omitempty"`
	Name                   string      `json:"name"`
	Kind                   int         `json:"kind,omitempty"`
	StartTimeUnixNano      string      `json:"startTimeUnixNano"`
	EndTimeUnixNano        string      `json:"endTimeUnixNano"`
	Attributes             []otlpAttr  `json:"attributes,omitempty"`
	DroppedAttributesCount uint32      `json:"droppedAttributesCount,omitempty"`
	Events                 []otlpEvent `json:"events,omitempty"`
	DroppedEventsCount     uint32      `json:"droppedEventsCount,omitempty"`
	Links                  []otlpLink  `json:"links,omitempty"`
	DroppedLinksCount      uint32      `json:"droppedLinksCount,omitempty"`
	Status                 otlpStatus  `json:"status"`
}

type otlpEvent struct {
	TimeUnixNano           string     `json:"timeUnixNano"`
	Name                   string     `json:"name"`
	Attributes             []otlpAttr `json:"attributes,omitempty"`
	DroppedAttributesCount uint32     `json:"droppedAttributesCount,omitempty"`
}

type otlpLink struct {
	TraceID                string     `json:"traceId"`
	SpanID                 string     `json:"spanId"`
	TraceState             string     `json:"traceState,omitempty"`
	Attributes             []otlpAttr `json:"attributes,omitempty"`
	DroppedAttributesCount uint32     `json:"droppedAttributesCount,omitempty"`
}

type otlpStatus struct {
	Message string `json:"message,omitempty"`
	Code    int    `json:"code,omitempty"`
}

type otlpAttr struct {
	Key   string         `json:"key"`
	Value map[string]any `json:"value"`
}

func (s span) otlp() otlpSpan {
	out := otlpSpan{
		TraceID: s.SpanContext.TraceID, SpanID: s.SpanContext.SpanID, TraceState: s.SpanContext.TraceState,
		Name: s.Name, Kind: s.SpanKind, StartTimeUnixNano: nanos(s.StartTime), EndTimeUnixNano: nanos(s.EndTime),
		Attributes: otlpAttrs(s.Attributes), DroppedAttributesCount: s.DroppedAttributes,
		DroppedEventsCount: s.DroppedEvents, DroppedLinksCount: s.DroppedLinks, Status: s.Status.otlp(),
	}
	if p := s.Parent.SpanID; p != "0000000000000000" {
		out.ParentSpanID = p
	}
	for _, e := range s.Events {
		out.Events = append(out.Events, otlpEvent{nanos(e.Time), e.Name, otlpAttrs(e.Attributes), e.DroppedAttributeCount})
	}
	for _, l := range s.Links {
		out.Links = append(out.Links, otlpLink{l.SpanContext.TraceID, l.SpanContext.SpanID, l.SpanContext.TraceState, otlpAttrs(l.Attributes), l.DroppedAttributeCount})
	}
	return out
}

func nanos(t time.Time) string { return strconv.FormatInt(t.UnixNano(), 10) }

// otlp has other numbers for the codes than the Go library.
func (s spanStatus) otlp() otlpStatus {
	out := otlpStatus{Message: s.Description}
	switch string(s.Code) {
	case "1", `"Error"`:
		out.Code = 2
	case "2", `"Ok"`:
		out.Code = 1
	}
	return out
}

func otlpAttrs(all []attribute) []otlpAttr {
	var out []otlpAttr
	for _, a := range all {
		out = append(out, otlpAttr{a.Key, otlpValue(a.Value.Type, a.Value.Value)})
	}
	return out
}

// otlpValue is a value with its type as its name. One of a type that is not known
// is shown as it stands.
func otlpValue(kind string, raw json.RawMessage) map[string]any {
	list := func(of string) map[string]any {
		var items []json.RawMessage
		_ = json.Unmarshal(raw, &items) // what is no list has nothing in it
		values := []map[string]any{}
		for _, item := range items {
			values = append(values, otlpValue(of, item))
		}
		return map[string]any{"arrayValue": map[string]any{"values": values}}
	}
	switch kind {
	case "BOOL":
		return map[string]any{"boolValue": raw}
	case "INT64":
		return map[string]any{"intValue": string(raw)}
	case "FLOAT64":
		return map[string]any{"doubleValue": raw}
	case "BOOLSLICE":
		return list("BOOL")
	case "INT64SLICE":
		return list("INT64")
	case "FLOAT64SLICE":
		return list("FLOAT64")
	case "STRINGSLICE":
		return list("STRING")
	}
	var text string
	if err := json.Unmarshal(raw, &text); err != nil {
		text = string(raw)
	}
	return map[string]any{"stringValue": text}
}

package telemetry

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
)

// recordedSpans are spans with one of everything, as a daemon's library makes
// them.
func recordedSpans(t testing.TB) []sdktrace.ReadOnlySpan {
	t.Helper()
	kept := tracetest.NewSpanRecorder()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(kept),
		sdktrace.WithResource(resource.NewSchemaless(attribute.String("service.name", "buildkitd"))))
	tracer := provider.Tracer("scope", trace.WithInstrumentationVersion("v1"), trace.WithSchemaURL("https://schema"))
	ctx, outer := tracer.Start(t.Context(), "outer", trace.WithSpanKind(trace.SpanKindServer))
	_, inner := tracer.Start(ctx, "inner", trace.WithLinks(trace.LinkFromContext(ctx, attribute.Bool("l", true))), trace.WithAttributes(
		attribute.Bool("b", true), attribute.Int64("i", 1<<62), attribute.Float64("f", 1.5), attribute.String("s", "text"),
		attribute.BoolSlice("bs", []bool{true, false}), attribute.Int64Slice("is", []int64{1, 2}),
		attribute.Float64Slice("fs", []float64{1, 2.5}), attribute.StringSlice("ss", []string{"a", "b"}),
	))
	inner.AddEvent("happened", trace.WithAttributes(attribute.Int("n", 3)))
	inner.RecordError(errors.New("broke"))
	inner.SetStatus(codes.Error, "broke")
	inner.End()
	outer.SetStatus(codes.Ok, "")
	outer.End()
	return kept.Ended()
}

func written(t testing.TB, spans []sdktrace.ReadOnlySpan) []byte {
	t.Helper()
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetIndent("", "  ") // as daemons do
	for _, s := range spans {
		if err := enc.Encode(tracetest.SpanStubFromReadOnlySpan(s)); err != nil {
			t.Fatal(err)
		}
	}
	return out.Bytes()
}

// What the library writes of a span comes back the same.
func TestStubsComeBack(t *testing.T) {
	want := recordedSpans(t)
	got, err := parseStubs(bytes.NewReader(written(t, want)))
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(want) {
		t.Fatalf("%d spans came back of %d", len(got), len(want))
	}
	for i := range want {
		if a, b := string(written(t, got[i:i+1])), string(written(t, want[i:i+1])); a != b {
			t.Errorf("span %d came back as\n%s\nand was\n%s", i, a, b)
		}
		if !reflect.DeepEqual(got[i].Attributes(), want[i].Attributes()) {
			t.Errorf("attributes: %v, want %v", got[i].Attributes(), want[i].Attributes())
		}
	}
	if got[0].Parent().SpanID() != got[1].SpanContext().SpanID() {
		t.Error("the inner one lost its parent")
	}
}

func TestStubsThatAreWrong(t *testing.T) {
	id := `"SpanContext":{"TraceID":"11111111111111111111111111111111","SpanID":"2222222222222222"}`
	for _, text := range []string{
		"[]", "{", "nonsense", `{"Name":"x"}`, `{"Name":1,` + id + `}`,
		`{"SpanContext":{"TraceID":"zz","SpanID":"2222222222222222"}}`,
		`{"SpanContext":{"TraceID":"1111","SpanID":"2222222222222222"}}`,
		`{` + id + `,"Parent":{"SpanID":"1"}}`, `{` + id + `,"Links":[{"SpanContext":{"TraceID":"x"}}]}`,
		`{"SpanContext":{"TraceID":"11111111111111111111111111111111","SpanID":"2222222222222222","TraceFlags":"0101"}}`,
	} {
		if _, err := parseStubs(strings.NewReader(text)); err == nil {
			t.Errorf("%s was taken", text)
		}
	}
	// What is only not known is left out.
	got, err := parseStubs(strings.NewReader(`{` + id + `,"New":[1],"Attributes":[{"Key":"a","Value":{"Type":"MAP","Value":{}}},{"Key":"b","Value":{"Type":"BOOL","Value":3}},{"Key":"c","Value":{"Type":"STRING","Value":"v"}}]}`))
	if err != nil || len(got) != 1 || len(got[0].Attributes()) != 1 {
		t.Errorf("%v, error %v", got, err)
	}
}

func FuzzParseStubs(f *testing.F) {
	f.Add(string(written(f, recordedSpans(f))))
	f.Add(`{"SpanContext":{"TraceID":"11111111111111111111111111111111","SpanID":"2222222222222222"}}`)
	f.Fuzz(func(t *testing.T, text string) {
		spans, err := parseStubs(strings.NewReader(text))
		for _, s := range spans {
			if !s.SpanContext().IsValid() || err != nil {
				t.Errorf("span %v with error %v", s.SpanContext(), err)
			}
		}
	})
}

// Of what a daemon has of the trace, only what is below our own is ours to send.
func TestKeepsWhatIsBelowOurs(t *testing.T) {
	id := func(n byte) trace.SpanID { return trace.SpanID{n} }
	span := func(self, parent byte) sdktrace.ReadOnlySpan {
		at := func(n byte) trace.SpanContext {
			return trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: id(n)})
		}
		return tracetest.SpanStub{SpanContext: at(self), Parent: at(parent)}.Snapshot()
	}
	tr := &Tracing{begun: map[trace.SpanID]bool{id(1): true, id(2): true}}
	tr.keep([]sdktrace.ReadOnlySpan{
		span(2, 1),             // ours
		span(4, 3), span(3, 2), // below ours, in any order
		span(6, 5), span(5, 9), // another build of the job
		span(7, 8), span(8, 7), // nonsense
	})
	var got []byte
	for _, s := range tr.found {
		got = append(got, s.SpanContext().SpanID()[0])
	}
	if !bytes.Equal(got, []byte{4, 3}) {
		t.Errorf("kept %v", got)
	}
}

// Package otlptest is an OpenTelemetry collector for tests, inside the test's
// own process: it takes spans by OTLP over gRPC and over HTTP, and keeps them.
//
// It is not a backend: it draws nothing and forgets everything.
//
// Rules: it listens on loopback, or on what New is given, and is gone with the
// test. A span that arrives twice is kept once, as backends do.
package otlptest

import (
	"context"
	"crypto/tls"
	"encoding/hex"
	"io"
	"log"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	coltracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
)

// Span is a span that arrived.
type Span struct {
	Trace, ID, Parent string // hexadecimal; Parent is "" for a root
	Name              string
	Service           string            // service.name of its resource
	Attributes        map[string]string // those with a text
	Resource          map[string]string // the same of its resource
	Status            string            // the description, "" where all went well
	Failed            bool
	Start, End        time.Time
}

// Options are how a Collector behaves. The zero value takes everything.
type Options struct {
	TLS    *tls.Config     // nil: plain
	Hold   <-chan struct{} // nothing is answered before it is closed
	Refuse error           // what gRPC calls are answered, and HTTP ones with status 500
}

// Collector takes spans.
type Collector struct {
	opt  Options
	grpc net.Listener
	http net.Listener
	done chan struct{}

	mu      sync.Mutex
	spans   map[string]Span // by id
	order   []string
	headers []map[string]string
	changed chan struct{} // closed and replaced at each arrival
}

// New starts a collector that ends with the test.
func New(t testing.TB, o Options) *Collector {
	t.Helper()
	c := &Collector{opt: o, done: make(chan struct{}), spans: map[string]Span{}, changed: make(chan struct{})}
	c.grpc, c.http = listen(t), listen(t)
	var opts []grpc.ServerOption
	if o.TLS != nil {
		opts = append(opts, grpc.Creds(credentials.NewTLS(o.TLS)))
	}
	rpc := grpc.NewServer(opts...)
	coltracepb.RegisterTraceServiceServer(rpc, service{c: c})
	web := &http.Server{Handler: http.HandlerFunc(c.serveHTTP), ReadHeaderTimeout: 10 * time.Second, TLSConfig: o.TLS, ErrorLog: log.New(io.Discard, "", 0)}
	var served sync.WaitGroup
	served.Go(func() { _ = rpc.Serve(c.grpc) })
	served.Go(func() {
		if o.TLS != nil {
			_ = web.ServeTLS(c.http, "", "")
			return
		}
		_ = web.Serve(c.http)
	})
	t.Cleanup(func() {
		close(c.done)
		rpc.Stop()
		_ = web.Close()
		served.Wait()
	})
	return c
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func (c *Collector) scheme() string {
	if c.opt.TLS != nil {
		return "https://"
	}
	return "http://"
}

// GRPC is the endpoint for OTEL_EXPORTER_OTLP_PROTOCOL=grpc.
func (c *Collector) GRPC() string { return c.scheme() + c.grpc.Addr().String() }

// HTTP is the endpoint for OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf.
func (c *Collector) HTTP() string { return c.scheme() + c.http.Addr().String() }

// Spans are all that arrived so far, in order.
func (c *Collector) Spans() []Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make([]Span, 0, len(c.order))
	for _, id := range c.order {
		all = append(all, c.spans[id])
	}
	return all
}

// Named are the spans with this name.
func (c *Collector) Named(name string) []Span {
	return slices.DeleteFunc(c.Spans(), func(s Span) bool { return s.Name != name })
}

// WaitFor waits until a span arrives that f wants, and fails the test after ten
// seconds.
func (c *Collector) WaitFor(t testing.TB, what string, f func(Span) bool) Span {
	t.Helper()
	limit := time.After(10 * time.Second)
	for {
		c.mu.Lock()
		changed := c.changed
		c.mu.Unlock()
		all := c.Spans()
		if i := slices.IndexFunc(all, f); i >= 0 {
			return all[i]
		}
		select {
		case <-changed:
		case <-limit:
			t.Fatalf("no span %s has come, only %d others:\n%s", what, len(all), Tree(all))
		}
	}
}

// Headers are those of each call so far, with lower-case names.
func (c *Collector) Headers() []map[string]string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.headers)
}

// Tree draws spans, each under its parent, for a failed test.
func Tree(all []Span) string {
	known := map[string]bool{}
	for _, s := range all {
		known[s.ID] = true
	}
	var text strings.Builder
	var draw func(parent, indent string)
	draw = func(parent, indent string) {
		for _, s := range all {
			if s.Parent == parent || parent == "" && !known[s.Parent] {
				text.WriteString(indent + s.Service + ": " + s.Name + " (" + s.ID + " in " + s.Trace + ")\n")
				draw(s.ID, indent+"  ")
			}
		}
	}
	draw("", "")
	return text.String()
}

// hold waits while the test wants that. The error is ctx's: who waited no longer gets
// no answer, since an answer at the last moment may still arrive.
func (c *Collector) hold(ctx context.Context) error {
	if c.opt.Hold == nil {
		return nil
	}
	select {
	case <-c.opt.Hold:
	case <-c.done:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

func (c *Collector) take(r *coltracepb.ExportTraceServiceRequest, headers map[string]string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.headers = append(c.headers, headers)
	for _, rs := range r.GetResourceSpans() {
		about := attributes(rs.GetResource().GetAttributes())
		for _, ss := range rs.GetScopeSpans() {
			for _, s := range ss.GetSpans() {
				c.add(newSpan(s, about))
			}
		}
	}
	close(c.changed)
	c.changed = make(chan struct{})
}

func (c *Collector) add(s Span) {
	if _, again := c.spans[s.ID]; !again {
		c.order = append(c.order, s.ID)
	}
	c.spans[s.ID] = s
}

func newSpan(s *tracepb.Span, about map[string]string) Span {
	return Span{
		Trace: hex.EncodeToString(s.GetTraceId()), ID: hex.EncodeToString(s.GetSpanId()), Parent: hex.EncodeToString(s.GetParentSpanId()),
		Name: s.GetName(), Service: about["service.name"], Attributes: attributes(s.GetAttributes()), Resource: about,
		Status: s.GetStatus().GetMessage(), Failed: s.GetStatus().GetCode() == tracepb.Status_STATUS_CODE_ERROR,
		Start: time.Unix(0, int64(s.GetStartTimeUnixNano())), End: time.Unix(0, int64(s.GetEndTimeUnixNano())),
	}
}

// service is the gRPC side.
type service struct {
	coltracepb.UnimplementedTraceServiceServer
	c *Collector
}

// Export implements coltracepb.TraceServiceServer.
func (s service) Export(ctx context.Context, r *coltracepb.ExportTraceServiceRequest) (*coltracepb.ExportTraceServiceResponse, error) {
	if err := s.c.hold(ctx); err != nil {
		return nil, err
	}
	if s.c.opt.Refuse != nil {
		return nil, s.c.opt.Refuse
	}
	headers := map[string]string{}
	md, _ := metadata.FromIncomingContext(ctx)
	for k, v := range md {
		headers[k] = strings.Join(v, ",")
	}
	s.c.take(r, headers)
	return &coltracepb.ExportTraceServiceResponse{}, nil
}

func (c *Collector) serveHTTP(w http.ResponseWriter, r *http.Request) {
	if c.hold(r.Context()) != nil {
		return
	}
	if c.opt.Refuse != nil {
		http.Error(w, c.opt.Refuse.Error(), http.StatusInternalServerError)
		return
	}
	body, err := io.ReadAll(r.Body)
	var req coltracepb.ExportTraceServiceRequest
	if err == nil {
		err = proto.Unmarshal(body, &req)
	}
	if err != nil || r.URL.Path != "/v1/traces" || r.Method != http.MethodPost {
		http.Error(w, "not a trace", http.StatusBadRequest)
		return
	}
	headers := map[string]string{}
	for k, v := range r.Header {
		headers[strings.ToLower(k)] = strings.Join(v, ",")
	}
	c.take(&req, headers)
	w.Header().Set("Content-Type", "application/x-protobuf")
}

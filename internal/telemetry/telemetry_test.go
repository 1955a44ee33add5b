package telemetry

import (
	"context"
	"crypto/tls"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/berthbuild/berth/internal/buildkittest"
	"github.com/berthbuild/berth/internal/otlptest"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// setenv makes the environment of the test hold exactly these of
// OpenTelemetry's variables: the library reads it itself.
func setenv(t *testing.T, env map[string]string) func(string) (string, bool) {
	t.Helper()
	for _, kv := range os.Environ() {
		if k, _, _ := strings.Cut(kv, "="); strings.HasPrefix(k, "OTEL_") || strings.HasPrefix(k, "TRACE") {
			t.Setenv(k, "") // puts it back afterwards
			if err := os.Unsetenv(k); err != nil {
				t.Fatal(err)
			}
		}
	}
	for k, v := range env {
		t.Setenv(k, v)
	}
	return os.LookupEnv
}

// command runs a traced command with one span in it.
func command(t *testing.T, env func(string) (string, bool), fail error) (lost error) {
	t.Helper()
	ctx, traces, err := Start(t.Context(), env, "berth", "v9")
	if err != nil {
		t.Fatal(err)
	}
	ctx, end := traces.Command(ctx, "berth test")
	inner, done := Span(ctx, "inside")
	if traces != nil && !trace.SpanFromContext(inner).IsRecording() {
		t.Error("the span is not recorded")
	}
	done(fail)
	code := 0
	if fail != nil {
		code = 1
	}
	end(code, fail)
	last, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return traces.Close(last)
}

func TestNothingAskedFor(t *testing.T) {
	for name, vars := range map[string]map[string]string{
		"nothing":      {},
		"other things": {"OTEL_SERVICE_NAME": "x", "OTEL_EXPORTER_OTLP_HEADERS": "a=b"},
		"disabled":     {"OTEL_SDK_DISABLED": "TRUE", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"},
		"none":         {"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"},
		"empty":        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, traces, err := Start(t.Context(), setenv(t, vars), "berth", "v9")
			if traces != nil || err != nil || ctx != t.Context() {
				t.Errorf("traces = %v, error = %v", traces, err)
			}
			// Nobody has to look whether there are any.
			ctx, end := traces.Command(ctx, "berth test")
			ctx, done := Span(ctx, "inside")
			traces.Settle(ctx, Daemon{}, "ref")
			done(nil)
			end(0, nil)
			if err := traces.Close(ctx); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestSpansArrive(t *testing.T) {
	for _, protocol := range []string{"grpc", "http/protobuf"} {
		t.Run(protocol, func(t *testing.T) {
			c := otlptest.New(t, otlptest.Options{})
			endpoint := c.GRPC()
			if protocol != "grpc" {
				endpoint = c.HTTP()
			}
			env := setenv(t, map[string]string{
				"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
				"OTEL_EXPORTER_OTLP_HEADERS": "x-key=hunter2,authorization=Bearer%20abcdef",
				"OTEL_RESOURCE_ATTRIBUTES":   "ci.job=42", "OTEL_SERVICE_NAME": "ours",
				"TRACEPARENT": "00-11111111111111111111111111111111-2222222222222222-01",
			})
			if err := command(t, env, errors.New("it broke")); err != nil {
				t.Fatal(err)
			}
			all := c.Spans()
			if len(all) != 2 {
				t.Fatalf("%d spans came:\n%s", len(all), otlptest.Tree(all))
			}
			inside, outer := c.Named("inside")[0], c.Named("berth test")[0]
			if outer.Trace != strings.Repeat("1", 32) || outer.Parent != strings.Repeat("2", 16) || inside.Parent != outer.ID || inside.Trace != outer.Trace {
				t.Errorf("they do not nest:\n%s", otlptest.Tree(all))
			}
			if outer.Service != "ours" || outer.Resource["ci.job"] != "42" || outer.Resource["service.version"] != "v9" {
				t.Errorf("resource: %v", outer.Resource)
			}
			if outer.Attributes["process.exit.code"] != "1" || outer.Attributes["process.executable.name"] != "berth" || !outer.Failed || outer.Status != "it broke" {
				t.Errorf("the command: %+v", outer)
			}
			if h := c.Headers()[0]; h["x-key"] != "hunter2" || h["authorization"] != "Bearer abcdef" {
				t.Errorf("headers: %v", h)
			}
		})
	}
}

// The variables for traces alone come before those for everything.
func TestSignalVariablesWin(t *testing.T) {
	c := otlptest.New(t, otlptest.Options{})
	env := setenv(t, map[string]string{
		"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
		"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": c.HTTP() + "/v1/traces", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
	})
	if err := command(t, env, nil); err != nil {
		t.Fatal(err)
	}
	if n := len(c.Spans()); n != 2 {
		t.Errorf("%d spans came", n)
	}
}

func TestSampler(t *testing.T) {
	c := otlptest.New(t, otlptest.Options{})
	vars := map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": c.GRPC(), "OTEL_TRACES_SAMPLER": "always_off"}
	ctx, traces, err := Start(t.Context(), setenv(t, vars), "berth", "v9")
	if err != nil || traces == nil {
		t.Fatal(err)
	}
	ctx, end := traces.Command(ctx, "berth test")
	_, done := Span(ctx, "inside")
	done(nil)
	end(0, nil)
	if err := traces.Close(t.Context()); err != nil || len(c.Spans()) != 0 {
		t.Errorf("%d spans came, error %v", len(c.Spans()), err)
	}
}

func TestCertificate(t *testing.T) {
	certs := buildkittest.TestCerts(t)
	server, err := (&buildkittest.TLS{Server: certs.Server}).Config()
	if err != nil {
		t.Fatal(err)
	}
	for _, protocol := range []string{"grpc", "http/protobuf"} {
		for name, want := range map[string]struct {
			ca      string
			arrives bool
		}{"its own": {certs.CA.File, true}, "another": {certs.OtherCA.File, false}} {
			t.Run(protocol+" "+name, func(t *testing.T) {
				c := otlptest.New(t, otlptest.Options{TLS: &tls.Config{Certificates: server.Certificates, NextProtos: []string{"h2", "http/1.1"}}})
				endpoint := c.GRPC()
				if protocol != "grpc" {
					endpoint = c.HTTP()
				}
				lost := command(t, setenv(t, map[string]string{
					"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
					"OTEL_EXPORTER_OTLP_CERTIFICATE": want.ca,
				}), nil)
				if arrived := len(c.Spans()) == 2; arrived != want.arrives || (lost == nil) != want.arrives {
					t.Errorf("%d spans came, error %v", len(c.Spans()), lost)
				}
			})
		}
	}
}

// What keeps spans from their collector is told, without what is secret.
func TestCollectorFails(t *testing.T) {
	never := make(chan struct{})
	for name, o := range map[string]otlptest.Options{
		"refuses": {Refuse: status.Error(codes.PermissionDenied, "who is Bearer s3cr3t-key? not s3cr3t%2Dkey")},
		"silent":  {Hold: never},
	} {
		for _, protocol := range []string{"grpc", "http/protobuf"} {
			t.Run(name+" "+protocol, func(t *testing.T) {
				c := otlptest.New(t, o)
				endpoint := c.GRPC()
				if protocol != "grpc" {
					endpoint = c.HTTP()
				}
				env := setenv(t, map[string]string{
					"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
					"OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer s3cr3t%2Dkey",
				})
				ctx, traces, err := Start(t.Context(), env, "berth", "v9")
				if err != nil {
					t.Fatal(err)
				}
				_, end := traces.Command(ctx, "berth test")
				end(0, nil)
				last, cancel := context.WithTimeout(context.Background(), time.Second)
				defer cancel()
				lost := traces.Close(last)
				if lost == nil || strings.Contains(lost.Error(), "s3cr3t") {
					t.Errorf("error = %v", lost)
				}
			})
		}
	}
	t.Run("down", func(t *testing.T) {
		addr := buildkittest.FreeAddr(t)
		if lost := command(t, setenv(t, map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://" + addr}), nil); lost == nil {
			t.Error("spans went to nobody, and no error")
		}
	})
}

// A wrong setting is told by its name, before anything is sent elsewhere, and
// without its value where that may be secret.
func TestWrongSettings(t *testing.T) {
	junk := filepath.Join(t.TempDir(), "junk.pem")
	if err := os.WriteFile(junk, []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	good := "http://127.0.0.1:1"
	for _, c := range []struct{ name, value, want string }{
		{"OTEL_EXPORTER_OTLP_ENDPOINT", "127.0.0.1:4317", "a URL such as http://"},
		{"OTEL_EXPORTER_OTLP_ENDPOINT", "localhost:4317", "a URL such as http://"},
		{"OTEL_EXPORTER_OTLP_ENDPOINT", "http://", "a URL such as http://"},
		{"OTEL_EXPORTER_OTLP_ENDPOINT", "ftp://x", "a URL such as http://"},
		{"OTEL_EXPORTER_OTLP_ENDPOINT", "http://u:s3cr3t@[::1", "a URL such as http://"},
		{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "\x01", "a URL such as http://"},
		{"OTEL_EXPORTER_OTLP_PROTOCOL", "thrift", `"thrift" is not supported; grpc and http/protobuf are`},
		{"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "GRPC", "not supported"},
		{"OTEL_TRACES_EXPORTER", "console", `"console" is not supported`},
		{"OTEL_TRACES_EXPORTER", "zipkin,console", "not supported"},
		{"OTEL_EXPORTER_OTLP_HEADERS", "s3cr3t", "NAME=VALUE"},
		{"OTEL_EXPORTER_OTLP_HEADERS", "a=s3cr3t,", "NAME=VALUE"},
		{"OTEL_EXPORTER_OTLP_HEADERS", "=s3cr3t", "NAME=VALUE"},
		{"OTEL_EXPORTER_OTLP_TRACES_HEADERS", "a=s3cr3t%zz", "NAME=VALUE"},
		{"OTEL_EXPORTER_OTLP_CERTIFICATE", "/no/such/file", "/no/such/file"},
		{"OTEL_EXPORTER_OTLP_CERTIFICATE", junk, "no certificate"},
	} {
		t.Run(c.name+"="+c.value, func(t *testing.T) {
			vars := map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": good, c.name: c.value}
			_, traces, err := Start(t.Context(), setenv(t, vars), "berth", "v9")
			if traces != nil || err == nil || !strings.HasPrefix(err.Error(), c.name+": ") || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("error = %v", err)
			}
			if strings.Contains(err.Error(), "s3cr3t") {
				t.Errorf("the error tells the secret: %v", err)
			}
		})
	}
}

// A job's span is passed on to the daemons also where nothing is sent from here.
func TestParentWithoutCollector(t *testing.T) {
	ctx, traces, err := Start(t.Context(), setenv(t, map[string]string{
		"TRACEPARENT": "00-11111111111111111111111111111111-2222222222222222-01",
	}), "berth", "v9")
	if traces != nil || err != nil {
		t.Fatal(traces, err)
	}
	if got := trace.SpanContextFromContext(ctx).TraceID().String(); got != strings.Repeat("1", 32) {
		t.Errorf("trace %s", got)
	}
	for _, bad := range []string{"nonsense", "00-0-0-0", "\x00"} {
		env := func(k string) (string, bool) { return bad, k == "TRACEPARENT" }
		if ctx, _, err := Start(t.Context(), env, "berth", "v9"); err != nil || trace.SpanContextFromContext(ctx).IsValid() {
			t.Errorf("%q made a parent, error %v", bad, err)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add("http://localhost:4317", "grpc", "a=b,c=d", "otlp")
	f.Add("unix:///run/x.sock", "", "", "")
	f.Add("https://u:p@h/p?q", "http/protobuf", "authorization=Basic%20x", "none")
	f.Fuzz(func(t *testing.T, endpoint, protocol, headers, exporter string) {
		s, err := read(func(k string) string {
			return map[string]string{
				"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
				"OTEL_EXPORTER_OTLP_HEADERS": headers, "OTEL_TRACES_EXPORTER": exporter,
			}[k]
		})
		if s != nil && (err != nil || s.protocol == "") {
			t.Errorf("settings %+v with error %v", s, err)
		}
	})
}

//go:build e2e && linux

package test

import (
	"slices"
	"strings"
	"testing"

	"github.com/berthbuild/berth/internal/otlptest"
	"github.com/berthbuild/berth/test/lab"
)

const (
	jobTrace  = "0123456789abcdef0123456789abcdef"
	jobSpan   = "fedcba9876543210"
	jobParent = "TRACEPARENT=00-" + jobTrace + "-" + jobSpan + "-01"
)

// otelCLI is a berth that sends its traces to c, as part of a CI job's trace.
func otelCLI(berth *lab.CLI, c *otlptest.Collector, protocol string) *lab.CLI {
	endpoint := c.GRPC()
	if protocol != "grpc" {
		endpoint = c.HTTP()
	}
	return berth.With("OTEL_EXPORTER_OTLP_ENDPOINT="+endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL="+protocol, jobParent)
}

// oneTree fails the test unless all spans are of the job's trace and hang
// together.
func oneTree(t *testing.T, all []otlptest.Span) {
	t.Helper()
	known := map[string]bool{jobSpan: true}
	for _, s := range all {
		known[s.ID] = true
	}
	for _, s := range all {
		if s.Trace != jobTrace || !known[s.Parent] {
			t.Errorf("%s: %q (trace %s, parent %s) hangs in the air:\n%s", s.Service, s.Name, s.Trace, s.Parent, otlptest.Tree(all))
			return
		}
	}
}

// of are the spans of a service.
func of(all []otlptest.Span, service string) []otlptest.Span {
	return slices.DeleteFunc(slices.Clone(all), func(s otlptest.Span) bool { return s.Service != service })
}

// under tells whether s is below the span with the given id.
func under(all []otlptest.Span, s otlptest.Span, id string) bool {
	for range all {
		if s.Parent == id {
			return true
		}
		i := slices.IndexFunc(all, func(p otlptest.Span) bool { return p.ID == s.Parent })
		if i < 0 {
			return false
		}
		s = all[i]
	}
	return false
}

// one is the only span of a service with this name.
func one(t *testing.T, all []otlptest.Span, service, name string) otlptest.Span {
	t.Helper()
	found := slices.DeleteFunc(of(all, service), func(s otlptest.Span) bool { return s.Name != name })
	if len(found) != 1 {
		t.Fatalf("%d spans %q of %s:\n%s", len(found), name, service, otlptest.Tree(all))
	}
	return found[0]
}

// A daemon that knows no collector: its spans come through us, below ours.
func TestOTelOneTrace(t *testing.T) {
	berth, _ := shared(t)
	for _, protocol := range []string{"grpc", "http/protobuf"} {
		t.Run(protocol, func(t *testing.T) {
			c := otlptest.New(t, otlptest.Options{})
			dir := lab.ShellContext(t, "RUN echo seen > /x\n", nil)
			r := build(t, otelCLI(berth, c, protocol), dir, "--no-cache", "-o", t.TempDir())
			hasNot(t, "stderr", r.Stderr, "WARNING", "trace")
			all := c.Spans()
			oneTree(t, all)
			root := one(t, all, "berth", "berth build")
			if root.Parent != jobSpan || root.Failed || root.Attributes["process.exit.code"] != "0" {
				t.Errorf("the command: %+v", root)
			}
			for _, name := range []string{"connect", "open inputs", "solve", "write outputs"} {
				if s := one(t, all, "berth", name); s.Parent != root.ID || s.Failed {
					t.Errorf("%s: %+v", name, s)
				}
			}
			if s := one(t, all, "berth", "connect"); s.Attributes["berth.node.name"] != "b0" || s.Attributes["berth.endpoint.scheme"] != "unix" {
				t.Errorf("connect: %v", s.Attributes)
			}
			solve := one(t, all, "berth", "solve")
			theirs := of(all, "buildkitd")
			steps := 0
			for _, s := range theirs {
				if strings.Contains(s.Name, "echo seen") && under(all, s, solve.ID) {
					steps++
				}
			}
			if steps == 0 {
				t.Errorf("no span of the daemon's for the step, below ours:\n%s", otlptest.Tree(all))
			}
		})
	}
}

// A daemon with a collector of its own sends its spans there; it gets ours from
// us, so that the whole is there too.
func TestOTelDaemonSendsToo(t *testing.T) {
	ours, theirs := otlptest.New(t, otlptest.Options{}), otlptest.New(t, otlptest.Options{})
	bk := lab.BuildKit(t, lab.BuildKitOpts{Env: []string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + theirs.GRPC(), "OTEL_BSP_SCHEDULE_DELAY=100"}})
	berth := lab.Berth(t)
	berth.OK("create", "--name", "b", "--use", bk.UnixAddr())
	dir := lab.ShellContext(t, "RUN echo seen > /x\n", nil)
	build(t, otelCLI(berth, ours, "grpc"), dir)
	oneTree(t, ours.Spans())
	got := theirs.WaitFor(t, "of the solve", func(s otlptest.Span) bool { return s.Service == "berth" && s.Name == "solve" && s.Trace == jobTrace })
	same := one(t, ours.Spans(), "berth", "solve")
	if got.ID != same.ID || got.Attributes["berth.ref"] != same.Attributes["berth.ref"] {
		t.Errorf("the daemon has another: %+v, want %+v", got, same)
	}
	theirs.WaitFor(t, "of the step", func(s otlptest.Span) bool {
		return s.Service == "buildkitd" && s.Trace == jobTrace && strings.Contains(s.Name, "echo seen")
	})

	// Without a collector here the job's span still is the parent of the daemon's.
	t2 := strings.ReplaceAll(jobTrace, "0", "9")
	build(t, berth.With("TRACEPARENT=00-"+t2+"-"+jobSpan+"-01"), dir, "--no-cache")
	theirs.WaitFor(t, "of the second build", func(s otlptest.Span) bool { return s.Trace == t2 && s.Parent == jobSpan })
}

func TestOTelTwoNodes(t *testing.T) {
	amd := lab.BuildKit(t, lab.BuildKitOpts{Platforms: []string{"linux/amd64"}})
	arm := lab.BuildKit(t, lab.BuildKitOpts{Platforms: []string{"linux/arm64"}})
	berth := lab.Berth(t)
	berth.OK("create", "--use", "--name", "two", amd.UnixAddr())
	berth.OK("create", "--name", "two", "--append", arm.UnixAddr())
	c := otlptest.New(t, otlptest.Options{})
	dir := lab.Context(t, map[string]string{"Dockerfile": "FROM scratch\nARG TARGETARCH\nCOPY x /$TARGETARCH\n", "x": "x"})
	build(t, otelCLI(berth, c, "grpc"), dir, "--platform", "linux/amd64,linux/arm64", "-o", t.TempDir())
	all := c.Spans()
	oneTree(t, all)
	root := one(t, all, "berth", "berth build")
	for _, node := range []string{"two0", "two1"} {
		i := slices.IndexFunc(all, func(s otlptest.Span) bool { return s.Name == "solve" && s.Attributes["berth.node.name"] == node })
		if i < 0 || all[i].Parent != root.ID {
			t.Fatalf("no solve on %s:\n%s", node, otlptest.Tree(all))
		}
		if !slices.ContainsFunc(of(all, "buildkitd"), func(s otlptest.Span) bool { return under(all, s, all[i].ID) }) {
			t.Errorf("nothing of the daemon %s:\n%s", node, otlptest.Tree(all))
		}
	}
}

func TestOTelFailedBuild(t *testing.T) {
	berth, _ := shared(t)
	c := otlptest.New(t, otlptest.Options{})
	dir := lab.ShellContext(t, "RUN echo before && exit 7\n", nil)
	if r := otelCLI(berth, c, "grpc").Cmd("build", ".").Dir(dir).Run(); r.Code != 1 {
		t.Fatal(r)
	}
	all := c.Spans()
	oneTree(t, all)
	root := one(t, all, "berth", "berth build")
	if !root.Failed || root.Attributes["process.exit.code"] != "1" || !strings.Contains(root.Status, "exit code: 7") {
		t.Errorf("the command: %+v", root)
	}
	if !slices.ContainsFunc(of(all, "buildkitd"), func(s otlptest.Span) bool { return s.Failed && strings.Contains(s.Name, "exit 7") }) {
		t.Errorf("the step that failed has no span:\n%s", otlptest.Tree(all))
	}
}

// A collector that is away, or says nothing, changes neither the build nor what
// it prints; --debug tells of it once.
func TestOTelCollectorIsNoMatter(t *testing.T) {
	berth, _ := shared(t)
	dir := lab.HelloContext(t)
	silent := otlptest.New(t, otlptest.Options{Hold: make(chan struct{})})
	for name, env := range map[string][]string{
		"down":         {"OTEL_EXPORTER_OTLP_ENDPOINT=http://" + lab.FreeAddr(t)},
		"silent grpc":  {"OTEL_EXPORTER_OTLP_ENDPOINT=" + silent.GRPC()},
		"silent http":  {"OTEL_EXPORTER_OTLP_ENDPOINT=" + silent.HTTP(), "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf"},
		"wrong":        {"OTEL_EXPORTER_OTLP_ENDPOINT=nonsense"},
		"not to be":    {"OTEL_EXPORTER_OTLP_ENDPOINT=" + silent.GRPC(), "OTEL_TRACES_EXPORTER=jaeger"},
		"wrong secret": {"OTEL_EXPORTER_OTLP_ENDPOINT=" + silent.GRPC(), "OTEL_EXPORTER_OTLP_HEADERS=s3cr3t"},
	} {
		t.Run(name, func(t *testing.T) {
			b := berth.With(env...)
			r := build(t, b, dir, "--progress", "plain", "-o", t.TempDir())
			hasNot(t, "stderr", r.Stderr, "trace", "OTEL", "WARNING")
			r = build(t, b, dir, "--debug", "--progress", "plain", "-o", t.TempDir())
			if n := strings.Count(r.Stderr, "WARNING"); n != 1 {
				t.Errorf("%d warnings: %s", n, r.Stderr)
			}
			has(t, "stderr", r.Stderr, "trace")
			hasNot(t, "stderr", r.Stderr, "s3cr3t")
		})
	}
}

// Ctrl-C ends a build as soon as without traces.
func TestOTelCancelled(t *testing.T) {
	berth, _ := shared(t)
	silent := otlptest.New(t, otlptest.Options{Hold: make(chan struct{})})
	dir := lab.ShellContext(t, "RUN echo started; sleep 1000\n", nil)
	p := otelCLI(berth, silent, "grpc").Cmd("build", "--progress", "plain", "--no-cache", ".").Dir(dir).Start()
	p.WaitFor("] RUN echo started")
	p.Interrupt()
	if r := p.Wait(); r.Code != 130 {
		t.Error(r)
	}
}

// The other commands that work on daemons are traced as well.
func TestOTelDu(t *testing.T) {
	berth, _ := shared(t)
	c := otlptest.New(t, otlptest.Options{})
	otelCLI(berth, c, "grpc").OK("du")
	all := c.Spans()
	oneTree(t, all)
	root := one(t, all, "berth", "berth du")
	if one(t, all, "berth", "connect").Parent != root.ID {
		t.Error(otlptest.Tree(all))
	}
}

package doctor

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/berthbuild/berth/internal/builder"
	"github.com/berthbuild/berth/internal/buildkittest"
	"github.com/berthbuild/berth/internal/dial"
	"github.com/berthbuild/berth/internal/dial/dialtest"
	"github.com/berthbuild/berth/internal/dial/schemes"
	"github.com/berthbuild/berth/internal/endpoint"
)

// fetches is a trial build as a daemon does it: it asks for the files.
func fetches(dir string) buildkittest.SolveFunc {
	return func(ctx context.Context, b *buildkittest.Build) (map[string]string, error) {
		for _, name := range []string{"dockerfile", "context"} {
			dest, err := os.MkdirTemp(dir, name)
			if err != nil {
				return nil, err
			}
			if err := b.FetchDir(ctx, name, dest); err != nil {
				return nil, err
			}
		}
		b.Step("[1/1] COPY berth-doctor /")
		return nil, nil
	}
}

func node(name, endpoint string, kv ...string) builder.Node {
	opts := map[string]string{}
	for i := 0; i < len(kv); i += 2 {
		opts[kv[i]] = kv[i+1]
	}
	return builder.Node{Builder: "b", Name: name, Driver: builder.DriverRemote, Endpoint: endpoint, DriverOpts: opts}
}

func options(nodes ...builder.Node) Options {
	b := &builder.Builder{Name: "b", Driver: builder.DriverRemote, Nodes: nodes}
	return Options{
		Find:    func(context.Context) (*builder.Builder, error) { return b, nil },
		State:   "/state",
		Schemes: schemes.All(dial.Env{}),
	}
}

func run(t *testing.T, o Options) *Report {
	t.Helper()
	r, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// ends is "name status" of each step.
func ends(steps []Step) []string {
	var all []string
	for _, s := range steps {
		text := s.Name + " " + string(s.Status)
		if s.Needs != "" {
			text += " needs " + s.Needs
		}
		all = append(all, text)
	}
	return all
}

func same(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n got %s\nwant %s", what, strings.Join(got, ", "), strings.Join(want, ", "))
	}
}

func stepOf(t *testing.T, r *Report, name string) Step {
	t.Helper()
	all := slices.Concat(r.First, r.Last)
	for _, n := range r.Nodes {
		all = append(all, n.Steps...)
	}
	for _, s := range all {
		if s.Name == name {
			return s
		}
	}
	t.Fatalf("there is no step %s", name)
	return Step{}
}

func contains(t *testing.T, what, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("%s lacks %q: %q", what, p, text)
		}
	}
}

func factsText(s Step) string {
	var all []string
	for _, f := range s.Facts {
		all = append(all, f.Name+": "+f.Value)
	}
	return strings.Join(all, "\n")
}

func TestHealthyOverTLS(t *testing.T) {
	dialtest.NoLeaks(t)
	certs := buildkittest.TestCerts(t)
	s := buildkittest.New(t, buildkittest.Options{
		Solve: fetches(t.TempDir()), TLS: &buildkittest.TLS{Server: certs.Server, ClientCA: certs.CA.File},
	})
	o := options(node("n0", s.Endpoint(), "cacert", certs.CA.File, "cert", certs.Client.Cert, "key", certs.Client.Key))
	o.Client = "v0.34.2"
	var told []string
	o.OnStep = func(s Step) { told = append(told, s.Name) }
	r := run(t, o)
	same(t, "first", ends(r.First), []string{"state ok"})
	steps := r.Nodes[0].Steps
	same(t, "steps", ends(steps), []string{
		"parse ok", "files warning", "resolve ok", "connect ok", "proxy skipped", "tls warning", "http2 ok", "info ok",
		"workers ok", "latency ok", "session ok", "solve ok", "transfer ok", "clock ok",
	})
	same(t, "last", ends(r.Last), []string{"load skipped", "push skipped"})
	if _, _, broken := r.Broken(); broken || r.Builder != "b" {
		t.Errorf("report %+v", r)
	}
	if want := len(r.First) + len(steps) + len(r.Last); len(told) != want {
		t.Errorf("told of %d steps, want %d: %q", len(told), want, told)
	}
	contains(t, "files", stepOf(t, r, StepFiles).Text, "expires on", "hours") // they live for two days
	contains(t, "tls", stepOf(t, r, StepTLS).Text, "TLS 1.3, TLS_")
	contains(t, "tls", factsText(stepOf(t, r, StepTLS)), "name: 127.0.0.1", "certificate: CN=server for localhost, 127.0.0.1, ::1, by CN=ca, expires on",
		"trusted by: CN=ca", "the daemon asks for one of CN=ca; ours was sent")
	contains(t, "http2", stepOf(t, r, StepHTTP2).Text, "ALPN h2; ")
	contains(t, "info", stepOf(t, r, StepInfo).Text, "BuildKit v0.34.2; berth was built with v0.34.2")
	contains(t, "workers", stepOf(t, r, StepWorkers).Text, "1 worker: linux/amd64")
	contains(t, "transfer", stepOf(t, r, StepSend).Text, "256 KiB in ", "a second")
	contains(t, "clock", stepOf(t, r, StepClock).Text, "agrees with ours")
	if n := len(s.Requests()); n != 1 || !s.Requests()[0].Internal {
		t.Errorf("%d solves, the first internal: %v", n, s.Requests())
	}
}

func TestHealthyOverUnix(t *testing.T) {
	dialtest.NoLeaks(t)
	s := buildkittest.New(t, buildkittest.Options{Network: "unix", Solve: fetches(t.TempDir())})
	r := run(t, options(node("n0", s.Endpoint())))
	same(t, "steps", ends(r.Nodes[0].Steps), []string{
		"parse ok", "socket ok", "connect ok", "http2 ok", "info ok",
		"workers ok", "latency ok", "session ok", "solve ok", "transfer ok", "clock ok",
	})
	contains(t, "socket", stepOf(t, r, "socket").Text, "S")
}

// A daemon from before v0.11 tells no version, and works.
func TestOldDaemon(t *testing.T) {
	s := buildkittest.New(t, buildkittest.Options{NoInfo: true})
	r := run(t, options(node("n0", s.Endpoint())))
	if _, step, broken := r.Broken(); broken {
		t.Errorf("%+v", step)
	}
	contains(t, "info", stepOf(t, r, StepInfo).Text, "older than v0.11")
	if s := stepOf(t, r, StepSend); s.Status != Skipped { // this one asks for no files
		t.Errorf("transfer %+v", s)
	}
}

// fault is a daemon that is wrong in one way, and the step that must say so.
type fault struct {
	name  string
	node  func(t *testing.T) builder.Node
	step  string
	class string
	text  string
}

func TestEachFaultHasItsStep(t *testing.T) {
	certs := buildkittest.TestCerts(t)
	ca := []string{"cacert", certs.CA.File}
	with := func(p buildkittest.Pair) []string {
		return []string{"cacert", certs.CA.File, "cert", p.Cert, "key", p.Key}
	}
	daemon := func(o buildkittest.Options, kv ...string) func(t *testing.T) builder.Node {
		return func(t *testing.T) builder.Node { return node("n0", buildkittest.New(t, o).Endpoint(), kv...) }
	}
	server := func(p buildkittest.Pair) buildkittest.Options {
		return buildkittest.Options{TLS: &buildkittest.TLS{Server: p}}
	}
	mutual := func(v uint16) buildkittest.Options {
		return buildkittest.Options{TLS: &buildkittest.TLS{Server: certs.Server, ClientCA: certs.CA.File, MaxVersion: v}}
	}
	raw := func(handle func(net.Conn), kv ...string) func(t *testing.T) builder.Node {
		return func(t *testing.T) builder.Node { return node("n0", buildkittest.Raw(t, handle), kv...) }
	}
	at := func(e string, kv ...string) func(t *testing.T) builder.Node {
		return func(*testing.T) builder.Node { return node("n0", e, kv...) }
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, f := range []fault{
		{"endpoint", at("tcp://host"), StepParse, "config", "port"},
		{"option", at("tcp://127.0.0.1:1", "bogus", "1"), StepParse, "config", "bogus"},
		{"file missing", at("tcp://127.0.0.1:1", "cacert", filepath.Join(dir, "none.pem")), StepFiles, "config", "none.pem"},
		{"key of another", daemon(server(certs.Server), "cacert", certs.CA.File, "cert", certs.Client.Cert, "key", certs.OtherClient.Key), StepFiles, "config", "does not belong"},
		{"no name", at("tcp://nosuch.invalid:1234"), StepResolve, "dns", "nosuch.invalid"},
		{"refused", func(t *testing.T) builder.Node { return node("n0", "tcp://"+buildkittest.FreeAddr(t)) }, StepConnect, "refused", "connection refused"},
		{"other CA", daemon(server(certs.OtherServer), ca...), StepTLS, "tls-untrusted", "unknown CA"},
		{"other name", daemon(server(certs.NamedServer), ca...), StepTLS, "tls-name", "build.example"},
		{"expired", daemon(server(certs.ExpiredServer), ca...), StepTLS, "tls-expired", "expired"},
		{"tomorrow", daemon(server(certs.FutureServer), ca...), StepTLS, "tls-expired", "not valid before"},
		{"no client certificate", daemon(mutual(tls.VersionTLS13), ca...), StepTLS, "tls-client-cert", "requires a client certificate"},
		{"no client certificate, 1.2", daemon(mutual(tls.VersionTLS12), ca...), StepTLS, "tls-client-cert", "requires a client certificate"},
		{"expired client", daemon(mutual(tls.VersionTLS13), with(certs.ExpiredClient)...), StepTLS, "tls-client-cert", "refused our client certificate"},
		{"client of another", daemon(mutual(tls.VersionTLS13), with(certs.OtherClient)...), StepTLS, "tls-client-cert", "refused our client certificate"},
		{"TLS, and none is set", daemon(server(certs.Server)), StepTLS, "tls-required", "requires TLS"},
		{"no TLS, and it is set", daemon(buildkittest.Options{}, ca...), StepTLS, "not-tls", "plain HTTP/2"},
		{"closes in the handshake", raw(func(c net.Conn) { _, _ = c.Read(make([]byte, 4096)) }, ca...), StepTLS, "closed", "handshake"},
		{"HTTP/1", raw(buildkittest.Say("HTTP/1.1 400 Bad Request\r\n\r\n")), StepHTTP2, "not-http2", "HTTP/1"},
		{"hangs up", raw(func(c net.Conn) { _, _ = c.Read(make([]byte, 4096)) }), StepHTTP2, "closed", ""},
		{"gRPC, not BuildKit", daemon(buildkittest.Options{NoControl: true}), StepInfo, "not-buildkit", "not BuildKit"},
		{"no workers", daemon(buildkittest.Options{Workers: []buildkittest.Worker{}}), StepWorkers, "no-workers", "no workers"},
		{"solve fails", daemon(buildkittest.Options{Solve: func(context.Context, *buildkittest.Build) (map[string]string, error) {
			return nil, errors.New("no space left on device")
		}}), StepSolve, "solve", "no space left on device"},
		{"no socket", at("unix://" + filepath.Join(dir, "none.sock")), "socket", "no-socket", "no such socket"},
		{"a file", at("unix://" + file), "socket", "config", "not a socket"},
		{"no program", at("exec://?cmd=no-such-program"), "program", "no-helper", "no-such-program"},
		{"the program ends", at("exec://?cmd=false"), "program", "helper-failed", "false ended"},
	} {
		t.Run(f.name, func(t *testing.T) {
			dialtest.NoLeaks(t)
			r := run(t, options(f.node(t)))
			n, s, broken := r.Broken()
			if !broken || n != "n0" || s.Name != f.step || string(s.Class) != f.class {
				t.Errorf("broken %v at %s, step %s [%s] %q; want %s [%s]\n%s", broken, n, s.Name, s.Class, s.Text, f.step, f.class,
					strings.Join(ends(r.Nodes[0].Steps), ", "))
			}
			contains(t, "text", s.Text, f.text)
			if len(s.Hints) == 0 && f.step != StepSolve && f.step != StepParse && f.step != StepFiles && f.class != "helper-failed" {
				t.Errorf("there is no hint for %q", s.Text)
			}
			for _, s := range r.Nodes[0].Steps {
				if s.Status == "" {
					t.Errorf("step %s was not set", s.Name)
				}
			}
		})
	}
}

// What does not need a failed step is taken all the same.
func TestGoesOnWhereItCan(t *testing.T) {
	certs := buildkittest.TestCerts(t)
	s := buildkittest.New(t, buildkittest.Options{TLS: &buildkittest.TLS{Server: certs.Server}})
	r := run(t, options(node("n0", s.Endpoint(), "cacert", filepath.Join(certs.Dir, "none.pem"))))
	same(t, "without files", ends(r.Nodes[0].Steps), []string{
		"parse ok", "files failed", "resolve ok", "connect ok", "proxy skipped", "tls skipped needs files",
		"http2 skipped needs files", "info skipped needs files", "workers skipped needs files", "latency skipped needs files",
		"session skipped needs files", "solve skipped needs files", "transfer skipped needs files", "clock skipped needs files",
	})
	s = buildkittest.New(t, buildkittest.Options{Workers: []buildkittest.Worker{}, Solve: fetches(t.TempDir())})
	r = run(t, options(node("n0", s.Endpoint())))
	same(t, "without workers", ends(r.Nodes[0].Steps)[8:], []string{
		"workers failed", "latency ok", "session ok", "solve ok", "transfer ok", "clock ok",
	})
	o := options()
	o.Find = func(context.Context) (*builder.Builder, error) { return nil, errors.New("no such builder") }
	o.Engine = func(context.Context) (Engine, error) {
		return Engine{Version: "20.10", Store: "graph driver overlay2"}, nil
	}
	r = run(t, o)
	same(t, "without a builder", append(ends(r.First), ends(r.Last)...), []string{"state failed", "load ok", "push skipped"})
}

func TestNodesInTheirOrder(t *testing.T) {
	dialtest.NoLeaks(t)
	held := make(chan struct{})
	first := buildkittest.New(t, buildkittest.Options{Hold: held})
	second := buildkittest.New(t, buildkittest.Options{})
	o := options(node("n0", first.Endpoint()), node("n1", second.Endpoint()))
	var told []string
	o.OnNode = func(name, _ string) { told = append(told, name) }
	asked := make(chan struct{})
	go func() { // the first answers only after the second was built on
		defer close(asked)
		for len(second.Requests()) == 0 {
			time.Sleep(time.Millisecond)
		}
		close(held)
	}()
	r := run(t, o)
	<-asked
	same(t, "told", told, []string{"n0", "n1", ""})
	if _, s, broken := r.Broken(); broken {
		t.Errorf("%+v", s)
	}
}

func TestCancelledAtOnce(t *testing.T) {
	dialtest.NoLeaks(t)
	why := errors.New("enough")
	for name, o := range map[string]buildkittest.Options{
		"before the answer": {Hold: make(chan struct{})},
		"in the trial": {Solve: func(ctx context.Context, _ *buildkittest.Build) (map[string]string, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}},
	} {
		t.Run(name, func(t *testing.T) {
			s := buildkittest.New(t, o)
			ctx, cancel := context.WithCancelCause(t.Context())
			do := options(node("n0", s.Endpoint()))
			shown := 0
			do.OnStep = func(st Step) {
				shown++
				if st.Status == Failed {
					t.Errorf("shown after the end: %+v", st)
				}
			}
			go func() {
				for len(s.Calls()) == 0 || o.Solve != nil && len(s.Requests()) == 0 {
					time.Sleep(time.Millisecond)
				}
				cancel(why)
			}()
			if _, err := Run(ctx, do); !errors.Is(err, why) {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestTimeIsUp(t *testing.T) {
	dialtest.NoLeaks(t)
	s := buildkittest.New(t, buildkittest.Options{Solve: func(ctx context.Context, _ *buildkittest.Build) (map[string]string, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}})
	o := options(node("n0", s.Endpoint()))
	o.Timeout = 2 * time.Second
	r := run(t, o)
	if _, st, _ := r.Broken(); st.Name != StepSolve || st.Class != ClassTimeout {
		t.Errorf("%+v", st)
	}
	stuck := buildkittest.Raw(t, buildkittest.Silence)
	o = options(node("n0", stuck))
	o.Timeout = 300 * time.Millisecond
	r = run(t, o)
	if _, st, _ := r.Broken(); st.Name != StepHTTP2 {
		t.Errorf("%+v", st)
	}
}

// Each address of a name is connected to; one that is dead is a warning.
func TestEveryAddress(t *testing.T) {
	s := buildkittest.New(t, buildkittest.Options{Address: "127.0.0.1:0"})
	_, port, _ := net.SplitHostPort(s.Addr())
	r := run(t, options(node("n0", "tcp://localhost:"+port)))
	st := stepOf(t, r, StepConnect)
	addrs, err := net.DefaultResolver.LookupHost(t.Context(), "localhost")
	if err != nil {
		t.Fatal(err)
	}
	contains(t, "resolve", stepOf(t, r, StepResolve).Text, "localhost is ", "127.0.0.1")
	if len(addrs) == 1 {
		t.Logf("localhost has one address here: %+v", st)
		return
	}
	contains(t, "connect", st.Text, fmt.Sprintf("1 of %d addresses answer", len(addrs)))
	if st.Status != Warning || len(st.Facts) != len(addrs) {
		t.Errorf("%+v", st)
	}
}

func TestLoad(t *testing.T) {
	s := buildkittest.New(t, buildkittest.Options{})
	none := func(context.Context) (Engine, error) { return Engine{}, errors.New("no engine") }
	for _, c := range []struct {
		node   builder.Node
		engine func(context.Context) (Engine, error)
		want   string
	}{
		{node("n0", s.Endpoint()), nil, "load skipped"},
		{node("n0", s.Endpoint()), none, "load skipped"},
		{node("n0", s.Endpoint(), "default-load", "true"), none, "load failed"},
	} {
		o := options(c.node)
		o.Engine = c.engine
		same(t, "load", ends(run(t, o).Last)[:1], []string{c.want})
	}
}

// Nothing secret is in a report, whatever its way.
func TestNothingSecret(t *testing.T) {
	const canary = "c4n4ry-s3cret"
	certs := buildkittest.TestCerts(t)
	key, err := os.ReadFile(certs.Client.Key)
	if err != nil {
		t.Fatal(err)
	}
	body := strings.Split(string(key), "\n")[1]
	s := buildkittest.New(t, buildkittest.Options{TLS: &buildkittest.TLS{Server: certs.Server, ClientCA: certs.CA.File},
		Solve: func(context.Context, *buildkittest.Build) (map[string]string, error) {
			return nil, errors.New("GET https://user:" + canary + "@registry/: Authorization: Bearer " + canary + "abc " + string(key))
		}})
	swapped := []string{"cacert", certs.Client.Key, "cert", certs.Client.Key, "key", certs.Client.Cert}
	o := options(
		node("n0", s.Endpoint(), "cacert", certs.CA.File, "cert", certs.Client.Cert, "key", certs.Client.Key),
		node("n1", s.Endpoint(), swapped...),
		node("n2", endpoint.ExecEndpoint("sh -c 'echo "+canary+" >&2; exit 3' --token="+canary).String()),
		node("n3", "tcp://user:"+canary+"@host:1"),
		node("n4", "tcp://127.0.0.1:1", "proxy", "http://user:"+canary+"@127.0.0.1:1"),
		node("n5", "ssh://user:"+canary+"@host/x"),
	)
	o.Secrets = []string{canary}
	o.Engine = func(context.Context) (Engine, error) {
		return Engine{}, errors.New("dial tcp://user:" + canary + "@host: refused")
	}
	r := run(t, o)
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), canary) || strings.Contains(string(text), body) {
		t.Errorf("a secret is in the report: %s", text)
	}
}

func TestPlanIsSetOnce(t *testing.T) {
	p := newPlan(newScrubber(nil), "a", "b")
	p.set(Step{Name: "a", Status: OK})
	p.set(Step{Name: "a", Status: Failed})
	p.set(Step{Name: "c", Status: OK})
	p.need("a", "a", "b")
	if a, b := p.wait(0, nil), p.wait(1, nil); a.Status != OK || b.Needs != "a" {
		t.Errorf("%+v %+v", a, b)
	}
}

//go:build e2e && linux

package test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/berthbuild/berth/test/lab"
)

// diagnosis is what doctor's JSON says.
type diagnosis struct {
	OK     bool
	Steps  []diagnosed
	Nodes  []struct{ Steps []diagnosed }
	Others []diagnosed
}

type diagnosed struct {
	Name, Status, Text, ErrClass, Needs string
	Hints                               []string
	Facts                               []struct{ Name, Value string }
}

// diagnose runs doctor, which must say by its exit code what it says in JSON.
func diagnose(t *testing.T, berth *lab.CLI, args ...string) diagnosis {
	t.Helper()
	r := berth.Run(append([]string{"doctor", "--format", "json"}, args...)...)
	var d diagnosis
	if err := json.Unmarshal([]byte(r.Stdout), &d); err != nil {
		t.Fatalf("%v: %s", err, r)
	}
	if d.OK != (r.Code == 0) || !d.OK && !strings.HasPrefix(lastLine(r.Stderr), "ERROR: a build would not work: ") {
		t.Errorf("OK %v: %s", d.OK, r)
	}
	return d
}

// all are the steps in their order.
func (d diagnosis) all() []diagnosed {
	all := slices.Clone(d.Steps)
	for _, n := range d.Nodes {
		all = append(all, n.Steps...)
	}
	return append(all, d.Others...)
}

func (d diagnosis) step(t *testing.T, name string) diagnosed {
	t.Helper()
	for _, s := range d.all() {
		if s.Name == name {
			return s
		}
	}
	t.Fatalf("there is no step %s in %+v", name, d)
	return diagnosed{}
}

// good wants every one of the steps, and nothing failed.
func (d diagnosis) good(t *testing.T, names ...string) {
	t.Helper()
	if !d.OK {
		t.Errorf("not well: %+v", d.all())
	}
	for _, n := range names {
		if s := d.step(t, n); s.Status != "ok" {
			t.Errorf("step %s: %+v", n, s)
		}
	}
}

// broken wants the first failure in the step, and something to try.
func (d diagnosis) broken(t *testing.T, what, step, class string) diagnosed {
	t.Helper()
	for _, s := range d.all() {
		if s.Status != "failed" {
			continue
		}
		if s.Name != step || s.ErrClass != class || len(s.Hints) == 0 {
			t.Errorf("%s: %+v, want %s [%s]", what, s, step, class)
		}
		return s
	}
	t.Errorf("%s: nothing failed: %+v", what, d.all())
	return diagnosed{}
}

// trial are the steps that every good daemon has.
func trial() []string {
	return []string{"parse", "http2", "info", "workers", "latency", "session", "solve", "transfer", "clock"}
}

func TestDoctorHealthy(t *testing.T) {
	certs := lab.NewCerts(t, "buildkitd.example", "127.0.0.1")
	bk := lab.BuildKit(t, lab.BuildKitOpts{Unix: true, TCP: true, TLS: certs})
	berth := lab.Berth(t)
	berth.OK("create", "--name", "both", "--driver", "remote", "--driver-opt", certs.DriverOpt("buildkitd.example"), bk.TCPAddr())
	berth.OK("create", "--name", "both", "--append", bk.UnixAddr())
	d := diagnose(t, berth, "both")
	d.good(t, append(trial(), "state", "resolve", "connect", "socket")...)
	if len(d.Nodes) != 2 {
		t.Errorf("%d nodes", len(d.Nodes))
	}
	for _, n := range d.Nodes {
		for _, s := range n.Steps {
			if s.Status == "failed" {
				t.Errorf("%+v", s)
			}
		}
	}
	has(t, "tls", d.step(t, "tls").Text, "TLS 1.3, TLS_")
	has(t, "tls", fmt.Sprint(d.step(t, "tls").Facts), "the daemon asks for one", "ours was sent", "buildkitd.example")
	has(t, "info", d.step(t, "info").Text, "BuildKit v0.34.2; berth was built with v0.34.2")
	has(t, "workers", d.step(t, "workers").Text, "linux/amd64")
	has(t, "transfer", d.step(t, "transfer").Text, "256 KiB in ")
	has(t, "clock", d.step(t, "clock").Text, "agrees with ours")

	// Nothing is left in the list of builds, and little in the cache, however
	// often it is looked.
	used := func() int {
		du, err := bk.Client(t).DiskUsage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return len(du)
	}
	before := used()
	for range 3 {
		diagnose(t, berth, "both").good(t)
	}
	if after := used(); after > before {
		t.Errorf("%d entries in the cache, and %d after three more", before, after)
	}

	// For people, and without a builder.
	r := berth.OK("doctor", bk.UnixAddr())
	has(t, "doctor", r.Stdout, "skip state", "an endpoint was given", "ok   solve", "a build would work (looked for ")
	p := berth.Cmd("doctor", "both").TTY().Start()
	if r := p.Wait(); r.Code != 0 || !strings.Contains(r.Stdout, "✓") {
		t.Errorf("on a terminal: %s", r)
	}
	hasNot(t, "without colours", berth.Cmd("doctor", "both").Env("NO_COLOR=1").TTY().Run().Stdout, "\x1b[3")
}

// Every way to be wrong about a real daemon has its step.
func TestDoctorFaults(t *testing.T) {
	certs := lab.NewCerts(t, "buildkitd.example", "127.0.0.1")
	others := lab.NewCerts(t, "elsewhere.example")
	bk := lab.BuildKit(t, lab.BuildKitOpts{TCP: true, TLS: certs})
	plain := lab.BuildKit(t, lab.BuildKitOpts{TCP: true})
	registry := lab.Registry(t)
	expired := certs.Issue(t, lab.CertOpts{File: "expired", Client: true, Expired: true})
	berth := lab.Berth(t)
	opt := func(ca string, pair lab.Pair, name string) string {
		return fmt.Sprintf("cacert=%s,cert=%s,key=%s,servername=%s", ca, pair.Cert, pair.Key, name)
	}
	for _, c := range []struct{ name, endpoint, opts, step, class string }{
		{"wrong-ca", bk.TCPAddr(), opt(others.CA, certs.Client, "buildkitd.example"), "tls", "tls-untrusted"},
		{"wrong-name", bk.TCPAddr(), opt(certs.CA, certs.Client, "other.example"), "tls", "tls-name"},
		{"stranger", bk.TCPAddr(), opt(certs.CA, others.Client, "buildkitd.example"), "tls", "tls-client-cert"},
		{"expired", bk.TCPAddr(), opt(certs.CA, expired, "buildkitd.example"), "tls", "tls-client-cert"},
		{"no-cert", bk.TCPAddr(), "cacert=" + certs.CA, "tls", "tls-client-cert"},
		{"plain-to-tls", bk.TCPAddr(), "", "tls", "tls-required"},
		{"tls-to-plain", plain.TCPAddr(), opt(certs.CA, certs.Client, "x.example"), "tls", "not-tls"},
		{"http1", "tcp://" + registry.Addr(), "", "http2", "not-http2"},
		{"nobody", "tcp://" + lab.FreeAddr(t), "", "connect", "refused"},
		{"no-name", "tcp://nosuch.invalid:1234", "", "resolve", "dns"},
		{"no-socket", "unix:///no/such.sock", "", "socket", "no-socket"},
		{"stalled", stall(t), "", "http2", "silent"},
	} {
		args := []string{"create", "--name", c.name, "--driver", "remote"}
		if c.opts != "" {
			args = append(args, "--driver-opt", c.opts)
		}
		berth.OK(append(args, c.endpoint)...)
		diagnose(t, berth, c.name).broken(t, c.name, c.step, c.class)
	}
	certFacts := diagnose(t, berth, "wrong-ca").step(t, "tls").Facts
	has(t, "what the daemon showed", fmt.Sprint(certFacts), "buildkitd.example")
	diagnose(t, berth, "nosuch").broken(t, "no builder", "state", "state")
	has(t, "files", diagnose(t, berth, "expired").step(t, "files").Text, "expired on")

	// One dead node of two: the other is looked at all the same.
	berth.OK("create", "--name", "half", "--driver", "remote", plain.TCPAddr())
	berth.OK("create", "--name", "half", "--append", "tcp://"+lab.FreeAddr(t))
	d := diagnose(t, berth, "half")
	d.broken(t, "half", "connect", "refused")
	if first := d.Nodes[0].Steps; slices.ContainsFunc(first, func(s diagnosed) bool { return s.Status == "failed" }) {
		t.Errorf("the first node: %+v", first)
	}
}

// Ctrl-C ends it at once, wherever it is.
func TestDoctorInterrupted(t *testing.T) {
	berth := lab.Berth(t)
	p := berth.Start("doctor", stall(t))
	p.WaitFor("ok   connect")
	p.Interrupt()
	if r := p.Wait(); r.Code != 130 || lastLine(r.Stderr) != "ERROR: canceled" {
		t.Errorf("after an interrupt: %s", r)
	}
}

// The registry's login is looked at without a push.
func TestDoctorPush(t *testing.T) {
	berth, _ := shared(t)
	const password = "registry-password"
	open, closed := lab.Registry(t), lab.Registry(t, lab.RegistryOpts{User: "u", Password: password})
	diagnose(t, berth, "--push", open.Addr()+"/app:1", "b").good(t, "push")
	diagnose(t, berth, "--push", closed.Addr()+"/app:1", "b").broken(t, "no login", "push", "push-login")
	login := func(password string) {
		t.Helper()
		auth := base64.StdEncoding.EncodeToString([]byte("u:" + password))
		text := fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, closed.Addr(), auth)
		if err := os.WriteFile(join(berth.DockerConfig, "config.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	login("wrong-" + password)
	diagnose(t, berth, "--push", closed.Addr()+"/app:1", "b").broken(t, "wrong login", "push", "push-denied")
	login(password)
	diagnose(t, berth, "--push", closed.Addr()+"/app:1", "b").good(t, "push")
	for _, format := range []string{"", "json"} {
		r := berth.OK("doctor", "--format", format, "--push", closed.Addr()+"/app:1", "b")
		hasNot(t, "doctor", r.Stdout+r.Stderr, password, base64.StdEncoding.EncodeToString([]byte("u:"+password)))
	}
	if status, _, _ := open.Get(t, "/v2/app/tags/list"); status != 404 {
		t.Errorf("something was pushed: HTTP %d", status)
	}
}

// Secrets are planted where doctor comes by; none comes out.
func TestDoctorPrintsNoSecrets(t *testing.T) {
	const canary = "c4n4ry-of-the-doctor"
	berth, bk := shared(t)
	berth = berth.With("HTTPS_PROXY=http://u:"+canary+"@127.0.0.1:9", "DOCKER_HOST=tcp://u:"+canary+"@127.0.0.1:9",
		"BERTH_TLS_KEY_PASSPHRASE_FILE=/no/such/"+canary)
	state := strings.ReplaceAll(read(t, join(berth.BuildxConfig, "instances", "b")), `"`+bk.UnixAddr()+`"`, `"tcp://u:`+canary+`@127.0.0.1:1"`)
	if err := os.WriteFile(join(berth.BuildxConfig, "instances", "b"), []byte(state), 0o600); err != nil {
		t.Fatal(err)
	}
	berth.OK("create", "--name", "prog", "--driver", "remote", "exec://?cmd=sh+-c+'exit+3'+--token+"+canary)
	berth.OK("create", "--name", "proxied", "--driver", "remote", "--driver-opt", "proxy=http://u:"+canary+"@127.0.0.1:9", "tcp://127.0.0.1:1")
	for _, what := range []string{"b", "prog", "proxied", "tcp://u:" + canary + "@127.0.0.1:1", "ssh://u:" + canary + "@127.0.0.1/x"} {
		for _, format := range []string{"", "json"} {
			r := berth.Fail("doctor", "--format", format, what)
			hasNot(t, "doctor", r.Stdout+r.Stderr, canary)
		}
	}
}

func TestDoctorSSH(t *testing.T) {
	bk, s, berth := lab.Shared(t), lab.SSH(t, lab.SSHDOpts{}), lab.Berth(t)
	berth.Let("", s)
	d := diagnose(t, berth, s.Endpoint(bk.UnixAddr()))
	d.good(t, append(trial(), "config", "resolve", "connect", "host-key", "login", "forward")...)
	has(t, "host-key", d.step(t, "host-key").Text, "ED25519 SHA256:")
	has(t, "login", d.step(t, "login").Text, "as root with "+berth.Home)
	has(t, "forward", d.step(t, "forward").Text, "the server opens ")

	bin := t.TempDir()
	if err := os.Symlink(lab.Tool(t, "buildctl"), join(bin, "buildctl")); err != nil {
		t.Fatal(err)
	}
	none := lab.SSH(t, lab.SSHDOpts{NoForwarding: true, Path: bin + ":/usr/bin:/bin"})
	without := lab.SSH(t, lab.SSHDOpts{NoForwarding: true})
	berth.Let("", s, none, without)
	d = diagnose(t, berth, none.Endpoint(bk.UnixAddr()))
	d.good(t, append(trial(), "forward")...)
	has(t, "forward", d.step(t, "forward").Text, "buildctl runs there")
	diagnose(t, berth, without.Endpoint(bk.UnixAddr())).broken(t, "no way to the socket", "forward", "ssh-forward")
	diagnose(t, berth, s.Endpoint("unix:///no/such.sock")).broken(t, "no socket there", "forward", "no-socket")
	if err := os.WriteFile(join(berth.Home, ".ssh", "known_hosts"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	diagnose(t, berth, s.Endpoint(bk.UnixAddr())).broken(t, "unknown host", "host-key", "ssh-host-key")
	berth.Let("", s)
	if err := os.Remove(join(berth.Home, ".ssh", "key0")); err != nil {
		t.Fatal(err)
	}
	diagnose(t, berth, s.Endpoint(bk.UnixAddr())).broken(t, "no key", "login", "ssh-auth")
	s.Kill()
	diagnose(t, berth, s.Endpoint(bk.UnixAddr())).broken(t, "no sshd", "connect", "refused")
}

func TestDoctorDocker(t *testing.T) {
	engine := lab.Docker(t)
	engine.Images(t)
	engine.BuildKit(t, "buildkitd")
	engine.CLI(t, "run", "-d", "--stop-signal", "KILL", "--network", "none", "--name", "plain", lab.PlainImage)
	berth := lab.Berth(t).WithDocker(engine)

	d := diagnose(t, berth) // the engine's own BuildKit
	d.good(t, "state", "engine", "buildkit", "http2", "info", "workers", "session", "solve", "load")
	has(t, "state", d.step(t, "state").Text, "docker context default")
	has(t, "info", d.step(t, "info").Text, "Docker/")

	d = diagnose(t, berth, "docker-container://buildkitd")
	d.good(t, append(trial(), "engine", "container", "buildctl", "load")...)
	has(t, "load", d.step(t, "load").Text, "Docker ")
	has(t, "store", fmt.Sprint(d.step(t, "load").Facts), "graph driver ")
	diagnose(t, berth, "docker-container://plain").broken(t, "no buildctl", "buildctl", "no-buildctl")
	diagnose(t, berth, "docker-container://nosuch").broken(t, "no container", "container", "no-container")
	engine.CLI(t, "stop", "plain")
	diagnose(t, berth, "docker-container://plain").broken(t, "stopped", "container", "container-not-running")
	engine.Stop()
	diagnose(t, berth, "docker-container://buildkitd").broken(t, "no engine", "engine", "docker-unreachable")
}

// An engine with the containerd image store says so.
func TestDoctorModernEngine(t *testing.T) {
	engine := lab.ModernEngine(t, lab.ModernOpts{Store: lab.StoreContainerd})
	berth := lab.Berth(t).WithDocker(engine)
	d := diagnose(t, berth)
	d.good(t, "state", "engine", "buildkit", "info", "session", "solve", "transfer", "load")
	berth.OK("create", "--name", "b", "--driver", "remote", lab.Shared(t).UnixAddr())
	has(t, "store", fmt.Sprint(diagnose(t, berth, "b").step(t, "load").Facts), "containerd, snapshotter ")
}

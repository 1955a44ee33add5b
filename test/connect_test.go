//go:build e2e && linux

package test

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/berthbuild/berth/test/lab"
)

// A real daemon, and every way to be wrong about it: the class is in the JSON,
// the reason in the text, and nothing waits that cannot heal.
func TestRealFailures(t *testing.T) {
	certs := lab.NewCerts(t, "buildkitd.example", "127.0.0.1")
	others := lab.NewCerts(t, "elsewhere.example")
	bk := lab.BuildKit(t, lab.BuildKitOpts{Unix: true, TCP: true, TLS: certs})
	plain := lab.BuildKit(t, lab.BuildKitOpts{TCP: true})
	berth := lab.Berth(t)
	expired := certs.Issue(t, lab.CertOpts{File: "expired", Client: true, Expired: true})
	serverAsClient := certs.Server
	registry := lab.Registry(t)
	opt := func(ca string, pair lab.Pair, name string) string {
		return fmt.Sprintf("cacert=%s,cert=%s,key=%s,servername=%s", ca, pair.Cert, pair.Key, name)
	}
	for _, c := range []struct {
		name, endpoint, opts, class, text string
	}{
		{"wrong-ca", bk.TCPAddr(), opt(others.CA, certs.Client, "buildkitd.example"), "tls-untrusted", ""},
		{"wrong-name", bk.TCPAddr(), opt(certs.CA, certs.Client, "other.example"), "tls-name", "buildkitd.example"},
		{"stranger", bk.TCPAddr(), opt(certs.CA, others.Client, "buildkitd.example"), "tls-client-cert", ""},
		{"expired", bk.TCPAddr(), opt(certs.CA, expired, "buildkitd.example"), "tls-client-cert", ""},
		{"server-cert", bk.TCPAddr(), opt(certs.CA, serverAsClient, "buildkitd.example"), "tls-client-cert", ""},
		{"no-cert", bk.TCPAddr(), "cacert=" + certs.CA, "tls-client-cert", ""},
		{"system-pool", bk.TCPAddr(), "servername=buildkitd.example", "tls-untrusted", ""},
		{"plain-to-tls", bk.TCPAddr(), "", "tls-required", ""},
		{"tls-to-plain", plain.TCPAddr(), opt(certs.CA, certs.Client, "x.example"), "not-tls", ""},
		{"http1", "tcp://" + registry.Addr(), "", "not-http2", ""},
	} {
		args := []string{"create", "--name", c.name, "--driver", "remote"}
		if c.opts != "" {
			args = append(args, "--driver-opt", c.opts)
		}
		berth.OK(append(args, c.endpoint)...)
		r := berth.OK("inspect", "--timeout", "1m", "--format", "json", c.name) // a busy machine shakes hands slowly
		var v struct {
			Nodes []struct{ Status, Err, ErrClass string }
		}
		if err := json.Unmarshal([]byte(r.Stdout), &v); err != nil {
			t.Fatal(err)
		}
		n := v.Nodes[0]
		if n.ErrClass != c.class || n.Status != "error" || !strings.Contains(n.Err, c.text) {
			t.Errorf("%s: got %+v, wanted class %s and %q", c.name, n, c.class, c.text)
		}
		// The default budget is 20 s; the limit shows that nobody waited for
		// what cannot heal, with room for a busy machine.
		r = berth.Cmd("inspect", "--bootstrap", "--timeout", "10m", c.name).Run()
		if r.Code != 1 {
			t.Errorf("%s: inspect --bootstrap exits %d", c.name, r.Code)
		}
		has(t, c.name, r.Stderr, "hint: ", c.name+"0")
		hasNot(t, c.name, r.Stderr, "context deadline exceeded")
	}
	table := berth.OK("ls")
	has(t, "ls", table.Stdout, "wrong-ca0", "error")
	has(t, "what ls says below the table", table.Stderr, "wrong-name0 ("+bk.TCPAddr()+")")
}

// A daemon that is not there yet is waited for, the reason is said meanwhile,
// and the build goes through when it comes.
func TestWaitsForADaemonThatComes(t *testing.T) {
	bk := lab.BuildKit(t, lab.BuildKitOpts{Unix: true})
	bk.Stop()
	berth := lab.Berth(t)
	berth.OK("create", "--use", "--name", "late", bk.UnixAddr())
	has(t, "inspect", berth.OK("inspect").Stdout, "inactive", "Error Class:", "no-socket", "Hint:")

	inspect := berth.Start("inspect", "--bootstrap", "--timeout", "2m")
	build := berth.Cmd("build", "--timeout", "2m", ".").Dir(lab.HelloContext(t)).Start()
	inspect.WaitFor("waiting for node late0 at " + bk.UnixAddr())
	build.WaitFor("waiting for node late0 at " + bk.UnixAddr())
	bk.Start(t)
	if r := inspect.Wait(); r.Code != 0 || !strings.Contains(r.Stdout, "running") {
		t.Errorf("inspect: %s", r)
	}
	if r := build.Wait(); r.Code != 0 {
		t.Errorf("build: %s", r)
	}
}

// When nobody comes, the end names the real cause, and Ctrl-C ends the waiting
// at once.
func TestWaitingEnds(t *testing.T) {
	berth := lab.Berth(t)
	addr := lab.FreeAddr(t)
	berth.OK("create", "--use", "--name", "dead", "--driver-opt", "connect-timeout=1500ms", "tcp://"+addr)
	r := berth.Fail("build", lab.HelloContext(t))
	has(t, "stderr", r.Stderr, "waiting for node dead0 at tcp://"+addr+": connection refused", "hint: ")
	if got := lastLine(r.Stderr); !strings.Contains(got, "dead0") || !strings.Contains(got, "connection refused") {
		t.Errorf("last line: %q", got)
	}
	hasNot(t, "stderr", r.Stderr, "deadline")

	p := berth.Start("inspect", "--bootstrap", "--timeout", "10m")
	p.WaitFor("connection refused")
	p.Interrupt()
	if r := p.Wait(); r.Code != 130 || lastLine(r.Stderr) != "ERROR: canceled" {
		t.Errorf("after an interrupt: %s", r)
	}
}

// A daemon that accepts and then says nothing is an error with that reason.
func TestSilentDaemon(t *testing.T) {
	bk := lab.BuildKit(t, lab.BuildKitOpts{TCP: true})
	bk.Pause()
	defer bk.Resume()
	berth := lab.Berth(t)
	berth.OK("create", "--use", "--name", "frozen", bk.TCPAddr())
	r := berth.Fail("inspect", "--bootstrap", "--timeout", "3s")
	has(t, "last line", lastLine(r.Stderr), "frozen0")
	hasNot(t, "stderr", r.Stderr, "context deadline exceeded")
	r = berth.OK("inspect", "--timeout", "1s", "--format", "{{range .Nodes}}{{.ErrClass}}{{end}}")
	if r.Stdout != "silent\n" {
		t.Errorf("class %q", r.Stdout)
	}
}

// On a terminal, the rows of live builders do not wait for dead ones.
func TestLsShowsLiveOnesFirst(t *testing.T) {
	berth, _ := shared(t)
	stalled := stall(t)
	for i := range 3 {
		berth.OK("create", "--name", fmt.Sprintf("a-stalled%d", i), "--driver", "remote", stalled)
	}
	p := berth.Cmd("ls", "--timeout", "10m").TTY().Start()
	p.WaitFor(`\_ b0`)
	select {
	case <-p.Done():
		t.Error("ls ended before the stalled ones could have answered")
	default:
	}
	hasNot(t, "rows so far", p.Stdout(), `\_ a-stalled`)
	p.Interrupt()
	if r := p.Wait(); r.Code != 130 {
		t.Errorf("after an interrupt: %s", r)
	}
	r := berth.OK("ls", "--timeout", "1s", "--format", "{{.Name}}|{{.Status}}|{{.Error}}")
	has(t, "ls --format", r.Stdout, " \\_ b0|running|\n", " \\_ a-stalled00|inactive|node a-stalled00")
}

// stall is an endpoint that takes connections and never says a word.
func stall(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return "tcp://" + l.Addr().String()
}

// Certificate files are held against what they must be before anything is
// stored.
func TestCreateChecksCertificates(t *testing.T) {
	certs := lab.NewCerts(t, "localhost")
	others := lab.NewCerts(t, "localhost")
	berth := lab.Berth(t)
	dir := t.TempDir()
	file := func(name, text string) string {
		path := join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	garbage, empty := file("garbage", "\x00\x01garbage"), file("empty", "")
	truncated := file("truncated", read(t, certs.CA)[:100])
	huge := file("huge", strings.Repeat("x", 10<<20))
	for _, c := range []struct{ opts, want string }{
		{"cacert=" + garbage, garbage},
		{"cacert=" + empty, empty},
		{"cacert=" + truncated, truncated},
		{"cacert=" + huge, huge},
		{"cacert=" + dir, dir},
		{"cacert=" + join(dir, "nosuch"), "nosuch"},
		{"cert=" + certs.Client.Cert, "key"},
		{"key=" + certs.Client.Key, "cert"},
		{"cert=" + certs.Client.Cert + ",key=" + others.Client.Key, "does not belong"},
		{"cert=" + garbage + ",key=" + certs.Client.Key, garbage},
		{"cert=" + certs.Client.Cert + ",key=" + empty, empty},
		{"bogus=1", "bogus"},
		{"cacert", "cacert"},
		{"cacert=" + certs.CA + ",cacert=" + others.CA, "cacert"},
		{"default-load=perhaps", "default-load"},
		{"connect-timeout=0", "connect-timeout"},
	} {
		r := berth.Fail("create", "--name", "bad", "--driver", "remote", "--driver-opt", c.opts, "tcp://localhost:1234")
		if !strings.Contains(lastLine(r.Stderr), c.want) {
			t.Errorf("--driver-opt %s: the last line lacks %q: %s", c.opts, c.want, r)
		}
	}
	if got := names(t, berth.BuildxConfig); len(got) > 1 {
		t.Errorf("refused calls left %q in the state folder", got)
	}
	// Relative paths are stored absolute.
	r := berth.Cmd("create", "--name", "rel", "--driver-opt", "cacert=ca.pem", "tcp://localhost:1234").Dir(certsDir(t, certs)).Run()
	if r.Code != 0 {
		t.Fatal(r)
	}
	has(t, "state", read(t, join(berth.BuildxConfig, "instances", "rel")), `"cacert":"/`)
}

func certsDir(t *testing.T, certs *lab.Certs) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(join(dir, "ca.pem"), []byte(read(t, certs.CA)), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

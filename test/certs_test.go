//go:build e2e && linux

package test

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/berthbuild/berth/test/lab"
)

// words are those that a real shell makes of the one line in text that begins
// with the program.
func words(t *testing.T, text, program string) []string {
	t.Helper()
	var found []string
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, program+" ") {
			found = append(found, strings.TrimSpace(line))
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d lines for %s:\n%s", len(found), program, text)
	}
	out, err := exec.Command("bash", "-c", `printf '%s\0' `+found[0]).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00")
}

// certDaemon is a real buildkitd, started with the flags that certs create
// printed but for the address.
func certDaemon(t *testing.T, printed string) *lab.BuildKitd {
	t.Helper()
	w := words(t, printed, "buildkitd")
	if len(w) != 9 || w[1] != "--addr" {
		t.Fatalf("the daemon's line: %q", w)
	}
	return lab.BuildKit(t, lab.BuildKitOpts{Unix: true, TCP: true, Flags: w[3:]})
}

// makeBuilder runs the line that certs create printed, with the daemon's real
// port and another name.
func makeBuilder(t *testing.T, berth *lab.CLI, printed, name string, bk *lab.BuildKitd) {
	t.Helper()
	w := words(t, printed, "berth")
	if last := w[len(w)-1]; last != "tcp://localhost:1234" || w[3] != "remote" {
		t.Fatalf("the builder's line: %q", w)
	}
	w[3], w[len(w)-1] = name, bk.LocalhostAddr()
	berth.OK(w[1:]...)
}

// errClass is why a builder's node does not answer; empty when it does.
func errClass(t *testing.T, berth *lab.CLI, builder string) string {
	t.Helper()
	var b struct{ Nodes []struct{ ErrClass string } }
	if err := json.Unmarshal([]byte(berth.OK("inspect", "--format", "json", builder).Stdout), &b); err != nil {
		t.Fatal(err)
	}
	return b.Nodes[0].ErrClass
}

func shownSerial(t *testing.T, bk *lab.BuildKitd) string {
	t.Helper()
	conn, err := tls.Dial("tcp", strings.TrimPrefix(bk.TCPAddr(), "tcp://"), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0].SerialNumber.String()
}

// From certs create to a build by what it printed; then further clients, and
// renewal with the old certificates still in use.
func TestCertsOnARealDaemon(t *testing.T) {
	berth := lab.Berth(t)
	dir := join(berth.Work, "my, certs") // a name that wants quoting in both grammars
	printed := berth.OK("certs", "create", "--dir", dir, "--client", "laptop", "localhost", "127.0.0.1").Stdout
	bk := certDaemon(t, printed)
	makeBuilder(t, berth, printed, "laptop", bk)
	has(t, "ls", berth.OK("ls").Stdout, `\_ laptop0`, "running")
	build := func(builder string) {
		t.Helper()
		out := join(t.TempDir(), "out")
		if r := berth.Cmd("build", "--builder", builder, "-o", out, ".").Dir(lab.HelloContext(t)).Run(); r.Code != 0 {
			t.Fatal(r)
		}
		if !exists(join(out, "hello")) {
			t.Errorf("%s built nothing: %q", builder, names(t, out))
		}
	}
	build("laptop")

	// A further client needs no restart.
	printed = berth.OK("certs", "add-client", "--dir", dir, "--key-type", "ed25519", "ci").Stdout
	makeBuilder(t, berth, printed, "ci", bk)
	build("ci")

	// A copy of the client's folder is what another machine has.
	old := join(berth.Work, "old")
	if err := os.CopyFS(old, os.DirFS(join(dir, "client"))); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(join(old, "key.pem"), 0o600); err != nil {
		t.Fatal(err)
	}
	berth.OK("create", "--name", "old", "--driver", "remote",
		"--driver-opt", "cacert="+join(old, "ca.pem")+",cert="+join(old, "cert.pem")+",key="+join(old, "key.pem"), bk.LocalhostAddr())
	before := shownSerial(t, bk)
	for _, args := range [][]string{{}, {"--ca"}, {"--new-key"}} {
		berth.OK(append([]string{"certs", "renew", "--dir", dir}, args...)...)
		if shownSerial(t, bk) != before {
			t.Error("the daemon shows another certificate without a restart")
		}
		for _, builder := range []string{"old", "laptop", "ci"} {
			build(builder)
		}
		bk.Stop()
		bk.Start(t)
		if after := shownSerial(t, bk); after == before {
			t.Error("the daemon shows the old certificate after a restart")
		} else {
			before = after
		}
		for _, builder := range []string{"old", "laptop", "ci"} {
			build(builder)
		}
		berth.OK("certs", "inspect", "--warn", "300d", "laptop")
		berth.OK("certs", "inspect", "--warn", "300d", dir)
	}
	r := berth.Fail("certs", "inspect", "--warn", "400d", dir)
	has(t, "the reason", lastLine(r.Stderr), "ERROR: daemon: certificate expires on ")
}

// Certificates of another CA are refused by either side, and so are those that
// are for the other role.
func TestCertsOfOthersAreRefused(t *testing.T) {
	berth := lab.Berth(t)
	ours, theirs := join(berth.Work, "ours"), join(berth.Work, "theirs")
	printed := berth.OK("certs", "create", "--dir", ours, "localhost").Stdout
	berth.OK("certs", "create", "--dir", theirs, "localhost")
	bk := certDaemon(t, printed)
	for _, c := range []struct{ name, ca, pair, class string }{
		{"right", join(ours, "client"), join(ours, "client"), ""},
		{"stranger", join(ours, "client"), join(theirs, "client"), "tls-client-cert"},
		{"other-daemon", join(theirs, "client"), join(ours, "client"), "tls-untrusted"},
		{"daemon-as-client", join(ours, "client"), join(ours, "daemon"), "tls-client-cert"},
	} {
		berth.OK("create", "--name", c.name, "--driver", "remote",
			"--driver-opt", "cacert="+join(c.ca, "ca.pem")+",cert="+join(c.pair, "cert.pem")+",key="+join(c.pair, "key.pem"), bk.LocalhostAddr())
		if got := errClass(t, berth, c.name); got != c.class {
			t.Errorf("%s: class %q, wanted %q", c.name, got, c.class)
		}
	}
	// A daemon's new CA shuts out those of before, and inspect says so.
	berth.OK("certs", "add-client", "--dir", ours, "ci")
	berth.OK("certs", "create", "--force", "--dir", ours, "localhost")
	r := berth.Fail("certs", "inspect", ours)
	has(t, "the reason", lastLine(r.Stderr), "ERROR: client-ci: the daemon refuses this client", "(and 1 more)")
}

// What openssl makes of the certificates.
func TestCertsByOpenSSL(t *testing.T) {
	lab.Need(t, "openssl")
	berth := lab.Berth(t)
	for _, kind := range []string{"ecdsa", "ed25519", "rsa"} {
		dir := join(berth.Work, kind)
		berth.OK("certs", "create", "--key-type", kind, "--dir", dir, "build.test", "*.build.test", "127.0.0.1", "::1")
		ca := join(dir, "ca", "cert.pem")
		for _, c := range []struct {
			folder, purpose string
			ok              bool
		}{
			{"daemon", "sslserver", true},
			{"daemon", "sslclient", false},
			{"client", "sslclient", true},
			{"client", "sslserver", false},
		} {
			out, err := exec.Command("openssl", "verify", "-x509_strict", "-purpose", c.purpose, "-CAfile", ca, join(dir, c.folder, "cert.pem")).CombinedOutput()
			if (err == nil) != c.ok {
				t.Errorf("%s: %s as %s: %v\n%s", kind, c.folder, c.purpose, err, out)
			}
		}
		for _, name := range []string{"-verify_hostname=build.test", "-verify_hostname=x.build.test", "-verify_ip=127.0.0.1", "-verify_ip=::1"} {
			flag, value, _ := strings.Cut(name, "=")
			if out, err := exec.Command("openssl", "verify", "-x509_strict", flag, value, "-CAfile", ca, join(dir, "daemon", "cert.pem")).CombinedOutput(); err != nil {
				t.Errorf("%s: %s: %v\n%s", kind, name, err, out)
			}
		}
		key, err := exec.Command("openssl", "pkey", "-pubout", "-in", join(dir, "daemon", "key.pem")).Output()
		if err != nil {
			t.Fatal(err)
		}
		certKey, err := exec.Command("openssl", "x509", "-noout", "-pubkey", "-in", join(dir, "daemon", "cert.pem")).Output()
		if err != nil || !bytes.Equal(key, certKey) {
			t.Errorf("%s: the key is not the certificate's: %v", kind, err)
		}
		text, err := exec.Command("openssl", "x509", "-noout", "-text", "-in", ca).Output()
		if err != nil {
			t.Fatal(err)
		}
		has(t, "the CA", string(text), "CA:TRUE, pathlen:0", "Certificate Sign, CRL Sign")
	}
}

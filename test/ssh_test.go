//go:build e2e && linux

package test

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/berthbuild/berth/test/lab"
)

// buildHelloOn makes a builder of the endpoint, builds examples/hello on it,
// and runs what came back.
func buildHelloOn(t *testing.T, berth *lab.CLI, endpoint string) lab.Result {
	t.Helper()
	berth.OK("create", "--name", "far", "--driver", "remote", "--bootstrap", endpoint)
	has(t, "inspect", berth.OK("inspect", "far").Stdout, endpoint, "running")
	out := join(lab.Dir(t), "out")
	r := berth.OK("build", "--builder", "far", "--no-cache", "-o", out, lab.HelloContext(t))
	if said, err := exec.Command(join(out, "hello")).Output(); err != nil || !strings.Contains(string(said), "Hello from an image") {
		t.Errorf("the result says %q, %v", said, err)
	}
	return r
}

func TestSSHBuild(t *testing.T) {
	bk, s, berth := lab.Shared(t), lab.SSH(t, lab.SSHDOpts{}), lab.Berth(t)
	berth.Let("", s)
	buildHelloOn(t, berth, s.Endpoint(bk.UnixAddr()))
	has(t, "sshd's log", s.Log(), "Accepted publickey for root")
	hasNot(t, "sshd's log", s.Log(), "Starting session")
}

// Where the server opens no sockets, buildctl is run on it.
func TestSSHWithoutForwarding(t *testing.T) {
	bk, berth := lab.Shared(t), lab.Berth(t)
	bin := t.TempDir()
	if err := os.Symlink(lab.Tool(t, "buildctl"), join(bin, "buildctl")); err != nil {
		t.Fatal(err)
	}
	for name, config := range map[string]lab.SSHDOpts{
		"disabled": {NoForwarding: true},
		"no local": {Config: "AllowStreamLocalForwarding no\n"},
	} {
		t.Run(name, func(t *testing.T) {
			config.Path = bin + ":/usr/bin:/bin"
			s := lab.SSH(t, config)
			berth.Let("", s)
			buildHelloOn(t, berth, s.Endpoint(bk.UnixAddr()))
			has(t, "sshd's log", s.Log(), "Starting session: command")
			berth.OK("rm", "far")
		})
	}
	s := lab.SSH(t, lab.SSHDOpts{NoForwarding: true})
	berth.Let("", s)
	berth.OK("create", "--name", "none", "--driver", "remote", s.Endpoint(bk.UnixAddr()))
	r := berth.OK("inspect", "none")
	has(t, "inspect", r.Stdout, "ssh-forward", "there is no buildctl to run", "AllowStreamLocalForwarding")
}

func TestSSHJump(t *testing.T) {
	bk, jump, inner, berth := lab.Shared(t), lab.SSH(t, lab.SSHDOpts{}), lab.SSH(t, lab.SSHDOpts{}), lab.Berth(t)
	berth.Let("Host pool\n  HostName 127.0.0.1\n  Port "+inner.Port+"\n  User root\n  ProxyJump root@127.0.0.1:"+jump.Port+"\n", jump, inner)
	buildHelloOn(t, berth, "ssh://pool"+strings.TrimPrefix(bk.UnixAddr(), "unix://"))
	has(t, "the jump host's log", jump.Log(), "Accepted publickey for root")
	has(t, "the inner host's log", inner.Log(), "Accepted publickey for root")
	jump.Kill()
	has(t, "inspect", berth.OK("inspect", "far").Stdout, "ssh-jump", "jump host 127.0.0.1: connection refused")
}

func TestSSHFailures(t *testing.T) {
	bk, s, other, berth := lab.Shared(t), lab.SSH(t, lab.SSHDOpts{}), lab.SSH(t, lab.SSHDOpts{}), lab.Berth(t)
	socket := strings.TrimPrefix(bk.UnixAddr(), "unix://")
	known := func(text string) {
		t.Helper()
		if err := os.WriteFile(join(berth.Home, ".ssh", "known_hosts"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	create := func(endpoint string) {
		t.Helper()
		berth.Run("rm", "far")
		berth.OK("create", "--name", "far", "--driver", "remote", endpoint)
	}
	inspect := func(parts ...string) {
		t.Helper()
		began := time.Now()
		has(t, "inspect", berth.OK("inspect", "far").Stdout, parts...)
		if took := time.Since(began); took > 15*time.Second {
			t.Errorf("that took %v", took)
		}
	}
	berth.Let("", s)
	create(s.Endpoint(socket))

	known("")
	inspect("ssh-host-key", "is unknown: ED25519 SHA256:", "ssh-keyscan -p "+s.Port+" -t ed25519 127.0.0.1 >> "+berth.Home)
	r := berth.Fail("build", "--builder", "far", lab.HelloContext(t))
	has(t, "build", r.Stderr, "is unknown: ED25519 SHA256:", "ssh-keyscan")

	// What the hint says works.
	scan, err := exec.Command("ssh-keyscan", "-p", s.Port, "-t", "ed25519", "127.0.0.1").Output()
	if err != nil {
		t.Fatal(err)
	}
	known(string(scan))
	inspect("running")

	known(strings.ReplaceAll(other.HostKey(t, "ed25519"), other.Port, s.Port))
	inspect("ssh-host-key", "has changed", "ssh-keygen -f")
	known(s.HostKey(t, "ecdsa"))
	inspect("running")

	create(s.Endpoint(socket + ".not"))
	inspect("no-socket", "no such socket on 127.0.0.1: "+socket+".not")
	create(s.Endpoint("/etc/passwd"))
	inspect("no-socket", "/etc/passwd on 127.0.0.1 is not a socket")
	create("ssh://root@" + lab.FreeAddr(t))
	inspect("refused", "is sshd running")

	known(s.HostKey(t, "ed25519") + other.HostKey(t, "ed25519"))
	create(other.Endpoint(socket))
	inspect("ssh-auth", "root@127.0.0.1 is not let in with", "ssh-copy-id -p "+other.Port)
	create("ssh://nobody-here@127.0.0.1:" + s.Port)
	inspect("ssh-auth")

	if err := os.WriteFile(join(berth.Home, ".ssh", "config"), []byte("\x7fELF\x01\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	inspect("ssh-config", ".ssh/config:1: this is not text")
}

// A key with a passphrase is asked for on a terminal, takes as long as it
// takes, and is not asked for where there is none.
func TestSSHPassphrase(t *testing.T) {
	bk, s, berth := lab.Shared(t), lab.SSH(t, lab.SSHDOpts{}), lab.Berth(t)
	berth.Let("", s)
	key := join(berth.Home, ".ssh", "key0")
	if out, err := exec.Command("ssh-keygen", "-q", "-p", "-N", "open sesame", "-f", key).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	endpoint := s.Endpoint(bk.UnixAddr())
	r := berth.Run("create", "--name", "far", "--driver", "remote", "--bootstrap", endpoint)
	has(t, "create", r.Stderr, "the key "+key+" is encrypted", "ssh-add")

	p := berth.Cmd("inspect", "--bootstrap", "far").TTY().Start()
	p.WaitFor("Passphrase for the key " + key)
	p.Type("wrong\n")
	p.WaitFor("That is not it")
	p.Type("open sesame\n")
	r = p.Wait()
	has(t, "inspect on a terminal", r.Stdout, "running")
	hasNot(t, "the terminal", r.Stdout, "open sesame", "wrong")

	p = berth.Cmd("inspect", "--bootstrap", "far").TTY().Start()
	p.WaitFor("Passphrase for the key " + key)
	p.Interrupt()
	if r := p.Wait(); r.Code != 130 {
		t.Errorf("interrupted: %s", r)
	}

	agent, err := exec.Command("sh", "-c", "cd / && which ssh-agent ssh-add").Output()
	if err != nil {
		t.Skipf("no agent: %s", agent)
	}
	dir := lab.Dir(t)
	cmd := exec.Command("ssh-agent", "-D", "-a", join(dir, "agent"))
	cmd.Env = append(os.Environ(), lab.Mark(dir))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	ask := join(dir, "ask")
	if err := os.WriteFile(ask, []byte("#!/bin/sh\necho open sesame\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		if exists(join(dir, "agent")) {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	add := exec.Command("ssh-add", key)
	add.Env = append(os.Environ(), "SSH_AUTH_SOCK="+join(dir, "agent"), "SSH_ASKPASS="+ask, "SSH_ASKPASS_REQUIRE=force")
	if out, err := add.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	has(t, "inspect", berth.With("SSH_AUTH_SOCK="+join(dir, "agent")).OK("inspect", "far").Stdout, "running")
}

//go:build e2e && linux

package lab

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// SSHDOpts says what kind of ssh server to start.
type SSHDOpts struct {
	NoForwarding bool     // the server opens no sockets for its users
	Path         string   // PATH of the commands that are run on it; "": the system's
	Config       string   // more lines of sshd_config
	Env          []string // of the commands that are run on it, each "KEY=value"
}

// SSHD is OpenSSH's server with throwaway keys and without passwords. Who has
// Key may log in as root.
type SSHD struct {
	d    *daemon
	Port string
	Key  string // the user's private key
}

// SSH starts an ssh server on a free loopback port and ends it, and what it
// runs, with the test.
func SSH(t testing.TB, opts SSHDOpts) *SSHD {
	t.Helper()
	Need(t, "root", "sshd", "ssh-keygen")
	dir := newDir(t)
	t.Cleanup(func() { removeDir(t, dir) })
	s, err := newSSHD(dir, opts)
	if err != nil {
		t.Fatal("lab: ", err)
	}
	s.d.logOnFailure(t)
	t.Cleanup(s.d.stop)
	if err := s.d.start(s.answers); err != nil {
		t.Fatal("lab: ", err)
	}
	return s
}

func newSSHD(dir string, opts SSHDOpts) (*SSHD, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	s := &SSHD{Port: strconv.Itoa(port), Key: filepath.Join(dir, "user_key")}
	for _, key := range []string{s.Key, filepath.Join(dir, "host_ed25519"), filepath.Join(dir, "host_ecdsa")} {
		kind := strings.TrimPrefix(filepath.Base(key), "host_")
		if key == s.Key {
			kind = "ed25519"
		}
		if out, err := exec.Command("ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "lab", "-f", key).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("ssh-keygen: %w: %s", err, out)
		}
	}
	path := opts.Path
	if path == "" {
		path = "/usr/local/bin:/usr/bin:/bin"
	}
	config := []string{
		"ListenAddress 127.0.0.1:" + s.Port,
		"HostKey " + filepath.Join(dir, "host_ecdsa"), "HostKey " + filepath.Join(dir, "host_ed25519"),
		"AuthorizedKeysFile " + s.Key + ".pub", "StrictModes no", "PermitRootLogin prohibit-password",
		"PasswordAuthentication no", "KbdInteractiveAuthentication no", "UsePAM no", "PidFile none", "LogLevel VERBOSE",
		// What it runs is found by the lab's mark.
		"SetEnv " + strings.Join(append([]string{"PATH=" + path, Mark(dir)}, opts.Env...), " "),
	}
	if opts.NoForwarding {
		config = append(config, "DisableForwarding yes")
	}
	file := filepath.Join(dir, "sshd_config")
	if err := os.WriteFile(file, []byte(strings.Join(config, "\n")+"\n"+opts.Config), 0o600); err != nil {
		return nil, err
	}
	// sshd insists on the folder, which its service makes.
	if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
		return nil, err
	}
	sshd, err := exec.LookPath("sshd")
	if err != nil {
		return nil, err
	}
	s.d = newDaemon("sshd", dir, sshd, "-D", "-e", "-f", file)
	return s, nil
}

func (s *SSHD) answers(ctx context.Context) error {
	c, err := new(net.Dialer).DialContext(ctx, "tcp", "127.0.0.1:"+s.Port)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	_, err = c.Read(make([]byte, 4))
	return err
}

// Endpoint is the socket (of an address unix://…) on this server, for berth;
// without a socket, the usual one.
func (s *SSHD) Endpoint(socket string) string {
	return "ssh://root@127.0.0.1:" + s.Port + strings.TrimPrefix(socket, "unix://")
}

// HostKey is the line of known_hosts about one kind of the server's keys.
func (s *SSHD) HostKey(t testing.TB, kind string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(s.d.dir, "host_"+kind+".pub"))
	if err != nil {
		t.Fatal("lab: ", err)
	}
	return fmt.Sprintf("[127.0.0.1]:%s %s", s.Port, b)
}

// Program writes a program ssh into a folder that knows the server: ssh itself
// would read the files of the user who runs the tests.
func (s *SSHD) Program(t testing.TB, dir string) {
	t.Helper()
	Need(t, "ssh")
	ssh, err := exec.LookPath("ssh")
	if err != nil {
		t.Fatal("lab: ", err)
	}
	known := filepath.Join(dir, "known_hosts")
	script := fmt.Sprintf("#!/bin/sh\nexec %s -F none -i '%s' -o UserKnownHostsFile='%s' \"$@\"\n", ssh, s.Key, known)
	for path, text := range map[string]string{known: s.HostKey(t, "ed25519"), filepath.Join(dir, "ssh"): script} {
		if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
			t.Fatal("lab: ", err)
		}
	}
}

// Log is what the server wrote so far.
func (s *SSHD) Log() string { return s.d.log() }

// Kill is kill -9 for the server and its connections.
func (s *SSHD) Kill() { s.d.kill() }

// Let makes the CLI's user known to the servers, and them to the user, with
// what `ssh` would read: a key, known_hosts, and the given text as ~/.ssh/config.
func (c *CLI) Let(config string, servers ...*SSHD) {
	c.t.Helper()
	dir := filepath.Join(c.Home, ".ssh")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		c.t.Fatal("lab: ", err)
	}
	known := ""
	for i, s := range servers {
		known += s.HostKey(c.t, "ed25519")
		config += fmt.Sprintf("\nHost *\n  IdentityFile ~/.ssh/key%d\n", i)
		copyFile(c.t, s.Key, filepath.Join(dir, fmt.Sprintf("key%d", i)), 0o600)
	}
	for name, text := range map[string]string{"known_hosts": known, "config": config} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			c.t.Fatal("lab: ", err)
		}
	}
}

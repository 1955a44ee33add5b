package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// daemon is a buildkitd of our own, on loopback with mutual TLS.
type daemon struct {
	cmd      *exec.Cmd
	dir      string
	endpoint string
	certs    string // folder with ca.pem, cert.pem, key.pem for clients
}

// startDaemon starts one with the text as its buildkitd.toml.
func startDaemon(ctx context.Context, o options, dir, settings string) (*daemon, error) {
	certs := filepath.Join(dir, "certs")
	if out, err := exec.CommandContext(ctx, o.certs, certs, "localhost", "127.0.0.1").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("making certificates: %w\n%s", err, out)
	}
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	config := filepath.Join(dir, "buildkitd.toml")
	if err := os.WriteFile(config, []byte(settings), 0o644); err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(dir, "buildkitd.log"))
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }()
	pem := func(name string) string { return filepath.Join(certs, "daemon", name+".pem") }
	d := &daemon{dir: dir, endpoint: "tcp://" + addr, certs: filepath.Join(certs, "client")}
	d.cmd = exec.Command(filepath.Join(o.tools, "buildkitd"), "--config", config, "--root", filepath.Join(dir, "root"),
		"--addr", d.endpoint, "--otel-socket-path", filepath.Join(dir, "otel.sock"), "--containerd-worker=false",
		"--tlscacert", pem("ca"), "--tlscert", pem("cert"), "--tlskey", pem("key"))
	d.cmd.Stdout, d.cmd.Stderr = log, log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := d.cmd.Start(); err != nil {
		return nil, err
	}
	for end := time.Now().Add(30 * time.Second); ; {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			return d, conn.Close()
		}
		if time.Now().After(end) || ctx.Err() != nil {
			text, _ := os.ReadFile(log.Name())
			_ = d.stop()
			return nil, fmt.Errorf("buildkitd does not listen: %w\n%s", err, text)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// stop ends the daemon and unmounts what it left.
func (d *daemon) stop() error {
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	kill := time.AfterFunc(15*time.Second, func() { _ = d.cmd.Process.Kill() })
	defer kill.Stop()
	_ = d.cmd.Wait() // it says "forcing shutdown" and exits with 1 when asked to end
	info, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(info)) {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], d.dir+"/") {
			_ = syscall.Unmount(f[4], syscall.MNT_DETACH)
		}
	}
	return nil
}

func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// blackhole is a loopback port that answers nothing: it listens, its backlog is
// full, and the kernel drops every further SYN.
type blackhole struct {
	endpoint string
	fd       int
	fill     []net.Conn
}

func newBlackhole() (*blackhole, error) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	b := &blackhole{fd: fd}
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		b.close()
		return nil, err
	}
	if err := syscall.Listen(fd, 0); err != nil {
		b.close()
		return nil, err
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		b.close()
		return nil, err
	}
	at, ok := name.(*syscall.SockaddrInet4)
	if !ok {
		b.close()
		return nil, fmt.Errorf("a listener on 127.0.0.1 has the address %v", name)
	}
	addr := fmt.Sprintf("127.0.0.1:%d", at.Port)
	b.endpoint = "tcp://" + addr
	for range 16 {
		conn, err := net.DialTimeout("tcp", addr, 300*time.Millisecond)
		if err != nil {
			return b, nil // full: this is what a client meets from now on
		}
		b.fill = append(b.fill, conn)
	}
	b.close()
	return nil, fmt.Errorf("the backlog of %s does not fill", addr)
}

func (b *blackhole) close() {
	for _, c := range b.fill {
		_ = c.Close()
	}
	_ = syscall.Close(b.fd)
}

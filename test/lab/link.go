//go:build e2e && linux

package lab

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// Relay passes TCP connections on to a daemon until it is told otherwise: a
// network, or a proxy, that fails in the middle. It ends with the test.
type Relay struct {
	l      net.Listener
	target string

	mu      sync.Mutex
	gate    *sync.Cond // whoever waits for silent to end
	mute    bool
	age     int // connections that were made before it grew are forgotten
	ended   bool
	conns   []net.Conn
	passed  [2]int64 // bytes to the daemon, and from it
	limit   [2]int64 // of them; 0 is none
	stopped chan struct{}
}

// NewRelay listens on host, a loopback address or that of a Link, and passes
// on to target, "host:port" or "tcp://host:port".
func NewRelay(t testing.TB, host, target string) *Relay {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal("lab: ", err)
	}
	r := &Relay{l: l, target: strings.TrimPrefix(target, "tcp://"), stopped: make(chan struct{})}
	r.gate = sync.NewCond(&r.mu)
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() { r.serve(c) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		r.mu.Lock()
		r.ended = true
		r.gate.Broadcast()
		r.mu.Unlock()
		r.Cut()
		running.Wait()
	})
	return r
}

// Addr is where to connect to, as an endpoint.
func (r *Relay) Addr() string { return "tcp://" + r.l.Addr().String() }

// Passed is how many bytes have gone to the daemon so far.
func (r *Relay) Passed() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.passed[0]
}

// Silence makes it hold back whatever arrives, in both directions, with all
// connections open, until it is told to go on.
func (r *Relay) Silence(on bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mute = on
	r.gate.Broadcast()
}

// StopAfter makes it fall silent, as Silence does, once so many more bytes have
// passed to the daemon, or from it; 0 is any number. It is told by the channel,
// and can be asked for once.
func (r *Relay) StopAfter(to, from int64) <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if to > 0 {
		r.limit[0] = r.passed[0] + to
	}
	if from > 0 {
		r.limit[1] = r.passed[1] + from
	}
	return r.stopped
}

// Forget makes it pass nothing any more on the connections that there are, without
// closing them, as a firewall does whose table has lost them. New ones pass.
func (r *Relay) Forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.age++
}

// Cut closes all connections that there are.
func (r *Relay) Cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.conns {
		_ = c.Close()
	}
	r.conns = nil
}

func (r *Relay) serve(near net.Conn) {
	far, err := net.Dial("tcp", r.target)
	if err != nil {
		_ = near.Close()
		return
	}
	r.mu.Lock()
	r.conns = append(r.conns, near, far)
	r.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { r.pass(far, near, 0) })
	both.Go(func() { r.pass(near, far, 1) })
	both.Wait()
}

// pass copies one direction, and closes both when it ends.
func (r *Relay) pass(to, from net.Conn, way int) {
	defer func() { _, _ = to.Close(), from.Close() }()
	buf := make([]byte, 32<<10)
	r.mu.Lock()
	born := r.age
	r.mu.Unlock()
	for {
		n, err := from.Read(buf)
		r.mu.Lock()
		r.passed[way] += int64(n)
		if limit := r.limit[way]; limit > 0 && r.passed[way] >= limit {
			r.mute, r.limit = true, [2]int64{}
			close(r.stopped)
		}
		for (r.mute || born < r.age) && !r.ended {
			r.gate.Wait()
		}
		r.mu.Unlock()
		if n > 0 {
			if _, werr := to.Write(buf[:n]); werr != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// links numbers the test's own networks.
var links atomic.Int32

// Link is a network of its own, between this machine and a namespace in which
// berth runs. It ends with the test.
type Link struct {
	Near string // this machine's address on it

	t    testing.TB
	name string
}

// NewLink makes one.
func NewLink(t testing.TB) *Link {
	t.Helper()
	Need(t, "root", "ip", "iptables")
	n := links.Add(1)
	id := fmt.Sprintf("%d-%d", os.Getpid()%100000, n)
	// A network of the test: from the range for benchmarks (RFC 2544), which
	// nobody routes, chosen by process so that two runs do not meet.
	third, fourth := os.Getpid()%250, int(n)*4%252
	k := &Link{t: t, name: "berth-" + id, Near: fmt.Sprintf("198.18.%d.%d", third, fourth+1)}
	far := fmt.Sprintf("198.18.%d.%d", third, fourth+2)
	near, there := "bl"+id, "br"+id
	k.do("ip", "netns", "add", k.name)
	t.Cleanup(func() { _ = exec.Command("ip", "netns", "delete", k.name).Run() })
	k.do("ip", "link", "add", near, "type", "veth", "peer", "name", there, "netns", k.name)
	t.Cleanup(func() { _ = exec.Command("ip", "link", "delete", near).Run() })
	k.do("ip", "address", "add", k.Near+"/30", "dev", near)
	k.do("ip", "link", "set", near, "up")
	k.do("ip", "-n", k.name, "address", "add", far+"/30", "dev", there)
	k.do("ip", "-n", k.name, "link", "set", there, "up")
	k.do("ip", "-n", k.name, "link", "set", "lo", "up")
	return k
}

// Berth is a copy of c that runs behind the link.
func (k *Link) Berth(c *CLI) *CLI {
	k.t.Helper()
	path := filepath.Join(Dir(k.t), "berth")
	script := fmt.Sprintf("#!/bin/sh\nexec ip netns exec %s %s \"$@\"\n", k.name, c.Bin)
	if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
		k.t.Fatal("lab: ", err)
	}
	n := *c
	n.Bin = path
	return &n
}

// Drop makes the firewall drop whatever arrives at berth, without a word.
func (k *Link) Drop() {
	k.t.Helper()
	k.do("ip", "netns", "exec", k.name, "iptables", "-A", "INPUT", "-j", "DROP")
}

// DropFrom is Drop for what comes from one of this machine's addresses on the link,
// as "tcp://host:port".
func (k *Link) DropFrom(addr string) {
	k.t.Helper()
	_, port, _ := net.SplitHostPort(strings.TrimPrefix(addr, "tcp://"))
	k.do("ip", "netns", "exec", k.name, "iptables", "-A", "INPUT", "-p", "tcp", "--sport", port, "-j", "DROP")
}

func (k *Link) do(name string, args ...string) {
	k.t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		k.t.Fatalf("lab: %s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

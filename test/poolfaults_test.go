//go:build e2e && linux

package test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/berthbuild/berth/test/lab"
	"golang.org/x/net/dns/dnsmessage"
)

// A member whose disk is full answers as if all were well, and fails every solve: its
// work is built elsewhere, and the next build does not try it first. Alone, it is a
// failure that says whose disk it is.
func TestPoolFullDisk(t *testing.T) {
	t.Parallel()
	small := lab.Dir(t)
	if err := syscall.Mount("tmpfs", small, "tmpfs", 0, "size=6m"); err != nil {
		t.Fatal(err)
	}
	full, good := lab.BuildKit(t, lab.BuildKitOpts{Root: join(small, "root")}), lab.BuildKit(t, lab.BuildKitOpts{})
	berth := lab.Berth(t)
	berth.OK("create", "--name", "pool", "--use", "--node", "n0", "--driver-opt", "pool=first", full.UnixAddr())
	berth.OK("create", "--name", "pool", "--append", "--node", "n1", good.UnixAddr())
	berth.OK("create", "--name", "alone", full.UnixAddr())
	dir := lab.Context(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"})
	build(t, berth, dir, "--builder", "alone") // it worked once
	fill(t, small)

	r := berth.Fail("build", "--no-cache", "--builder", "alone", dir)
	has(t, "alone", lastLine(r.Stderr), "node alone0 of builder alone at "+full.UnixAddr()+" cannot build: ", "no space left on device")
	has(t, "alone", r.Stderr, "hint: make room in it: berth prune --builder alone")
	out := t.TempDir()
	r = build(t, berth, dir, "--no-cache", "-o", out)
	has(t, "in the pool", r.Stderr, "building again: node n0 of builder pool at "+full.UnixAddr()+" cannot build: ")
	if nodes := used(t, r.Stderr); len(nodes) != 2 || nodes[0] != "n0" || nodes[1] != "n1" {
		t.Errorf("built on %q", nodes)
	}
	if got := read(t, join(out, "Dockerfile")); got != read(t, join(dir, "Dockerfile")) {
		t.Errorf("the result is %q", got)
	}
	if nodes := used(t, build(t, berth, dir, "--no-cache").Stderr); len(nodes) != 1 || nodes[0] != "n1" {
		t.Errorf("the next build was on %q", nodes)
	}
}

// fill leaves no room in a file system.
func fill(t *testing.T, dir string) {
	t.Helper()
	f, err := os.Create(join(dir, "ballast"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // what it holds is of no interest
	for size := 1 << 20; size > 0; size /= 2 {
		for err = nil; err == nil; {
			_, err = f.Write(make([]byte, size))
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
	}
}

// A firewall that drops a member's packets, in the middle of a build and before one.
func TestPoolFirewall(t *testing.T) {
	t.Parallel()
	link := lab.NewLink(t)
	one, two := lab.BuildKit(t, lab.BuildKitOpts{TCP: true}), lab.BuildKit(t, lab.BuildKitOpts{TCP: true})
	first, second := lab.NewRelay(t, link.Near, one.TCPAddr()), lab.NewRelay(t, link.Near, two.TCPAddr())
	berth := link.Berth(lab.Berth(t))
	berth.OK("create", "--name", "pool", "--use", "--node", "n0", "--driver-opt", "pool=first", first.Addr())
	berth.OK("create", "--name", "pool", "--append", "--node", "n1", second.Addr())
	p := berth.Cmd("build", "--progress", "plain", "--no-cache", ".").Dir(sleeper(t, "walled", 3, "")).Start()
	p.WaitFor("started walled")
	link.DropFrom(first.Addr())
	r := within(t, "walled", p, time.Now().Add(noHang+20*time.Second))
	if r.Code != 0 {
		t.Fatalf("exit %d: %s", r.Code, r.Stderr)
	}
	has(t, "progress", r.Stderr, "building again: connection to node n0 of builder pool", "nothing was heard of it for ")
	if nodes := used(t, r.Stderr); nodes[len(nodes)-1] != "n1" {
		t.Errorf("built on %q", nodes)
	}
	if err := os.Remove(join(berth.BuildxConfig, "lapses.json")); err != nil { // as another machine, which has not seen it
		t.Fatal(err)
	}
	r = build(t, berth, lab.Context(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"}))
	if nodes := used(t, r.Stderr); len(nodes) != 1 || nodes[0] != "n1" {
		t.Errorf("with a member that is walled off, it is built on %q", nodes)
	}
}

// All members are restarted, one after the other, while builds come one after the
// other: all are built, and each is what it should be.
func TestPoolRollingRestart(t *testing.T) {
	t.Parallel()
	const lanes = 4
	builds := modelNumber(t, "BERTH_POOL_BUILDS", 100)
	berth, daemons := poolOf(t, 3, "")
	dir := lab.ShellContext(t, "ARG N\nRUN echo sta''rted; sleep 0.3; echo $N > /result\n", nil)
	out := t.TempDir()
	var next, done, again, slowest atomic.Int64
	var all sync.WaitGroup
	began := time.Now()
	for range lanes {
		all.Go(func() {
			for {
				n := next.Add(1)
				if n > builds {
					return
				}
				name := fmt.Sprint("r", n)
				start := time.Now()
				r := berth.Cmd("build", "--progress", "plain", "--affinity", name, "--build-arg", "N="+name, "-o", join(out, name), ".").Dir(dir).Run()
				if r.Code != 0 {
					t.Errorf("build %s: %s", name, r)
				} else if got, err := os.ReadFile(join(out, name, "result")); err != nil || string(got) != name+"\n" {
					t.Errorf("build %s made %q, %v", name, got, err)
				}
				if strings.Contains(r.Stderr, "building again") {
					again.Add(1)
				}
				for took := int64(time.Since(start)); ; {
					if was := slowest.Load(); took <= was || slowest.CompareAndSwap(was, took) {
						break
					}
				}
				done.Add(1)
			}
		})
	}
	for i, bk := range daemons { // a quarter of the builds between two of them
		for done.Load() < builds*int64(i+1)/int64(len(daemons)+1) && !t.Failed() {
			time.Sleep(20 * time.Millisecond) // a poll: other processes make the progress
		}
		bk.Stop() // as a manager does: it ends when its builds have, or is killed
		bk.Start(t)
	}
	all.Wait()
	t.Logf("%d builds in %.0f s while %d daemons were restarted; %d were built again; the slowest took %.1f s",
		builds, time.Since(began).Seconds(), len(daemons), again.Load(), time.Duration(slowest.Load()).Seconds())
}

// Names that lead to several addresses, of a name server that now and then does not
// answer, or answers with one address only: builds go on, and a member whose address
// is not told is not missed.
func TestPoolFlappingNames(t *testing.T) {
	t.Parallel()
	lab.Need(t, "root", "unshare")
	one := lab.BuildKit(t, lab.BuildKitOpts{TCP: true, Unix: true})
	_, port, _ := strings.Cut(strings.TrimPrefix(one.TCPAddr(), "tcp://"), ":")
	two := lab.BuildKit(t, lab.BuildKitOpts{Flags: []string{"--addr", "tcp://127.0.0.2:" + port}})
	names := newNames(t, "127.1.53.1:53") // 127.0.0.53 is systemd's
	berth := names.berth(lab.Berth(t))
	berth.OK("create", "--name", "pool", "--use", "--driver-opt", "resolve=all", "tcp://builds.test:"+port)
	dir := lab.Context(t, map[string]string{"Dockerfile": "FROM scratch\nARG N\nCOPY Dockerfile /$N\n"})
	at := map[string]string{}
	spread := func(what string, keys int) map[string]bool {
		nodes := map[string]bool{}
		for i := range keys {
			key := fmt.Sprint("work-", i)
			r := build(t, berth, dir, "--affinity", key, "--build-arg", "N="+key)
			node := used(t, r.Stderr)[0]
			nodes[node] = true
			if at[key] == "" {
				at[key] = node
			} else if what == "again" && at[key] != node {
				t.Errorf("%s was on %s, and is on %s", key, at[key], node)
			}
		}
		return nodes
	}
	names.answer("127.0.0.1", "127.0.0.2")
	const keys = 16 // members are named by their port, so who gets what is chance
	if got := spread("both", keys); len(got) != 2 {
		t.Fatalf("16 pieces of work on %v", got)
	}
	names.answer("127.0.0.2") // which is no choice
	build(t, berth, dir, "--affinity", "work-0", "--no-cache")
	names.answer("127.0.0.1", "127.0.0.2")
	names.flap(3) // of each three queries, one is answered
	for i := range 3 {
		build(t, berth, dir, "--affinity", fmt.Sprint("work-", i), "--no-cache")
	}
	names.flap(1)
	spread("again", keys)
	has(t, "top", berth.OK("top", "--format", "json").Stdout, "127.0.0.1:"+port, "127.0.0.2:"+port)
	if atOnceOn(t, one) == 0 || atOnceOn(t, two) == 0 {
		t.Error("a daemon has built nothing")
	}
}

// nameServer answers for every name with the same addresses.
type nameServer struct {
	t    *testing.T
	addr string

	mu        sync.Mutex
	addresses []string
	every     int // the how manieth query is answered; the others fail
	asked     int
}

// newNames starts one. It ends with the test.
func newNames(t *testing.T, addr string) *nameServer {
	t.Helper()
	c, err := net.ListenPacket("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	n := &nameServer{t: t, addr: addr, every: 1}
	go func() {
		buf := make([]byte, 4096)
		for {
			size, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			if text, err := n.reply(buf[:size]); err == nil {
				_, _ = c.WriteTo(text, from)
			}
		}
	}()
	return n
}

func (n *nameServer) answer(addresses ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.addresses = addresses
}

func (n *nameServer) flap(every int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.every, n.asked = every, 0
}

func (n *nameServer) reply(query []byte) ([]byte, error) {
	var m dnsmessage.Message
	if err := m.Unpack(query); err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.asked++
	m.Response, m.RecursionAvailable, m.Answers, m.Additionals = true, true, nil, nil
	if n.asked%n.every != 0 {
		m.RCode = dnsmessage.RCodeServerFailure
		return m.Pack()
	}
	for _, q := range m.Questions {
		if q.Type != dnsmessage.TypeA {
			continue
		}
		for _, a := range n.addresses {
			m.Answers = append(m.Answers, dnsmessage.Resource{
				Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 0},
				Body:   &dnsmessage.AResource{A: [4]byte(net.ParseIP(a).To4())},
			})
		}
	}
	return m.Pack()
}

// berth is a copy of c that asks this name server.
func (n *nameServer) berth(c *lab.CLI) *lab.CLI {
	n.t.Helper()
	dir := lab.Dir(n.t)
	host, _, _ := net.SplitHostPort(n.addr)
	conf, path := filepath.Join(dir, "resolv.conf"), filepath.Join(dir, "berth")
	script := fmt.Sprintf("#!/bin/sh\nexec unshare -m sh -c 'mount --bind %s /etc/resolv.conf && exec %s \"$@\"' berth \"$@\"\n", conf, c.Bin)
	if err := errors.Join(os.WriteFile(conf, []byte("nameserver "+host+"\noptions timeout:1 attempts:2\n"), 0o644), os.WriteFile(path, []byte(script), 0o755)); err != nil {
		n.t.Fatal(err)
	}
	out := *c
	out.Bin = path
	return &out
}

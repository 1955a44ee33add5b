package main

import (
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// link is a slow network: a loopback port that leads to an address, with a
// delay on the way there and back and a bound on the bytes in each direction. It
// is a stand-in for netem, which kernels may lack: what it has read it has
// acknowledged, so that the far side's window is larger than a real one's.
type link struct {
	listener net.Listener
	network  string // of the target
	target   string
	delay    time.Duration // one way
	rate     int64         // bytes a second
	moved    atomic.Int64  // in both directions
	running  sync.WaitGroup
}

// outside is an address of this machine that is not a loopback one: what is far is
// not to look near. It is a loopback one where there is no other.
func outside() string {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return "127.0.0.1"
	}
	for _, a := range addrs {
		if ip, ok := a.(*net.IPNet); ok && !ip.IP.IsLoopback() && ip.IP.To4() != nil {
			return ip.IP.String()
		}
	}
	return "127.0.0.1"
}

// newLink listens on host and leads to target, such as tcp://127.0.0.1:1 or
// unix:///run/x.sock.
func newLink(host, target string, delay time.Duration, rate int64) (*link, error) {
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return nil, err
	}
	network, addr, _ := strings.Cut(target, "://")
	k := &link{listener: l, network: network, target: addr, delay: delay, rate: rate}
	k.running.Go(k.accept)
	return k, nil
}

func (k *link) endpoint() string { return "tcp://" + k.listener.Addr().String() }

func (k *link) close() {
	_ = k.listener.Close()
}

func (k *link) accept() {
	for {
		near, err := k.listener.Accept()
		if err != nil {
			return
		}
		go func() {
			far, err := net.Dial(k.network, k.target)
			if err != nil {
				_ = near.Close()
				return
			}
			go k.pass(far, near)
			k.pass(near, far)
		}()
	}
}

// parcel is bytes on their way.
type parcel struct {
	data []byte
	due  time.Time
}

// linkWindow is how many bytes may be under way in one direction of a connection,
// in whatever pieces they come.
const linkWindow = 1 << 20

// window counts what is under way.
type window struct {
	mu   sync.Mutex
	room sync.Cond
	used int
}

func newWindow() *window {
	w := &window{}
	w.room.L = &w.mu
	return w
}

// enter waits until there is room, and takes n.
func (w *window) enter(n int) {
	w.mu.Lock()
	for w.used > 0 && w.used+n > linkWindow {
		w.room.Wait()
	}
	w.used += n
	w.mu.Unlock()
}

func (w *window) leave(n int) {
	w.mu.Lock()
	w.used -= n
	w.mu.Unlock()
	w.room.Signal()
}

// pass carries one direction until its sender has ended it.
func (k *link) pass(to, from net.Conn) {
	way, under := make(chan parcel, linkWindow/64), newWindow()
	go func() {
		defer close(way)
		free := time.Now() // when the wire is
		for {
			buf := make([]byte, 16<<10)
			n, err := from.Read(buf)
			if n > 0 {
				k.moved.Add(int64(n))
				under.enter(n)
				now := time.Now()
				if free.Before(now) {
					free = now
				}
				free = free.Add(time.Duration(int64(n) * int64(time.Second) / k.rate))
				way <- parcel{buf[:n], free.Add(k.delay)}
			}
			if err != nil {
				return
			}
		}
	}()
	var failed error
	for p := range way {
		time.Sleep(time.Until(p.due))
		under.leave(len(p.data))
		if failed == nil {
			_, failed = to.Write(p.data)
		}
	}
	if c, ok := to.(interface{ CloseWrite() error }); ok && failed == nil {
		_ = c.CloseWrite()
		return
	}
	_ = to.Close()
	_, _ = io.Copy(io.Discard, from)
}

package dialtest

import (
	"bufio"
	"encoding/base64"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"
)

// ProxyOpts is what a proxy for tests is like.
type ProxyOpts struct {
	SOCKS          bool              // SOCKS 5 rather than HTTP CONNECT
	User, Password string            // it demands this login, unless User is empty
	Hosts          map[string]string // the addresses (host:port) behind names that only it knows
}

// ProxyServer is a proxy in the test's own process.
type ProxyServer struct {
	Addr string // host:port

	opts  ProxyOpts
	mu    sync.Mutex
	asked []string
}

// Proxy starts a proxy on loopback; it ends with the test.
func Proxy(t testing.TB, o ProxyOpts) *ProxyServer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &ProxyServer{Addr: l.Addr().String(), opts: o}
	ServeListener(t, l, p.Serve)
	return p
}

// Asked is the addresses that it was asked for so far, as they were said.
func (p *ProxyServer) Asked() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.asked...)
}

// Serve plays the proxy on a connection.
func (p *ProxyServer) Serve(c net.Conn) {
	if p.opts.SOCKS {
		p.socks(c)
		return
	}
	p.http(c)
}

// to connects to what was asked for.
func (p *ProxyServer) to(addr string) (net.Conn, error) {
	p.mu.Lock()
	p.asked = append(p.asked, addr)
	p.mu.Unlock()
	if behind, ok := p.opts.Hosts[addr]; ok {
		addr = behind
	}
	return net.DialTimeout("tcp", addr, 5*time.Second)
}

func (p *ProxyServer) http(c net.Conn) {
	in := bufio.NewReader(c)
	req, err := http.ReadRequest(in)
	if err != nil || req.Method != http.MethodConnect {
		_, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n")
		return
	}
	if p.opts.User != "" {
		want := "Basic " + base64.StdEncoding.EncodeToString([]byte(p.opts.User+":"+p.opts.Password))
		if req.Header.Get("Proxy-Authorization") != want {
			_, _ = io.WriteString(c, "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"x\"\r\nContent-Length: 4\r\n\r\nno.\n")
			return
		}
	}
	far, err := p.to(req.Host)
	if err != nil {
		_, _ = io.WriteString(c, "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
		return
	}
	_, _ = io.WriteString(c, "HTTP/1.1 200 Connection established\r\n\r\n")
	relayBoth(c, in, far)
}

func (p *ProxyServer) socks(c net.Conn) {
	in := bufio.NewReader(c)
	if !p.socksLogin(c, in) {
		return
	}
	head := make([]byte, 4)
	if _, err := io.ReadFull(in, head); err != nil {
		return
	}
	size := map[byte]int{1: net.IPv4len, 4: net.IPv6len}[head[3]]
	if head[3] == 3 {
		n, err := in.ReadByte()
		if err != nil {
			return
		}
		size = int(n)
	}
	addr := make([]byte, size+2)
	if _, err := io.ReadFull(in, addr); err != nil {
		return
	}
	host := net.IP(addr[:size]).String()
	if head[3] == 3 {
		host = string(addr[:size])
	}
	far, err := p.to(net.JoinHostPort(host, strconv.Itoa(int(binary.BigEndian.Uint16(addr[size:])))))
	if err != nil {
		_, _ = c.Write([]byte{5, 5, 0, 1, 0, 0, 0, 0, 0, 0}) // connection refused
		return
	}
	_, _ = c.Write([]byte{5, 0, 0, 1, 127, 0, 0, 1, 0, 80})
	relayBoth(c, in, far)
}

// socksLogin agrees on a login and checks it.
func (p *ProxyServer) socksLogin(c net.Conn, in *bufio.Reader) bool {
	block := func() []byte { // a length, and as many bytes
		n, err := in.ReadByte()
		if err != nil {
			return nil
		}
		b := make([]byte, n)
		_, _ = io.ReadFull(in, b)
		return b
	}
	if v, err := in.ReadByte(); err != nil || v != 5 {
		return false
	}
	methods := block()
	want := byte(0)
	if p.opts.User != "" {
		want = 2
	}
	for _, m := range methods {
		if m != want {
			continue
		}
		_, _ = c.Write([]byte{5, want})
		if want == 0 {
			return true
		}
		_, _ = in.ReadByte()
		if user, password := block(), block(); string(user) == p.opts.User && string(password) == p.opts.Password {
			_, _ = c.Write([]byte{1, 0})
			return true
		}
		_, _ = c.Write([]byte{1, 1})
		return false
	}
	_, _ = c.Write([]byte{5, 0xff})
	return false
}

// relayBoth copies until both directions have ended, each by itself. A far end
// that breaks breaks the near one, too.
func relayBoth(near net.Conn, in io.Reader, far net.Conn) {
	defer func() { _ = far.Close() }()
	up := make(chan struct{})
	go func() {
		defer close(up)
		_, _ = io.Copy(struct{ io.Writer }{far}, in)
		_ = closeWrite(far)
	}()
	_, err := io.Copy(struct{ io.Writer }{near}, struct{ io.Reader }{far})
	if err != nil {
		if tcp, ok := near.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		_ = near.Close()
	}
	_ = closeWrite(near)
	<-up
}

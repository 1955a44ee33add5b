package tcp

import (
	"errors"
	"net"
	"syscall"
	"testing"

	"github.com/berthbuild/berth/internal/dial"
	"github.com/berthbuild/berth/internal/dial/dialtest"
	"github.com/berthbuild/berth/internal/endpoint"
)

func parse(t testing.TB, raw string) endpoint.Endpoint {
	t.Helper()
	e, err := endpoint.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func listen(t testing.TB) (net.Listener, endpoint.Endpoint) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l, parse(t, "tcp://"+l.Addr().String())
}

func nobody(t testing.TB) endpoint.Endpoint {
	l, e := listen(t)
	_ = l.Close()
	return e
}

func TestConformance(t *testing.T) {
	dialtest.Run(t, dialtest.Peer{
		Scheme: Scheme(dial.Env{}),
		Serve: func(t testing.TB, handle func(net.Conn)) endpoint.Endpoint {
			l, e := listen(t)
			dialtest.ServeListener(t, l, handle)
			return e
		},
		Refused: nobody,
		Stalled: stalled,
	})
}

func TestRefusedKeepsTheChain(t *testing.T) {
	_, err := Scheme(dial.Env{}).Dial(t.Context(), nobody(t))
	var op *net.OpError
	if !errors.As(err, &op) || op.Op != "dial" {
		t.Errorf("error = %#v, want a *net.OpError of a dial", err)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("error = %v, want ECONNREFUSED in its chain", err)
	}
}

func TestIPv6(t *testing.T) {
	l, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Skip("no IPv6 on this machine: ", err)
	}
	dialtest.ServeListener(t, l, func(c net.Conn) { _, _ = c.Write([]byte("6")) })
	c, err := Scheme(dial.Env{}).Dial(t.Context(), parse(t, "tcp://"+l.Addr().String()))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	b := make([]byte, 1)
	if _, err := c.Read(b); err != nil || b[0] != '6' {
		t.Errorf("read %q, %v", b, err)
	}
}

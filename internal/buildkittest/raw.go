package buildkittest

import (
	"net"
	"testing"

	"github.com/berthbuild/berth/internal/dial/dialtest"
)

// Raw is a peer that is no BuildKit at all: handle plays it for every
// connection (an HTTP/1 answer, an SSH banner, silence until the client goes
// away). It returns the endpoint; connections are closed when handle returns.
func Raw(t testing.TB, handle func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dialtest.ServeListener(t, l, handle)
	return "tcp://" + l.Addr().String()
}

// Say is a Raw peer that sends text at once and then reads until the client
// closes.
func Say(text string) func(net.Conn) {
	return func(c net.Conn) {
		_, _ = c.Write([]byte(text))
		Silence(c)
	}
}

// Silence is a Raw peer that reads and never answers.
func Silence(c net.Conn) {
	buf := make([]byte, 4096)
	for {
		if _, err := c.Read(buf); err != nil {
			return
		}
	}
}

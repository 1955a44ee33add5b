package tcp

import (
	"fmt"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/berthbuild/berth/internal/endpoint"
)

// stalled is a listener whose queue is full: Linux answers no further SYN.
func stalled(t testing.TB) endpoint.Endpoint {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	sa, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	addr := fmt.Sprintf("127.0.0.1:%d", sa.(*syscall.SockaddrInet4).Port)
	for range 16 {
		c, err := net.DialTimeout("tcp", addr, 200*time.Millisecond)
		if err != nil {
			return parse(t, "tcp://"+addr)
		}
		t.Cleanup(func() { _ = c.Close() })
	}
	t.Skip("the queue of a listener does not fill on this kernel")
	return endpoint.Endpoint{}
}

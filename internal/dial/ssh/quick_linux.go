package ssh

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// quick makes the kernel acknowledge at once what it receives. sshd lets the
// system hold back small packets, for a connection that no command runs on,
// until those before them were acknowledged; with the usual delay of that, each
// round trip within the connection could take 40 ms more.
func quick(c net.Conn) net.Conn {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return c
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return c
	}
	return &quickConn{tcp, raw}
}

type quickConn struct {
	*net.TCPConn
	raw syscall.RawConn
}

// Read implements net.Conn. The kernel forgets the wish now and then.
func (c *quickConn) Read(p []byte) (int, error) {
	n, err := c.TCPConn.Read(p)
	_ = c.raw.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_QUICKACK, 1) })
	return n, err
}

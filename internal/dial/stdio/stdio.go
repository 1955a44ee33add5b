// Package stdio makes a net.Conn out of a process that speaks BuildKit on its
// standard input and output: a command of this machine, or one that runs in a
// container, in a pod, or behind ssh.
//
// It is not for starting anything but local commands (Command); the schemes
// bring the streams of the others.
//
// Rules: Close waits for nobody, least of all for a remote process that does not
// end; a local one gets a moment before it is killed. What the process writes to its standard error is
// kept, bounded, and is what Read fails with when the process ends badly, so
// that the reason is told in the words of the thing that refused.
package stdio

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// Stream is a process's side of a connection.
type Stream struct {
	In  io.WriteCloser // its standard input; closing it tells that no more comes
	Out io.Reader      // its standard output

	// Kill ends the process and both streams. It waits for nothing that may not
	// come, and is called once.
	Kill func()
	// Wait gives the reason for which the process ended, nil for a good end. It
	// is called once, after Out has ended, and may take until then.
	Wait func() error

	Local, Remote net.Addr // for messages; may be nil
}

const (
	// copyBuffer is how much is passed on at once, in bytes: BuildKit's frames
	// are up to 16 KiB, and a larger buffer saves wake-ups.
	copyBuffer = 64 << 10
	// lastWords is how long the reason of a process that closed its output is
	// waited for.
	lastWords = 2 * time.Second
)

// Conn is the connection. Reads have deadlines, and writes where In has them;
// elsewhere a write ends with Close at the latest.
type Conn struct {
	s    Stream
	read net.Conn // our end of a pipe that Out is copied into

	once   sync.Once
	closed chan struct{}
	ended  chan struct{} // Out has ended; why is set
	why    error

	half sync.Once
	err  error // of closing In
}

// New begins to read from the stream. The caller closes the Conn.
func New(s Stream) *Conn {
	ours, theirs := net.Pipe()
	c := &Conn{s: s, read: ours, closed: make(chan struct{}), ended: make(chan struct{})}
	go c.pump(theirs)
	return c
}

// pump copies what the process says until it ends.
func (c *Conn) pump(to net.Conn) {
	_, err := io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{c.s.Out}, make([]byte, copyBuffer))
	select {
	case <-c.closed: // by us: there is nothing to explain
	default:
		if why := c.reason(); why != nil {
			err = why
		}
	}
	c.why = err
	close(c.ended)
	_ = to.Close() // a pipe in memory
}

// reason asks why the process ended, and does not wait for one that goes on.
func (c *Conn) reason() error {
	why := make(chan error, 1)
	go func() { why <- c.s.Wait() }()
	timer := time.NewTimer(lastWords)
	defer timer.Stop()
	select {
	case err := <-why:
		return err
	case <-c.closed:
	case <-timer.C:
	}
	return nil
}

// Read implements net.Conn. At the end it gives the process's own reason, or
// io.EOF where it ended well.
func (c *Conn) Read(b []byte) (int, error) {
	n, err := c.read.Read(b)
	if err == nil || n > 0 {
		return n, nil
	}
	if errors.Is(err, io.EOF) {
		<-c.ended
		if c.why != nil {
			return 0, c.why
		}
	}
	return 0, pipeError(err)
}

// pipeError makes the pipe's word for "closed" the one that net uses.
func pipeError(err error) error {
	if errors.Is(err, io.ErrClosedPipe) {
		return net.ErrClosed
	}
	return err
}

// Write implements net.Conn. After the process has ended it fails with its
// reason.
func (c *Conn) Write(b []byte) (int, error) {
	select {
	case <-c.closed:
		return 0, net.ErrClosed
	default:
	}
	n, err := c.s.In.Write(b)
	if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		return n, err
	}
	// The process is going; why is just being found out.
	timer := time.NewTimer(lastWords)
	defer timer.Stop()
	select {
	case <-c.closed:
		return n, net.ErrClosed
	case <-c.ended:
		if c.why != nil {
			return n, c.why
		}
	case <-timer.C:
	}
	return n, err
}

// CloseWrite tells the process that no more will come; it may still answer.
func (c *Conn) CloseWrite() error {
	c.half.Do(func() { c.err = c.s.In.Close() })
	return c.err
}

// Close ends the process; see Stream.Kill for how long that may take.
func (c *Conn) Close() error {
	c.once.Do(func() {
		close(c.closed)
		_ = c.read.Close() // a pipe in memory
		c.s.Kill()
	})
	return nil
}

// LocalAddr implements net.Conn.
func (c *Conn) LocalAddr() net.Addr { return orAddr(c.s.Local) }

// RemoteAddr implements net.Conn.
func (c *Conn) RemoteAddr() net.Addr { return orAddr(c.s.Remote) }

// SetDeadline implements net.Conn.
func (c *Conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline implements net.Conn. After the process has ended it does
// nothing: a read waits no more.
func (c *Conn) SetReadDeadline(t time.Time) error {
	err := c.read.SetReadDeadline(t)
	if !errors.Is(err, io.ErrClosedPipe) {
		return err
	}
	select {
	case <-c.closed:
		return net.ErrClosed
	default:
		return nil
	}
}

// SetWriteDeadline implements net.Conn. It does nothing where In has none: a
// process that does not read is ended by Close.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	d, ok := c.s.In.(interface{ SetWriteDeadline(time.Time) error })
	if !ok {
		return nil
	}
	err := d.SetWriteDeadline(t)
	if errors.Is(err, os.ErrNoDeadline) {
		return nil
	}
	return err
}

// Addr names one end of a connection that has no address.
type Addr struct{ Scheme, Name string }

// Network implements net.Addr.
func (a Addr) Network() string { return a.Scheme }

// String implements net.Addr.
func (a Addr) String() string { return a.Name }

func orAddr(a net.Addr) net.Addr {
	if a == nil {
		return Addr{"stdio", "stdio"}
	}
	return a
}

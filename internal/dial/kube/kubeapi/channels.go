package kubeapi

import (
	"errors"
	"io"
)

// The channels of exec over WebSocket: the first byte of each message.
const (
	chanStdin  = 0
	chanStdout = 1
	chanStderr = 2
	chanStatus = 3
	chanClose  = 255 // the next byte is the channel on which no more comes
)

// execWebSocket makes a process of channels. Reading Out is what reads the
// connection, so that a process is not read faster than its output is wanted.
func execWebSocket(ws *websocket, stderr io.Writer) *Process {
	p := &Process{conn: ws.conn, done: make(chan struct{})}
	p.In = &channelIn{ws: ws}
	p.Out = &channelOut{ws: ws, p: p, stderr: stderr}
	return p
}

// channelIn is standard input.
type channelIn struct {
	ws     *websocket
	closed bool
}

// Write implements io.Writer.
func (c *channelIn) Write(b []byte) (int, error) { return c.ws.writeAll([]byte{chanStdin}, b) }

// Close tells that no more comes.
func (c *channelIn) Close() error {
	if c.closed {
		return nil
	}
	c.closed = true
	return c.ws.write(opBinary, nil, []byte{chanClose, chanStdin})
}

// channelOut is standard output; what comes on the other channels is taken on
// the way.
type channelOut struct {
	ws     *websocket
	p      *Process
	stderr io.Writer
	inside bool // a message of standard output
	over   bool // standard output has ended
}

// Read implements io.Reader.
func (c *channelOut) Read(b []byte) (int, error) {
	for !c.over {
		if !c.inside {
			if err := c.next(); err != nil {
				c.end(err)
			}
			continue
		}
		n, err := c.ws.read(b)
		if errors.Is(err, io.EOF) {
			c.inside = false
		} else if err != nil {
			c.end(err)
		}
		if n > 0 {
			return n, nil
		}
	}
	return 0, io.EOF
}

// next takes a message that is not standard output's, or comes to one that is.
func (c *channelOut) next() error {
	if err := c.ws.next(); err != nil {
		return err
	}
	var channel [1]byte
	if n, err := c.ws.read(channel[:]); n == 0 {
		if errors.Is(err, io.EOF) { // an empty message says nothing
			return nil
		}
		return err
	}
	switch channel[0] {
	case chanStdout:
		c.inside = true
		return nil
	case chanStderr:
		_, err := io.Copy(c.stderr, readerFunc(c.ws.read))
		return err
	case chanStatus:
		_, err := io.Copy(writerFunc(c.p.say), readerFunc(c.ws.read))
		c.p.finish(nil)
		c.p.hurry()
		return err
	case chanClose:
		n, err := c.ws.read(channel[:])
		if n == 1 && channel[0] == chanStdout {
			c.over = true
			go c.rest()
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		return err
	}
	return nil // resizing, or what is new to us
}

// end is the connection's.
func (c *channelOut) end(err error) {
	c.over = true
	c.p.finish(unlessEOF(err))
}

// unlessEOF is nil for a good end: the server closed the stream in good order.
func unlessEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// rest reads on after the end of standard output, for the status.
func (c *channelOut) rest() {
	for {
		if err := c.next(); err != nil {
			c.p.finish(unlessEOF(err))
			return
		}
		c.inside = false // output after its end is passed over
	}
}

type writerFunc func([]byte)

// Write implements io.Writer.
func (f writerFunc) Write(p []byte) (int, error) {
	f(p)
	return len(p), nil
}

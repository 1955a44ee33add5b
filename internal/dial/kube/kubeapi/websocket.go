package kubeapi

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
)

// The kinds of a WebSocket frame (RFC 6455, 5.2).
const (
	opContinue = 0x0
	opText     = 0x1
	opBinary   = 0x2
	opClose    = 0x8
	opPing     = 0x9
	opPong     = 0xa

	bitFin  = 0x80
	bitMask = 0x80

	maxControl = 125 // bytes in a control frame
	// maxFrame is how much is sent in one frame, in bytes.
	maxFrame = 64 << 10
	// normalClosure is the code of a good end.
	normalClosure = 1000
)

// websocket is the client's side of a WebSocket connection. One goroutine may
// read while others write.
type websocket struct {
	conn *taken
	r    *bufio.Reader

	left int64 // of the frame that is being read, in bytes
	more bool  // the message has more frames
	end  error // set when there is nothing more to read

	mu  sync.Mutex
	buf []byte
}

// closedError is a close frame that gives a reason.
type closedError struct {
	code uint16
	text string
}

// Error gives the reason.
func (e *closedError) Error() string {
	return fmt.Sprintf("the server closes the stream (code %d): %s", e.code, e.text)
}

// next goes to the next message, passing over what is left of this one. io.EOF
// is a good end.
func (w *websocket) next() error {
	for w.left > 0 || w.more {
		if _, err := io.Copy(io.Discard, readerFunc(w.read)); err != nil {
			return err
		}
	}
	for w.end == nil {
		op, fin, err := w.header()
		switch {
		case err != nil:
			w.fail(err)
		case op == opBinary || op == opText:
			w.more = !fin
			return nil
		default:
			w.fail(errors.New("the server continues a WebSocket message that it did not begin"))
		}
	}
	return w.end
}

// read gives bytes of the message that next went to; io.EOF at its end.
func (w *websocket) read(p []byte) (int, error) {
	for w.left == 0 {
		if !w.more {
			return 0, io.EOF
		}
		op, fin, err := w.header()
		if err == nil && op != opContinue {
			err = errors.New("the server begins a WebSocket message within another")
		}
		if err != nil {
			w.fail(err)
			return 0, w.unexpected()
		}
		w.more = !fin
	}
	if int64(len(p)) > w.left {
		p = p[:w.left]
	}
	n, err := w.r.Read(p)
	w.left -= int64(n)
	if err != nil {
		w.fail(err)
		return n, w.unexpected()
	}
	return n, nil
}

// unexpected is the end within a message.
func (w *websocket) unexpected() error {
	if errors.Is(w.end, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return w.end
}

func (w *websocket) fail(err error) {
	w.end, w.left, w.more = err, 0, false
}

// header reads up to a frame with data, and answers control frames.
func (w *websocket) header() (op byte, fin bool, err error) {
	for {
		var head [2]byte
		if _, err := io.ReadFull(w.r, head[:]); err != nil {
			if errors.Is(err, io.EOF) { // without a close frame: it was cut
				err = errLost
			}
			return 0, false, err
		}
		if head[0]&0x70 != 0 || head[1]&bitMask != 0 {
			return 0, false, errors.New("the server sends a WebSocket frame that no server may send")
		}
		op, fin = head[0]&0x0f, head[0]&bitFin != 0
		size, err := w.size(head[1])
		if err != nil {
			return 0, false, err
		}
		if op < opClose {
			w.left = size
			return op, fin, nil
		}
		if err := w.control(op, size); err != nil {
			return 0, false, err
		}
	}
}

// size reads the length of a frame's data.
func (w *websocket) size(b byte) (int64, error) {
	var ext [8]byte
	switch b {
	case 126:
		_, err := io.ReadFull(w.r, ext[:2])
		return int64(binary.BigEndian.Uint16(ext[:])), err
	case 127:
		_, err := io.ReadFull(w.r, ext[:])
		n := int64(binary.BigEndian.Uint64(ext[:])) //nolint:gosec // a negative one is refused
		if err == nil && n < 0 {
			err = errors.New("the server sends a WebSocket frame of an impossible size")
		}
		return n, err
	}
	return int64(b), nil
}

func (w *websocket) control(op byte, size int64) error {
	if size > maxControl {
		return errors.New("the server sends a WebSocket control frame that is too long")
	}
	data := make([]byte, size)
	if _, err := io.ReadFull(w.r, data); err != nil {
		return err
	}
	switch op {
	case opPing:
		return w.write(opPong, nil, data)
	case opPong:
		return nil
	case opClose:
		_ = w.write(opClose, nil, data) // as the RFC wants; the server may be gone
		if len(data) < 2 {
			return io.EOF
		}
		if code := binary.BigEndian.Uint16(data); code != normalClosure {
			return &closedError{code: code, text: printable(string(data[2:]))}
		}
		return io.EOF
	}
	return errors.New("the server sends a WebSocket frame of an unknown kind")
}

// write sends one frame: prefix and data together.
func (w *websocket) write(op byte, prefix, data []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := len(prefix) + len(data)
	b := append(w.buf[:0], bitFin|op)
	switch {
	case n <= maxControl:
		b = append(b, bitMask|byte(n))
	case n <= 0xffff:
		b = binary.BigEndian.AppendUint16(append(b, bitMask|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, bitMask|127), uint64(n))
	}
	key := rand.Uint32()
	b = binary.LittleEndian.AppendUint32(b, key)
	at := len(b)
	b = append(append(b, prefix...), data...)
	mask(b[at:], key)
	w.buf = b
	_, err := w.conn.Write(b)
	return err
}

// mask is the XOR that the RFC wants of a client, so that nobody in between
// takes the data for something else.
func mask(b []byte, key uint32) {
	wide := uint64(key)<<32 | uint64(key)
	for len(b) >= 8 {
		binary.LittleEndian.PutUint64(b, binary.LittleEndian.Uint64(b)^wide)
		b = b[8:]
	}
	for i := range b {
		b[i] ^= byte(key >> (8 * i & 31))
	}
}

// writeAll sends data in binary frames, each with the prefix.
func (w *websocket) writeAll(prefix, data []byte) (int, error) {
	sent := 0
	for sent < len(data) {
		piece := data[sent:min(sent+maxFrame, len(data))]
		if err := w.write(opBinary, prefix, piece); err != nil {
			return sent, err
		}
		sent += len(piece)
	}
	return sent, nil
}

// tunnel makes a plain stream of bytes of a WebSocket's binary messages.
type tunnel struct {
	*taken
	w      *websocket
	inside bool
}

// Read implements io.Reader.
func (t *tunnel) Read(p []byte) (int, error) {
	for {
		if !t.inside {
			if err := t.w.next(); err != nil {
				return 0, err
			}
			t.inside = true
		}
		n, err := t.w.read(p)
		if errors.Is(err, io.EOF) {
			t.inside, err = false, nil
		}
		if n > 0 || err != nil || len(p) == 0 {
			return n, err
		}
	}
}

// Write implements io.Writer.
func (t *tunnel) Write(p []byte) (int, error) { return t.w.writeAll(nil, p) }

type readerFunc func([]byte) (int, error)

// Read implements io.Reader.
func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

package dockercontainer

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/berthbuild/berth/internal/dial"
	"github.com/berthbuild/berth/internal/dial/dockerengine"
)

// The streams of an exec without a terminal, which come as frames of
// [stream, 0, 0, 0, length (32 bits, big endian)] and length bytes.
const (
	streamStdin  = 0 // written by old engines, meant as standard output
	streamStdout = 1
	streamStderr = 2
	streamSystem = 3 // an error of the engine's own

	headerSize = 8
)

// readBuffer is how much is read from the engine at once, in bytes.
const readBuffer = 64 << 10

// maxSystem bounds an error of the engine's own, in bytes.
const maxSystem = 4 << 10

// demux reads the standard output out of an exec's stream, and writes the
// standard error elsewhere. It holds no frame in memory: a frame's length is
// the peer's word, and may be 4 GiB.
type demux struct {
	from   *bufio.Reader
	stderr io.Writer
	left   uint32 // of a frame of standard output
	broken error  // what is wrong with the stream itself
}

func newDemux(from io.Reader, stderr io.Writer) *demux {
	return &demux{from: bufio.NewReaderSize(from, readBuffer), stderr: stderr}
}

// Read implements io.Reader. A stream that ends within a frame is at its end,
// as one whose engine is killed is.
func (d *demux) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if err := d.next(); err != nil {
		return 0, err
	}
	n, err := d.from.Read(p[:min(uint64(len(p)), uint64(d.left))])
	d.left -= uint32(n)
	return n, err
}

// peek is the first byte that Read will give.
func (d *demux) peek() (byte, error) {
	if err := d.next(); err != nil {
		return 0, err
	}
	b, err := d.from.Peek(1)
	if err != nil {
		return 0, err
	}
	return b[0], nil
}

// next goes to the next byte of standard output.
func (d *demux) next() error {
	for d.left == 0 {
		var header [headerSize]byte
		if _, err := io.ReadFull(d.from, header[:]); err != nil {
			return ended(err)
		}
		length := binary.BigEndian.Uint32(header[4:])
		switch header[0] {
		case streamStdin, streamStdout:
			d.left = length
		case streamStderr:
			if _, err := io.CopyN(d.stderr, d.from, int64(length)); err != nil {
				return ended(err)
			}
		case streamSystem:
			text, err := io.ReadAll(io.LimitReader(d.from, int64(min(length, maxSystem))))
			if err != nil {
				return ended(err)
			}
			d.broken = &dial.Error{Class: Refused, Text: "the Docker engine ends the stream: " + string(text)}
			return d.broken
		default:
			d.broken = &dial.Error{Class: dockerengine.NotDocker, Text: fmt.Sprintf("the Docker engine sends a stream %d, which does not exist", header[0])}
			return d.broken
		}
	}
	return nil
}

func ended(err error) error {
	if err == io.ErrUnexpectedEOF { //nolint:errorlint // as io gives it
		return io.EOF
	}
	return err
}

package dockercontainer

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/moby/moby/api/pkg/stdcopy"
)

func frame(kind byte, text string) string {
	header := [headerSize]byte{kind}
	binary.BigEndian.PutUint32(header[4:], uint32(len(text)))
	return string(header[:]) + text
}

func TestDemux(t *testing.T) {
	in := frame(2, "warning") + frame(1, "") + frame(1, "hello ") + frame(0, "wor") + frame(2, "!") + frame(1, "ld")
	for _, from := range []io.Reader{strings.NewReader(in), iotest.OneByteReader(strings.NewReader(in)), iotest.DataErrReader(strings.NewReader(in))} {
		var stderr bytes.Buffer
		got, err := io.ReadAll(newDemux(from, &stderr))
		if string(got) != "hello world" || stderr.String() != "warning!" || err != nil {
			t.Errorf("read %q and %q, %v", got, &stderr, err)
		}
	}
}

// A frame's length is only a promise: nothing is held for it.
func TestDemuxHoldsNoFrame(t *testing.T) {
	for _, kind := range []byte{1, 2} {
		huge := append([]byte{kind, 0, 0, 0, 0xff, 0xff, 0xff, 0xff}, "hi"...)
		var stderr bytes.Buffer
		got, err := io.ReadAll(newDemux(bytes.NewReader(huge), &stderr))
		if string(got)+stderr.String() != "hi" || err != nil {
			t.Errorf("stream %d: read %q and %q, %v", kind, got, &stderr, err)
		}
	}
	long := append([]byte{streamSystem, 0, 0, 0, 0xff, 0xff, 0xff, 0xff}, strings.Repeat("x", 1<<20)...)
	if _, err := newDemux(bytes.NewReader(long), io.Discard).Read(make([]byte, 1)); err == nil || len(err.Error()) > 2*maxSystem {
		t.Errorf("error = %.100v", err)
	}
}

func TestDemuxPassesErrorsOn(t *testing.T) {
	broken := errors.New("broken")
	for _, in := range []string{"", "\x01\x00", frame(1, "abc")[:9], frame(2, "abc")[:9]} {
		_, err := io.ReadAll(newDemux(io.MultiReader(strings.NewReader(in), iotest.ErrReader(broken)), io.Discard))
		if !errors.Is(err, broken) {
			t.Errorf("%q: %v", in, err)
		}
	}
}

// What the engine's own client makes of a stream is what we make of it.
func FuzzDemux(f *testing.F) {
	f.Add([]byte(frame(1, "out") + frame(2, "err")))
	f.Add([]byte(frame(1, "out")[:9]))
	f.Add([]byte(frame(3, "bad") + frame(1, "out")))
	f.Add([]byte(frame(1, "") + frame(9, "x")))
	f.Add([]byte("OCI runtime exec failed"))
	f.Fuzz(func(t *testing.T, in []byte) {
		cut := false
		for rest := in; len(rest) >= headerSize && !cut; { // the other one makes room for whole frames
			n := binary.BigEndian.Uint32(rest[4:headerSize])
			if n > 1<<20 {
				return
			}
			cut = headerSize+int(n) > len(rest)
			rest = rest[min(headerSize+int(n), len(rest)):]
		}
		var wantOut, wantErr, gotErr bytes.Buffer
		_, werr := stdcopy.StdCopy(&wantOut, &wantErr, bytes.NewReader(in))
		gotOut, gerr := io.ReadAll(newDemux(bytes.NewReader(in), &gotErr))
		if !cut && (werr == nil) != (gerr == nil) { // an error of the engine's that is cut is told, too
			t.Fatalf("errors %v and %v", werr, gerr)
		}
		// It gives nothing of a frame that is cut; we give what is there.
		if !bytes.HasPrefix(gotOut, wantOut.Bytes()) || !bytes.HasPrefix(gotErr.Bytes(), wantErr.Bytes()) {
			t.Fatalf("read %q and %q, want %q and %q", gotOut, &gotErr, &wantOut, &wantErr)
		}
	})
}

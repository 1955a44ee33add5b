package kubeapi

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
)

// frame is what a server sends.
func frame(head byte, data []byte) []byte {
	b := []byte{head}
	switch n := len(data); {
	case n < 126:
		b = append(b, byte(n))
	case n <= 0xffff:
		b = binary.BigEndian.AppendUint16(append(b, 126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 127), uint64(n))
	}
	return append(b, data...)
}

// script is a connection that reads what was prepared and keeps what is written.
type script struct {
	io.Reader
	sent bytes.Buffer
}

func (s *script) Write(b []byte) (int, error) { return s.sent.Write(b) }
func (s *script) Close() error                { return nil }

func play(frames ...[]byte) (*websocket, *script) {
	s := &script{Reader: bytes.NewReader(bytes.Join(frames, nil))}
	t := &taken{ReadWriteCloser: s, cancel: func() {}}
	return &websocket{conn: t, r: bufio.NewReaderSize(t, 64)}, s
}

// sent takes the frames that we sent apart, unmasked.
func sent(t testing.TB, b []byte) (frames [][]byte) {
	t.Helper()
	for len(b) > 0 {
		if b[1]&bitMask == 0 {
			t.Fatal("a frame of ours is not masked")
		}
		n, at := int(b[1]&0x7f), 2
		switch n {
		case 126:
			n, at = int(binary.BigEndian.Uint16(b[2:])), 4
		case 127:
			n, at = int(binary.BigEndian.Uint64(b[2:])), 10
		}
		key, data := b[at:at+4], b[at+4:at+4+n]
		f := []byte{b[0]}
		for i, c := range data {
			f = append(f, c^key[i%4])
		}
		frames = append(frames, f)
		b = b[at+4+n:]
	}
	return frames
}

func message(w *websocket) (string, error) {
	if err := w.next(); err != nil {
		return "", err
	}
	b, err := io.ReadAll(readerFunc(w.read))
	return string(b), err
}

func TestMessages(t *testing.T) {
	long := bytes.Repeat([]byte("x"), 70000)
	w, s := play(
		frame(bitFin|opBinary, []byte("one")),
		frame(opBinary, []byte("tw")), frame(bitFin|opPing, []byte("?")), frame(opContinue, nil), frame(bitFin|opContinue, []byte("o")),
		frame(bitFin|opText, long[:200]),
		frame(bitFin|opBinary, nil),
		frame(bitFin|opPong, nil),
		frame(bitFin|opBinary, long),
		frame(bitFin|opClose, []byte{3, 232}),
	)
	for _, want := range []string{"one", "two", string(long[:200]), "", string(long)} {
		if got, err := message(w); err != nil || got != want {
			t.Fatalf("%d bytes, %v; want %d", len(got), err, len(want))
		}
	}
	for range 2 {
		if _, err := message(w); !errors.Is(err, io.EOF) {
			t.Errorf("error %v", err)
		}
	}
	if got := sent(t, s.sent.Bytes()); len(got) != 2 || string(got[0]) != "\x8a?" || string(got[1]) != "\x88\x03\xe8" {
		t.Errorf("answered %q", got)
	}
}

// What is left of a message is passed over.
func TestNextPassesOver(t *testing.T) {
	w, _ := play(frame(opBinary, []byte("long")), frame(bitFin|opContinue, []byte("er")), frame(bitFin|opBinary, []byte("b")))
	if err := w.next(); err != nil {
		t.Fatal(err)
	}
	if got, err := message(w); err != nil || got != "b" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestBadFrames(t *testing.T) {
	for says, b := range map[string][]byte{
		"was lost":         {},
		"unexpected EOF":   {bitFin | opBinary},
		"no server may":    {bitFin | opBinary | 0x40, 0},
		"no server may ":   {bitFin | opBinary, bitMask, 0, 0, 0, 0},
		"impossible size":  {bitFin | opBinary, 127, 255, 0, 0, 0, 0, 0, 0, 0},
		"too long":         {bitFin | opPing, 126, 1, 0},
		"unknown kind":     {bitFin | 0xb, 0},
		"did not begin":    {bitFin | opContinue, 0},
		"within another":   {opBinary, 0, opBinary, 0},
		"code 1011): oops": frame(bitFin|opClose, []byte("\x03\xf3oops")),
	} {
		w, _ := play(b)
		_, err := message(w)
		if err == nil || errors.Is(err, io.EOF) || !strings.Contains(err.Error(), strings.TrimSpace(says)) {
			t.Errorf("%q: %v", says, err)
		}
	}
}

func TestWriteMasks(t *testing.T) {
	for _, n := range []int{0, 1, 7, 8, 125, 126, 200, 65535, 65536, 200000} {
		data := make([]byte, n)
		for i := range data {
			data[i] = byte(rand.Uint32())
		}
		before := bytes.Clone(data)
		w, s := play()
		if got, err := w.writeAll([]byte{7}, data); err != nil || got != n {
			t.Fatal(got, err)
		}
		if !bytes.Equal(data, before) {
			t.Error("the caller's data was changed")
		}
		var all []byte
		for _, f := range sent(t, s.sent.Bytes()) {
			if f[0] != bitFin|opBinary || f[1] != 7 {
				t.Fatalf("frame begins %x", f[:2])
			}
			all = append(all, f[2:]...)
		}
		if !bytes.Equal(all, data) {
			t.Errorf("%d bytes arrive differently", n)
		}
	}
}

func TestTunnel(t *testing.T) {
	w, s := play(frame(bitFin|opBinary, []byte("a")), frame(bitFin|opBinary, nil), frame(bitFin|opBinary, []byte("bc")), frame(bitFin|opClose, nil))
	tu := &tunnel{taken: w.conn, w: w}
	if got, err := io.ReadAll(tu); err != nil || string(got) != "abc" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := tu.Write([]byte("xyz")); err != nil {
		t.Error(err)
	}
	if got := sent(t, s.sent.Bytes()); string(got[len(got)-1]) != "\x82xyz" {
		t.Errorf("sent %q", got)
	}
}

// Whatever the server sends, reading ends, and gives no more than was sent.
func FuzzFrames(f *testing.F) {
	f.Add(frame(bitFin|opBinary, []byte("\x01one")))
	f.Add(bytes.Join([][]byte{frame(opBinary, []byte("\x01a")), frame(bitFin|opContinue, []byte("b")), frame(bitFin|opBinary, []byte("\x03{}")), frame(bitFin|opClose, nil)}, nil))
	f.Add([]byte{bitFin | opBinary, 127, 0, 0, 0, 0, 255, 255, 255, 255})
	f.Add(frame(bitFin|opBinary, []byte{255, 1}))
	f.Fuzz(func(t *testing.T, b []byte) {
		w, _ := play(b)
		var stderr bytes.Buffer
		p := execWebSocket(w, &stderr)
		out, err := io.ReadAll(p.Out)
		if err != nil {
			t.Errorf("Out ends with %v", err)
		}
		<-p.Done()
		_ = p.Err()
		if len(out)+stderr.Len() > len(b) {
			t.Errorf("%d bytes were sent, %d came", len(b), len(out)+stderr.Len())
		}
	})
}

func TestVerdict(t *testing.T) {
	for said, want := range map[string]*ExitError{
		`{"status":"Success"}`: nil,
		`{"status":"Failure","message":"m","details":{"causes":[{"reason":"ExitCode","message":"7"}]}}`: {Code: 7, Message: "m"},
		`{"status":"Failure","message":"a\nb\u001b[1m"}`:                                                {Message: "a b [1m"},
		`plain words`: {Message: "plain words"},
		`{}`:          {Message: "{}"},
	} {
		err := verdict([]byte(said))
		var got *ExitError
		if errors.As(err, &got) != (want != nil) || got != nil && *got != *want {
			t.Errorf("%s: %+v, want %+v", said, got, want)
		}
	}
}

func TestLabelSelector(t *testing.T) {
	var s LabelSelector
	s.MatchLabels = map[string]string{"b": "2", "a": "1"}
	for _, e := range []struct{ key, op, values string }{{"c", "In", "x y"}, {"d", "NotIn", "z"}, {"e", "Exists", ""}, {"f", "DoesNotExist", ""}} {
		s.MatchExpressions = append(s.MatchExpressions, struct {
			Key      string   `json:"key"`
			Operator string   `json:"operator"`
			Values   []string `json:"values"`
		}{e.key, e.op, strings.Fields(e.values)})
	}
	if got := s.String(); got != "a=1,b=2,c in (x,y),d notin (z),e,!f" {
		t.Error(got)
	}
}

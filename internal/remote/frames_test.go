package remote

import (
	"bytes"
	"strings"
	"testing"
	"unicode"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// frames is what a server says: settings, then an answer with these headers.
func frames(t testing.TB, fields ...string) []byte {
	t.Helper()
	var out, block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for i := 0; i < len(fields); i += 2 {
		if err := enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}); err != nil {
			t.Fatal(err)
		}
	}
	fr := http2.NewFramer(&out, nil)
	if err := fr.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	if len(fields) > 0 {
		if err := fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true}); err != nil {
			t.Fatal(err)
		}
	}
	return out.Bytes()
}

func TestParseFrames(t *testing.T) {
	grpc := frames(t, ":status", "200", "content-type", "application/grpc+proto")
	if s := parseFrames(grpc); !s.grpc() {
		t.Errorf("gRPC's answer = %+v", s)
	}
	if s := parseFrames(grpc[:len(grpc)-3]); s.status != 0 {
		t.Errorf("a cut answer = %+v", s)
	}
	if s := parseFrames(frames(t, ":status", "503", "content-type", "text/html")); s.status != 503 || s.grpc() {
		t.Errorf("a proxy's answer = %+v", s)
	}
	if s := parseFrames(frames(t, ":status", "103")); s.status != 0 {
		t.Errorf("an interim answer = %+v", s)
	}
	if !isHTTP2(frames(t)) || isHTTP2([]byte("HTTP/1.1 400")) || isHTTP2(nil) {
		t.Error("isHTTP2 cannot tell HTTP/2")
	}
	for text, want := range map[string]bool{"": true, "\x00": true, "\x00\x00\x06\x04": true, "\x00\x00\x06\x05": false, "S": false, "\x15\x03": false} {
		if got := mayBeHTTP2([]byte(text)); got != want {
			t.Errorf("mayBeHTTP2(%q) = %v", text, got)
		}
	}
}

func FuzzFrames(f *testing.F) {
	f.Add(frames(f, ":status", "200", "content-type", "application/grpc"))
	f.Add([]byte("SSH-2.0-x\r\n"))
	f.Add([]byte("\x16\x03\x01"))
	f.Add([]byte("\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\x08\x07\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s := parseFrames(b)
		for _, text := range []string{describe(b), s.goAwayText, printable(string(b), maxShown)} {
			if strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) || len(text) > 200 {
				t.Errorf("not fit to print: %q", text)
			}
		}
		if isHTTP2(b) && !mayBeHTTP2(b) {
			t.Errorf("HTTP/2 that cannot be: %q", b)
		}
	})
}

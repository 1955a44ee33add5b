package remote

import (
	"bytes"
	"io"
	"strconv"
	"strings"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// isTLSRecord tells whether bytes begin a TLS record: a handshake or an alert
// of SSL 3 or later.
func isTLSRecord(b []byte) bool {
	return len(b) >= 2 && (b[0] == 0x16 || b[0] == 0x15) && b[1] == 0x03
}

// isHTTP2 tells whether bytes begin with the SETTINGS frame that every HTTP/2
// server sends first.
func isHTTP2(b []byte) bool {
	const settings = 0x4
	return len(b) >= 9 && b[0] == 0 && b[3] == settings && bytes.Equal(b[5:9], make([]byte, 4))
}

// mayBeHTTP2 is isHTTP2 for a beginning that may be incomplete.
func mayBeHTTP2(b []byte) bool {
	whole := []byte{0, 0, 0, 4, 0, 0, 0, 0, 0} // an empty SETTINGS frame
	copy(whole, b)
	return isHTTP2(whole)
}

// spoken is what an HTTP/2 peer said, as far as it was kept.
type spoken struct {
	status      int // of the last answer; 0 without one
	contentType string
	goAway      bool
	goAwayText  string
}

// grpc tells whether the answer was one of gRPC.
func (s spoken) grpc() bool {
	return s.status == 200 && strings.HasPrefix(s.contentType, "application/grpc")
}

// parseFrames reads the frames at the beginning of a connection. What is cut
// off or wrong ends it; it is only ever used to explain.
func parseFrames(b []byte) spoken {
	var s spoken
	fr := http2.NewFramer(io.Discard, bytes.NewReader(b))
	fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	fr.MaxHeaderListSize = maxHeard
	for {
		f, err := fr.ReadFrame()
		if err != nil {
			return s
		}
		switch f := f.(type) {
		case *http2.MetaHeadersFrame:
			s.headers(f)
		case *http2.GoAwayFrame:
			s.goAway, s.goAwayText = true, printable(string(f.DebugData()), maxShown)
		}
	}
}

func (s *spoken) headers(f *http2.MetaHeadersFrame) {
	n, err := strconv.Atoi(f.PseudoValue("status"))
	if err != nil || n < 200 { // trailers, or an interim answer
		return
	}
	s.status, s.contentType = n, ""
	for _, h := range f.RegularFields() {
		if h.Name == "content-type" {
			s.contentType = h.Value
		}
	}
}

// describe says in a few words what a peer is that is no HTTP/2 server.
func describe(b []byte) string {
	if len(b) > maxShown {
		b = b[:maxShown]
	}
	switch {
	case len(b) == 0:
		return "it sent nothing"
	case bytes.HasPrefix(b, []byte("HTTP/1.")):
		return "it is an HTTP/1 server"
	case bytes.HasPrefix(b, []byte("SSH-")):
		return "it is an SSH server"
	case isHTTP2(b):
		return "it speaks plain HTTP/2"
	}
	line, _, _ := bytes.Cut(b, []byte("\n"))
	if text := printable(string(line), maxShown); len(text) >= 3 {
		return "it said " + strconv.Quote(text)
	}
	return "it sent " + strconv.Itoa(len(b)) + " bytes that are no text"
}

package dockerengine

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/berthbuild/berth/internal/dockerconfig"
)

// maxRefusal bounds in bytes what is read of an answer that says no.
const maxRefusal = 4 << 10

// maxSaid bounds in bytes what a message repeats of it.
const maxSaid = 200

// talk is HTTP/1.1 with an engine, until it is upgraded.
type talk struct {
	engine dockerconfig.Engine
	conn   *conn
}

// ping gives what the engine calls itself.
func (t *talk) ping() (string, error) {
	resp, err := t.ask(http.MethodHead, pingPath, nil)
	if err != nil {
		return "", err
	}
	_ = resp.Body.Close() // the answer to HEAD has none
	server := printable(resp.Header.Get("Server"))
	if resp.StatusCode != http.StatusOK {
		return "", refusedPing(t.engine, server, resp.StatusCode)
	}
	return server, nil
}

// upgrade turns the connection into one that speaks proto.
func (t *talk) upgrade(path, proto string, meta map[string][]string) error {
	h := http.Header{}
	for k, v := range meta {
		h[http.CanonicalHeaderKey(k)] = v
	}
	h.Set("Connection", "Upgrade")
	h.Set("Upgrade", proto)
	resp, err := t.ask(http.MethodPost, path, h)
	if err != nil {
		return err
	}
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return nil
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxRefusal))
	return refusedUpgrade(t.engine, t.conn.host, resp.StatusCode, message(body))
}

// message is the engine's own word out of an answer that says no, on one line
// and fit for a terminal.
func message(body []byte) string {
	var said struct{ Message string }
	if json.Unmarshal(body, &said) != nil || said.Message == "" {
		said.Message = string(body)
	}
	return printable(said.Message)
}

func printable(text string) string {
	text = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case r == utf8.RuneError || !unicode.IsPrint(r):
			return -1
		}
		return r
	}, text[:min(len(text), maxSaid)])
	return strings.Join(strings.Fields(text), " ")
}

// ask sends a request without a body, and reads the head of the answer.
func (t *talk) ask(method, path string, h http.Header) (*http.Response, error) {
	req, err := http.NewRequest(method, "http://docker"+path, http.NoBody) //nolint:noctx // the connection is closed when the context ends
	if err != nil {
		return nil, err
	}
	req.Header = t.engine.Header()
	if req.Header.Get("User-Agent") == "" {
		req.Header.Set("User-Agent", "berth")
	}
	for k, v := range h {
		req.Header[k] = v
	}
	if err := req.Write(t.conn.Conn); err != nil {
		return nil, broken(t.engine, err)
	}
	resp, err := http.ReadResponse(t.conn.buffered, req)
	if err != nil {
		return nil, broken(t.engine, err)
	}
	return resp, nil
}

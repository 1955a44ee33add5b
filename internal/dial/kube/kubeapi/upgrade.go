package kubeapi

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // RFC 6455 wants it, and not for security
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

const (
	headerProtocols = "X-Stream-Protocol-Version" // of SPDY
	spdy31          = "SPDY/3.1"
)

// taken is a connection that was taken over from HTTP. It is a net.Conn for
// spdystream; its deadlines do nothing.
type taken struct {
	io.ReadWriteCloser
	protocol string // what was agreed on
	cancel   context.CancelFunc
}

// Close ends it at once, pending reads and writes included.
func (t *taken) Close() error {
	err := t.ReadWriteCloser.Close()
	t.cancel()
	return err
}

// LocalAddr and the rest implement net.Conn.
func (t *taken) LocalAddr() net.Addr { return addr{} }

// RemoteAddr implements net.Conn.
func (t *taken) RemoteAddr() net.Addr { return addr{} }

// SetDeadline implements net.Conn.
func (t *taken) SetDeadline(time.Time) error { return nil }

// SetReadDeadline implements net.Conn.
func (t *taken) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline implements net.Conn.
func (t *taken) SetWriteDeadline(time.Time) error { return nil }

type addr struct{}

// Network implements net.Addr.
func (addr) Network() string { return "kube" }

// String implements net.Addr.
func (addr) String() string { return "kube" }

// ask is one try to take a connection over.
type ask struct {
	method, path string
	query        url.Values
	header       http.Header
	resource     string
}

// upgrade makes the request and takes the connection. ctx ends the request, but
// not the connection.
func (c *Client) upgrade(ctx context.Context, a ask) (*taken, http.Header, error) {
	own, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, cancel)
	conn, h, err := c.takeOver(own, a)
	if !stop() || err != nil {
		cancel()
		if conn != nil {
			_ = conn.Close()
		}
		if ctx.Err() != nil {
			return nil, nil, ctx.Err()
		}
		return nil, nil, err
	}
	return &taken{ReadWriteCloser: conn, cancel: cancel}, h, nil
}

func (c *Client) takeOver(ctx context.Context, a ask) (io.ReadWriteCloser, http.Header, error) {
	req, err := c.request(ctx, a.method, a.path, a.query)
	if err != nil {
		return nil, nil, err
	}
	for k, v := range a.header {
		req.Header[k] = v
	}
	req.Header.Set("Connection", "Upgrade")
	resp, err := c.http.RoundTrip(req)
	if err != nil {
		return nil, nil, err
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		defer func() { _ = resp.Body.Close() }() // only read
		return nil, nil, refusal(resp, "create", a.resource)
	}
	conn, ok := resp.Body.(io.ReadWriteCloser)
	if !ok || !strings.EqualFold(resp.Header.Get("Upgrade"), a.header.Get("Upgrade")) {
		_ = resp.Body.Close()
		return nil, nil, &StatusError{Code: resp.StatusCode, Verb: "create", Resource: a.resource,
			Message: "the server switches to another protocol than was asked for"}
	}
	return conn, resp.Header, nil
}

// websocket takes over a connection that speaks the WebSocket protocol.
func (c *Client) websocket(ctx context.Context, path string, query url.Values, resource, protocol string) (*websocket, error) {
	var nonce [16]byte
	_, _ = rand.Read(nonce[:]) // never fails
	key := base64.StdEncoding.EncodeToString(nonce[:])
	t, h, err := c.upgrade(ctx, ask{method: http.MethodGet, path: path, query: query, resource: resource, header: http.Header{
		"Upgrade":                {"websocket"},
		"Sec-Websocket-Version":  {"13"},
		"Sec-Websocket-Key":      {key},
		"Sec-Websocket-Protocol": {protocol},
	}})
	if err != nil {
		return nil, err
	}
	hash := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11")) //nolint:gosec // RFC 6455
	if h.Get("Sec-Websocket-Accept") != base64.StdEncoding.EncodeToString(hash[:]) || h.Get("Sec-Websocket-Protocol") != protocol {
		_ = t.Close()
		return nil, &StatusError{Code: http.StatusSwitchingProtocols, Verb: "create", Resource: resource,
			Message: fmt.Sprintf("the server does not speak %s over WebSocket", protocol)}
	}
	t.protocol = protocol
	return &websocket{conn: t, r: bufio.NewReaderSize(t, 32<<10)}, nil
}

// spdy takes over a connection that speaks SPDY, as API servers before 1.30 do.
func (c *Client) spdy(ctx context.Context, path string, query url.Values, resource, protocol string) (*taken, error) {
	t, h, err := c.upgrade(ctx, ask{method: http.MethodPost, path: path, query: query, resource: resource, header: http.Header{
		"Upgrade":       {spdy31},
		headerProtocols: {protocol},
	}})
	if err != nil {
		return nil, err
	}
	if !slices.Contains(h.Values(headerProtocols), protocol) {
		_ = t.Close()
		return nil, &StatusError{Code: http.StatusSwitchingProtocols, Verb: "create", Resource: resource,
			Message: fmt.Sprintf("the server does not speak %s over SPDY", protocol)}
	}
	t.protocol = protocol
	return t, nil
}

// otherWay tells whether what WebSocket was refused may work over SPDY: an old
// server, one that wants another right for it, or a proxy that knows neither.
func otherWay(err error) bool {
	s, ok := refused(err)
	return ok && s.Code != http.StatusUnauthorized && s.Code != http.StatusNotFound
}

// clearer chooses between what the two ways were refused with: Kubernetes' own
// words before those of something in between.
func clearer(overWebSocket, overSPDY error) error {
	a, ok := refused(overWebSocket)
	b, both := refused(overSPDY)
	if ok && both && a.Reason != "" && b.Reason == "" {
		return overWebSocket
	}
	return overSPDY
}

// errLost is the end of a connection without a word about why.
var errLost = errors.New("the connection to the API server was lost")

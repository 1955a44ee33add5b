package proxy

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"

	"github.com/berthbuild/berth/internal/dial"
)

const (
	// maxHead bounds what a proxy may answer before the connection, in bytes.
	maxHead = 64 << 10
	// maxInterim bounds its answers of "wait".
	maxInterim = 8
)

// secure speaks TLS to the proxy itself. It must prove who it is to the
// system's CAs.
func (d dialer) secure(ctx context.Context, c net.Conn) (net.Conn, error) {
	tc := tls.Client(c, &tls.Config{ServerName: strings.TrimSuffix(d.proxy.Host, "."), MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}})
	err := tc.HandshakeContext(ctx)
	var header tls.RecordHeaderError
	switch {
	case err == nil:
		return tc, nil
	case ctx.Err() != nil:
		return nil, err
	case errors.As(err, &header):
		return nil, d.notProxy("it does not speak TLS", err)
	}
	return nil, &dial.Error{
		Class: dial.ProxyTLS, Err: err,
		Text: fmt.Sprintf("no TLS with the proxy %s: %s", d.proxy, clean(err.Error())),
		Tries: []string{"berth trusts a proxy's certificate by the system's CAs; others are added with SSL_CERT_FILE",
			"is the proxy itself reached without TLS, as most are? proxy=http://…"},
	}
}

// connect asks an HTTP proxy for the connection.
func (d dialer) connect(c net.Conn, host string) (net.Conn, error) {
	to := net.JoinHostPort(host, d.to.Port)
	var ask bytes.Buffer
	fmt.Fprintf(&ask, "CONNECT %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: berth\r\n", to, to)
	if d.proxy.User != "" {
		login := d.proxy.User + ":" + d.proxy.Password.Reveal()
		fmt.Fprintf(&ask, "Proxy-Authorization: Basic %s\r\n", base64.StdEncoding.EncodeToString([]byte(login)))
	}
	ask.WriteString("\r\n")
	if _, err := c.Write(ask.Bytes()); err != nil {
		return nil, d.broken(err)
	}
	limited := &head{LimitedReader: io.LimitedReader{R: c, N: maxHead}}
	in := bufio.NewReader(limited)
	for range maxInterim {
		resp, err := http.ReadResponse(in, &http.Request{Method: http.MethodConnect}) //nolint:bodyclose // closing would read it to its end, which may never come
		switch {
		case err != nil && limited.N <= 0:
			return nil, d.notProxy("its answer has no end", err)
		case err != nil && limited.ended: // which is read as a line that makes no sense
			return nil, d.broken(io.ErrUnexpectedEOF)
		case err != nil:
			return nil, d.broken(err)
		case resp.StatusCode >= 200:
			return d.answered(c, in, resp)
		}
	}
	return nil, d.notProxy("it answers only that its answer will come", nil)
}

// head reads what a proxy answers before the connection.
type head struct {
	io.LimitedReader
	ended bool // by the proxy
}

// Read implements io.Reader.
func (h *head) Read(p []byte) (int, error) {
	n, err := h.LimitedReader.Read(p)
	h.ended = h.ended || err != nil && h.N > 0
	return n, err
}

// answered reads the status. What follows the answer is the daemon's already.
func (d dialer) answered(c net.Conn, in *bufio.Reader, resp *http.Response) (net.Conn, error) {
	status := fmt.Sprintf("HTTP %d", resp.StatusCode)
	if reason := clean(strings.TrimPrefix(resp.Status, fmt.Sprint(resp.StatusCode))); reason != "" {
		status += " " + reason
	}
	switch code := resp.StatusCode; {
	case code < 300:
		early, err := in.Peek(in.Buffered())
		if err != nil {
			return nil, d.broken(err)
		}
		return prepend(c, early), nil
	case code == http.StatusProxyAuthRequired:
		return nil, d.wantsLogin(status)
	case code == http.StatusBadGateway, code == http.StatusServiceUnavailable, code == http.StatusGatewayTimeout:
		return nil, d.gateway(status)
	}
	return nil, d.refused(status)
}

// ahead is a connection of which the first bytes were read already.
type ahead struct {
	net.Conn
	early []byte
}

// prepend puts early before what c will read.
func prepend(c net.Conn, early []byte) net.Conn {
	_, plain := c.(*net.TCPConn)
	if plain && len(early) == 0 {
		return c
	}
	return &ahead{Conn: c, early: bytes.Clone(early)}
}

// Read implements net.Conn.
func (a *ahead) Read(p []byte) (int, error) {
	if len(a.early) > 0 {
		n := copy(p, a.early)
		a.early = a.early[n:]
		return n, nil
	}
	return a.Conn.Read(p)
}

// CloseWrite says that no more will come.
func (a *ahead) CloseWrite() error {
	if h, ok := a.Conn.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return errors.ErrUnsupported
}

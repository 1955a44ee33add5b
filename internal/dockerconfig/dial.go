package dockerconfig

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"strings"
)

// Dial makes a connection that speaks HTTP/1.1 to the engine, and nothing has
// been said on it; TLS, where the context has it, is done. It is for what the
// engine's API upgrades to another protocol. A proxy of the environment is not
// used for it, as by docker's own command. The error is the system's; it names
// no engine. The caller closes the connection.
func (e Engine) Dial(ctx context.Context) (net.Conn, error) {
	tr, host, err := e.transport()
	if err != nil {
		return nil, err
	}
	_, addr, _ := strings.Cut(host, "://")
	conn, err := tr.DialContext(ctx, "tcp", addr) // other networks have their own dialler in tr
	if err != nil || e.TLS == nil {
		return conn, err
	}
	cfg := tr.TLSClientConfig
	if cfg.ServerName == "" {
		if cfg.ServerName, _, err = net.SplitHostPort(addr); err != nil {
			cfg.ServerName = addr
		}
	}
	tc := tls.Client(conn, cfg)
	if err := tc.HandshakeContext(ctx); err != nil {
		_ = conn.Close() // the handshake's error says more
		return nil, err
	}
	return tc, nil
}

// Header is what the user wants to be sent with each request to an engine.
func (e Engine) Header() http.Header {
	h := http.Header{}
	for k, v := range e.headers {
		h.Set(k, v)
	}
	return h
}

// Shown is the engine's host, fit for a message.
func (e Engine) Shown() string { return redact(e.Host) }

// Redact hides user and password of an engine's address.
func Redact(host string) string { return redact(host) }

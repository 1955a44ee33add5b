package remote

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/grpchijack"
	"golang.org/x/net/http2"

	"github.com/berthbuild/berth/internal/dial"
)

// The stages of an attempt besides those of its scheme, as a dial.Tracer hears
// of them. The names are stable.
const (
	StageFiles = "files" // the certificate files are read; before the dial
	StageTLS   = "tls"   // the handshake
	StageHTTP2 = "http2" // the first frame of the peer
	StageInfo  = "info"  // BuildKit's answer
)

// Stage is the stage of the attempt that the failure is about, "" where it is
// one of the scheme's own. It may be told by a later one: with TLS 1.3 the
// refusal of our certificate comes in place of BuildKit's answer.
func (f *Failure) Stage() string {
	var c *cause
	if !errors.As(f.Cause, &c) {
		return ""
	}
	switch c.class {
	case TLSUntrusted, TLSName, TLSExpired, TLSClientCert, TLSRequired, TLSHandshake, NotTLS:
		return StageTLS
	case NotHTTP2:
		return StageHTTP2
	}
	var own *dial.Error
	switch {
	case c.stage == stageTLS && (c.class == BadConfig || c.class == dial.KeyLocked):
		return StageFiles
	case c.stage == stageDial || errors.As(c.err, &own):
		return ""
	case c.stage == stageTLS:
		return StageTLS
	}
	return StageInfo
}

// Presented is the certificates that the peer showed and that were not
// accepted, its own first; nil where the failure is not about them.
func (f *Failure) Presented() []*x509.Certificate {
	var v *tls.CertificateVerificationError
	if errors.As(f.Cause, &v) {
		return v.UnverifiedCertificates
	}
	return nil
}

// Security is what a TLS handshake agreed on, and what it showed.
type Security struct {
	State   tls.ConnectionState
	Asked   bool   // the daemon wanted a certificate of ours
	Signers string // by which CAs, as far as it said; for people
	Sent    bool   // we have one, so it got it
}

// Security is that of the connection; ok is false without TLS.
func (c *Conn) Security() (s Security, ok bool) {
	h := c.line.tls
	if h == nil {
		return Security{}, false
	}
	s = Security{State: h.state, Sent: h.has}
	s.Asked, s.Signers = h.wanted()
	return s, true
}

// SessionDialer is what a session of the daemon runs over: a stream of this
// connection, or for a daemon that wants it so a connection of its own.
func (c *Conn) SessionDialer() session.Dialer {
	return c.SessionOver(grpchijack.Dialer(c.client.ControlClient()))
}

// SessionOver is SessionDialer with another way to make a connection of a stream.
func (c *Conn) SessionOver(stream session.Dialer) session.Dialer {
	return func(ctx context.Context, proto string, meta map[string][]string) (net.Conn, error) {
		return c.line.openSession(ctx, stream, proto, meta)
	}
}

// traceAnswer tells a tracer how the peer answered to the first question, which
// began at began and ended with err.
func traceAnswer(ctx context.Context, l *line, began time.Time, err error) {
	if !dial.Traced(ctx) {
		return
	}
	now := time.Now()
	l.app.mu.Lock()
	first, heard := l.app.first, bytes.Clone(l.app.heard)
	l.app.mu.Unlock()
	spoke := dial.Stage{Name: StageHTTP2, Took: now.Sub(began), Err: err}
	if !isHTTP2(heard) {
		if err == nil { // it cannot be
			spoke.Err = errNotHTTP2
		}
		dial.Report(ctx, spoke)
		return
	}
	if first.Before(began) { // it spoke before it was asked
		first = began
	}
	spoke.Took, spoke.Err, spoke.Text = first.Sub(began), nil, settingsText(heard)
	if l.tls != nil {
		spoke.Text = "ALPN " + l.tls.state.NegotiatedProtocol + "; " + spoke.Text
	}
	dial.Report(ctx, spoke)
	dial.Report(ctx, dial.Stage{Name: StageInfo, Took: now.Sub(first), Err: err})
}

// settingsText is the peer's first frame in words.
func settingsText(heard []byte) string {
	f, err := http2.NewFramer(io.Discard, bytes.NewReader(heard)).ReadFrame()
	settings, ok := f.(*http2.SettingsFrame)
	if err != nil || !ok {
		return "settings that cannot be read"
	}
	var words []string
	for _, s := range []struct {
		id   http2.SettingID
		unit string
	}{
		{http2.SettingMaxConcurrentStreams, "%d streams at once"},
		{http2.SettingMaxFrameSize, "frames up to %d bytes"},
		{http2.SettingInitialWindowSize, "window %d bytes"},
		{http2.SettingMaxHeaderListSize, "headers up to %d bytes"},
	} {
		if v, set := settings.Value(s.id); set {
			words = append(words, fmt.Sprintf(s.unit, v))
		}
	}
	if len(words) == 0 {
		return "the default settings"
	}
	return strings.Join(words, ", ")
}

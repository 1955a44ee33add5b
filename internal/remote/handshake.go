package remote

import (
	"crypto/tls"
	"crypto/x509/pkix"
	"encoding/asn1"
	"strings"
	"sync"

	"github.com/berthbuild/berth/internal/endpoint"
)

// handshake is one TLS handshake: what goes into it, and what the daemon
// asked for in it.
type handshake struct {
	config *tls.Config
	state  tls.ConnectionState // after it succeeded

	mu      sync.Mutex
	asked   bool     // the daemon wanted a certificate of ours
	signers []string // by which CAs, as far as it said
	has     bool     // we have one
}

// newHandshake reads the files, each time anew: certificates are rotated.
func newHandshake(t Target) (*handshake, error) {
	files, err := loadFiles(t.Options)
	if err != nil {
		return nil, err
	}
	h := &handshake{has: files.cert != nil}
	h.config = &tls.Config{
		RootCAs:    files.roots,
		ServerName: serverName(t),
		NextProtos: []string{"h2"},
		MinVersion: tls.VersionTLS12,
		GetClientCertificate: func(cri *tls.CertificateRequestInfo) (*tls.Certificate, error) {
			h.note(cri)
			if files.cert == nil {
				return &tls.Certificate{}, nil
			}
			// Sent even when the daemon names other CAs: its refusal says more
			// than its complaint that there was none.
			return files.cert, nil
		},
	}
	return h, nil
}

func serverName(t Target) string {
	if name := t.Options.ServerNameFor(t.Endpoint); name != "" {
		return name
	}
	return "localhost"
}

func (h *handshake) note(cri *tls.CertificateRequestInfo) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.asked = true
	for _, raw := range cri.AcceptableCAs[:min(len(cri.AcceptableCAs), 3)] {
		var seq pkix.RDNSequence
		if rest, err := asn1.Unmarshal(raw, &seq); err == nil && len(rest) == 0 {
			h.signers = append(h.signers, printable(seq.String(), maxShown))
		}
	}
}

// wanted is whether the daemon asked for a certificate of ours, and the CAs
// that it named.
func (h *handshake) wanted() (bool, string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.asked, strings.Join(h.signers, ", ")
}

// caShown says which CAs the daemon's certificate was checked against.
func caShown(o endpoint.Options) string {
	if o.CACert == "" {
		return "the system's CAs (no cacert is set)"
	}
	return "cacert " + o.CACert
}

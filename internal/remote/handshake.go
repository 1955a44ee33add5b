package remote

import (
	"context"
	"crypto/tls"
	"crypto/x509/pkix"
	"encoding/asn1"
	"strings"
	"sync"

	"github.com/berthbuild/berth/internal/dial"
)

// handshake is one TLS handshake: what goes into it, and what the daemon
// asked for in it.
type handshake struct {
	config *tls.Config
	state  tls.ConnectionState // after it succeeded
	files  TLSFiles

	mu      sync.Mutex
	asked   bool     // the daemon wanted a certificate of ours
	signers []string // by which CAs, as far as it said
	has     bool     // we have one
}

// newHandshake reads the files, each time anew: certificates are rotated.
func newHandshake(ctx context.Context, t Target, keys *dial.Keyring) (*handshake, error) {
	files, err := settled(ctx, t.Options, keys)
	if err != nil {
		return nil, err
	}
	roots, err := files.roots()
	if err != nil {
		return nil, err
	}
	cert := files.certificate()
	h := &handshake{files: files, has: cert != nil}
	h.config = &tls.Config{
		RootCAs:    roots,
		ServerName: serverName(t),
		NextProtos: []string{"h2"},
		MinVersion: tls.VersionTLS12,
		GetClientCertificate: func(cri *tls.CertificateRequestInfo) (*tls.Certificate, error) {
			h.note(cri)
			if cert == nil {
				return &tls.Certificate{}, nil
			}
			// Sent even when the daemon names other CAs: its refusal says more
			// than its complaint that there was none.
			return cert, nil
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

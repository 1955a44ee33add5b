package remote

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"reflect"
	"strings"
	"time"

	"github.com/berthbuild/berth/internal/endpoint"
	"github.com/berthbuild/berth/internal/hint"
)

// classifyFiles is for certificate files that cannot be used. The text names
// option and path; the hints come with the error.
func classifyFiles(err error) *cause {
	return &cause{class: BadConfig, text: err.Error(), tries: hint.Of(err), err: err, stage: stageTLS}
}

// classifyHandshake reads the error of a TLS handshake, and the first bytes
// that the peer sent.
func classifyHandshake(t Target, hs *handshake, l *line, err error, timedOut bool) *cause {
	var header tls.RecordHeaderError
	if c := classifyCertificate(t, err); c != nil {
		return c
	}
	if c := classifyAlert(t, hs, err); c != nil {
		return c
	}
	heard := l.raw.begun()
	switch {
	case errors.As(err, &header) || len(heard) > 0 && !isTLSRecord(heard):
		return notTLS(t, heard, err)
	case timedOut:
		return &cause{
			class: Silent, text: "connected, but no answer to the TLS handshake", err: err, stage: stageTLS, bare: true,
			tries: []string{
				"is the daemon hanging, or is something else behind this port?",
				"if it does not use TLS: " + withoutTLS(t),
			},
		}
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), isAny(err, resetErrnos()):
		return &cause{
			class: Closed, text: "the peer closes the connection during the TLS handshake", err: err, stage: stageTLS,
			tries: []string{"a proxy whose daemon is down looks like this; so does a server without TLS", "if it does not use TLS: " + withoutTLS(t)},
		}
	}
	return &cause{
		class: TLSHandshake, text: "TLS handshake failed: " + printable(err.Error(), maxText), err: err, stage: stageTLS,
		tries: []string{openssl(t)},
	}
}

// notTLS: the answer to our greeting was no TLS.
func notTLS(t Target, heard []byte, err error) *cause {
	c := &cause{class: NotTLS, err: err, stage: stageTLS, text: "the peer does not speak TLS: " + describe(heard)}
	if isHTTP2(heard) {
		c.text = "the daemon speaks plain HTTP/2, not TLS"
		c.tries = []string{withoutTLS(t)}
		return c
	}
	c.tries = []string{"is this the port of buildkitd? " + t.Endpoint.String()}
	return c
}

// classifyCertificate is about the daemon's certificate; nil when err is not.
func classifyCertificate(t Target, err error) *cause {
	c := &cause{err: err, stage: stageTLS}
	var (
		unknown x509.UnknownAuthorityError
		name    x509.HostnameError
		invalid x509.CertificateInvalidError
		roots   x509.SystemRootsError
		verify  *tls.CertificateVerificationError
	)
	switch {
	case errors.As(err, &name):
		wrongName(t, c, name)
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		notNow(c, invalid.Cert)
	case errors.As(err, &unknown):
		c.class = TLSUntrusted
		c.text = fmt.Sprintf("certificate is signed by an unknown CA (%s)", issuer(unknown.Cert))
		c.tries = untrustedHints(t, unknown.Cert)
	case errors.As(err, &invalid):
		c.class, c.text = TLSUntrusted, "certificate cannot be used: "+printable(invalid.Error(), maxText)
		if invalid.Reason == x509.IncompatibleUsage {
			c.text = "certificate is not for servers"
			c.tries = []string{"was the client's certificate given to buildkitd? its own needs the extended key usage serverAuth"}
		}
	case errors.As(err, &roots):
		c.class, c.text = TLSUntrusted, "this machine has no list of trusted CAs"
		c.tries = []string{"name the daemon's CA: " + remake(t, map[string]string{endpoint.OptCACert: "CA.pem"})}
	case errors.As(err, &verify):
		c.class, c.text = TLSUntrusted, "certificate cannot be verified: "+printable(verify.Err.Error(), maxText)
	default:
		return nil
	}
	return c
}

func issuer(cert *x509.Certificate) string {
	if cert == nil {
		return "no name"
	}
	return printable(cert.Issuer.String(), maxShown)
}

func untrustedHints(t Target, cert *x509.Certificate) []string {
	checked := fmt.Sprintf("it was checked against %s", caShown(t.Options))
	set := remake(t, map[string]string{endpoint.OptCACert: "CA.pem"})
	if cert != nil {
		return []string{checked + "; the CA to name is " + issuer(cert) + ": " + set}
	}
	return []string{checked, set}
}

func wrongName(t Target, c *cause, e x509.HostnameError) {
	c.class = TLSName
	all := e.Certificate.DNSNames
	for _, ip := range e.Certificate.IPAddresses {
		all = append(all[:len(all):len(all)], ip.String())
	}
	if len(all) == 0 {
		c.text = fmt.Sprintf("certificate has no names in it, so none for %q", e.Host)
		c.tries = []string{"a common name alone does not count: make it anew with a subjectAltName, DNS:" + e.Host + " for example"}
		return
	}
	c.text = fmt.Sprintf("certificate is for %s, not for %q", names(all), e.Host)
	use := all[0]
	for _, n := range all {
		if !strings.HasPrefix(n, "*.") {
			use = n
			break
		}
	}
	use = strings.Replace(use, "*.", "NAME.", 1)
	c.tries = []string{"if the daemon is the right one: " + remake(t, map[string]string{endpoint.OptServerName: printable(use, maxText)})}
}

func notNow(c *cause, cert *x509.Certificate) {
	const day = "2006-01-02 15:04 MST"
	c.class = TLSExpired
	subject := ""
	if cert.IsCA {
		subject = " of its CA " + printable(cert.Subject.String(), maxShown)
	}
	if time.Now().Before(cert.NotBefore) {
		c.text = fmt.Sprintf("certificate%s is not valid before %s", subject, cert.NotBefore.UTC().Format(day))
		c.tries = []string{"is this machine's clock right? date"}
		return
	}
	c.text = fmt.Sprintf("certificate%s expired on %s", subject, cert.NotAfter.UTC().Format(day))
	c.tries = []string{"issue a new certificate for the daemon and restart it", "or is this machine's clock wrong? date"}
}

// The alerts that a TLS peer sends, RFC 8446 section 6.2.
const (
	alertHandshakeFailure  = 40
	alertBadCertificate    = 42
	alertUnsupportedCert   = 43
	alertCertRevoked       = 44
	alertCertExpired       = 45
	alertCertUnknown       = 46
	alertUnknownCA         = 48
	alertAccessDenied      = 49
	alertProtocolVersion   = 70
	alertUnrecognizedName  = 112
	alertCertRequired      = 116
	alertNoApplicationProt = 120
)

// alertOf is the alert that the peer sent. Package crypto/tls keeps the type
// of its alerts to itself, but says by Op that it is one.
func alertOf(err error) (code uint8, ok bool) {
	var op *net.OpError
	if !errors.As(err, &op) || op.Op != "remote error" || op.Err == nil {
		return 0, false
	}
	v := reflect.ValueOf(op.Err)
	if v.Kind() != reflect.Uint8 {
		return 0, false
	}
	return uint8(v.Uint()), true
}

// classifyAlert is for a peer that refuses us within TLS; nil when it sent no
// alert.
func classifyAlert(t Target, hs *handshake, err error) *cause {
	code, ok := alertOf(err)
	if !ok {
		return nil
	}
	asked, _ := hs.wanted()
	c := &cause{err: err, stage: stageTLS}
	switch {
	case code == alertNoApplicationProt:
		c.class, c.text = NotHTTP2, "the peer speaks TLS, but no HTTP/2 over it"
		c.tries = []string{"a web server or proxy without HTTP/2? BuildKit is reached over gRPC: " + openssl(t)}
	case code == alertUnrecognizedName:
		c.class, c.text = TLSName, fmt.Sprintf("the peer does not serve the name %q", serverName(t))
		c.tries = []string{remake(t, map[string]string{endpoint.OptServerName: "NAME"})}
	case code == alertProtocolVersion:
		c.class, c.text = TLSHandshake, "the peer speaks neither TLS 1.2 nor 1.3"
		c.tries = []string{openssl(t)}
	case isCertAlert(code), code == alertHandshakeFailure && asked && !hs.has:
		return clientCert(t, hs, alertText(code, hs.has), err)
	default:
		c.class, c.text = TLSHandshake, "the peer refused the TLS handshake: "+tls.AlertError(code).Error()
		c.tries = []string{openssl(t)}
	}
	return c
}

func isCertAlert(code uint8) bool {
	switch code {
	case alertBadCertificate, alertUnsupportedCert, alertCertRevoked, alertCertExpired, alertCertUnknown,
		alertUnknownCA, alertAccessDenied, alertCertRequired:
		return true
	}
	return false
}

// alertText says what the daemon has against our certificate.
func alertText(code uint8, has bool) string {
	switch {
	case !has:
		return "the daemon requires a client certificate"
	case code == alertCertExpired:
		return "the daemon refused our client certificate: expired"
	case code == alertUnknownCA:
		return "the daemon refused our client certificate: signed by a CA that it does not know"
	case code == alertCertRevoked:
		return "the daemon refused our client certificate: revoked"
	}
	return "the daemon refused our client certificate"
}

// clientCert is a refusal of who we are. The hints say whether we sent
// anything, and what the daemon wanted.
func clientCert(t Target, hs *handshake, text string, err error) *cause {
	c := &cause{class: TLSClientCert, text: text, err: err, stage: stageTLS}
	_, signers := hs.wanted()
	if signers != "" {
		signers = " signed by " + signers
	}
	if !hs.has {
		c.tries = []string{"none is set; it wants one" + signers + ": " +
			remake(t, map[string]string{endpoint.OptCert: "CERT.pem", endpoint.OptKey: "KEY.pem"})}
		return c
	}
	c.tries = []string{"we sent " + t.Options.Cert + "; look at it: openssl x509 -noout -issuer -dates -ext extendedKeyUsage -in " + hint.Quote(t.Options.Cert)}
	if signers != "" {
		c.tries = append(c.tries, "the daemon wants one"+signers)
	}
	return c
}

// openssl is the command that shows a handshake in full.
func openssl(t Target) string {
	return fmt.Sprintf("openssl s_client -connect %s -servername %s -alpn h2", hint.Quote(t.Endpoint.Address()), hint.Quote(serverName(t)))
}

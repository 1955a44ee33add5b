package remote

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/berthbuild/berth/internal/dial"
	"github.com/berthbuild/berth/internal/endpoint"
	"github.com/berthbuild/berth/internal/hint"
)

// classifyFiles is for certificate files that cannot be used. The text names
// option and path; the hints come with the error.
func classifyFiles(err error) *cause {
	c := &cause{class: BadConfig, text: err.Error(), tries: hint.Of(err), err: err, stage: stageTLS}
	var own *dial.Error
	if errors.As(err, &own) {
		c.class = own.Class
	}
	return c
}

// classifyHandshake reads the error of a TLS handshake, and the first bytes
// that the peer sent.
func classifyHandshake(t Target, hs *handshake, l *line, err error, timedOut bool) *cause {
	var header tls.RecordHeaderError
	if c := classifyCertificate(t, hs, err); c != nil {
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
	if v := helloVersion(heard); v != 0 && v < tls.VersionTLS12 {
		return tooOld(t, err)
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
func classifyCertificate(t Target, hs *handshake, err error) *cause {
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
		untrusted(t, hs, c, sent(err))
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

// sent is what the daemon showed, its own certificate first.
func sent(err error) []*x509.Certificate {
	var verify *tls.CertificateVerificationError
	if errors.As(err, &verify) {
		return verify.UnverifiedCertificates
	}
	return nil
}

// topOf is the last certificate of the way up from the first that was sent: what
// signed that one is not there.
func topOf(chain []*x509.Certificate) *x509.Certificate {
	top := chain[0]
	for range chain {
		i := slices.IndexFunc(chain, func(c *x509.Certificate) bool {
			return c != top && bytes.Equal(c.RawSubject, top.RawIssuer) && top.CheckSignatureFrom(c) == nil
		})
		if i < 0 {
			break
		}
		top = chain[i]
	}
	return top
}

// untrusted: no CA that we trust has signed the certificate. Whether ours is
// the wrong one, or the daemon keeps back a CA in between, cannot be told.
func untrusted(t Target, hs *handshake, c *cause, chain []*x509.Certificate) {
	c.class, c.text = TLSUntrusted, "certificate is signed by an unknown CA"
	checked := "it was checked against " + hs.files.where.trust()
	set := remake(t, map[string]string{endpoint.OptCACert: "CA.pem"})
	if len(chain) == 0 {
		c.tries = []string{checked, set}
		return
	}
	top := topOf(chain)
	name := printable(top.Issuer.String(), maxShown)
	selfSigned := bytes.Equal(top.RawIssuer, top.RawSubject)
	c.text += " (" + name + ")"
	if selfSigned && top == chain[0] {
		c.text = "certificate is signed by nobody but itself (" + name + ")"
	}
	c.tries = []string{checked + "; the CA to name is " + name + ": " + set}
	if slices.ContainsFunc(hs.files.CAs, func(ca *x509.Certificate) bool { return bytes.Equal(ca.RawSubject, top.RawIssuer) }) {
		c.tries = append(c.tries, "a CA of this name was checked against, but it has another key: was the CA made anew?")
	}
	if !selfSigned && len(chain) == 1 {
		c.tries = append(c.tries, "if "+name+" is an intermediate CA, the daemon must send its certificate, too: cat cert.pem intermediate.pem >chain.pem; buildkitd --tlscert chain.pem …")
	}
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

// day is how points in time are written.
const day = "2006-01-02 15:04 MST"

func notNow(c *cause, cert *x509.Certificate) {
	c.class = TLSExpired
	subject := ""
	if cert.IsCA {
		subject = " of its CA " + printable(cert.Subject.String(), maxShown)
	}
	now := time.Now()
	if now.Before(cert.NotBefore) {
		c.text = fmt.Sprintf("certificate%s is not valid before %s, which is %s ahead of this machine's clock",
			subject, cert.NotBefore.UTC().Format(day), span(cert.NotBefore.Sub(now)))
		c.tries = []string{"is this machine's clock right? date -u", "if it is, the certificate was made on a machine whose clock is ahead: wait, or make it anew"}
		return
	}
	c.text = fmt.Sprintf("certificate%s expired on %s, %s ago by this machine's clock", subject, cert.NotAfter.UTC().Format(day), span(now.Sub(cert.NotAfter)))
	c.tries = []string{"issue a new certificate for the daemon (where berth made it: berth certs renew) and restart it", "or is this machine's clock wrong? date -u"}
}

// helloVersion is the version that a TLS server chose in its first message, 0
// where it said something else.
func helloVersion(heard []byte) uint16 {
	const serverHello = 2
	if len(heard) < 11 || heard[0] != 0x16 || heard[5] != serverHello {
		return 0
	}
	return uint16(heard[9])<<8 | uint16(heard[10])
}

// tooOld is a peer that speaks only what is not safe any more.
func tooOld(t Target, err error) *cause {
	return &cause{
		class: TLSHandshake, text: "the peer speaks neither TLS 1.2 nor 1.3", err: err, stage: stageTLS,
		tries: []string{"buildkitd itself speaks both: what is in front of it wants an update, or its settings permit too little", openssl(t)},
	}
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
		return tooOld(t, err)
	case isCertAlert(code), code == alertHandshakeFailure && asked && !hs.has:
		return clientCert(t, hs, alertText(code, hs), err)
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

// alertText says what the daemon has against our certificate: what is wrong
// with it by our own judgement, else what the alert says.
func alertText(code uint8, hs *handshake) string {
	const refused = "the daemon refused our client certificate"
	if !hs.has {
		return "the daemon requires a client certificate"
	}
	if why := unfit(hs.files.Chain[0], time.Now()); why != "" {
		return refused + ": " + why
	}
	switch code {
	case alertCertExpired:
		return refused + ": expired, or not valid yet"
	case alertUnknownCA:
		return refused + ": signed by a CA that it does not know"
	case alertCertRevoked:
		return refused + ": revoked"
	}
	return refused
}

// unfit is why no daemon would take the certificate, "" where one may.
func unfit(cert *x509.Certificate, now time.Time) string {
	usage := func(u x509.ExtKeyUsage) bool { return u == x509.ExtKeyUsageClientAuth || u == x509.ExtKeyUsageAny }
	switch {
	case now.After(cert.NotAfter):
		return "it expired on " + cert.NotAfter.UTC().Format(day)
	case now.Before(cert.NotBefore):
		return fmt.Sprintf("it is not valid before %s, which is %s ahead of this machine's clock", cert.NotBefore.UTC().Format(day), span(cert.NotBefore.Sub(now)))
	case len(cert.ExtKeyUsage)+len(cert.UnknownExtKeyUsage) > 0 && !slices.ContainsFunc(cert.ExtKeyUsage, usage):
		return "it is not for clients (no extended key usage clientAuth)"
	}
	return ""
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
	look := "we sent " + hs.files.CertFrom
	if path := hs.files.where.cert.path; path != "" {
		look += "; look at it: openssl x509 -noout -issuer -dates -ext extendedKeyUsage -in " + hint.Quote(path)
	}
	if time.Now().After(hs.files.Chain[0].NotAfter) {
		c.tries = []string{"get a new one (where berth made it: berth certs renew)"}
	}
	c.tries = append(c.tries, look)
	if signers != "" {
		c.tries = append(c.tries, "the daemon wants one"+signers)
	}
	return c
}

// openssl is the command that shows a handshake in full.
func openssl(t Target) string {
	return fmt.Sprintf("openssl s_client -connect %s -servername %s -alpn h2", hint.Quote(t.Endpoint.Address()), hint.Quote(serverName(t)))
}

package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/berthbuild/berth/internal/dial"
	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/remote"
)

// soon is how near an expiry is worth a warning.
const soon = 14 * 24 * time.Hour

// proxied tells whether a proxy may stand between us and the daemon.
func (w *walk) proxied() bool { return !w.target.Options.Proxy.IsZero() }

// files is StepFiles, as far as looking at the files tells it; whether they can
// be used is told by the connection, which reads them again.
func (w *walk) files(ctx context.Context) Step {
	began := time.Now()
	o := w.target.Options
	s := Step{Name: StepFiles, Status: OK}
	if !o.TLS() {
		s.Status, s.Text = Skipped, "no TLS option is set"
		if !w.target.Endpoint.Loopback() {
			s.Text += "; whoever reaches the port can build as the daemon"
		}
		return s
	}
	scheme, _ := w.d.o.Schemes.Lookup(w.target.Endpoint.Scheme)
	f, err := remote.ReadTLS(ctx, o, scheme.Keys)
	if err != nil {
		return s
	}
	l := look{now: began}
	for _, c := range f.CAs {
		l.cert("CA, "+f.CAFrom, c)
	}
	if f.SystemCAs {
		l.add("CA", "those that this system trusts")
	}
	for _, c := range f.Chain {
		l.cert("ours, "+f.CertFrom, c)
	}
	if len(f.Chain) > 0 && !forClients(f.Chain[0]) {
		l.warn(f.CertFrom+" is not for clients", "its extended key usage lacks clientAuth: was the daemon's certificate taken?")
	}
	l.key(f)
	s.Facts, s.Text = l.facts, "read"
	if !l.soonest.IsZero() {
		s.Text = "the first to expire: " + expiry(l.soonest, began)
	}
	if len(l.warnings) > 0 {
		s.Status, s.Text, s.Hints = Warning, strings.Join(l.warnings, "; "), l.hints
	}
	s.Took = time.Since(began)
	return s
}

// look gathers what certificates say of themselves.
type look struct {
	now      time.Time
	facts    []dial.Fact
	warnings []string
	hints    []string
	soonest  time.Time
}

func (l *look) add(name, value string) {
	l.facts = append(l.facts, dial.Fact{Name: name, Value: value})
}

func (l *look) warn(text, try string) {
	l.warnings, l.hints = append(l.warnings, text), append(l.hints, try)
}

// cert describes a certificate, and looks when it is valid.
func (l *look) cert(name string, c *x509.Certificate) {
	l.add(name, describeCert(c, l.now))
	if l.soonest.IsZero() || c.NotAfter.Before(l.soonest) {
		l.soonest = c.NotAfter
	}
	_, file, _ := strings.Cut(name, ", ")
	switch {
	case l.now.After(c.NotAfter):
		l.warn(fmt.Sprintf("%s expired on %s", file, day(c.NotAfter)), "renew it: berth certs renew --help")
	case l.now.Before(c.NotBefore):
		l.warn(fmt.Sprintf("%s is not valid before %s", file, day(c.NotBefore)), "is this machine's clock right? date")
	case c.NotAfter.Sub(l.now) < soon:
		l.warn(fmt.Sprintf("%s expires %s", file, expiry(c.NotAfter, l.now)), "renew it before then: berth certs renew --help")
	}
}

func forClients(c *x509.Certificate) bool {
	if len(c.ExtKeyUsage) == 0 {
		return true
	}
	for _, u := range c.ExtKeyUsage {
		if u == x509.ExtKeyUsageClientAuth || u == x509.ExtKeyUsageAny {
			return true
		}
	}
	return false
}

// key says of a key only where it is, and who may read it.
func (l *look) key(f remote.TLSFiles) {
	if f.KeyFrom == "" {
		return
	}
	text := "a key"
	if f.KeyLocked {
		text = "a key, encrypted"
	}
	if st, err := os.Stat(f.KeyFrom); err == nil { // else it is the name of a variable
		text += ", " + st.Mode().Perm().String()
		if open(st.Mode()) {
			l.warn(f.KeyFrom+" can be read by others than its owner", "chmod 600 "+hint.Quote(f.KeyFrom))
		}
	}
	l.add("ours, "+f.KeyFrom, text)
}

// tls is StepTLS of a connection that BuildKit has answered on.
func (t *trail) tls(conn *remote.Conn) Step {
	sec, ok := conn.Security()
	if !ok {
		return t.handshake()
	}
	s := t.step(StepTLS)
	now := time.Now()
	s.Text = fmt.Sprintf("%s, %s", tls.VersionName(sec.State.Version), tls.CipherSuiteName(sec.State.CipherSuite))
	s.Facts = append(s.Facts, dial.Fact{Name: "name", Value: t.w.target.Options.ServerNameFor(t.w.target.Endpoint)})
	s.Facts = append(s.Facts, chainFacts(sec.State.PeerCertificates)...)
	if chains := sec.State.VerifiedChains; len(chains) > 0 {
		root := chains[0][len(chains[0])-1]
		s.Facts = append(s.Facts, dial.Fact{Name: "trusted by", Value: describeCert(root, now)})
	}
	s.Facts = append(s.Facts, dial.Fact{Name: "client certificate", Value: asked(sec)})
	for _, c := range sec.State.PeerCertificates {
		if left := c.NotAfter.Sub(now); left < soon {
			s.Status = Warning
			s.Text += "; the daemon's certificate expires " + expiry(c.NotAfter, now)
			s.Hints = []string{"renew it on the daemon before then"}
			break
		}
	}
	return s
}

// handshake is StepTLS where there is nothing to say of the certificates: there
// is no TLS, or the handshake was over and what followed failed.
func (t *trail) handshake() Step {
	if t.w.target.Options.TLS() {
		return t.step(StepTLS)
	}
	return Step{Name: StepTLS, Status: Skipped, Text: "no TLS option is set"}
}

func asked(s remote.Security) string {
	text := "the daemon asks for none"
	if s.Asked {
		text = "the daemon asks for one"
		if s.Signers != "" {
			text += " of " + s.Signers
		}
	}
	switch {
	case s.Asked && s.Sent:
		return text + "; ours was sent"
	case s.Asked:
		return text + "; none is set"
	case s.Sent:
		return text + "; ours was not needed"
	}
	return text
}

// chainFacts is the certificates that a daemon showed, its own first.
func chainFacts(chain []*x509.Certificate) []dial.Fact {
	var facts []dial.Fact
	for i, c := range chain {
		name := "certificate"
		if i > 0 {
			name = "issuer"
		}
		facts = append(facts, dial.Fact{Name: name, Value: describeCert(c, time.Now())})
	}
	return facts
}

// describeCert is a certificate in a line.
func describeCert(c *x509.Certificate, now time.Time) string {
	text := c.Subject.String()
	if text == "" {
		text = "no subject"
	}
	names := c.DNSNames
	for _, ip := range c.IPAddresses {
		names = append(names[:len(names):len(names)], ip.String())
	}
	const most = 6
	if len(names) > most {
		names = append(names[:most:most], fmt.Sprintf("%d more", len(c.DNSNames)+len(c.IPAddresses)-most))
	}
	if len(names) > 0 {
		text += " for " + strings.Join(names, ", ")
	}
	if c.Issuer.String() != c.Subject.String() {
		text += ", by " + c.Issuer.String()
	}
	if now.Before(c.NotBefore) {
		return text + ", not valid before " + day(c.NotBefore)
	}
	return text + ", " + expires(c.NotAfter, now)
}

func day(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 MST") }

func expires(end, now time.Time) string {
	if now.After(end) {
		return "expired on " + day(end)
	}
	return "expires " + expiry(end, now)
}

// expiry is a time to come: "on 2026-01-02, in 12 days".
func expiry(end, now time.Time) string {
	left := end.Sub(now)
	switch {
	case left < 0:
		return "on " + day(end)
	case left < 48*time.Hour:
		return fmt.Sprintf("on %s, in %d hours", day(end), int(left.Hours()))
	}
	return fmt.Sprintf("on %s, in %d days", end.UTC().Format("2006-01-02"), int(left.Hours()/24))
}

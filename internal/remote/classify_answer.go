package remote

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"time"

	"github.com/moby/buildkit/util/grpcerrors"
	"google.golang.org/grpc/codes"

	"github.com/berthbuild/berth/internal/endpoint"
)

// evidence is what is left of a connection on which BuildKit did not answer.
type evidence struct {
	rpc      error  // gRPC's summary; told apart by the rest
	lost     error  // what ended the connection, nil when we did
	heard    []byte // the first that the peer sent
	timedOut bool   // our own time ran out
	waited   time.Duration
}

// classifyAnswer reads what the peer did once the connection stood.
func classifyAnswer(t Target, l *line, ev evidence) *cause {
	if own := fromScheme(ev.lost, stageInfo); own != nil {
		return own
	}
	c := &cause{err: ev.rpc, stage: stageInfo}
	if ev.lost != nil { // nearer to what happened than gRPC's summary
		c.err = ev.lost
	}
	if l.tls != nil {
		if a := classifyAlert(t, l.tls, ev.lost); a != nil {
			return a // with TLS 1.3 the refusal of our certificate comes this late
		}
	}
	switch {
	case len(ev.heard) == 0:
		unheard(t, l, ev, c)
	case isHTTP2(ev.heard):
		inHTTP2(t, ev, c)
	case isTLSRecord(ev.heard) && l.tls == nil:
		return tlsRequired(t, c.err)
	default:
		c.class, c.text = NotHTTP2, "the peer is not BuildKit: "+describe(ev.heard)
		c.tries = []string{"is this the port of buildkitd? " + t.Endpoint.String()}
	}
	return c
}

// unheard: not a byte came.
func unheard(t Target, l *line, ev evidence, c *cause) {
	if ev.lost == nil {
		c.class, c.bare = Silent, ev.timedOut
		c.text = fmt.Sprintf("connected, but nothing answers within %s", seconds(ev.waited))
		c.tries = []string{"is the daemon hanging, or is something else behind this port? look at the daemon's log"}
		return
	}
	c.class, c.text = Closed, "the peer closes the connection without a word"
	c.tries = []string{"a proxy or port forwarding whose daemon is down looks like this"}
	if l.tls == nil {
		return
	}
	asked, _ := l.tls.wanted()
	if asked && !l.tls.has && l.tls.state.Version >= tls.VersionTLS13 {
		// Its alert was lost on the way, or it sends none.
		*c = *clientCert(t, l.tls, "the daemon asked for a client certificate and closed the connection", ev.lost)
	}
}

// tlsRequired: we spoke plain to a TLS server.
func tlsRequired(t Target, err error) *cause {
	return &cause{
		class: TLSRequired, text: "the daemon requires TLS", err: err, stage: stageInfo,
		tries: []string{"name its CA, and a client certificate where it wants one: " + withTLS(t)},
	}
}

// inHTTP2 is for a peer that speaks HTTP/2, and maybe gRPC.
func inHTTP2(t Target, ev evidence, c *cause) {
	s := parseFrames(ev.heard)
	switch {
	case s.grpc():
		inGRPC(t, ev.rpc, c)
	case s.status != 0:
		byStatus(t, s, c)
	case s.goAway:
		c.class, c.text = Unavailable, "the daemon is going away"
		c.tries = []string{"is it being stopped or restarted? look at its log"}
		if s.goAwayText != "" {
			c.text += " (" + s.goAwayText + ")"
		}
	case ev.lost != nil:
		c.class, c.text = Closed, "the peer closes the connection instead of an answer"
		c.tries = []string{"is the daemon just starting or stopping? look at its log"}
	default:
		c.class, c.bare = Silent, ev.timedOut
		c.text = fmt.Sprintf("the peer speaks HTTP/2, but BuildKit does not answer within %s", seconds(ev.waited))
		c.tries = []string{"is the daemon hanging? look at its log"}
	}
}

// inGRPC reads the code that the daemon, or a gRPC proxy, answered with.
func inGRPC(t Target, err error, c *cause) {
	code := grpcerrors.Code(err)
	said := ""
	if st, ok := grpcerrors.AsGRPCStatus(err); ok && st != nil && st.Message() != "" {
		said = ": " + printable(st.Message(), maxText)
	}
	switch code {
	case codes.Unimplemented:
		c.class, c.text = NotBuildKit, "a gRPC server, but not BuildKit"
		c.tries = []string{"is this the port of buildkitd, and not of containerd or another service? " + t.Endpoint.String()}
	case codes.PermissionDenied, codes.Unauthenticated:
		c.class, c.text = Denied, "access denied"+said
		switch where, err := locate(t.Options); {
		case err == nil && where.cert.given():
			c.tries = []string{"is " + where.cert.short() + " the certificate that it lets in?"}
		case t.Options.TLS():
			c.tries = []string{"does it want a client certificate? " +
				remake(t, map[string]string{endpoint.OptCert: "CERT.pem", endpoint.OptKey: "KEY.pem"})}
		}
	case codes.DeadlineExceeded, codes.Canceled:
		// The daemon, or a proxy, knows our deadline and may say so first.
		c.class, c.bare, c.text = Silent, true, "BuildKit does not answer in time"
		c.tries = []string{"is the daemon hanging? look at its log"}
	case codes.Unavailable, codes.ResourceExhausted, codes.Aborted:
		c.class, c.text = Unavailable, "unavailable"+said
	default:
		c.class, c.text = DaemonError, fmt.Sprintf("the daemon answers with an error (%s)%s", code, said)
		c.tries = []string{"look at the daemon's log"}
	}
}

// byStatus is for an HTTP server or proxy that does not speak gRPC.
func byStatus(t Target, s spoken, c *cause) {
	what := fmt.Sprintf("HTTP %d", s.status)
	if text := http.StatusText(s.status); text != "" {
		what += " " + text
	}
	route := fmt.Sprintf("does it route %q to buildkitd, over HTTP/2?", t.authority())
	if t.Options.TLS() { // without TLS, a servername would switch it on
		route += " another name: " + remake(t, map[string]string{endpoint.OptServerName: "NAME"})
	}
	switch s.status {
	case http.StatusOK:
		c.class, c.text = NotBuildKit, "a web server, not BuildKit"
		c.tries = []string{"is this the port of buildkitd? " + t.Endpoint.String()}
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		c.class, c.text = Unavailable, "a proxy answers "+what
		c.tries = []string{"is the buildkitd behind it running?"}
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusProxyAuthRequired:
		c.class, c.text = Denied, "a proxy answers "+what
		c.tries = []string{route}
	default:
		c.class, c.text = HTTPStatus, "a web server or proxy answers "+what
		c.tries = []string{route}
	}
}

// classifyWorkers reads the failure of a later question on a connection that
// had been proven.
func classifyWorkers(t Target, err, lost error, timedOut bool) *cause {
	if own := fromScheme(lost, stageInfo); own != nil {
		return own
	}
	c := &cause{err: err, stage: stageInfo}
	switch {
	case lost != nil:
		c.class, c.text, c.err = Closed, "the connection was lost while asking for the workers", lost
	case timedOut:
		c.class, c.text = Silent, fmt.Sprintf("no answer to the question for the workers within %s", seconds(workersTimeout))
		c.tries = []string{"is the daemon hanging? look at its log"}
	default:
		inGRPC(t, err, c)
	}
	return c
}

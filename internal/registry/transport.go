package registry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/berthbuild/berth/internal/hint"
)

// times are how long things may take, and how waiting is done.
type times struct {
	silence  time.Duration // without a byte in either direction
	commit   time.Duration // the same after the last byte of what is written, which the registry then checks and stores
	throttle time.Duration // all that one request waits because it is told to
	first    time.Duration // before the second try of what failed; the third waits three times that
	sleep    func(context.Context, time.Duration) error
	now      func() time.Time
}

func realTimes() times {
	return times{silence: time.Minute, commit: 10 * time.Minute, throttle: 2 * time.Minute, first: 500 * time.Millisecond, sleep: sleep, now: time.Now}
}

// backoff is how long to wait after a try that failed.
func (t times) backoff(try int) time.Duration {
	wait := t.first
	for range try - 1 {
		wait *= 3
	}
	return wait
}

// sleep ends with ctx, at once.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// maxTries is how often a request is made whose answer was no answer.
const maxTries = 3

// Throttled is a registry that wants to be left alone for longer than anybody waits.
type Throttled struct {
	Host  string
	After time.Duration
}

// Error says how long.
func (e *Throttled) Error() string {
	return fmt.Sprintf("the registry %s is being asked too often (429), and wants %s of rest", e.Host, e.After.Round(time.Second))
}

// Hints implements hint.Hinter.
func (e *Throttled) Hints() []string {
	return []string{"try again in " + e.After.Round(time.Second).String(), "a login often has a higher limit: docker login " + hint.Quote(loginName(e.Host))}
}

// Silent is a registry that accepts a request, and then says nothing.
type Silent struct {
	Host string
	For  time.Duration
}

// Error says for how long.
func (e *Silent) Error() string {
	return fmt.Sprintf("the registry %s has sent nothing for %s", e.Host, e.For)
}

// Plaintext is a registry that speaks HTTP where HTTPS is wanted.
type Plaintext struct{ Host string }

// Error names it.
func (e *Plaintext) Error() string {
	return fmt.Sprintf("plain HTTP is not spoken to %s, which is not on this machine", e.Host)
}

// newTransport makes the connections to one registry. HTTP/2 is left out: its flow
// control makes uploads slow.
func newTransport(h Host) (*http.Transport, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: h.Insecure, Certificates: h.KeyPairs} //nolint:gosec // only where its owner has said so
	if len(h.RootCAs) > 0 {
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		for _, pem := range h.RootCAs {
			if !pool.AppendCertsFromPEM(pem) {
				return nil, errors.New("there is no certificate in its ca")
			}
		}
		config.RootCAs = pool
	}
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig:       config,
		TLSHandshakeTimeout:   10 * time.Second,
		TLSNextProto:          map[string]func(string, *tls.Conn) http.RoundTripper{},
		MaxIdleConnsPerHost:   maxParallel,
		IdleConnTimeout:       time.Minute,
		ExpectContinueTimeout: time.Second,
	}, nil
}

// maxParallel is how many requests at a time are worth keeping connections for.
const maxParallel = 8

// patient is an http.RoundTripper that waits for a registry as long as is
// reasonable, and no longer.
type patient struct {
	c     *Client
	base  http.RoundTripper
	host  string // the registry's
	plain bool   // plain HTTP may be spoken to it
}

// RoundTrip implements http.RoundTripper.
func (p *patient) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme == "http" && !p.plain && p.isRegistry(req.URL) {
		return nil, &Plaintext{Host: p.host}
	}
	var waited time.Duration
	for try := 1; ; try++ {
		resp, err := p.once(req)
		wait, reason := p.again(req, resp, err, try)
		if reason == "" {
			return resp, err
		}
		if resp != nil {
			drain(resp)
		}
		if waited += wait; waited > p.c.times.throttle {
			return nil, &Throttled{Host: req.URL.Host, After: wait}
		}
		p.c.o.OnWait(Wait{Host: req.URL.Host, Reason: reason, For: wait})
		if err := p.c.times.sleep(req.Context(), wait); err != nil {
			return nil, err
		}
		if req.GetBody != nil {
			if req.Body, err = req.GetBody(); err != nil {
				return nil, err
			}
		}
	}
}

// isRegistry tells whether an address is on the registry's host, on whatever port: who
// sees the host's credentials does not look at the port closely.
func (p *patient) isRegistry(u *url.URL) bool {
	own := url.URL{Host: p.host}
	return strings.EqualFold(strings.TrimSuffix(u.Hostname(), "."), strings.TrimSuffix(own.Hostname(), "."))
}

// again tells whether to ask once more, after how long, and why.
func (p *patient) again(req *http.Request, resp *http.Response, err error, try int) (wait time.Duration, reason string) {
	if req.Body != nil && req.Body != http.NoBody && req.GetBody == nil { // it has been read
		return 0, ""
	}
	if err != nil {
		if try < maxTries && req.Context().Err() == nil && Broken(err) {
			return p.c.times.backoff(try), err.Error()
		}
		return 0, ""
	}
	if !isPassing(resp.StatusCode) {
		return 0, ""
	}
	if after, said := p.c.restWanted(resp); said {
		return after, resp.Status
	}
	if try >= maxTries {
		return 0, ""
	}
	return p.c.times.backoff(try), resp.Status
}

// isPassing tells the statuses that may be another one the next time.
func isPassing(status int) bool {
	switch status {
	case http.StatusTooManyRequests, http.StatusServiceUnavailable,
		http.StatusRequestTimeout, http.StatusInternalServerError, http.StatusBadGateway, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// restWanted is how long a registry says that it wants to be left alone.
func (c *Client) restWanted(resp *http.Response) (time.Duration, bool) {
	if resp.StatusCode != http.StatusTooManyRequests && resp.StatusCode != http.StatusServiceUnavailable {
		return 0, false
	}
	return retryAfter(resp.Header.Get("Retry-After"), c.times.now())
}

// delayed is an answer that says when to ask again.
type delayed struct {
	error
	after time.Duration
}

// Unwrap gives the answer.
func (d *delayed) Unwrap() error { return d.error }

// Broken tells that a connection ended in the middle of something.
func Broken(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// retryAfter reads seconds, or a date. It is at least a second, or else a registry
// could keep us busy.
func retryAfter(text string, now time.Time) (time.Duration, bool) {
	if text == "" {
		return 0, false
	}
	if seconds, err := strconv.ParseUint(text, 10, 31); err == nil {
		return max(time.Duration(seconds)*time.Second, time.Second), true
	}
	when, err := http.ParseTime(text)
	if err != nil {
		return 0, false
	}
	return max(when.Sub(now), time.Second), true
}

// drain reads what is left of an answer, so that its connection can be used again.
func drain(resp *http.Response) {
	_, _ = io.CopyN(io.Discard, resp.Body, 64<<10)
	_ = resp.Body.Close()
}

// once makes one request, and watches over it until its answer is closed.
func (p *patient) once(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	w := newWatch(ctx, cancel, req.URL.Host, p.c.times.silence)
	out := req.Clone(ctx)
	writes := req.Method == http.MethodPut
	switch {
	case req.Body != nil && req.Body != http.NoBody:
		body := &watchedBody{ReadCloser: req.Body, watch: w}
		if writes {
			body.then = p.c.times.commit
		}
		out.Body = body
	case writes:
		w.wait(p.c.times.commit)
	}
	resp, err := p.base.RoundTrip(out)
	if err != nil {
		err = w.why(err)
		w.end()
		return nil, err
	}
	w.wait(p.c.times.silence)
	resp.Body = &watchedBody{ReadCloser: resp.Body, watch: w, last: true}
	return resp, nil
}

// watch ends a request over which nothing moves.
type watch struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer

	mu    sync.Mutex
	after time.Duration
}

func newWatch(ctx context.Context, cancel context.CancelCauseFunc, host string, after time.Duration) *watch {
	w := &watch{cancel: cancel, ctx: ctx, after: after}
	w.timer = time.AfterFunc(after, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		cancel(&Silent{Host: host, For: w.after})
	})
	return w
}

// seen begins the silence anew.
func (w *watch) seen() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer.Reset(w.after)
}

// wait begins another silence.
func (w *watch) wait(after time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.after = after
	w.timer.Reset(after)
}

func (w *watch) end() {
	w.timer.Stop()
	w.cancel(context.Canceled)
}

// why is the reason for which a request ended.
func (w *watch) why(err error) error {
	if cause := context.Cause(w.ctx); cause != nil && err != io.EOF { //nolint:errorlint // a reader's
		return cause
	}
	return err
}

// watchedBody tells the watch of each byte.
type watchedBody struct {
	io.ReadCloser
	watch *watch
	then  time.Duration // how long the silence may be when it has ended; 0: as long as before
	last  bool          // when it is closed, all is over
	once  sync.Once
}

// Read implements io.Reader.
func (b *watchedBody) Read(buf []byte) (int, error) {
	n, err := b.ReadCloser.Read(buf)
	if n > 0 {
		b.watch.seen()
	}
	if err != nil && b.then > 0 {
		b.once.Do(func() { b.watch.wait(b.then) })
	}
	if err != nil && b.last {
		err = b.watch.why(err)
		b.once.Do(b.watch.end)
	}
	return n, err
}

// Close implements io.Closer.
func (b *watchedBody) Close() error {
	if b.last {
		b.once.Do(b.watch.end)
	}
	return b.ReadCloser.Close()
}

// handshake remembers what went wrong by HTTPS and by plain HTTP, where both are tried.
type handshake struct {
	inner http.RoundTripper

	mu            sync.Mutex
	secure, plain error
}

// RoundTrip implements http.RoundTripper.
func (h *handshake) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := h.inner.RoundTrip(req)
	if err != nil {
		h.mu.Lock()
		defer h.mu.Unlock()
		if req.URL.Scheme == "http" {
			h.plain = err
		} else {
			h.secure = err
		}
	}
	return resp, err
}

// why is the reason for which the registry could not be greeted: of two, the one that
// is about the registry.
func (h *handshake) why(err error) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	var answer *transport.Error
	var plaintext *Plaintext
	var certificate *tls.CertificateVerificationError
	switch {
	case errors.As(h.secure, &certificate): // it does speak HTTPS
		return h.secure
	case errors.As(err, &answer):
		return answer
	case h.plain == nil, errors.As(h.plain, &plaintext):
		return err
	}
	return h.plain
}

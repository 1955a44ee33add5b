package remote

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/session/secrets"
	"golang.org/x/net/http2"

	"github.com/berthbuild/berth/internal/buildkittest"
	"github.com/berthbuild/berth/internal/dial/dialtest"
	"github.com/berthbuild/berth/internal/outcome"
)

// building is a solve that runs until release is closed.
func building(t *testing.T) (s *buildkittest.Server, c *Conn, release chan struct{}, ended <-chan error) {
	t.Helper()
	statuses, done := make(chan *client.SolveStatus), make(chan error, 1)
	release = make(chan struct{})
	s = buildkittest.New(t, buildkittest.Options{Solve: func(ctx context.Context, b *buildkittest.Build) (map[string]string, error) {
		if _, err := b.Secret(ctx, "x"); !errors.Is(err, secrets.ErrNotFound) { // the session works
			return nil, err
		}
		b.Step("running") // for who has asked for it
		select {
		case <-release:
			return nil, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}})
	c = mustConnect(t, target(t, s.Endpoint()), quick())
	go func() {
		_, err := c.Client().Solve(t.Context(), nil, client.SolveOpt{Frontend: "x"}, statuses)
		done <- err
	}()
	<-statuses
	go func() {
		for range statuses { // to the end
		}
	}()
	return s, c, release, done
}

// until looks at the connection until it is as it should be. Were it never so,
// the test would hang.
func until(c *Conn, is func(outcome.Wire) bool) outcome.Wire {
	for {
		if w := c.Wire(); is(w) {
			return w
		}
		time.Sleep(time.Millisecond)
	}
}

// A build that ends well leaves nothing to tell.
func TestWireOfABuild(t *testing.T) {
	dialtest.NoLeaks(t)
	_, c, release, ended := building(t)
	close(release)
	if err := <-ended; err != nil || c.Wire() != (outcome.Wire{}) {
		t.Errorf("%v, %+v", err, c.Wire())
	}
	if err := c.Close(); err != nil || c.Wire() != (outcome.Wire{}) {
		t.Errorf("closed: %v, %+v", err, c.Wire())
	}
}

func TestWireKilled(t *testing.T) {
	dialtest.NoLeaks(t)
	s, c, _, ended := building(t)
	s.Kill()
	if err := <-ended; err == nil || c.Wire().Err == nil || c.Wire().Silent > 0 {
		t.Errorf("%v, %+v", err, c.Wire())
	}
}

// A daemon that is being stopped says so at once, and the build goes on.
func TestWireDraining(t *testing.T) {
	dialtest.NoLeaks(t)
	s, c, release, ended := building(t)
	s.Drain()
	w := until(c, func(w outcome.Wire) bool { return w.GoAway != outcome.NoGoAway })
	if w != (outcome.Wire{GoAway: outcome.GoDraining}) {
		t.Errorf("%+v", w)
	}
	close(release)
	if err := <-ended; err != nil || c.Wire().GoAway != outcome.GoDraining {
		t.Errorf("%v, %+v", err, c.Wire())
	}
}

// A session that the daemon drops does not end the build.
func TestWireSession(t *testing.T) {
	dialtest.NoLeaks(t)
	s, c, release, ended := building(t)
	s.DropSessions()
	if w := until(c, func(w outcome.Wire) bool { return w.Session != nil }); w.Err != nil || w.Silent > 0 {
		t.Errorf("%+v", w)
	}
	close(release)
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// What gRPC gives up although nothing had ended it was silent.
func TestSilence(t *testing.T) {
	at := func(quiet time.Duration) (*recorder, net.Conn) {
		near, far := net.Pipe()
		t.Cleanup(func() { _ = far.Close() })
		r := record(near)
		r.guard, r.pulse.born = true, time.Now().Add(-quiet)
		return r, far
	}
	l := func(r *recorder) *line { return &line{raw: r, app: r} }

	r, _ := at(time.Minute)
	if r.silent() != 0 || l(r).lost() != nil {
		t.Error("silent before it was given up")
	}
	_ = r.SetWriteDeadline(time.Now().Add(10 * time.Second))
	if got := r.silent(); got < time.Minute || got > time.Hour {
		t.Errorf("silent for %v", got)
	}
	_ = r.Close()
	if got := l(r).lost(); !errors.Is(got, errSilent) {
		t.Errorf("lost: %v", got)
	}
	if r, _ = at(pingTimeout / 2); r.Close() != nil || r.silent() != 0 {
		t.Error("given up at once, for another reason")
	}
	if r, _ = at(time.Minute); l(r).hangUp(nil) != nil || r.silent() != 0 || l(r).lost() != nil {
		t.Error("we hung up")
	}
	r, far := at(time.Minute)
	_ = far.Close()
	if _, err := r.Read(make([]byte, 1)); err == nil || r.Close() != nil || r.silent() != 0 || !errors.Is(l(r).lost(), io.EOF) {
		t.Errorf("the peer closed: %v, lost %v", err, l(r).lost())
	}
	r, far = at(time.Minute)
	go func() { _, _ = far.Write([]byte{0}) }()
	if _, err := r.Read(make([]byte, 1)); err != nil || r.Close() != nil || r.silent() != 0 {
		t.Errorf("it was just heard: %v, %v", err, r.silent())
	}
}

// Saying goodbye to a peer that takes nothing does not take long: were it for
// the deadline, this test would wait for an hour.
func TestGoodbye(t *testing.T) {
	near, far := net.Pipe()
	defer far.Close() //nolint:errcheck // a pipe
	r := record(deadlineless{near})
	r.guard = true
	if err := r.SetWriteDeadline(time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Write([]byte("goodbye")); err == nil {
		t.Error("nobody read it")
	}
	if err := r.SetWriteDeadline(time.Time{}); err != nil {
		t.Error(err)
	}
}

// deadlineless is a connection that cannot be bounded.
type deadlineless struct{ net.Conn }

func (deadlineless) SetWriteDeadline(time.Time) error { return nil }

// stream is what a peer sends: settings, a ping, data, and what last writes.
func stream(last func(*http2.Framer) error) []byte {
	var b bytes.Buffer
	fr := http2.NewFramer(&b, nil)
	_ = fr.WriteSettings()
	_ = fr.WritePing(true, [8]byte{})
	_ = fr.WriteData(1, false, bytes.Repeat([]byte{byte(http2.FrameGoAway)}, 1000))
	_ = fr.WriteRawFrame(http2.FrameGoAway, 0, 0, []byte("short")) // not one to believe
	if last != nil {
		_ = last(fr)
	}
	_ = fr.WriteData(1, true, nil)
	return b.Bytes()
}

func goAway(code http2.ErrCode, text string) func(*http2.Framer) error {
	return func(fr *http2.Framer) error { return fr.WriteGoAway(1, code, []byte(text)) }
}

func TestWalker(t *testing.T) {
	both := func(fr *http2.Framer) error {
		_ = goAway(http2.ErrCodeEnhanceYourCalm, "too_many_pings")(fr)
		return goAway(http2.ErrCodeNo, "")(fr)
	}
	for _, tc := range []struct {
		name string
		last func(*http2.Framer) error
		want outcome.GoAway
	}{
		{"none", nil, outcome.NoGoAway},
		{"draining", goAway(http2.ErrCodeNo, "graceful_stop"), outcome.GoDraining},
		{"pings", goAway(http2.ErrCodeEnhanceYourCalm, "too_many_pings"), outcome.TooManyPings},
		{"calm for another reason", goAway(http2.ErrCodeEnhanceYourCalm, string(make([]byte, 500))), outcome.GoOther},
		{"protocol", goAway(http2.ErrCodeProtocol, "too_many_pings"), outcome.GoOther},
		{"the fault counts", both, outcome.TooManyPings},
	} {
		sent := stream(tc.last)
		for _, size := range []int{1, 2, 8, 9, 10, 1000, len(sent)} {
			var w walker
			for rest := sent; len(rest) > 0; {
				n := min(size, len(rest))
				w.feed(rest[:n])
				rest = rest[n:]
			}
			if got := w.goAway(); got != tc.want {
				t.Errorf("%s, in pieces of %d: %q, want %q", tc.name, size, got, tc.want)
			}
		}
	}
}

// The other side's greeting is no frame.
func TestWalkerSkips(t *testing.T) {
	var w walker
	w.skip(len(http2.ClientPreface))
	w.feed([]byte(http2.ClientPreface))
	w.feed(stream(goAway(http2.ErrCodeNo, "")))
	if got := w.goAway(); got != outcome.GoDraining {
		t.Errorf("%q", got)
	}
}

// FuzzWalker: whatever comes, in whatever pieces, it says the same and keeps
// little.
func FuzzWalker(f *testing.F) {
	f.Add(stream(nil), 3)
	f.Add(stream(goAway(http2.ErrCodeNo, "graceful_stop")), 7)
	f.Add([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"), 1)
	f.Fuzz(func(t *testing.T, sent []byte, size int) {
		var whole, pieces walker
		whole.feed(sent)
		for size = max(1, size); len(sent) > 0; {
			n := min(size, len(sent))
			pieces.feed(sent[:n])
			sent = sent[n:]
			if len(pieces.said) > maxSaid {
				t.Fatalf("%d bytes kept", len(pieces.said))
			}
		}
		if whole.goAway() != pieces.goAway() {
			t.Fatalf("%q as a whole, %q in pieces", whole.goAway(), pieces.goAway())
		}
	})
}

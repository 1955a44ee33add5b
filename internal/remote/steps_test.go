package remote

import (
	"bytes"
	"crypto/tls"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/http2"

	"github.com/berthbuild/berth/internal/buildkittest"
	"github.com/berthbuild/berth/internal/dial"
)

// watched connects and gives the stages that were told of: "name" or "name!".
func watched(t *testing.T, tg Target) (*Conn, *Failure, []string) {
	t.Helper()
	var mu sync.Mutex
	var told []string
	cfg := quick()
	cfg.Once = true
	conn, err := Connect(dial.WithTracer(t.Context(), func(s dial.Stage) {
		mu.Lock()
		defer mu.Unlock()
		name := s.Name
		if s.Err != nil {
			name += "!"
		}
		told = append(told, name)
	}), tg, cfg)
	if err == nil {
		t.Cleanup(func() { _ = conn.Close() })
		return conn, nil, told
	}
	f, ok := err.(*Failure) //nolint:errorlint // Connect gives it as it is
	if !ok {
		t.Fatal(err)
	}
	return nil, f, told
}

func TestStagesOfAConnection(t *testing.T) {
	certs := buildkittest.TestCerts(t)
	s := buildkittest.New(t, buildkittest.Options{TLS: &buildkittest.TLS{Server: certs.Server, ClientCA: certs.CA.File}})
	conn, _, told := watched(t, target(t, s.Endpoint(), mutual(certs)...))
	if want := []string{StageFiles, "resolve", "connect", StageTLS, StageHTTP2, StageInfo}; !slices.Equal(told, want) {
		t.Errorf("told of %q, want %q", told, want)
	}
	sec, ok := conn.Security()
	if !ok || sec.State.Version != tls.VersionTLS13 || !sec.Asked || !sec.Sent || !strings.Contains(sec.Signers, "CN=ca") {
		t.Errorf("%+v, %v", sec, ok)
	}
	if conn.SessionDialer() == nil {
		t.Error("there is no dialler for sessions")
	}
	plain := buildkittest.New(t, buildkittest.Options{})
	conn, _, _ = watched(t, target(t, plain.Endpoint()))
	if _, ok := conn.Security(); ok {
		t.Error("there is no TLS")
	}
}

func TestStageOfAFailure(t *testing.T) {
	certs := buildkittest.TestCerts(t)
	ca := []string{"cacert", certs.CA.File}
	tlsOf := func(p buildkittest.Pair) string {
		return buildkittest.New(t, buildkittest.Options{TLS: &buildkittest.TLS{Server: p, ClientCA: certs.CA.File}}).Endpoint()
	}
	for _, c := range []struct {
		name  string
		tg    Target
		stage string
		last  string // that was told of
	}{
		{"files", target(t, "tcp://127.0.0.1:1", "cacert", "/no/such.pem"), StageFiles, "files!"},
		{"refused", target(t, "tcp://"+buildkittest.FreeAddr(t)), "", "connect!"},
		{"other CA", target(t, tlsOf(certs.OtherServer), ca...), StageTLS, "tls!"},
		{"no certificate", target(t, tlsOf(certs.Server), ca...), StageTLS, "http2!"}, // 1.3 tells late
		{"plain", target(t, tlsOf(certs.Server)), StageTLS, "http2!"},
		{"HTTP/1", target(t, buildkittest.Raw(t, buildkittest.Say("HTTP/1.1 400 Bad\r\n\r\n"))), StageHTTP2, "http2!"},
		{"no BuildKit", target(t, buildkittest.New(t, buildkittest.Options{NoControl: true}).Endpoint()), StageInfo, "info!"},
		{"hangs up", target(t, buildkittest.Raw(t, func(c net.Conn) { _, _ = c.Read(make([]byte, 1024)) })), StageInfo, "http2!"},
		{"no program", target(t, "exec://?cmd=no-such-program"), "", "program!"},
		{"the program ends", target(t, "exec://?cmd=false"), "", "http2!"},
	} {
		_, f, told := watched(t, c.tg)
		if f == nil || f.Stage() != c.stage || len(told) == 0 || told[len(told)-1] != c.last {
			t.Errorf("%s: %v, stage %q of %q; want %q of …%q", c.name, f, f.Stage(), told, c.stage, c.last)
		}
		if shown := f.Presented() != nil; shown != (c.name == "other CA") {
			t.Errorf("%s: certificates shown: %v", c.name, shown)
		}
	}
}

func TestSettingsText(t *testing.T) {
	var b bytes.Buffer
	fr := http2.NewFramer(&b, nil)
	if err := fr.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 100}, http2.Setting{ID: http2.SettingMaxFrameSize, Val: 16384}); err != nil {
		t.Fatal(err)
	}
	for in, want := range map[string]string{
		b.String():                             "100 streams at once, frames up to 16384 bytes",
		"\x00\x00\x00\x04\x00\x00\x00\x00\x00": "the default settings",
		"\x00\x00\x06\x04\x00\x00":             "settings that cannot be read",
		"":                                     "settings that cannot be read",
	} {
		if got := settingsText([]byte(in)); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/berthbuild/berth/internal/hint"
)

func TestParseNames(t *testing.T) {
	for _, c := range []struct {
		given string
		want  string // what is written
		hint  string // of a refusal: the name to give
	}{
		{given: "buildkitd.example.com", want: "buildkitd.example.com"},
		{given: "BuildKitD.Example.", want: "buildkitd.example"},
		{given: "localhost", want: "localhost"},
		{given: "my_service", want: "my_service"},
		{given: "*.buildkitd.default.svc", want: "*.buildkitd.default.svc"},
		{given: "127.0.0.1", want: "127.0.0.1"},
		{given: "::1", want: "::1"},
		{given: "2001:DB8::0:1", want: "2001:db8::1"},
		{given: "::ffff:192.0.2.1", want: "192.0.2.1"},
		{given: "bücher.example", want: "xn--bcher-kva.example"},
		{given: "*.bücher.example", want: "*.xn--bcher-kva.example"},

		{given: "tcp://build.test:1234", hint: "build.test"},
		{given: "https://user@build.test/x?y", hint: "build.test"},
		{given: "build.test:1234", hint: "build.test"},
		{given: "build.test/x", hint: "build.test"},
		{given: "10.1.2.3:1234", hint: "10.1.2.3"},
		{given: "10.1.2.0/24", hint: "10.1.2.0"},
		{given: "[::1]", hint: "::1"},
		{given: "[::1]:1234", hint: "::1"},
		{given: "tcp://[2001:db8::1]:1234", hint: "2001:db8::1"},
		{given: "fe80::1%eth0", hint: "fe80::1"},
		{given: "root@build.test", hint: "build.test"},
		{given: "*.build.test:1234", hint: "*.build.test"},

		{given: ""}, {given: "."}, {given: "*"}, {given: "*."}, {given: "a..b"}, {given: "-a"}, {given: "a-"},
		{given: "a.*.b"}, {given: "f*.b"}, {given: "127.1"}, {given: "2130706433"}, {given: "0.0.0.0"}, {given: "::"},
		{given: "a b"}, {given: "a\nb"}, {given: "a'b"}, {given: `a"b`}, {given: "$(id)"}, {given: "a;b"}, {given: "a,b"}, {given: "a\x00b"},
		{given: "a:\n  key.pem"}, {given: "tcp://"}, {given: "\xff"}, {given: "☃\u202e.test"},
		{given: strings.Repeat("a", 64) + ".test"}, {given: strings.Repeat("a.", 130) + "test"}, {given: "*." + strings.Repeat("a.", 125) + "bc"},
		{given: strings.Repeat("x", 5000)},
	} {
		got, err := ParseNames([]string{c.given})
		if c.want != "" {
			if err != nil || !slices.Equal(got, []string{c.want}) {
				t.Errorf("%q: got %q, %v; want %q", c.given, got, err, c.want)
			}
			continue
		}
		if err == nil {
			t.Errorf("%q was accepted as %q", c.given, got)
			continue
		}
		if strings.ContainsAny(err.Error(), "\n\x00") || len(err.Error()) > 400 {
			t.Errorf("%q: the refusal cannot be printed: %q", c.given, err)
		}
		if c.hint != "" && !slices.Contains(hint.Of(err), "give the name alone: "+c.hint) {
			t.Errorf("%q: hints %q, want %s", c.given, hint.Of(err), c.hint)
		}
	}
}

func TestParseNamesTogether(t *testing.T) {
	got, err := ParseNames([]string{"a.test", "127.0.0.1", "A.test", "::ffff:127.0.0.1", "b.test"})
	if want := []string{"a.test", "127.0.0.1", "b.test"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
	var many []string
	for i := range maxNames + 1 {
		many = append(many, "n"+strings.Repeat("x", i%60)+strings.Repeat("y", i/60)+".test")
	}
	if _, err := ParseNames(many); err == nil {
		t.Error("any number of names is taken")
	}
	if _, err := ParseNames(nil); err == nil || len(hint.Of(err)) == 0 {
		t.Errorf("no names: %v", err)
	}
}

// FuzzParseNames: what is accepted can stand unquoted in YAML and in a shell,
// comes out of itself, and is what a client that dials it accepts.
func FuzzParseNames(f *testing.F) {
	for _, s := range []string{"a.test", "*.a.test", "127.0.0.1", "::1", "tcp://a:1", "[::1]:5", "bücher.example", "a_b", "A.", "fe80::1%lo", "x\n", "xn--a", "*.1", "1.a.2"} {
		f.Add(s)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	ca := &authority{key: key}
	if ca, err = ca.selfSign(subjectOf([]string{"ca"}), []byte("12345678901234567890"), time.Now()); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, given string) {
		names, err := ParseNames([]string{given})
		if err != nil {
			if len(err.Error()) > 1000 || strings.ContainsAny(err.Error(), "\n\r\x1b") {
				t.Errorf("the refusal of %q cannot be printed: %q", given, err)
			}
			return
		}
		name := names[0]
		if strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789.:-_*") != "" || strings.LastIndexByte(name, '*') > 0 {
			t.Fatalf("%q became %q", given, name)
		}
		if again, err := ParseNames(names); err != nil || again[0] != name {
			t.Fatalf("%q became %q and that %q, %v", given, name, again, err)
		}
		cert, err := ca.issue(leaf{role: RoleDaemon, subject: subjectOf(names), names: names, key: key.Public(), from: time.Now(), to: time.Now().Add(time.Hour)})
		if err != nil {
			t.Fatalf("no certificate for %q: %v", name, err)
		}
		dialled := strings.Replace(name, "*", "sub", 1)
		if addr, err := netip.ParseAddr(name); err == nil && addr.Is6() {
			dialled = "[" + name + "]"
		}
		if err := cert.VerifyHostname(dialled); err != nil && len(dialled) <= 253 {
			t.Fatalf("the certificate for %q is not for %q: %v", name, dialled, err)
		}
		if strings.Contains(name, "*") {
			if _, isIP := cert.VerifyHostname("a.b" + name[1:]).(x509.HostnameError); !isIP { //nolint:errorlint // VerifyHostname wraps nothing
				t.Fatalf("%q is for two levels", name)
			}
		}
	})
}

func TestCheckClient(t *testing.T) {
	for _, ok := range []string{"ci", "client", "alice@example.com", "CI-7_x.y", "a", strings.Repeat("a", maxClient)} {
		if err := CheckClient(ok); err != nil {
			t.Errorf("%q: %v", ok, err)
		}
	}
	for _, bad := range []string{"", ".", "..", "../x", "a/b", `a\b`, "-a", "a-", "a.", "a b", "a\n", "é", "$(id)", "a'b", "a,b", "a:b", strings.Repeat("a", maxClient+1)} {
		err := CheckClient(bad)
		if err == nil || len(hint.Of(err)) == 0 || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func FuzzCheckClient(f *testing.F) {
	for _, s := range []string{"ci", "a@b", "..", "a/b", "-", "a\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if CheckClient(name) != nil {
			return
		}
		if strings.ContainsAny(name, "/\\ :'\"$,\n") || strings.HasPrefix(name, ".") || strings.HasSuffix(name, ".") || len(name) > maxClient {
			t.Errorf("%q was accepted", name)
		}
	})
}

func TestParsePeriod(t *testing.T) {
	for s, want := range map[string]time.Duration{
		"30d": 30 * day, "0": 0, "0d": 0, "12h": 12 * time.Hour, "1d12h": 36 * time.Hour, "90m": 90 * time.Minute, "1d0s": day,
	} {
		if got, err := ParsePeriod(s); err != nil || got != want {
			t.Errorf("%q: %v, %v; want %v", s, got, err, want)
		}
	}
	for _, s := range []string{"", "30", "d", "-1d", "1.5d", "30 d", "30days", "1d-2h", "-3h", "1d+2h", "99999999d", "x", "1d1d"} {
		if got, err := ParsePeriod(s); err == nil {
			t.Errorf("%q was read as %v", s, got)
		}
	}
	_, err := ParsePeriod("30")
	if !slices.Contains(hint.Of(err), "for days: 30d") {
		t.Errorf("hints %q", hint.Of(err))
	}
}

func FuzzParsePeriod(f *testing.F) {
	for _, s := range []string{"30d", "1d12h", "65535d2500000h", "1h", "d", "-1d"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if d, err := ParsePeriod(s); err == nil && d < 0 {
			t.Errorf("%q is %v", s, d)
		}
	})
}

func TestParseKeyType(t *testing.T) {
	for s, want := range map[string]KeyType{"": ECDSA, "ecdsa": ECDSA, "ED25519": Ed25519, "rsa": RSA} {
		if got, err := ParseKeyType(s); err != nil || got != want {
			t.Errorf("%q: %v, %v", s, got, err)
		}
	}
	if _, err := ParseKeyType("dsa"); err == nil {
		t.Error("dsa was accepted")
	}
}

package endpoint

import (
	"slices"
	"strings"
	"testing"

	"github.com/berthbuild/berth/internal/hint"
)

func TestParseGood(t *testing.T) {
	long := "/" + strings.Repeat("a", maxSunPath-1)
	for _, tc := range []struct {
		raw  string
		want Endpoint
		text string // "" when the same as raw
	}{
		{"unix:///run/buildkit/buildkitd.sock", Endpoint{Scheme: "unix", Path: "/run/buildkit/buildkitd.sock"}, ""},
		{"UNIX:///run/../tmp//b.sock/", Endpoint{Scheme: "unix", Path: "/tmp/b.sock"}, "unix:///tmp/b.sock"},
		{"unix:///a b/sock", Endpoint{Scheme: "unix", Path: "/a b/sock"}, ""},
		{"unix:///a%20b/%zz", Endpoint{Scheme: "unix", Path: "/a%20b/%zz"}, ""},
		{"unix:///häuser/日本/me@home/s", Endpoint{Scheme: "unix", Path: "/häuser/日本/me@home/s"}, ""},
		{"unix:///a://b", Endpoint{Scheme: "unix", Path: "/a:/b"}, "unix:///a:/b"},
		{"unix://" + long, Endpoint{Scheme: "unix", Path: long}, ""},
		{"tcp://localhost:1234", Endpoint{Scheme: "tcp", Host: "localhost", Port: "1234"}, ""},
		{"TCP://Build.Example.COM:01234", Endpoint{Scheme: "tcp", Host: "build.example.com", Port: "1234"}, "tcp://build.example.com:1234"},
		{"tcp://my_service:1", Endpoint{Scheme: "tcp", Host: "my_service", Port: "1"}, ""},
		{"tcp://host.:65535", Endpoint{Scheme: "tcp", Host: "host.", Port: "65535"}, ""},
		{"tcp://10.0.0.1:1234", Endpoint{Scheme: "tcp", Host: "10.0.0.1", Port: "1234"}, ""},
		{"tcp://[2001:DB8::0:1]:1234", Endpoint{Scheme: "tcp", Host: "2001:db8::1", Port: "1234"}, "tcp://[2001:db8::1]:1234"},
		{"tcp://[::ffff:1.2.3.4]:5", Endpoint{Scheme: "tcp", Host: "::ffff:1.2.3.4", Port: "5"}, ""},
		{"tcp://[fe80::1%eth0]:1234", Endpoint{Scheme: "tcp", Host: "fe80::1%eth0", Port: "1234"}, "tcp://[fe80::1%25eth0]:1234"},
		{"tcp://[fe80::1%25eth0]:1234", Endpoint{Scheme: "tcp", Host: "fe80::1%eth0", Port: "1234"}, ""},
		{"tcp://[fe80::1%25]:1234", Endpoint{Scheme: "tcp", Host: "fe80::1%25", Port: "1234"}, "tcp://[fe80::1%2525]:1234"},
	} {
		got, err := Parse(tc.raw)
		if err != nil {
			t.Errorf("Parse(%q): %v", tc.raw, err)
			continue
		}
		if got != tc.want {
			t.Errorf("Parse(%q) = %+v, want %+v", tc.raw, got, tc.want)
		}
		if tc.text == "" {
			tc.text = tc.raw
		}
		if got.String() != tc.text {
			t.Errorf("Parse(%q).String() = %q, want %q", tc.raw, got, tc.text)
		}
		if again, err := Parse(got.String()); err != nil || again != got {
			t.Errorf("%q does not survive a round trip: %+v, %v", tc.raw, again, err)
		}
	}
}

// Each refusal must say what is wrong, and give the corrected line where
// there is one.
func TestParseRefuses(t *testing.T) {
	for _, tc := range []struct{ raw, says, tip string }{
		{"", "is empty", "tcp://HOST:1234"},
		{"host:1234", "scheme is missing", "tcp://host:1234"},
		{"[::1]:1234", "scheme is missing", "tcp://[::1]:1234"},
		{"::1", "scheme is missing", ""},
		{"Host", "scheme is missing", "tcp://host:1234"},
		{"/path//sock", "scheme is missing", "unix:///path/sock"},
		{"./sock", "scheme is missing", "unix://$PWD/sock"},
		{"~/sock", "scheme is missing", "unix://$HOME/sock"},
		{"tcp:host:1234", "the // after", "tcp://host:1234"},
		{"unix:/a/sock", "the // after", "unix:///a/sock"},
		{"unix:foo.sock", "relative", "unix://$PWD/foo.sock"},
		{"unix:", "no socket path", "unix:///run/buildkit/buildkitd.sock"},
		{"://host:1", "scheme is missing", ""},
		{" tcp://host:1", "scheme is missing", ""},

		{"tcp://host", "port is missing", "tcp://host:1234"},
		{"tcp://host:", "port is missing", "tcp://host:1234"},
		{"tcp://[::1]", "port is missing", "tcp://[::1]:1234"},
		{"tcp://::1", "in brackets", "tcp://[::1]:1234"},
		{"tcp://fe80::g:1", "in brackets", ""},
		{"tcp://host:0", `port "0"`, ""},
		{"tcp://host:65536", `port "65536"`, ""},
		{"tcp://host:-1", `port "-1"`, ""},
		{"tcp://host:+1", `port "+1"`, ""},
		{"tcp://host:1_0", `port "1_0"`, ""},
		{"tcp://host:http", `port "http"`, ""},
		{"tcp://", "host is missing", "tcp://HOST:1234"},
		{"tcp://:1234", "host is missing", "tcp://HOST:1234"},
		{"tcp://host:1234/", "has a path", "tcp://host:1234"},
		{"tcp://host:1234/x", "has a path", "tcp://host:1234"},
		{"tcp://host:1234?a=b", "query", "tcp://host:1234"},
		{"tcp://host:1234#a", "fragment", "tcp://host:1234"},
		{"tcp://a b:1", "not a name", ""},
		{"tcp://a..b:1", "empty part", ""},
		{"tcp://-a:1", "begins or ends with -", ""},
		{"tcp://" + strings.Repeat("a", 64) + ":1", "longer than 63", ""},
		{"tcp://" + strings.Repeat("aa.", 99) + "a:1", "longer than 253", ""},
		{"tcp://bücher.example:1", "xn--", ""},
		{"tcp://1.2.3:1", "not an IPv4 address", ""},
		{"tcp://1.2.3.256:1", "not an IPv4 address", ""},
		{"tcp://[::1:1", "] after", ""},
		{"tcp://[::1]1", "is not a port", ""},
		{"tcp://[1.2.3.4]:1", "not an IPv6 address", ""},
		{"tcp://[fe80::1%]:1", "not a zone", ""},
		{"tcp://[fe80::1%a b]:1", "not a zone", ""},
		{"tcp://[::ffff:1.2.3.4%eth0]:1", "cannot have a zone", ""},

		{"unix://", "no socket path", "unix:///run/buildkit/buildkitd.sock"},
		{"unix:///", "no socket path", ""},
		{"unix:///..", "no socket path", ""},
		{"unix://foo.sock", "relative", "unix://$PWD/foo.sock"},
		{"unix://~/foo.sock", "relative", "unix://$HOME/foo.sock"},
		{"unix://@abstract", "relative", ""},
		{"unix:///a?b=c", "query", ""},
		{"unix:///a#b", "fragment", ""},
		{"unix:///" + strings.Repeat("a", maxSunPath), "108 bytes", "short symbolic link"},

		{"tcp://host:1\x00", "NUL", ""},
		{"tcp://host:1\n", "control character U+000A", ""},
		{"unix:///a\x1b[2J", "control character U+001B", ""},
		{"unix:///a\u0085", "control character U+0085", ""},
		{"unix:///\xff", "UTF-8", ""},
		{"unix:///" + strings.Repeat("a", maxLen), "4104 bytes", ""},

		{"http://host:1234/x", "gRPC", "tcp://host:1234"},
		{"http://host", "gRPC", "tcp://host:80"},
		{"https://host", "gRPC", "tcp://host:443"},
		{"gopher://host:1", `"gopher" is unknown`, "tcp://HOST:1234"},
	} {
		_, err := Parse(tc.raw)
		if err == nil {
			t.Errorf("Parse(%q) accepted", tc.raw)
			continue
		}
		if !strings.Contains(err.Error(), tc.says) {
			t.Errorf("Parse(%q) says %q, want %q in it", tc.raw, err, tc.says)
		}
		if len(err.Error()) > 600 {
			t.Errorf("Parse of %d bytes says %d bytes", len(tc.raw), len(err.Error()))
		}
		tips := strings.Join(hint.Of(err), "\n")
		if !strings.Contains(tips, tc.tip) {
			t.Errorf("Parse(%q) hints %q, want %q in it", tc.raw, tips, tc.tip)
		}
	}
}

// A password must not get into the message or a hint, wherever it stands.
func TestPasswordIsNotRepeated(t *testing.T) {
	for _, raw := range []string{
		"tcp://user:hunter2@host:1234",
		"tcp://user:hun/ter@hunter2@host:1234",
		"tcp://hunter2@host:1234",
		"tcp://user:hunter2@host",
		"tcp://user:hunter2/x@host:1234",
		"tcp://user:hunter2@host:1234\n",
		"tcp:user:hunter2@host:1234",
		"user:hunter2@host:1234",
		"hunter2@host",
		"./hunter2@host",
		"/user:hunter2@host",
		"unix://user:hunter2@/sock",
		"unix:user:hunter2@/sock",
		"http://user:hunter2@host:1",
		"https://hunter2@host",
		"gopher://user:hunter2@host",
		"tc p://user:hunter2@host:1",
		"tcp://host:1234?token=hunter2",
		"tcp://host?token=hunter2",
		"tcp://host:1#hunter2",
		"unix:///a?hunter2",
		"unix:/a?hunter2",
	} {
		_, err := Parse(raw)
		if err == nil {
			t.Errorf("Parse(%q) accepted", raw)
			continue
		}
		if all := err.Error() + strings.Join(hint.Of(err), "\n"); strings.Contains(all, "hunter2") {
			t.Errorf("Parse(%q) repeats the secret: %s", raw, all)
		}
	}
}

func TestHostnameAndAddress(t *testing.T) {
	for _, tc := range []struct{ raw, name, address string }{
		{"tcp://h:1", "h", "h:1"},
		{"tcp://[fe80::1%eth0]:1", "fe80::1", "[fe80::1%eth0]:1"},
		{"unix:///a", "", "/a"},
	} {
		e, err := Parse(tc.raw)
		if err != nil {
			t.Fatal(err)
		}
		if e.Hostname() != tc.name || e.Address() != tc.address || e.IsZero() {
			t.Errorf("%s: Hostname %q, Address %q, IsZero %v", tc.raw, e.Hostname(), e.Address(), e.IsZero())
		}
	}
	var zero Endpoint
	if !zero.IsZero() || zero.String() != "" || zero.Hostname() != "" || zero.Address() != "" {
		t.Errorf("the zero endpoint is not empty: %q %q", zero.String(), zero.Address())
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"", "tcp://host:1234", "tcp://[fe80::1%25eth0]:1", "tcp://[fe80::1%2525]:1", "tcp://[::ffff:1.2.3.4]:1", "unix:///a b/../c", "unix:///a%20b",
		"unix:foo", "host:1", "tcp://user:pw@h:1", "unix://///", "http://x", "kube-pod://p?x", "tcp://1.2.3.4:00080",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		e, err := Parse(raw)
		if err != nil {
			if e != (Endpoint{}) || err.Error() == "" {
				t.Fatalf("a refusal with a value: %+v, %v", e, err)
			}
			return
		}
		again, err := Parse(e.String())
		if err != nil || again != e {
			t.Fatalf("%q: %+v became %+v, %v", raw, e, again, err)
		}
		known := func(g grammar) bool { return g.name == e.Scheme }
		if !slices.ContainsFunc(grammars(), known) || e.Address() == "" {
			t.Fatalf("%q: %+v", raw, e)
		}
	})
}

// FuzzNoPassword puts a password where a URL has it, around fuzzed text.
func FuzzNoPassword(f *testing.F) {
	f.Add("tcp://", "host:1234")
	f.Add("unix:", "/sock")
	f.Add("", "h")
	f.Add("https://", "h/x")
	f.Fuzz(func(t *testing.T, before, after string) {
		const secret = "hunter2hunter2"
		raw := before + "user:" + secret + "@" + after
		e, err := Parse(raw)
		if err == nil {
			if e.Scheme != SchemeUnix && e.Scheme != SchemeExec { // there, it is part of a literal path or command
				t.Fatalf("accepted as %q", e)
			}
			return
		}
		all := err.Error() + strings.Join(hint.Of(err), "")
		if strings.Contains(all, secret) && !strings.HasPrefix(strings.ToLower(before), "unix:///") {
			t.Fatalf("%q: %s", raw, all)
		}
	})
}

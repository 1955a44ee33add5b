package endpoint

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/berthbuild/berth/internal/hint"
)

func TestSplitOptions(t *testing.T) {
	for _, tc := range []struct {
		flags []string
		want  map[string]string
		says  string
	}{
		{nil, map[string]string{}, ""},
		{[]string{""}, map[string]string{}, ""},
		{[]string{"cert=/c,key=/k", "cacert=/ca"}, map[string]string{"cert": "/c", "key": "/k", "cacert": "/ca"}, ""},
		{[]string{`"cacert=/a,b",cert=/c`}, map[string]string{"cacert": "/a,b", "cert": "/c"}, ""},
		{[]string{`"cert=/a""b"`}, map[string]string{"cert": `/a"b`}, ""},
		{[]string{"cert=/c, key=/k=2"}, map[string]string{"cert": "/c", "key": "/k=2"}, ""},
		{[]string{"cert=/c,cert=/c", "cert=/c"}, map[string]string{"cert": "/c"}, ""},
		{[]string{"cert=/c", "cert=/d"}, nil, `"cert" is given twice`},
		{[]string{"servername="}, map[string]string{"servername": ""}, ""},
		{[]string{"cert"}, nil, `"cert" is not of the form`},
		{[]string{"=x"}, nil, `"=x" is not of the form`},
		{[]string{"cert=/c,"}, nil, `"" is not of the form`},
		{[]string{","}, nil, "is not of the form"},
		{[]string{`cacert="/a,b"`}, nil, "bare"},
		{[]string{`"cacert=/a`}, nil, "quote"},
		{[]string{"cert=/a\nkey=/b"}, nil, "line break"},
		{[]string{strings.Repeat("x", 1<<20)}, nil, "is not of the form"},
	} {
		got, err := SplitOptions(tc.flags)
		if tc.says == "" {
			if err != nil || !maps.Equal(got, tc.want) {
				t.Errorf("SplitOptions(%q) = %v, %v; want %v", tc.flags, got, err, tc.want)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), tc.says) || len(err.Error()) > 600 {
			t.Errorf("SplitOptions(%.100q) says %.200v, want %q in it", tc.flags, err, tc.says)
		}
	}
}

func TestParseOptionsGood(t *testing.T) {
	for _, tc := range []struct {
		e    string
		kv   map[string]string
		want Options
		tls  bool
	}{
		{"tcp://h:1", nil, Options{}, false},
		{"tcp://h:1", map[string]string{"cacert": "/ca", "cert": "/c", "key": "/k", "servername": "n"}, Options{CACert: "/ca", Cert: "/c", Key: "/k", ServerName: "n"}, true},
		{"tcp://h:1", map[string]string{"servername": "10.0.0.1"}, Options{ServerName: "10.0.0.1"}, true},
		{"tcp://h:1", map[string]string{"servername": "::1"}, Options{ServerName: "::1"}, true},
		{"tcp://h:1", map[string]string{"cacert": "/ca"}, Options{CACert: "/ca"}, true},
		{"tcp://h:1", map[string]string{"tlsdir": "/certs", "ca": "system"}, Options{TLSDir: "/certs", SystemCA: true}, true},
		{"tcp://h:1", map[string]string{"ca": "system"}, Options{SystemCA: true}, true},
		{"tcp://h:1", map[string]string{"ca": "system", "cacert": "/ca"}, Options{SystemCA: true, CACert: "/ca"}, true},
		{"tcp://h:1", map[string]string{"proxy": "env"}, Options{Proxy: Proxy{Kind: ProxyEnv}}, false},
		{"tcp://h:1", map[string]string{"proxy": "http://p:3128"}, Options{Proxy: Proxy{Kind: ProxyHTTP, Host: "p", Port: "3128"}}, false},
		{"unix:///a", map[string]string{"default-load": "true", "connect-timeout": "1m"}, Options{DefaultLoad: true, ConnectTimeout: time.Minute}, false},
		{"unix:///a", map[string]string{"default-load": "false"}, Options{loadOff: true}, false},
	} {
		got, err := ParseOptions(mustParse(t, tc.e), tc.kv)
		if err != nil || got != tc.want || got.TLS() != tc.tls {
			t.Errorf("ParseOptions(%s, %v) = %+v, %v; want %+v", tc.e, tc.kv, got, err, tc.want)
			continue
		}
		again, err := ParseOptions(mustParse(t, tc.e), got.Map())
		if err != nil || again != got {
			t.Errorf("%+v does not survive its stored form %v: %+v, %v", got, got.Map(), again, err)
		}
		if len(got.Map()) != len(tc.kv) {
			t.Errorf("Map() = %v, want the same options as %v", got.Map(), tc.kv)
		}
	}
}

func TestParseOptionsRefuses(t *testing.T) {
	for _, tc := range []struct{ e, key, value, says, tip string }{
		{"tcp://h:1", "nonsense", "x", `"nonsense" is unknown`, "cacert, cert, key"},
		{"tcp://h:1", "ca-cert", "x", `"ca-cert" is unknown`, "did you mean cacert?"},
		{"tcp://h:1", "Server_Name", "x", "is unknown", "did you mean servername?"},
		{"tcp://h:1", "cert", "/c", `"cert" needs "key"`, "key="},
		{"tcp://h:1", "key", "/k", `"key" needs "cert"`, "cert="},
		{"tcp://h:1", "cacert", "", `"cacert" is empty`, ""},
		{"tcp://h:1", "cert", "", `"cert" is empty`, ""},
		{"tcp://h:1", "key", "", `"key" is empty`, ""},
		{"tcp://h:1", "servername", "", `"servername" is empty`, ""},
		{"tcp://h:1", "cacert", "/a\x00b", "control character", ""},
		{"tcp://h:1", "cacert", strings.Repeat("a", 5000), "longer than", ""},
		{"tcp://h:1", "servername", "h:1234", "not a DNS name", "servername=h"},
		{"tcp://h:1", "servername", "[::1]", "not a DNS name", "servername=::1"},
		{"tcp://h:1", "servername", "*.example.com", "not a DNS name", ""},
		{"tcp://h:1", "servername", "fe80::1%eth0", "not a DNS name", ""},
		{"tcp://h:1", "default-load", "ja", `true or false, not "ja"`, ""},
		{"tcp://h:1", "default-load", "", "is empty", ""},
		{"tcp://h:1", "connect-timeout", "20", "no unit", "connect-timeout=20s"},
		{"tcp://h:1", "connect-timeout", "0", "more than 0", ""},
		{"tcp://h:1", "connect-timeout", "-1s", "more than 0", ""},
		{"tcp://h:1", "connect-timeout", "soon", "not a duration", "20s"},
		{"tcp://h:1", "connect-timeout", "", "is empty", ""},
		{"tcp://h:1", "ca", "/ca.pem", `knows only the value "system"`, "cacert=CA.pem"},
		{"tcp://h:1", "tlsdir", "", "is empty", ""},
		{"tcp://h:1", "proxy", "p:3128", `"proxy": has no scheme`, "http://p:3128"},
		{"tcp://h:1", "proxy", "socks4://p:1", `"socks4" is not a kind of proxy`, "socks5h"},
		{"tcp://h:1", "proxy", "http://p:0", "not a number from 1 to 65535", ""},
		{"tcp://h:1", "proxy", "http://", "host is missing", ""},
		{"unix:///a", "tlsdir", "/c", `"tlsdir" is for TLS`, ""},
		{"unix:///a", "ca", "system", `"ca" is for TLS`, ""},
		{"unix:///a", "proxy", "env", `"proxy" is for tcp:// endpoints, not for unix://`, ""},
		{"ssh://h", "proxy", "env", `"proxy" is for tcp:// endpoints, not for ssh://`, "ProxyJump"},
		{"kube-pod://p", "proxy", "env", `not for kube-pod://`, "proxy-url"},
		{"unix:///a", "cacert", "/ca", `"cacert" is for TLS`, ""},
		{"unix:///a", "servername", "h", `"servername" is for TLS`, ""},
		{"unix:///a", "key", "/k", `"key" is for TLS`, ""},
	} {
		got, err := ParseOptions(mustParse(t, tc.e), map[string]string{tc.key: tc.value})
		if err == nil || !strings.Contains(err.Error(), tc.says) || got != (Options{}) {
			t.Errorf("%s=%.40q on %s: %+v, %v; want %q", tc.key, tc.value, tc.e, got, err, tc.says)
			continue
		}
		if tips := strings.Join(hint.Of(err), "\n"); !strings.Contains(tips, tc.tip) {
			t.Errorf("%s=%.40q hints %q, want %q in it", tc.key, tc.value, tips, tc.tip)
		}
	}
}

func TestServerNameFor(t *testing.T) {
	for _, tc := range []struct{ raw, option, want string }{
		{"tcp://h:1", "", "h"},
		{"tcp://h:1", "other", "other"},
		{"tcp://h.example.:1", "", "h.example"},
		{"tcp://[fe80::1%eth0]:1", "", "fe80::1"},
		{"unix:///a", "", ""},
	} {
		o := Options{ServerName: tc.option}
		if got := o.ServerNameFor(mustParse(t, tc.raw)); got != tc.want {
			t.Errorf("%s with %q: %q, want %q", tc.raw, tc.option, got, tc.want)
		}
	}
}

func mustParse(t *testing.T, raw string) Endpoint {
	t.Helper()
	e, err := Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func FuzzOptions(f *testing.F) {
	for _, seed := range []string{
		"", "cacert=/a,cert=/b,key=/c", `"cacert=/a,b"`, "connect-timeout=1ns", "default-load=T", "servername=a.b", "x", "=,", `"`,
		"tlsdir=/certs,ca=system", "tlsdir=~/c,cacert=/x", "ca=other", "proxy=env", "proxy=http://me:p%40ss@proxy:3128",
		"proxy=socks5h://[::1]:1080/", "proxy=https://p", "proxy=http://@p", "proxy=http://a:b:c@p:1", "proxy=SOCKS5://me:%00@p",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, flag string) {
		kv, err := SplitOptions([]string{flag})
		if err != nil {
			return
		}
		e := Endpoint{Scheme: SchemeTCP, Host: "h", Port: "1"}
		o, err := ParseOptions(e, kv)
		if err != nil {
			return
		}
		again, err := ParseOptions(e, o.Map())
		if err != nil || !maps.Equal(again.Map(), o.Map()) {
			t.Fatalf("%q: %v became %v, %v", flag, o.Map(), again.Map(), err)
		}
		again.Proxy.Password, o.Proxy.Password = Secret{}, Secret{} // equal by what they hold, not by ==
		if again != o {
			t.Fatalf("%q: %+v became %+v", flag, o, again)
		}
	})
}

// FuzzNoProxyPassword puts a password where a proxy has it.
func FuzzNoProxyPassword(f *testing.F) {
	f.Add("proxy=http://", "proxy:3128")
	f.Add(`"proxy=http://`, "h")
	f.Add("proxy=socks4://", "h:1,cert=x")
	f.Add("proxy:http://", "h:1")
	f.Add("proxy=", "h/x?y")
	f.Fuzz(func(t *testing.T, before, after string) {
		const secret = "hunter2hunter2"
		if strings.Contains(after, "=") || strings.Contains(before, secret) { // another option, whose value is no secret
			return
		}
		flag := before + "user:" + secret + "@" + after
		kv, err := SplitOptions([]string{flag})
		var o Options
		if err == nil {
			o, err = ParseOptions(Endpoint{Scheme: SchemeTCP, Host: "h", Port: "1"}, kv)
		}
		said := fmt.Sprintf("%+v %v", o.Proxy, o.Proxy)
		if err != nil {
			said += err.Error() + strings.Join(hint.Of(err), "")
		}
		for _, v := range Redacted(map[string]string{OptProxy: kv[OptProxy]}) {
			said += v
		}
		_, isProxy := kv[OptProxy]
		if strings.Contains(said, secret) && (isProxy || err == nil || strings.HasPrefix(before, "proxy")) {
			t.Fatalf("%q: %s", flag, said)
		}
	})
}

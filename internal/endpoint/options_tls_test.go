package endpoint

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/berthbuild/berth/internal/hint"
)

func TestTLSDirExcludes(t *testing.T) {
	e := mustParse(t, "tcp://h:1")
	for _, other := range []map[string]string{{"cacert": "/a"}, {"cert": "/a"}, {"key": "/a"}, {"cert": "/a", "key": "/b"}} {
		kv := map[string]string{"tlsdir": "/d"}
		maps.Copy(kv, other)
		if _, err := ParseOptions(e, kv); err == nil || !strings.Contains(err.Error(), `"tlsdir" stands for`) {
			t.Errorf("%v: %v", kv, err)
		}
	}
}

func TestAbsolute(t *testing.T) {
	in := map[string]string{"cacert": "ca.pem", "cert": "~/c/cert.pem", "key": "/k", "tlsdir": "~", "servername": "s", "proxy": "env"}
	got := Absolute(in, "/src/dir", "/home/me")
	want := map[string]string{"cacert": "/src/dir/ca.pem", "cert": "/home/me/c/cert.pem", "key": "/k", "tlsdir": "/home/me", "servername": "s", "proxy": "env"}
	if !maps.Equal(got, want) || in["cacert"] != "ca.pem" {
		t.Errorf("%v, from %v", got, in)
	}
	if got := Absolute(map[string]string{"cacert": "~/x", "key": "", "tlsdir": "~other"}, "/d", ""); got["cacert"] != "/d/~/x" || got["key"] != "" || got["tlsdir"] != "/d/~other" {
		t.Errorf("%v", got)
	}
	if o := (Options{CACert: "a", TLSDir: "~/b"}).Absolute("/d", "/h"); o.CACert != "/d/a" || o.TLSDir != "/h/b" || o.Cert != "" {
		t.Errorf("%+v", o)
	}
}

const somePEM = "-----BEGIN X-----\nhunter2\n-----END X-----\n"

func TestTLSFromEnv(t *testing.T) {
	for _, tc := range []struct {
		name string
		env  map[string]string
		says string
		want Options // without Inline
		pem  int     // how many texts
	}{
		{name: "nothing", env: map[string]string{EnvCACert: "", EnvKeyPEM: ""}},
		{name: "paths", env: map[string]string{EnvCACert: "a", EnvCert: "b", EnvKey: "c", EnvServerName: "s"}, want: Options{CACert: "a", Cert: "b", Key: "c", ServerName: "s", FromEnv: true}},
		{name: "folder", env: map[string]string{EnvDir: "d", EnvServerName: "s"}, want: Options{TLSDir: "d", ServerName: "s", FromEnv: true}},
		{name: "name only", env: map[string]string{EnvServerName: "10.0.0.1"}, want: Options{ServerName: "10.0.0.1"}},
		{name: "text", env: map[string]string{EnvCACertPEM: somePEM, EnvCertPEM: somePEM, EnvKeyPEM: somePEM}, want: Options{FromEnv: true}, pem: 3},
		{name: "mixed", env: map[string]string{EnvCACert: "a", EnvCert: "b", EnvKeyPEM: somePEM}, want: Options{CACert: "a", Cert: "b", FromEnv: true}, pem: 1},
		{name: "both", env: map[string]string{EnvCACert: "a", EnvCACertPEM: somePEM}, says: "BERTH_TLS_CACERT and BERTH_TLS_CACERT_PEM are both set"},
		{name: "no key", env: map[string]string{EnvCertPEM: somePEM}, says: "no key for it"},
		{name: "no certificate", env: map[string]string{EnvKey: "k"}, says: "no certificate for it"},
		{name: "folder and more", env: map[string]string{EnvDir: "d", EnvKeyPEM: somePEM, EnvCert: "c"}, says: "together with BERTH_TLS_CERT, BERTH_TLS_KEY_PEM"},
		{name: "a path as text", env: map[string]string{EnvCACertPEM: "/hunter2.pem"}, says: "BERTH_TLS_CACERT_PEM holds no PEM text"},
		{name: "large", env: map[string]string{EnvCACertPEM: somePEM + strings.Repeat("x", 1<<20)}, says: "larger than 1 MiB"},
		{name: "no name", env: map[string]string{EnvServerName: "s:1"}, says: "BERTH_TLS_SERVERNAME is not a DNS name"},
	} {
		o, err := TLSFromEnv(func(name string) string { return tc.env[name] })
		if tc.says != "" {
			if err == nil || !strings.Contains(err.Error(), tc.says) || strings.Contains(err.Error()+strings.Join(hint.Of(err), ""), "hunter2") {
				t.Errorf("%s: %v", tc.name, err)
			}
			continue
		}
		texts := 0
		for _, s := range []Secret{o.Inline.CACert, o.Inline.Cert, o.Inline.Key} {
			if !s.IsZero() {
				texts++
			}
		}
		seen := o
		seen.Inline = Inline{}
		if err != nil || seen != tc.want || texts != tc.pem {
			t.Errorf("%s: %+v with %d texts, %v", tc.name, o, texts, err)
		}
		if all := fmt.Sprintf("%v %+v %#v %s", o, o, o, o.Map()); strings.Contains(all, "hunter2") {
			t.Errorf("%s: a secret is printed: %s", tc.name, all)
		}
		if o.TLS() != (len(o.Map()) > 0 || texts > 0) {
			t.Errorf("%s: TLS %v", tc.name, o.TLS())
		}
	}
}

func TestWithTLSFrom(t *testing.T) {
	env := Options{TLSDir: "d", ServerName: "s", FromEnv: true, Inline: Inline{Key: NewSecret("k")}}
	for _, tc := range []struct{ own, want Options }{
		{Options{DefaultLoad: true}, Options{DefaultLoad: true, TLSDir: "d", ServerName: "s", FromEnv: true, Inline: env.Inline}},
		{Options{CACert: "a"}, Options{CACert: "a", ServerName: "s"}},
		{Options{SystemCA: true, ServerName: "o"}, Options{SystemCA: true, ServerName: "o"}},
		{Options{ServerName: "o"}, Options{TLSDir: "d", ServerName: "o", FromEnv: true, Inline: env.Inline}},
	} {
		if got := tc.own.WithTLSFrom(env); got != tc.want {
			t.Errorf("%+v became %+v, want %+v", tc.own, got, tc.want)
		}
	}
}

// A secret is in no print, wherever it is: not even within a field that package
// fmt may not call methods of.
func TestSecretIsNotPrinted(t *testing.T) {
	type inner struct {
		Secret Secret
		hidden Secret //nolint:unused // by reflection
	}
	s := NewSecret("hunter2")
	v := inner{s, s}
	p := Proxy{Kind: "http", Host: "h", Port: "1", User: "me", Password: s}
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{
		fmt.Sprint(s), fmt.Sprintf("%s %q %v %+v %#v %x %d", s, s, s, s, s, s, s), fmt.Sprintf("%v %+v %#v", v, v, v), fmt.Sprintf("%v %+v %#v", &v, &v, &v),
		string(b), p.String(), fmt.Sprintf("%v %+v %#v", p, p, p), fmt.Sprintf("%+v", Options{Proxy: p, Inline: Inline{Key: s}}),
	} {
		if strings.Contains(text, "hunter2") || strings.Contains(text, "68756e746572") {
			t.Errorf("printed: %s", text)
		}
	}
	if s.Reveal() != "hunter2" || !NewSecret("").IsZero() || (Secret{}).Reveal() != "" {
		t.Error("a secret is lost")
	}
}

func TestParseProxy(t *testing.T) {
	for _, tc := range []struct{ in, shown, user, password string }{
		{"env", "env", "", ""},
		{"http://p", "http://p:80", "", ""},
		{"HTTPS://P.Example/", "https://p.example:443", "", ""},
		{"socks5://10.0.0.1", "socks5://10.0.0.1:1080", "", ""},
		{"socks5h://[::1]:9", "socks5h://[::1]:9", "", ""},
		{"http://me@p:1", "http://me@p:1", "me", ""},
		{"http://me:hunter2@p:1", "http://me:xxxxx@p:1", "me", "hunter2"},
		{"http://DOM%5Cme:p%40s%3As%2F%25@p:1", "http://DOM%5Cme:xxxxx@p:1", `DOM\me`, "p@s:s/%"},
		{"http://me:a@b@p:1", "http://me:xxxxx@p:1", "me", "a@b"},
		{"http://me:a b+ü@p:1", "http://me:xxxxx@p:1", "me", "a b+ü"},
	} {
		p, err := ParseProxy(tc.in)
		if err != nil || p.String() != tc.shown || p.User != tc.user || p.Password.Reveal() != tc.password {
			t.Errorf("%s: %+v, %v", tc.in, p, err)
			continue
		}
		again, err := ParseProxy(p.stored())
		if err != nil || again.stored() != p.stored() || again.Password.Reveal() != tc.password {
			t.Errorf("%s is stored as %s, which is %+v, %v", tc.in, p.stored(), again, err)
		}
	}
	for in, says := range map[string]string{
		"": "no scheme", "p": "no scheme", "me:hunter2@p:1": "no scheme", "http://me:hunter2%zz@p:1": "encodes nothing",
		"http://:hunter2@p:1": "no user", "http://me:hunter2%0a@p:1": "control character", "http://m%3Ae:hunter2@p:1": "colon",
		"http://p:1/x": "path", "http://p:1?hunter2": "path", "http://me:hunter2@p:x": "not a number", "ftp://p": "not a kind",
		"http://p p:1": "not a name", "socks5://me:" + strings.Repeat("hunter2", 40) + "@p": "255", "http://" + strings.Repeat("p", 5000): "longer",
		"http://p:1\n": "control",
	} {
		p, err := ParseProxy(in)
		if err == nil || !strings.Contains(err.Error(), says) || p != (Proxy{}) || strings.Contains(err.Error()+strings.Join(hint.Of(err), ""), "hunter2") {
			t.Errorf("%q: %+v, %v", in, p, err)
		}
	}
}

func TestRedacted(t *testing.T) {
	in := map[string]string{"cert": "/c", "proxy": "http://me:hunter2@p:1"}
	got := Redacted(in)
	if got["proxy"] != "http://me:xxxxx@p:1" || got["cert"] != "/c" || in["proxy"] != "http://me:hunter2@p:1" {
		t.Errorf("%v from %v", got, in)
	}
	if got := Redacted(map[string]string{"proxy": "junk:hunter2@"}); strings.Contains(got["proxy"], "hunter2") {
		t.Errorf("%v", got)
	}
}

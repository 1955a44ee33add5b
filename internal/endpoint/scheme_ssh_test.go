package endpoint

import (
	"strings"
	"testing"

	"github.com/berthbuild/berth/internal/hint"
)

func TestSSHGood(t *testing.T) {
	for _, tc := range []struct {
		raw  string
		want Endpoint
		text string // "" when the same as raw
	}{
		{"ssh://host", Endpoint{Scheme: "ssh", Host: "host"}, ""},
		{"SSH://Ann@Build_1.Example.com:022/", Endpoint{Scheme: "ssh", User: "Ann", Host: "build_1.example.com", Port: "22"}, "ssh://Ann@build_1.example.com:22"},
		{"ssh://a.b+c-d_e$@h", Endpoint{Scheme: "ssh", User: "a.b+c-d_e$", Host: "h"}, ""},
		{"ssh://h//run/./b.sock/", Endpoint{Scheme: "ssh", Host: "h", Path: "/run/b.sock"}, "ssh://h/run/b.sock"},
		{"ssh://root@[2001:DB8::1]:2222/run/user/1000/b=1,2:x+y-z_.sock", Endpoint{
			Scheme: "ssh", User: "root", Host: "2001:db8::1", Port: "2222", Path: "/run/user/1000/b=1,2:x+y-z_.sock",
		}, "ssh://root@[2001:db8::1]:2222/run/user/1000/b=1,2:x+y-z_.sock"},
		{"ssh://[::1]", Endpoint{Scheme: "ssh", Host: "::1"}, ""},
		{"ssh://[fe80::1%eth0]/s", Endpoint{Scheme: "ssh", Host: "fe80::1%eth0", Path: "/s"}, "ssh://[fe80::1%25eth0]/s"},
		{"ssh://10.0.0.1:22", Endpoint{Scheme: "ssh", Host: "10.0.0.1", Port: "22"}, ""},
	} {
		got, err := Parse(tc.raw)
		if err != nil || got != tc.want {
			t.Errorf("Parse(%q) = %+v, %v; want %+v", tc.raw, got, err, tc.want)
			continue
		}
		if tc.text == "" {
			tc.text = tc.raw
		}
		if again, err := Parse(got.String()); got.String() != tc.text || err != nil || again != got {
			t.Errorf("%q: String %q, again %+v, %v", tc.raw, got, again, err)
		}
	}
}

func TestSSHRefuses(t *testing.T) {
	for _, tc := range []struct{ raw, says, tip string }{
		{"ssh://", "host is missing", "ssh://USER@HOST"},
		{"ssh:///run/b.sock", "host is missing", "ssh://USER@HOST"},
		{"ssh://ann@", "host is missing", ""},
		{"ssh://@host", "user before the @ is empty", ""},
		{"ssh://u:hunter2@host", "has a password", "ssh-copy-id"},
		{"ssh://u:hunter2@host:22/x", "has a password", ""},
		{"ssh://u:hun/ter@hunter2@host", "has a password", ""},
		{"ssh://hunter2/x@host", "a character that a login name", "~/.ssh/config"},
		{"ssh://-oProxyCommand=x@host", "begins with a character", ""},
		{"ssh://" + strings.Repeat("u", 129) + "@host", "longer than 128", ""},
		{"ssh://a b@host", "a character that", ""},
		{"ssh://a%20b@host", "a character that", ""},
		{"ssh://a$b@host", "a character that", ""},
		{"ssh://host:0", `port "0"`, ""},
		{"ssh://host:65536", `port "65536"`, ""},
		{"ssh://host:ssh", `port "ssh"`, ""},
		{"ssh://host:", "port after the colon is missing", ""},
		{"ssh://[::1]:", "port after the colon is missing", ""},
		{"ssh://::1", "in brackets", "ssh://[::1]:22"},
		{"ssh://[::1", "] after", ""},
		{"ssh://-host", "begins or ends with -", ""},
		{"ssh://ho;st", "contains ';'", ""},
		{"ssh://ho%73t", "contains '%'", ""},
		{"ssh://h?key=hunter2", "query", "~/.ssh/config"},
		{"ssh://h/x?key=hunter2", "query", ""},
		{"ssh://h#x", "query or fragment", ""},
		{"ssh://h/../etc/x", "..", ""},
		{"ssh://h/a/..", "..", ""},
		{"ssh://h/~/b.sock", "begins with ~", "/home/USER"},
		{"ssh://h/a;reboot", "contains ';'", ""},
		{"ssh://h/$(x)", "contains '$'", ""},
		{"ssh://h/a b", "contains ' '", ""},
		{"ssh://h/a'b", `contains '\''`, ""},
		{"ssh://h/a%2fb", "contains '%'", ""},
		{"ssh://h/a`b`", "contains '`'", ""},
		{"ssh://h/ä", "contains 'ä'", ""},
		{"ssh://h/.", "is a folder", ""},
		{"ssh://h/a\x00", "NUL", ""},
		{"ssh://h/" + strings.Repeat("a", 107), "108 bytes", ""},
		{"ssh://" + strings.Repeat("a", 5000), "5006 bytes", ""},
		{"ssh:host", "scheme is missing", ""},
	} {
		e, err := Parse(tc.raw)
		if err == nil {
			t.Errorf("Parse(%q) accepted: %+v", tc.raw, e)
			continue
		}
		tips := strings.Join(hint.Of(err), "\n")
		if !strings.Contains(err.Error(), tc.says) || !strings.Contains(tips, tc.tip) {
			t.Errorf("Parse(%q) says %q, hints %q; want %q and %q", tc.raw, err, tips, tc.says, tc.tip)
		}
		if all := err.Error() + tips; strings.Contains(all, "hunter2") || strings.Contains(all, "ter@") || len(all) > 600 {
			t.Errorf("Parse(%q) repeats too much: %s", tc.raw, all)
		}
	}
}

func TestSSHOptions(t *testing.T) {
	e, err := Parse("ssh://h")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ParseOptions(e, map[string]string{OptConnectTimeout: "3s"}); err != nil {
		t.Error(err)
	}
	if _, err := ParseOptions(e, map[string]string{OptServerName: "x"}); err == nil || !strings.Contains(err.Error(), "ssh://") {
		t.Errorf("TLS over ssh: %v", err)
	}
}

func FuzzSSH(f *testing.F) {
	for _, seed := range []string{"h", "u@h:22/x", "[::1]:22", "u:p@h", "h/..", "a@b@c/d@e", "h?x#y", "@", ":", "/", "h:1:2"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, rest string) {
		e, err := Parse("ssh://" + rest)
		if err != nil {
			return
		}
		if again, err := Parse(e.String()); err != nil || again != e {
			t.Fatalf("%q: %+v became %+v, %v", rest, e, again, err)
		}
		if strings.ContainsAny(e.Path, " \t'\"$`;&|<>(){}*?!~#\\%@") || strings.HasPrefix(e.User, "-") || strings.HasPrefix(e.Host, "-") {
			t.Fatalf("%q: %+v", rest, e)
		}
	})
}

package ssh

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/berthbuild/berth/internal/dial"
)

func TestSettings(t *testing.T) {
	w := newWorld(t)
	w.env["KEYS"] = "/keys"
	w.write("etc/ssh_config", "Host *\n  User system\n  Port 7\n  HashKnownHosts yes\nInclude ssh_config.d/*.conf\n")
	w.write("etc/ssh_config.d/a.conf", "ConnectTimeout 3\n")
	w.write(".ssh/more/one", "Host box\n  User inc\nHost other\n  User wrong\n")
	w.write(".ssh/config", `# comment
include more/*
Host=box  # comment
  HostName "%h.example.com"
  Port 2222 # comment
  identityfile ~/.ssh/box\ key
  IdentityFile "${KEYS}/%r@%h"
  IdentitiesOnly	yes
  UserKnownHostsFile ~/kh1 '~/kh2' /a/%n
  StrictHostKeyChecking accept-new
  AddressFamily inet6
  HostKeyAlias Pool
Host B?X !box
  Port 1
Match host *.example.com user inc
  IdentityFile /matched
Match originalhost nobody
  User x
Match all
  ProxyJump one,user@two:23
Host *
  Port 3
  IdentityFile /last
  IdentityFile /last
`)
	d := w.dialer()
	s, err := d.settings("box", "", "")
	if err != nil {
		t.Fatal(err)
	}
	home := func(name string) string { return filepath.Join(w.home, name) }
	want := &settings{
		host: "box", hostName: "box.example.com", user: "inc", port: "2222", network: "tcp6", connectTimeout: 3 * time.Second,
		alias: "pool", strict: strictNew, hash: true, onlyThese: true, explicit: true, mayAdd: 3,
		known:      []string{home("kh1"), home("kh2"), "/a/box", home("etc/ssh_known_hosts"), home("etc/ssh_known_hosts2")},
		identities: []string{home(".ssh/box key"), "/keys/inc@box.example.com", "/matched", "/last"},
		jumps:      []string{"one", "user@two:23"},
	}
	if !reflect.DeepEqual(s, want) {
		t.Errorf("got\n%+v\nwant\n%+v", s, want)
	}
	if s.name() != "pool" || s.address() != "box.example.com:2222" {
		t.Error(s.name(), s.address())
	}

	s, err = d.settings("else", "given", "99")
	if err != nil {
		t.Fatal(err)
	}
	if s.user != "given" || s.port != "99" || s.hostName != "else" || s.name() != "[else]:99" || s.strict != strictAsk {
		t.Errorf("%+v", s)
	}
	if s, err = d.settings("bux", "", ""); err != nil || s.user != "system" || s.port != "1" {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestDefaults(t *testing.T) {
	w := newWorld(t)
	w.env["SSH_AUTH_SOCK"] = "/agent"
	s, err := w.dialer().settings("fe80::1%eth0", "", "")
	if err != nil {
		t.Fatal(err)
	}
	if s.user != "ann" || s.port != "22" || s.name() != "fe80::1%eth0" || s.address() != "[fe80::1%eth0]:22" ||
		s.agentSocket != "/agent" || s.explicit || len(s.identities) != 3 || !strings.HasSuffix(s.identities[0], "/.ssh/id_ed25519") {
		t.Errorf("%+v", s)
	}
	d := newDialer(dial.Env{})
	d.system = "/nonexistent"
	if s, err := d.settings("h", "u", ""); err != nil || s.known[0] != "/ssh_known_hosts" && len(s.known) != 2 || len(s.identities) != 0 {
		t.Errorf("without an environment: %+v, %v", s, err)
	}
}

// Match final is looked at after everything else.
func TestMatchFinal(t *testing.T) {
	w := newWorld(t)
	w.write(".ssh/config", "Match final host *.corp\n User late\n Port 5\nHost x\n HostName x.corp\n Port 4\nMatch exec true\n Port 6\n")
	s, err := w.dialer().settings("x", "", "")
	if err != nil || s.user != "late" || s.port != "4" {
		t.Errorf("%+v, %v", s, err)
	}
	if got := w.warned(); !strings.Contains(got, "config:7: berth does not evaluate Match exec") || strings.Count(got, "\n") != 0 {
		t.Errorf("warned %q", got)
	}
}

func TestBadConfig(t *testing.T) {
	for _, tc := range []struct{ text, says string }{
		{"Port", "config:1: Port has no value"},
		{"Port =", "config:1: Port has no value"},
		{"\n\nPort http", "config:3: Port \"http\" is not a number from 1 to 65535"},
		{"Port 70000", "is not a number"},
		{"Port 0", "is not a number"},
		{"\x7fELF\x02\x01\x01\x00\x00", "config:1: this is not text"},
		{"\xff\xfe", "this is not text"},
		{"<html>", "is not a directive of ssh_config"},
		{"{\"json\": true}", "is not a directive of ssh_config"},
		{"User \"ann", "User has a quote that does not end"},
		{"Match", "Match has no value"},
		{"Match colour red", "Match colour is unknown"},
		{"Match host", "Match host has no value"},
		{"Include /[", "Include: "},
		{"Include config", "files include each other more than 16 deep"},
		{"Include many/*", "more than 128 files are included"},
		{"StrictHostKeyChecking maybe", `StrictHostKeyChecking "maybe" is not`},
		{"HashKnownHosts maybe", "HashKnownHosts is yes or no"},
		{"AddressFamily ipx", "AddressFamily is any"},
		{"ConnectTimeout soon", `ConnectTimeout "soon" is not a time`},
		{"IdentityFile %z", `"%z" in "%z" is not understood`},
		{"IdentityFile %", "is not understood"},
		{"IdentityFile ${NOPE}/x", "${NOPE is not a variable that is set"},
		{"IdentityFile ~bob/x", "only ~/ is understood"},
		{"HostName -oProxyCommand=x", "is not a host"},
		{"HostName a;b", "is not a host"},
		{"ProxyCommand nc %h %p", "config:1: ProxyCommand is not supported"},
		{"RevokedHostKeys /x", "RevokedHostKeys is not supported"},
		{"KnownHostsCommand /x", "KnownHostsCommand is not supported"},
		{"CanonicalizeHostname yes\nCanonicalDomains x.org", "CanonicalizeHostname is not supported"},
		{"ProxyJump h", "h jumps to itself"},
		{"ProxyJump -oX", `"-oX" is not a host`},
		{"ProxyJump u:hunter2@j", "a jump host has a password"},
		{"ProxyJump j:0", "has a port that is not a number"},
		{"Host h\nProxyJump j,,k", `"" is not a host`},
		{"Host h\nProxyJump a\nHost a\nProxyJump b\nHost b\nProxyJump a", "more than 8 machines"},
		{"Host *\nProxyJump %n.x", "more than 8 machines"},
		{strings.Repeat("# x\n", 1<<19), "is larger than 1024 KiB"},
	} {
		w := newWorld(t)
		for i := range 130 {
			w.write(fmt.Sprintf(".ssh/many/%d", i), "")
		}
		w.write(".ssh/config", tc.text+"\n")
		_, err := w.dialer().route("h", "", "", 0)
		var own *dial.Error
		if !errors.As(err, &own) || own.Class != Config || !strings.Contains(own.Text, tc.says) {
			t.Errorf("%.40q: %v, want %q", tc.text, err, tc.says)
			continue
		}
		if len(own.Text) > 500 || strings.Contains(own.Text, "hunter2") {
			t.Errorf("%.40q: %s", tc.text, own.Text)
		}
	}
}

// These are fine, or none of our business.
func TestHarmlessConfig(t *testing.T) {
	for _, text := range []string{
		"", "\r\n# x\r\nPort 22\r\n", "ProxyCommand none", "ProxyJump none", "ProxyJump j\nProxyCommand nc x", "ForwardAgent yes",
		"UnheardOf \"a b\" c", "Host other\nProxyCommand x\nPort http", "Include /nonexistent/*", "Include ~/.ssh/nothing",
		"RevokedHostKeys none", "CanonicalizeHostname no\nCanonicalDomains x", "IdentityFile none", "UserKnownHostsFile none",
		"ConnectTimeout none", "ConnectTimeout 1m", "Match !host h\nPort http", "Match host=other\nPort http",
	} {
		w := newWorld(t)
		w.write(".ssh/config", text)
		if _, err := w.dialer().settings("h", "", ""); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestUnsafeConfig(t *testing.T) {
	w := newWorld(t)
	path := w.write(".ssh/config", "Port 1\n")
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := w.dialer().settings("h", "", ""); err == nil || !strings.Contains(err.Error(), path+": others may write this file (mode 0666)") {
		t.Error(err)
	}
	_ = os.Remove(path)
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := w.dialer().settings("h", "", ""); err == nil || !strings.Contains(err.Error(), path+": is not a file") {
		t.Error(err)
	}
}

func TestWildcard(t *testing.T) {
	for _, tc := range []struct {
		pattern, s string
		want       bool
	}{
		{"", "", true}, {"*", "", true}, {"*", "x", true}, {"", "x", false}, {"?", "", false}, {"a*b*c", "aXbYbZc", true},
		{"a*b*c", "aXbYbZ", false}, {"HOST", "host", true}, {"h?st", "hst", false}, {"*.x", "a.b.x", true}, {"a**", "a", true},
		{strings.Repeat("*a", 100) + "b", strings.Repeat("a", 5000), false},
	} {
		if got := wildcard(tc.pattern, tc.s); got != tc.want {
			t.Errorf("wildcard(%.20q, %.20q) = %v", tc.pattern, tc.s, got)
		}
	}
}

func FuzzConfig(f *testing.F) {
	for _, seed := range []string{
		"Host *\n Port 22\n", "Match final user a,!b\nUser \"x y\"", "ProxyJump a,b@c:1", "IdentityFile ~/%h/${USER}", "Include x\n", "Port=\"22\\\"", "a", "a=",
	} {
		f.Add(seed)
	}
	w := newWorld(f)
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(strings.ToLower(text), "include") {
			return // not of other files
		}
		w.t = t
		w.write(".ssh/config", text)
		s, err := w.dialer().settings("host", "", "")
		var own *dial.Error
		switch {
		case err != nil && !errors.As(err, &own):
			t.Fatalf("%T %v", err, err)
		case err == nil && (s.port == "" || s.user == "" || s.hostName == "" || s.network == "" || s.strict == ""):
			t.Fatalf("%+v", s)
		}
	})
}

package ssh

import (
	"crypto/rand"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

func TestUnknownHostKey(t *testing.T) {
	w := newWorld(t)
	s := echoing(w).serve(t)
	fp := ssh.FingerprintSHA256(s.hostKeys[0].PublicKey())
	name := "[127.0.0.1]:" + port(s)
	e := fails(t, w.dialer(), s.at(""), HostKey,
		"the host key of "+name+" is unknown: ED25519 "+fp,
		"ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub",
		"ssh-keyscan -p "+port(s)+" -t ed25519 127.0.0.1 >> "+w.home+"/.ssh/known_hosts",
		"ssh -p "+port(s)+" ann@127.0.0.1")
	if e.Ask != nil || e.Heals {
		t.Errorf("without a terminal: %#v", e)
	}
	w.write(".ssh/config", "StrictHostKeyChecking yes\n")
	w.ask = func(string) (string, error) { t.Error("asked"); return "yes", nil }
	if e := fails(t, w.dialer(), s.at(""), HostKey, fp); e.Ask != nil {
		t.Error("asks though the configuration says no")
	}
}

func TestAskForHostKey(t *testing.T) {
	w := newWorld(t)
	s := echoing(w).serve(t)
	fp := ssh.FingerprintSHA256(s.hostKeys[0].PublicKey())
	var asked []string
	answers := []string{"no", "maybe", "yes"}
	w.ask = func(q string) (string, error) {
		asked = append(asked, q)
		a := answers[0]
		answers = answers[1:]
		return a, nil
	}
	d := w.dialer()
	if err := fails(t, d, s.at(""), HostKey).Ask(t.Context()); err == nil {
		t.Error("no is taken for yes")
	}
	e := fails(t, d, s.at(""), HostKey)
	for range 2 { // the second is for another connection, which asks nobody again
		if err := e.Ask(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	works(t, d, s.at(""))
	works(t, w.dialer(), s.at(""))
	if len(asked) != 3 || !strings.Contains(asked[0], fp) {
		t.Errorf("asked %q", asked)
	}
	if strings.Count(w.read(".ssh/known_hosts"), "\n") != 1 {
		t.Errorf("known_hosts: %q", w.read(".ssh/known_hosts"))
	}
}

func TestAcceptNew(t *testing.T) {
	for _, hash := range []string{"no", "yes"} {
		w := newWorld(t)
		w.write("known", "# without a line end")
		w.write(".ssh/config", "StrictHostKeyChecking accept-new\nHashKnownHosts "+hash+"\nUserKnownHostsFile ~/known\n")
		s := echoing(w).serve(t)
		works(t, w.dialer(), s.at(""))
		text := w.read("known")
		if (hash == "yes") != strings.Contains(text, "\n|1|") || (hash == "no") != strings.Contains(text, "\n[127.0.0.1]:") {
			t.Errorf("hash %s: %q", hash, text)
		}
		if got := w.warned(); !strings.Contains(got, "was accepted and written to") {
			t.Errorf("warned %q", got)
		}
		works(t, w.dialer(), s.at(""))
		if w.read("known") != text {
			t.Error("written twice")
		}
		s.addHostKey(newED25519(t))
		fails(t, w.dialer(), s.at(""), HostKey, "has changed")
	}
}

func TestChangedHostKey(t *testing.T) {
	w := newWorld(t)
	s := echoing(w).serve(t)
	w.write(".ssh/known_hosts", knownhosts.Line([]string{s.addr}, newED25519(t).PublicKey())+"\n")
	for _, policy := range []string{"ask", "accept-new", "yes"} {
		w.write(".ssh/config", "StrictHostKeyChecking "+policy+"\n")
		e := fails(t, w.dialer(), s.at(""), HostKey, "has changed: it is ED25519 "+ssh.FingerprintSHA256(s.hostKeys[0].PublicKey())+" now",
			"known_hosts:1", "ssh-keygen -f "+w.home+"/.ssh/known_hosts -R '[127.0.0.1]:"+port(s)+"'")
		if e.Ask != nil {
			t.Error("asks whether to accept a changed key")
		}
	}
	w.write(".ssh/config", "StrictHostKeyChecking no\n")
	works(t, w.dialer(), s.at(""))
	if !strings.Contains(w.warned(), "has changed") {
		t.Errorf("warned %q", w.warned())
	}
	w.write(".ssh/config", "StrictHostKeyChecking no\nUserKnownHostsFile /dev/null\n")
	works(t, w.dialer(), s.at(""))
}

// A server with several keys shows the one that is known, whichever it would
// rather show.
func TestKnownKeyIsWanted(t *testing.T) {
	for _, known := range []int{0, 1} {
		w := newWorld(t)
		s := echoing(w, newECDSA(t), newED25519(t)).serve(t)
		w.write(".ssh/known_hosts", knownhosts.Line([]string{s.addr}, s.hostKeys[known].PublicKey())+"\n")
		works(t, w.dialer(), s.at(""))
	}
	w := newWorld(t)
	s := echoing(w, newECDSA(t)).serve(t)
	w.write(".ssh/known_hosts", knownhosts.Line([]string{s.addr}, newED25519(t).PublicKey())+"\n")
	fails(t, w.dialer(), s.at(""), HostKey, "is not the known one: it shows ECDSA SHA256:", "known is ED25519 SHA256:")
}

func TestWaysToBeKnown(t *testing.T) {
	w := newWorld(t)
	s := echoing(w).serve(t)
	key := s.hostKeys[0].PublicKey()
	text := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
	full := "[127.0.0.1]:" + port(s)
	ca := newED25519(t)
	for name, tc := range map[string]struct {
		line, config string
		ok           bool
	}{
		"hashed":          {knownhosts.HashHostname(full) + " " + text, "", true},
		"hashed, other":   {knownhosts.HashHostname("127.0.0.2") + " " + text, "", false},
		"without port":    {"127.0.0.1 " + text, "", true},
		"pattern":         {"127.0.*,!127.0.0.2 " + text, "", true},
		"negated":         {"127.0.*,!127.0.0.1 " + text, "", false},
		"comment":         {full + " " + text + " my host", "", true},
		"alias":           {"Pool " + text, "HostKeyAlias pool\n", true},
		"alias, other":    {full + " " + text, "HostKeyAlias pool\n", false},
		"revoked":         {full + " " + text + "\n@revoked * " + text, "", false},
		"authority only":  {"@cert-authority * " + text, "", false},
		"garbage before":  {"\x00\xff\n" + full + "\n" + full + " ssh-ed25519 AAAA\n" + full + " ssh-new !!!\n@x " + "\n" + full + " " + text, "", true},
		"another's":       {"example.com ssh-unheard-of AAAAB3\n" + full + " " + text, "", true},
		"type is another": {full + " ssh-rsa " + strings.Fields(text)[1], "", false},
		"long line":       {strings.Repeat("x,", 1<<20) + " a b\n" + full + " " + text, "", true},
		"global":          {"", "GlobalKnownHostsFile ~/global\n", true},
		"system's":        {"", "", true},
	} {
		t.Run(name, func(t *testing.T) {
			w.write(".ssh/known_hosts", tc.line+"\n")
			w.write(".ssh/config", tc.config)
			w.write("global", "")
			w.write("etc/ssh_known_hosts", "")
			switch name {
			case "global":
				w.write("global", full+" "+text+"\n")
			case "system's":
				w.write("etc/ssh_known_hosts", full+" "+text+"\n")
			}
			if tc.ok {
				works(t, w.dialer(), s.at(""))
			} else {
				fails(t, w.dialer(), s.at(""), HostKey)
			}
		})
	}

	cert := &ssh.Certificate{Key: key, CertType: ssh.HostCert, ValidPrincipals: []string{"127.0.0.1"}, ValidBefore: ssh.CertTimeInfinity}
	if err := cert.SignCert(rand.Reader, ca); err != nil {
		t.Fatal(err)
	}
	certified, err := ssh.NewCertSigner(cert, s.hostKeys[0])
	if err != nil {
		t.Fatal(err)
	}
	s.addHostKey(certified)
	w.write(".ssh/config", "")
	w.write("etc/ssh_known_hosts", "")
	authority := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(ca.PublicKey())))
	w.write(".ssh/known_hosts", "@cert-authority * "+authority+"\n")
	works(t, w.dialer(), s.at(""))
	w.write(".ssh/known_hosts", "@cert-authority * "+authority+"\n@revoked * "+authority+"\n")
	fails(t, w.dialer(), s.at(""), HostKey, "the host certificate of")
	w.write(".ssh/known_hosts", "@cert-authority * "+authority+"\n")
	w.write(".ssh/config", "HostKeyAlias elsewhere\n")
	fails(t, w.dialer(), s.at(""), HostKey, "elsewhere")
}

func TestKnownHostsThatCannotBeRead(t *testing.T) {
	w := newWorld(t)
	s := echoing(w).serve(t)
	w.write(".ssh/known_hosts", "[127.0.0.1]:"+port(s)+" ssh-ed25519 !!!\n")
	fails(t, w.dialer(), s.at(""), HostKey, "is unknown", "known_hosts:1: has a key that cannot be read")
	w.write(".ssh/config", "UserKnownHostsFile ~/.ssh\n")
	fails(t, w.dialer(), s.at(""), Config, filepath.Join(w.home, ".ssh")+": is not a file")
}

func FuzzKnownHosts(f *testing.F) {
	text := string(ssh.MarshalAuthorizedKey(newED25519(f).PublicKey()))
	for _, seed := range []string{"", "h " + text, "|1|a|b " + text, "@revoked * " + text, "@", "|", "!", "h,!h* x", knownhosts.HashHostname("h") + " " + text} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, line string) {
		var k known
		k.add([]byte(line), "h", "file", 1)
		for _, one := range k.keys {
			if one.key == nil {
				t.Fatal("a line without a key")
			}
		}
		if len(k.algorithms()) < 6 {
			t.Fatal(fmt.Sprint(k.algorithms()))
		}
	})
}

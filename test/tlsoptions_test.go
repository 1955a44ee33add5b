//go:build e2e && linux

package test

import (
	"crypto/tls"
	"net"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/berthbuild/berth/internal/dial/dialtest"
	"github.com/berthbuild/berth/test/lab"
)

// tlsFolder makes a folder with the CA and the client's files under the names.
func tlsFolder(t *testing.T, c *lab.Certs, p lab.Pair, ca, cert, key string) string {
	t.Helper()
	dir := t.TempDir()
	for from, to := range map[string]string{c.CA: ca, p.Cert: cert, p.Key: key} {
		putFile(t, join(dir, to), read(t, from))
	}
	return dir
}

// putFile replaces a file at once, as those who renew certificates should.
func putFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(join(path, ".."), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// One build each, with the files in a folder, in the three ways to lay it out;
// and with the system's CAs.
func TestTLSOptionsFolders(t *testing.T) {
	bk := lab.Shared(t)
	certs := bk.Certs()
	berth := lab.Berth(t)
	context := lab.HelloContext(t)
	for name, dir := range map[string]string{
		"pem":    tlsFolder(t, certs, certs.Client, "ca.pem", "cert.pem", "key.pem"),
		"client": tlsFolder(t, certs, certs.Client, "client/ca.pem", "client/cert.pem", "client/key.pem"),
		"kube":   tlsFolder(t, certs, certs.Client, "ca.crt", "tls.crt", "tls.key"),
	} {
		berth.OK("create", "--name", name, "--driver", "remote", "--driver-opt", "tlsdir="+dir, bk.LocalhostAddr())
		berth.OK("build", "--builder", name, context)
	}
	pair := "cert=" + certs.Client.Cert + ",key=" + certs.Client.Key
	system := berth.With("SSL_CERT_FILE=" + certs.CA)
	berth.OK("create", "--name", "system", "--driver", "remote", "--driver-opt", "ca=system,"+pair, bk.LocalhostAddr())
	system.OK("build", "--builder", "system", context)
	has(t, "without the CA", berth.Fail("build", "--builder", "system", context).Stderr, "unknown CA", "it was checked against the system's CAs;")
	// The system's CAs and our own, for a system that has others.
	other := lab.NewCerts(t, "localhost")
	berth.OK("create", "--name", "both", "--driver", "remote", "--driver-opt", "ca=system,cacert="+other.CA+","+pair, bk.LocalhostAddr())
	system.OK("build", "--builder", "both", context)
}

// A key that openssl encrypted, with the passphrase in a file and at a terminal.
func TestTLSOptionsEncryptedKey(t *testing.T) {
	lab.Need(t, "openssl")
	bk := lab.Shared(t)
	certs := bk.Certs()
	berth := lab.Berth(t)
	context := lab.HelloContext(t)
	for name, args := range map[string][]string{"aes": {"-v2", "aes-256-cbc"}, "scrypt": {"-scrypt"}} {
		key := join(t.TempDir(), "key.pem")
		args = append([]string{"pkcs8", "-topk8", "-in", certs.Client.Key, "-out", key, "-passout", "pass:open sesame"}, args...)
		if out, err := exec.Command("openssl", args...).CombinedOutput(); err != nil {
			t.Fatalf("openssl: %v\n%s", err, out)
		}
		berth.OK("create", "--name", name, "--driver", "remote",
			"--driver-opt", "cacert="+certs.CA+",cert="+certs.Client.Cert+",key="+key, bk.LocalhostAddr())
		r := berth.Fail("build", "--builder", name, context)
		has(t, name, lastLine(r.Stderr), key+": the key is encrypted, and nobody was asked for its passphrase")
		has(t, name, r.Stderr, "BERTH_TLS_KEY_PASSPHRASE_FILE")
		file := join(t.TempDir(), "phrase")
		putFile(t, file, "open sesame\n")
		berth.With("BERTH_TLS_KEY_PASSPHRASE_FILE="+file).OK("build", "--builder", name, context)
		has(t, "ls", berth.OK("ls").Stdout, name+"0", "error (tls-key-locked)")

		p := berth.Cmd("build", "--builder", name, context).TTY().Start()
		p.WaitFor("Passphrase for the key " + key)
		p.Type("wrong\n")
		p.WaitFor("That is not it.")
		p.Type("open sesame\n")
		r = p.Wait()
		if r.Code != 0 || strings.Contains(r.Stdout+r.Stderr, "sesame") {
			t.Errorf("%s: %s", name, r)
		}
		if n := strings.Count(r.Stdout+r.Stderr, "Passphrase for the key"); n != 2 {
			t.Errorf("%s: asked %d times", name, n)
		}
	}
}

// A builder goes on with renewed certificates: a new pair of the same CA, and
// later another CA on both sides.
func TestTLSOptionsRenewal(t *testing.T) {
	first, second := lab.NewCerts(t, "localhost"), lab.NewCerts(t, "localhost")
	bk := lab.BuildKit(t, lab.BuildKitOpts{TCP: true, TLS: first})
	dir := tlsFolder(t, first, first.Client, "ca.crt", "tls.crt", "tls.key")
	berth := lab.Berth(t)
	context := lab.HelloContext(t)
	berth.OK("create", "--name", "b", "--use", "--driver", "remote", "--driver-opt", "tlsdir="+dir, bk.LocalhostAddr())
	berth.OK("build", context)
	renew := func(c *lab.Certs, p lab.Pair) {
		putFile(t, join(dir, "tls.crt"), read(t, p.Cert))
		putFile(t, join(dir, "tls.key"), read(t, p.Key))
		putFile(t, join(dir, "ca.crt"), read(t, c.CA))
	}
	renew(first, first.Issue(t, lab.CertOpts{File: "renewed", Client: true}))
	berth.OK("build", context)
	renew(second, second.Client)
	has(t, "with another CA", berth.Fail("build", context).Stderr, "unknown CA", "it has another key: was the CA made anew?")
	renew(first, first.Client)
	berth.OK("build", context)
	// A pair that stays half-replaced is named.
	putFile(t, join(dir, "tls.key"), read(t, second.Client.Key))
	has(t, "half", lastLine(berth.Fail("build", context).Stderr), join(dir, "tls.key"), "does not belong to the certificate", join(dir, "tls.crt"))
}

// Builds through proxies that demand a login, and what they say without one.
func TestTLSOptionsProxy(t *testing.T) {
	bk := lab.Shared(t)
	certs := bk.Certs()
	berth := lab.Berth(t)
	context := lab.HelloContext(t)
	dir := tlsFolder(t, certs, certs.Client, "ca.pem", "cert.pem", "key.pem")
	_, port, err := net.SplitHostPort(strings.TrimPrefix(bk.TCPAddr(), "tcp://"))
	if err != nil {
		t.Fatal(err)
	}
	// A name that only the proxy knows.
	hosts := map[string]string{"daemon.example:" + port: "127.0.0.1:" + port}
	opts := "tlsdir=" + dir + ",servername=localhost,proxy="
	password := "p@ss/w:rd"
	login := "me:" + url.QueryEscape(password) + "@"
	for kind, socks := range map[string]bool{"http": false, "socks5h": true} {
		p := dialtest.Proxy(t, dialtest.ProxyOpts{SOCKS: socks, User: "me", Password: password, Hosts: hosts})
		berth.OK("create", "--name", kind, "--driver", "remote", "--driver-opt", opts+kind+"://"+login+p.Addr, "tcp://daemon.example:"+port)
		r := berth.OK("build", "--builder", kind, context)
		hasNot(t, kind, r.Stdout+r.Stderr, password, login)
		if len(p.Asked()) == 0 {
			t.Errorf("%s: nothing went through the proxy", kind)
		}
		berth.OK("create", "--name", kind+"-no", "--driver", "remote", "--driver-opt", opts+kind+"://"+p.Addr, "tcp://daemon.example:"+port)
		r = berth.Fail("build", "--builder", kind+"-no", context)
		has(t, kind, lastLine(r.Stderr), "demands a login")
		has(t, kind, r.Stderr, "hint: give it with the proxy: --driver-opt proxy="+kind+"://USER:PASSWORD@"+p.Addr)
		inspect := berth.OK("inspect", "--format", "json", kind)
		has(t, "inspect", inspect.Stdout, `"running"`, kind+"://me:xxxxx@"+p.Addr)
		hasNot(t, "inspect", inspect.Stdout, login)
		proxied := berth.With("HTTPS_PROXY=" + kind + "://" + login + p.Addr)
		berth.OK("create", "--name", kind+"-env", "--driver", "remote", "--driver-opt", opts+"env", "tcp://daemon.example:"+port)
		proxied.OK("build", "--builder", kind+"-env", context)
		has(t, "not for this host", proxied.With("NO_PROXY=daemon.example").Fail("inspect", "--bootstrap", "--timeout", "1s", kind+"-env").Stderr, "daemon.example")
	}
	secure := secureProxy(t, certs, dialtest.Proxy(t, dialtest.ProxyOpts{Hosts: hosts}))
	berth.OK("create", "--name", "https", "--driver", "remote", "--driver-opt", opts+secure, "tcp://daemon.example:"+port)
	berth.With("SSL_CERT_FILE="+certs.CA).OK("build", "--builder", "https", context)
	has(t, "ls", berth.OK("ls").Stdout, "error (proxy-tls)", "error (proxy-auth)", "running")
}

// secureProxy is p behind TLS, with the CA's certificate for localhost.
func secureProxy(t *testing.T, certs *lab.Certs, p *dialtest.ProxyServer) string {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(certs.Server.Cert, certs.Server.Key)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dialtest.ServeListener(t, l, func(c net.Conn) { p.Serve(tls.Server(c, &tls.Config{Certificates: []tls.Certificate{pair}})) })
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return "https://localhost:" + port
}

// A CI job has certificates in variables, and builds without create.
func TestTLSOptionsEnvironment(t *testing.T) {
	bk := lab.Shared(t)
	certs := bk.Certs()
	berth := lab.Berth(t)
	context := lab.HelloContext(t)
	inline := berth.With("BERTH_TLS_CACERT_PEM="+read(t, certs.CA), "BERTH_TLS_CERT_PEM="+strings.ReplaceAll(read(t, certs.Client.Cert), "\n", `\n`),
		"BERTH_TLS_KEY_PEM="+read(t, certs.Client.Key))
	inline.OK("build", "--builder", bk.LocalhostAddr(), context)
	inline.With("BUILDKIT_HOST="+bk.LocalhostAddr()).OK("build", context)
	berth.With("BERTH_TLS_DIR="+tlsFolder(t, certs, certs.Client, "ca.crt", "tls.crt", "tls.key"), "BERTH_TLS_SERVERNAME=localhost").
		OK("build", "--builder", bk.TCPAddr(), context)
	r := inline.With("BERTH_TLS_DIR=x").Fail("build", "--builder", bk.LocalhostAddr(), context)
	has(t, "contradiction", lastLine(r.Stderr), "BERTH_TLS_DIR", "BERTH_TLS_KEY_PEM")
	hasNot(t, "contradiction", r.Stderr, "BEGIN")
	if exists(join(berth.BuildxConfig, "instances")) {
		t.Error("a builder was stored")
	}
}

//go:build e2e && linux

package test

import (
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/berthbuild/berth/internal/dial/dialtest"
	"github.com/berthbuild/berth/test/lab"
)

// fault is a way to be wrong about a daemon behind TLS, and what must be said
// about it.
type fault struct {
	name, endpoint, opts string
	class, text, hint    string
	step                 string   // of doctor
	behind               *lab.CLI // runs there, where it is not the machine's own network
}

// TestFaultTable is the table of docs/faults.md: seventeen ways to fail
// on the way to a real daemon, each with the class, the words and the hint of
// inspect, and with doctor's step.
func TestFaultTable(t *testing.T) {
	certs, others := lab.NewCerts(t, "localhost", "127.0.0.1"), lab.NewCerts(t, "localhost", "127.0.0.1")
	good := lab.BuildKit(t, lab.BuildKitOpts{Unix: true, TCP: true, TLS: certs})
	plain := lab.BuildKit(t, lab.BuildKitOpts{TCP: true})
	shows := func(p lab.Pair) string {
		return lab.BuildKit(t, lab.BuildKitOpts{Unix: true, TCP: true, TLS: certs, ServerCert: &p, NoClientCert: true}).TCPAddr()
	}
	expired := shows(certs.Issue(t, lab.CertOpts{File: "expired", Names: []string{"127.0.0.1"}, Expired: true}))
	tomorrow := shows(certs.Issue(t, lab.CertOpts{File: "tomorrow", Names: []string{"127.0.0.1"}, Future: true}))
	below := shows(certs.Below(t, "between").Issue(t, lab.CertOpts{File: "below", Names: []string{"127.0.0.1"}}))
	old, err := tls.LoadX509KeyPair(certs.Server.Cert, certs.Server.Key)
	if err != nil {
		t.Fatal(err)
	}
	tls10 := lab.Front(t, &tls.Config{Certificates: []tls.Certificate{old}, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS10}, plain.TCPAddr()) //nolint:gosec // that is the fault
	closes := lab.Answer(t, func(c net.Conn) { _, _ = c.Read(make([]byte, 1024)) })
	proxy := dialtest.Proxy(t, dialtest.ProxyOpts{User: "me", Password: "hunter2"})

	link := lab.NewLink(t)
	berth := lab.Berth(t)
	behind := link.Berth(berth)
	link.Drop()

	ca := "cacert=" + certs.CA
	with := func(p lab.Pair) string { return ca + ",cert=" + p.Cert + ",key=" + p.Key }
	faults := []fault{
		{name: "wrong-ca", endpoint: good.TCPAddr(), opts: "cacert=" + others.CA, class: "tls-untrusted", text: "signed by an unknown CA", hint: "cacert", step: "tls"},
		{name: "wrong-name", endpoint: good.TCPAddr(), opts: with(certs.Client) + ",servername=other.example", class: "tls-name", text: "not for \"other.example\"", hint: "servername=", step: "tls"},
		{name: "expired-server", endpoint: expired, opts: ca, class: "tls-expired", text: "expired", hint: "issue a new certificate", step: "tls"},
		{name: "expired-client", endpoint: good.TCPAddr(), opts: with(certs.Issue(t, lab.CertOpts{File: "old", Client: true, Expired: true})), class: "tls-client-cert", text: "it expired on", hint: "we sent", step: "tls"},
		{name: "client-not-yet", endpoint: good.TCPAddr(), opts: with(certs.Issue(t, lab.CertOpts{File: "new", Client: true, Future: true})), class: "tls-client-cert", text: "it is not valid before", hint: "we sent", step: "tls"},
		{name: "no-client", endpoint: good.TCPAddr(), opts: ca, class: "tls-client-cert", text: "requires a client certificate", hint: "cert=", step: "tls"},
		{name: "other-client", endpoint: good.TCPAddr(), opts: with(others.Client), class: "tls-client-cert", text: "signed by a CA that it does not know", hint: "the daemon wants one signed by", step: "tls"},
		{name: "intermediate", endpoint: below, opts: ca, class: "tls-untrusted", text: "unknown CA (CN=between)", hint: "the daemon must send its certificate, too", step: "tls"},
		{name: "tls10", endpoint: tls10, opts: ca, class: "tls-handshake", text: "neither TLS 1.2 nor 1.3", hint: "openssl s_client", step: "tls"},
		{name: "closes", endpoint: closes, opts: ca, class: "closed", text: "closes the connection during the TLS handshake", hint: "hint", step: "tls"},
		{name: "http1", endpoint: "tcp://" + lab.Registry(t).Addr(), opts: ca, class: "not-tls", text: "HTTP/1", hint: "is this the port of buildkitd?", step: "tls"},
		{name: "silent", endpoint: stall(t), opts: ca, class: "silent", text: "no answer to the TLS handshake", hint: "is the daemon hanging", step: "tls"},
		{name: "no-such-name", endpoint: "tcp://nosuch.invalid:1234", opts: ca, class: "dns", text: "no such host", hint: "getent hosts", step: "resolve"},
		{name: "blackholed", endpoint: "tcp://" + link.Near + ":1234", opts: ca, class: "timeout", text: "no answer to the attempt to connect", hint: "a firewall that drops packets", step: "connect", behind: behind},
		{name: "from-tomorrow", endpoint: tomorrow, opts: ca, class: "tls-expired", text: "ahead of this machine's clock", hint: "date -u", step: "tls"},
		{name: "proxy-login", endpoint: good.TCPAddr(), opts: with(certs.Client) + ",proxy=http://" + proxy.Addr, class: "proxy-auth", text: "HTTP 407", hint: "USER:PASSWORD", step: "proxy"},
	}
	for _, f := range faults {
		berth.OK("create", "--name", f.name, "--driver", "remote", "--driver-opt", f.opts, f.endpoint)
	}
	// A key that does not fit is refused when the builder is made; this one was
	// swapped later.
	swapped := certs.Issue(t, lab.CertOpts{File: "swapped", Client: true})
	berth.OK("create", "--name", "other-key", "--driver", "remote", "--driver-opt", with(swapped), good.TCPAddr())
	if err := os.WriteFile(swapped.Key, []byte(read(t, others.Client.Key)), 0o600); err != nil {
		t.Fatal(err)
	}
	faults = append(faults, fault{name: "other-key", endpoint: good.TCPAddr(), class: "config", text: "does not belong to the certificate", hint: "openssl pkey -pubout", step: "files"})

	for _, f := range faults {
		cli := berth
		if f.behind != nil {
			cli = f.behind
		}
		r := cli.OK("inspect", "--format", "json", "--timeout", "2s", f.name)
		for _, want := range []string{fmt.Sprintf(`"ErrClass":%q`, f.class), strings.ReplaceAll(f.text, `"`, `\"`)} {
			has(t, f.name+": inspect", r.Stdout, want)
		}
		has(t, f.name+": inspect", strings.ToLower(cli.OK("inspect", "--timeout", "2s", f.name).Stdout), "hint:", strings.ToLower(f.hint))
		diagnose(t, cli, "--timeout", "3s", f.name).broken(t, f.name, f.step, f.class)
	}
	if len(faults) != 17 {
		t.Errorf("%d faults", len(faults))
	}
}

// Certificates that are renewed while builds run: five renewals in the time of
// two hundred builds, of which none fails.
func TestRenewalUnderLoad(t *testing.T) {
	const builds, renewals, lanes = 200, 5, 4
	berth := lab.Berth(t)
	berth.OK("certs", "create", "localhost", "127.0.0.1", "--dir", join(berth.Work, "certs"))
	dir := join(berth.Work, "certs")
	bk := lab.BuildKit(t, lab.BuildKitOpts{Unix: true, TCP: true, Flags: []string{
		"--tlscacert", join(dir, "daemon", "ca.pem"), "--tlscert", join(dir, "daemon", "cert.pem"), "--tlskey", join(dir, "daemon", "key.pem"),
	}})
	berth.OK("create", "--use", "--name", "load", "--driver", "remote", "--driver-opt", "tlsdir="+dir, bk.TCPAddr())
	context := lab.HelloContext(t)
	first := read(t, join(dir, "client", "cert.pem"))

	var done atomic.Int32
	var all sync.WaitGroup
	failed := make(chan lab.Result, builds)
	turn := make(chan struct{}, builds)
	for range lanes {
		all.Go(func() {
			for range builds / lanes {
				if r := berth.Run("build", "--quiet", context); r.Code != 0 {
					failed <- r
				}
				done.Add(1)
				turn <- struct{}{}
			}
		})
	}
	var serials []string
	for i := range renewals {
		for int(done.Load()) < (i+1)*builds/(renewals+1) {
			<-turn
		}
		berth.OK("certs", "renew", "--dir", dir)
		serials = append(serials, read(t, join(dir, "client", "cert.pem")))
	}
	all.Wait()
	close(failed)
	for r := range failed {
		t.Errorf("a build failed: %s", r)
	}
	slices.Sort(serials)
	if len(slices.Compact(serials)) != renewals || slices.Contains(serials, first) {
		t.Errorf("of %d renewals, only %d made a new certificate", renewals, len(slices.Compact(serials)))
	}
}

package doctor

import (
	"testing"

	"github.com/berthbuild/berth/internal/buildkittest"
	"github.com/berthbuild/berth/internal/dial/dialtest"
)

func TestThroughAProxy(t *testing.T) {
	certs := buildkittest.TestCerts(t)
	s := buildkittest.New(t, buildkittest.Options{Solve: fetches(t.TempDir()), TLS: &buildkittest.TLS{Server: certs.Server}})
	at := func(proxy string) Options {
		return options(node("n0", s.Endpoint(), "cacert", certs.CA.File, "proxy", proxy))
	}
	open := dialtest.Proxy(t, dialtest.ProxyOpts{})
	r := run(t, at("http://"+open.Addr))
	if _, st, broken := r.Broken(); broken {
		t.Errorf("%+v", st)
	}
	contains(t, "connect", stepOf(t, r, StepConnect).Text, open.Addr)
	if st := stepOf(t, r, StepProxy); st.Status != OK {
		t.Errorf("%+v", st)
	} else {
		contains(t, "proxy", st.Text, "http://"+open.Addr+" to "+s.Addr())
	}

	shut := dialtest.Proxy(t, dialtest.ProxyOpts{User: "u", Password: "the-proxys-password"})
	for _, c := range []struct{ name, proxy, step, class string }{
		{"wants a login", "http://" + shut.Addr, StepProxy, "proxy-auth"},
		{"another login", "http://u:not-the-password@" + shut.Addr, StepProxy, "proxy-auth"},
		{"nobody there", "http://" + buildkittest.FreeAddr(t), StepConnect, "proxy-unreachable"},
		{"no proxy", "http://" + s.Addr(), StepProxy, "proxy-gateway"},
	} {
		r := run(t, at(c.proxy))
		_, st, _ := r.Broken()
		if st.Name != c.step || string(st.Class) != c.class || len(st.Hints) == 0 {
			t.Errorf("%s: %s [%s] %q, want %s [%s]", c.name, st.Name, st.Class, st.Text, c.step, c.class)
		}
		for _, text := range append(st.Hints, st.Text) {
			if got := newScrubber([]string{"not-the-password"}).clean(text); got != text {
				t.Errorf("%s: the password is in %q", c.name, text)
			}
		}
	}
}

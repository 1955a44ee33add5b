package kube

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/berthbuild/berth/internal/dial/dialtest"
	"github.com/berthbuild/berth/internal/endpoint"
)

// The suite runs over each way into a pod.
func TestConformance(t *testing.T) {
	for _, way := range []struct {
		name, query string
		spdy        bool
	}{
		{"exec over WebSocket", "", false},
		{"exec over SPDY", "", true},
		{"port-forward over WebSocket", "?via=port-forward&port=1234", false},
		{"port-forward over SPDY", "?via=port-forward&port=1234", true},
	} {
		t.Run(way.name, func(t *testing.T) {
			// One environment for all: dialtest dials with one scheme value.
			home := t.TempDir()
			env := (&fakeAPI{t: t, dir: home}).env()
			point := func(tb testing.TB, f *fakeAPI) {
				b, err := os.ReadFile(filepath.Join(f.dir, "config"))
				if err == nil {
					text := strings.Replace(string(b), "certificate-authority: ca.pem", "certificate-authority: "+filepath.Join(f.dir, "ca.pem"), 1)
					err = os.WriteFile(filepath.Join(home, "config"), []byte(text), 0o600)
				}
				if err != nil {
					tb.Fatal(err)
				}
			}
			dialtest.Run(t, dialtest.Peer{
				Scheme: scheme(env, endpoint.SchemeKubePod),
				Serve: func(tb testing.TB, handle func(net.Conn)) endpoint.Endpoint {
					f := newFake(tb)
					f.spdyOnly = way.spdy
					f.exec = func(p *fakeProcess) { handle(p.fakeConn) }
					f.forward = func(_ string, c net.Conn) string { handle(c); return "" }
					f.put(podsPath+"/bk", object("bk"))
					point(tb, f)
					return mustParse(tb, "kube-pod://bk"+way.query)
				},
				Refused: func(tb testing.TB) endpoint.Endpoint {
					f := newFake(tb)
					point(tb, f)
					return mustParse(tb, "kube-pod://nobody"+way.query)
				},
				Stalled: func(tb testing.TB) endpoint.Endpoint {
					f := newFake(tb)
					l, err := net.Listen("tcp", "127.0.0.1:0")
					if err != nil {
						tb.Fatal(err)
					}
					dialtest.ServeListener(tb, l, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
					path := filepath.Join(f.dir, "config")
					b, err := os.ReadFile(path)
					if err == nil {
						err = os.WriteFile(path, []byte(strings.Replace(string(b), f.server.Listener.Addr().String(), l.Addr().String(), 1)), 0o600)
					}
					if err != nil {
						tb.Fatal(err)
					}
					point(tb, f)
					return mustParse(tb, "kube-pod://bk"+way.query)
				},
			})
		})
	}
}

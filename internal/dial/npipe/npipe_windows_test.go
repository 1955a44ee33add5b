package npipe

import (
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"testing"

	"github.com/Microsoft/go-winio"

	"github.com/berthbuild/berth/internal/dial/dialtest"
	"github.com/berthbuild/berth/internal/endpoint"
)

func TestConformance(t *testing.T) {
	var n atomic.Int32
	pipe := func(t testing.TB) endpoint.Endpoint {
		e, err := endpoint.Parse(fmt.Sprintf("npipe:////./pipe/berth-test-%d-%d", os.Getpid(), n.Add(1)))
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	dialtest.Run(t, dialtest.Peer{
		Scheme: Scheme(),
		Serve: func(t testing.TB, handle func(net.Conn)) endpoint.Endpoint {
			e := pipe(t)
			// Only a pipe of messages can be closed half.
			l, err := winio.ListenPipe(e.Path, &winio.PipeConfig{MessageMode: true})
			if err != nil {
				t.Fatal(err)
			}
			dialtest.ServeListener(t, l, handle)
			return e
		},
		Refused: pipe,
	})
}

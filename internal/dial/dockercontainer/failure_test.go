package dockercontainer

import (
	"io"
	"net"
	"testing"

	"github.com/berthbuild/berth/internal/dial/dialtest"
)

// A command that closes its output and goes on is no failure, although the
// time to look at it ends while the engine is being asked.
func TestRunsOnWhileTheEngineIsAsked(t *testing.T) {
	dialtest.NoLeaks(t)
	goOn := make(chan struct{})
	e := &engine{hangs: 3, handle: func(c net.Conn) {
		_, _ = c.Write([]byte("bye"))
		_ = c.(stream).CloseWrite()
		<-goOn
	}}
	defer close(goOn)
	c, err := dialOnce(t, e.up(t))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(c); err != nil || string(got) != "bye" {
		t.Errorf("read %q, %v", got, err)
	}
}

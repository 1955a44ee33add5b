package dialtest

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// relayEnv names the socket that a helper process relays to.
const relayEnv = "BERTH_DIALTEST_RELAY"

// Main is for the TestMain of a scheme whose far end is a process: it runs the
// tests, unless the test binary was started as the helper of one (see Relay).
func Main(m *testing.M) {
	if path := os.Getenv(relayEnv); path != "" {
		os.Exit(relay(path))
	}
	os.Exit(m.Run())
}

// Relay makes every process that runs this test binary, until the end of the
// test, a helper whose standard input and output are a connection that handle
// is given (see Peer.Serve). The result is the binary's path. The test's
// package needs Main, and the test cannot be parallel.
func Relay(t testing.TB, handle func(net.Conn)) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "berth") // short enough for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "s.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ServeListener(t, l, handle)
	t.Setenv(relayEnv, path)
	// A helper built with the race detector would sleep for a second at its end.
	t.Setenv("GORACE", os.Getenv("GORACE")+" atexit_sleep_ms=0")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return self
}

// relay is the helper process. Each direction ends by itself, as with
// `buildctl dial-stdio`.
func relay(path string) int {
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Net: "unix", Name: path})
	if err != nil {
		return 1
	}
	var both sync.WaitGroup
	both.Go(func() {
		_, _ = io.Copy(c, os.Stdin)
		_ = c.CloseWrite()
	})
	both.Go(func() {
		_, _ = io.Copy(os.Stdout, c)
		_ = os.Stdout.Close()
	})
	both.Wait()
	return 0
}

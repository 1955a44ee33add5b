package cli

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// pair is the two ends of a unix socket.
func pair(t *testing.T) (ours, theirs *net.UnixConn) {
	t.Helper()
	dir, err := os.MkdirTemp("", "berth")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "s"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // a test's
	ours, err = net.DialUnix("unix", nil, &net.UnixAddr{Name: filepath.Join(dir, "s"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	theirs, err = l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = ours.Close(), theirs.Close() })
	return ours, theirs
}

func TestProxy(t *testing.T) {
	ours, theirs := pair(t)
	go func() { // answers only when all has been said
		all, _ := io.ReadAll(theirs)
		_, _ = theirs.Write(bytes.ToUpper(all))
		_ = theirs.Close()
	}()
	var out bytes.Buffer
	text := strings.Repeat("berth", 100_000)
	if err := proxy(t.Context(), ours, strings.NewReader(text), &out, time.Hour); err != nil {
		t.Fatal(err)
	}
	if out.String() != strings.ToUpper(text) {
		t.Errorf("%d bytes came back of %d", out.Len(), len(text))
	}
}

// The daemon hangs up while the input is still open.
func TestProxyDaemonEnds(t *testing.T) {
	ours, theirs := pair(t)
	in, _ := io.Pipe() // nothing comes, and it does not end
	_, _ = theirs.Write([]byte("bye"))
	_ = theirs.Close()
	var out bytes.Buffer
	if err := proxy(t.Context(), ours, in, &out, time.Hour); err != nil || out.String() != "bye" {
		t.Errorf("%q, %v", out.String(), err)
	}
}

// The input has ended, and the daemon neither says anything nor hangs up.
func TestProxyDaemonHangs(t *testing.T) {
	ours, _ := pair(t)
	if err := proxy(t.Context(), ours, strings.NewReader("x"), io.Discard, time.Millisecond); err != nil {
		t.Error(err)
	}
}

func TestProxyCancelled(t *testing.T) {
	ours, _ := pair(t)
	in, _ := io.Pipe()
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errCanceled)
	if err := proxy(ctx, ours, in, io.Discard, time.Hour); !errors.Is(err, errCanceled) {
		t.Errorf("error = %v, want the context's cause", err)
	}
}

func TestProxyOutputFails(t *testing.T) {
	ours, theirs := pair(t)
	in, _ := io.Pipe()
	_, _ = theirs.Write([]byte("hello"))
	gone, w := io.Pipe()
	_ = gone.Close()
	if err := proxy(t.Context(), ours, in, w, time.Hour); err == nil || !strings.Contains(err.Error(), "standard output") {
		t.Errorf("error = %v", err)
	}
}

package unix

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/berthbuild/berth/internal/dial/dialtest"
	"github.com/berthbuild/berth/internal/endpoint"
)

// socket is a path for a socket. t.TempDir may be longer than the system
// allows for a socket.
func socket(t testing.TB) (string, endpoint.Endpoint) {
	t.Helper()
	dir, err := os.MkdirTemp("", "berth")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "s.sock")
	e, err := endpoint.Parse("unix://" + filepath.ToSlash(path))
	if err != nil {
		t.Fatal(err)
	}
	return path, e
}

func TestConformance(t *testing.T) {
	dialtest.Run(t, dialtest.Peer{
		Scheme: Scheme(),
		Serve: func(t testing.TB, handle func(net.Conn)) endpoint.Endpoint {
			path, e := socket(t)
			l, err := net.Listen("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			dialtest.ServeListener(t, l, handle)
			return e
		},
		Refused: func(t testing.TB) endpoint.Endpoint {
			_, e := socket(t)
			return e
		},
	})
}

// TestErrorsKeepTheChain tells a socket that is not there from one that
// nobody listens on any more.
func TestErrorsKeepTheChain(t *testing.T) {
	path, e := socket(t)
	_, err := Scheme().Dial(t.Context(), e)
	var op *net.OpError
	if !errors.As(err, &op) || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no socket: error = %#v, want a *net.OpError that is fs.ErrNotExist", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	_ = l.Close()
	if _, err = Scheme().Dial(t.Context(), e); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dead socket: error = %v, want ECONNREFUSED in its chain", err)
	}
}

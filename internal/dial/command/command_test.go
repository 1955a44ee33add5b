package command

import (
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"github.com/berthbuild/berth/internal/dial"
	"github.com/berthbuild/berth/internal/dial/dialtest"
	"github.com/berthbuild/berth/internal/dial/stdio"
	"github.com/berthbuild/berth/internal/endpoint"
)

func TestMain(m *testing.M) { dialtest.Main(m) }

func parse(t testing.TB, line string) endpoint.Endpoint {
	t.Helper()
	e, err := endpoint.Parse(endpoint.ExecEndpoint(line).String())
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func quoted(path string) string { return "'" + filepath.ToSlash(path) + "'" }

func TestConformance(t *testing.T) {
	dialtest.Run(t, dialtest.Peer{
		Scheme: Scheme(dial.Env{}),
		Serve: func(t testing.TB, handle func(net.Conn)) endpoint.Endpoint {
			return parse(t, quoted(dialtest.Relay(t, handle))+" 'an argument'")
		},
		Refused: func(t testing.TB) endpoint.Endpoint { return parse(t, "berth-has-no-such-program") },
	})
}

// The arguments arrive as they are quoted, and no shell has looked at them.
func TestArguments(t *testing.T) {
	dialtest.NoLeaks(t)
	dir := t.TempDir()
	c, err := Scheme(dial.Env{Dir: dir}).Dial(t.Context(), parse(t, `sh -c 'pwd; for a; do echo "<$a>"; done' - $HOME "a 'b'" \* a;b c|d`))
	if err != nil {
		t.Skipf("this system has no sh: %v", err)
	}
	defer c.Close()
	got, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	where, rest, _ := strings.Cut(string(got), "\n")
	if rest != "<$HOME>\n<a 'b'>\n<*>\n<a;b>\n<c|d>\n" {
		t.Errorf("the command got %q", rest)
	}
	if filepath.Base(where) != filepath.Base(dir) {
		t.Errorf("the command ran in %s, want %s", where, dir)
	}
}

func TestNoCommand(t *testing.T) {
	var e *dial.Error
	if _, err := Scheme(dial.Env{}).Dial(context.Background(), endpoint.Endpoint{Scheme: "exec"}); !errors.As(err, &e) || e.Class != stdio.NoHelper {
		t.Errorf("error = %v", err)
	}
}

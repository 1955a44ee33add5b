//go:build linux || darwin

package progress

import (
	"bytes"
	"io"
	"os"
	"testing"

	"github.com/containerd/console"
)

func TestTerminal(t *testing.T) {
	for _, mode := range []Mode{TTY, Auto} {
		master, slave, err := console.NewPty()
		if err != nil {
			t.Skipf("this machine gives no pseudo terminal: %v", err)
		}
		tty, err := os.OpenFile(slave, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := master.Resize(console.WinSize{Height: 24, Width: 100}); err != nil {
			t.Fatal(err)
		}
		seen := make(chan []byte)
		go func() {
			all, _ := io.ReadAll(master) // ends with an error when the other side closes
			seen <- all
		}()
		p := open(t, tty, mode, Options{Builder: "remote"})
		src := p.Source("")
		src <- status("[internal] load build definition")
		close(src)
		closed(t, p)
		_ = tty.Close()
		got := <-seen
		_ = master.Close()
		for _, want := range []string{"[+] Building", "remote:remote", "load build definition"} {
			if !bytes.Contains(got, []byte(want)) {
				t.Errorf("%s: %q is not in %q", mode, want, got)
			}
		}
	}
}

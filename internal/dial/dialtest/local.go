package dialtest

import (
	"net"
	"sync"
	"testing"
)

// ServeListener plays a peer behind l: handle runs for each connection, which
// is closed when it returns. At the end of the test the listener and all
// connections are closed and every handle has returned.
func ServeListener(t testing.TB, l net.Listener, handle func(net.Conn)) {
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		open = map[net.Conn]bool{}
		over bool
	)
	track := func(c net.Conn) bool {
		mu.Lock()
		defer mu.Unlock()
		if over {
			return false
		}
		open[c] = true
		return true
	}
	serve := func(c net.Conn) {
		defer func() {
			mu.Lock()
			delete(open, c)
			mu.Unlock()
			_ = c.Close()
		}()
		if track(c) {
			handle(c)
		}
	}
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { serve(c) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		over = true
		for c := range open {
			_ = c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
}

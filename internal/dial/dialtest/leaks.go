package dialtest

import (
	"net"
	"os"
	"runtime"
	"testing"
	"time"
)

// NoLeaks fails the test when, after all its later cleanups, there are more
// goroutines or open files than now. Call it first. It counts for the whole
// process, so it is not for tests that run in parallel with others.
func NoLeaks(t testing.TB) {
	t.Helper()
	warmUp(t)
	goroutines, files := runtime.NumGoroutine(), openFiles()
	t.Cleanup(func() {
		if t.Failed() {
			return // a test that gave up early may leave something behind
		}
		deadline := time.Now().Add(10 * time.Second)
		for runtime.NumGoroutine() > goroutines || openFiles() > files {
			if time.Now().After(deadline) {
				report(t, goroutines, files)
				return
			}
			// What was closed ends on its own, but nobody tells when. Files that
			// a library dropped without closing them go with the garbage.
			runtime.GC()
			time.Sleep(2 * time.Millisecond)
		}
	})
}

func report(t testing.TB, goroutines, files int) {
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	t.Errorf("leaked: %d goroutines (were %d), %d open files (were %d)\n%s",
		runtime.NumGoroutine(), goroutines, openFiles(), files, stacks)
}

// warmUp makes the runtime open what it keeps open for ever (its poller).
func warmUp(t testing.TB) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
}

// openFiles is the number of open file descriptors, 0 where it cannot be told.
func openFiles() int {
	for _, dir := range []string{"/proc/self/fd", "/dev/fd"} {
		if all, err := os.ReadDir(dir); err == nil {
			return len(all)
		}
	}
	return 0
}

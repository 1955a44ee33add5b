//go:build e2e && linux

package lab

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

const (
	// markEnv is in the environment of everything that the lab starts; its
	// value is the folder that the process belongs to, by which it is found.
	markEnv = "BERTH_LAB_DIR"
	// watchEnv makes Main the watchdog of the folder it names.
	watchEnv = "BERTH_LAB_WATCH"
)

// theRun is the state of this test binary's run. It is the lab's only
// variable: the testing package has no place of its own for what lives as long
// as a package's tests.
var theRun struct {
	dir     string // "" until Main was called
	next    atomic.Int64
	mu      sync.Mutex
	atEnd   []func()   // run by Main after the tests, last first
	shared  *BuildKitd // see Shared
	kube    kubeShared // see Kubernetes
	berth   func() (string, error)
	hello   func() (string, error)
	answers func() (string, error) // see Frontend
	overlay func() bool
}

// Main runs a package's tests and ends the process. It fails the run when a
// process or a mount of the lab's is left over.
//
//	func TestMain(m *testing.M) { lab.Main(m) }
func Main(m *testing.M) {
	if dir := os.Getenv(watchEnv); dir != "" {
		watch(dir)
		os.Exit(0)
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "berth-lab-")
	if err == nil {
		dir, err = filepath.EvalSymlinks(dir) // as the kernel's mount table will name it
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
		return 1
	}
	stopWatchdog, err := startWatchdog(dir)
	if err != nil {
		fmt.Fprintln(os.Stderr, "lab: starting the watchdog:", err)
		return 1
	}
	theRun.dir = dir
	theRun.berth = sync.OnceValues(buildBerth)
	theRun.hello = sync.OnceValues(buildHello)
	theRun.answers = sync.OnceValues(buildFrontend)
	theRun.overlay = sync.OnceValue(overlayWorks)

	code := m.Run()

	for i := len(theRun.atEnd) - 1; i >= 0; i-- {
		theRun.atEnd[i]()
	}
	if left := settle(dir, 5*time.Second); len(left) > 0 {
		fmt.Fprintln(os.Stderr, "lab: FAIL: left over after the tests:")
		for _, l := range left {
			fmt.Fprintln(os.Stderr, "\t"+l)
		}
		code = max(code, 1)
	}
	stopWatchdog() // sweeps what was left, and removes the folder
	return code
}

// startWatchdog runs this binary again as a process of its own session that
// outlives it, holding the read end of a pipe: when the pipe closes, by the
// returned function or because this process is gone, it cleans up dir.
func startWatchdog(dir string) (stop func(), err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), watchEnv+"="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	pipe, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return func() {
		_ = pipe.Close()
		_ = cmd.Wait()
	}, nil
}

// watch blocks until standard input ends, then cleans up dir.
func watch(dir string) {
	_, _ = io.Copy(io.Discard, os.Stdin)
	sweep(dir)
	_ = os.RemoveAll(dir)
}

// newDir makes a folder in the run's folder. Its path is short, because a unix
// socket's path has at most 107 bytes.
func newDir(t testing.TB) string {
	t.Helper()
	dir, err := makeDir()
	if err != nil {
		t.Fatal("lab: ", err)
	}
	return dir
}

func makeDir() (string, error) {
	if theRun.dir == "" {
		return "", fmt.Errorf("this package's tests want: func TestMain(m *testing.M) { lab.Main(m) }")
	}
	dir := filepath.Join(theRun.dir, strconv.FormatInt(theRun.next.Add(1), 10))
	return dir, os.Mkdir(dir, 0o755)
}

// Dir is a folder with a short path (a socket fits in it), removed after the
// test, mounts included.
func Dir(t testing.TB) string {
	t.Helper()
	dir := newDir(t)
	t.Cleanup(func() { removeDir(t, dir) })
	return dir
}

// removeDir ends what belongs to dir and removes it.
func removeDir(t testing.TB, dir string) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; {
		sweep(dir)
		err := os.RemoveAll(dir)
		if err == nil {
			return
		}
		// What cleans up after a container may mount once more when all seems gone.
		if !errors.Is(err, syscall.EBUSY) || time.Now().After(end) {
			t.Errorf("lab: cleaning up: %v", err)
			return
		}
	}
}

// Mark is an environment entry for processes that a test starts by itself: the
// lab ends them with the folder (see Dir), and finds them when they are left.
func Mark(dir string) string { return markEnv + "=" + dir }

//go:build e2e && linux

package test

import (
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/berthbuild/berth/test/lab"
)

// slow is a context whose build says "started" and then takes its time.
func slow(t *testing.T) string {
	return lab.ShellContext(t, "RUN echo started; sleep 600\n", nil)
}

// Ctrl-C cancels the build on the daemon, and exits 130.
func TestInterruptCancelsOnTheDaemon(t *testing.T) {
	bk := lab.BuildKit(t, lab.BuildKitOpts{Unix: true})
	berth := lab.Berth(t)
	berth.OK("create", "--use", "--name", "c", bk.UnixAddr())
	dir := slow(t)
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		p := berth.Cmd("build", "--no-cache", "--progress", "plain", ".").Dir(dir).Start()
		p.WaitFor(" started")
		p.Signal(sig)
		r := p.Wait()
		if r.Code != 130 || lastLine(r.Stderr) != "ERROR: canceled" {
			t.Errorf("%v: %s", sig, r)
		}
		if !idle(t, bk) {
			t.Errorf("%v: the daemon goes on building", sig)
		}
	}
	// A daemon that does not answer any more does not hold the client.
	p := berth.Cmd("build", "--no-cache", "--progress", "plain", ".").Dir(dir).Start()
	p.WaitFor(" started")
	bk.Pause()
	p.Interrupt()
	r := p.Wait()
	bk.Resume()
	if r.Code != 130 {
		t.Errorf("interrupt with a frozen daemon: %s", r)
	}
}

// idle waits, within a bound, until the daemon has no process of a build.
func idle(t *testing.T, bk *lab.BuildKitd) bool {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if !running("sleep\x00600") {
			return true
		}
	}
	return false
}

// running looks for a process by its command line.
func running(cmdline string) bool {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return false
	}
	for _, e := range entries {
		if b, err := os.ReadFile(join("/proc", e.Name(), "cmdline")); err == nil && strings.HasPrefix(string(b), cmdline) {
			return true
		}
	}
	return false
}

// A full disk at the destination: the cause is said, nothing half-written
// stays.
func TestFullDisk(t *testing.T) {
	berth, _ := shared(t)
	dir := lab.ShellContext(t, "RUN head -c 8000000 /dev/urandom > /big\n", nil)
	small := t.TempDir()
	if err := syscall.Mount("berth-test", small, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatalf("mounting a small file system: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(small, 0); err != nil {
			t.Error(err)
		}
	})
	put(t, small, map[string]string{"old/big": "old"})
	want := snapshot(t, small)
	for _, out := range []string{
		"type=tar,dest=" + join(small, "x.tar"), "type=oci,dest=" + join(small, "x.oci"), "type=local,dest=" + join(small, "folder"),
		"type=local,dest=" + join(small, "old"), "type=oci,tar=false,dest=" + join(small, "layout"),
	} {
		r := berth.Cmd("build", "-o", out, ".").Dir(dir).Run()
		if r.Code != 1 {
			t.Errorf("%s: exit %d", out, r.Code)
		}
		has(t, out, lastLine(r.Stderr), "no space left on device")
		if got := snapshot(t, small); got != want {
			t.Errorf("%s left\n%s", out, got)
		}
	}
}

// Standard output that nobody reads: an error, not a crash and not a success.
func TestStdoutClosed(t *testing.T) {
	berth, _ := shared(t)
	dir := lab.ShellContext(t, "RUN head -c 8000000 /dev/urandom > /big\n", nil)
	for _, args := range [][]string{{"build", "-o", "-", "."}, {"ls"}, {"inspect"}, {"version"}} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		res := berth.Cmd(args...).Dir(dir).StdoutTo(w).Run()
		_ = w.Close()
		if res.Code != 1 {
			t.Errorf("%q with nobody reading: %s", args, res)
		}
		has(t, args[0], lastLine(res.Stderr), "broken pipe")
		hasNot(t, args[0], res.Stderr, "panic", "goroutine ")
	}
}

// An engine that is not there is said so, and the build fails.
func TestLoadWithoutEngine(t *testing.T) {
	berth, _ := shared(t)
	r := berth.Cmd("build", "-t", "x", "--load", ".").Dir(lab.HelloContext(t)).Run()
	if r.Code != 1 {
		t.Fatal(r)
	}
	has(t, "stderr", r.Stderr, "no-docker.sock", "hint: ")
}

// A client that is killed in the middle leaves no staged file under a final
// name, and its state folder readable.
func TestClientKilled(t *testing.T) {
	bk := lab.BuildKit(t, lab.BuildKitOpts{Unix: true})
	berth := lab.Berth(t)
	berth.OK("create", "--use", "--name", "k", bk.UnixAddr())
	out := t.TempDir()
	p := berth.Cmd("build", "--progress", "plain", "-o", "type=tar,dest="+join(out, "x.tar"), ".").Dir(slow(t)).Start()
	p.WaitFor(" started")
	p.Kill()
	p.Wait()
	if exists(join(out, "x.tar")) {
		t.Error("the killed build left its output")
	}
	has(t, "ls", berth.OK("ls").Stdout, "k0", "running")
	if !idle(t, bk) {
		t.Error("the daemon goes on building for nobody")
	}
}

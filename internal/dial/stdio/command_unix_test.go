//go:build unix

package stdio

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/berthbuild/berth/internal/dial"
	"github.com/berthbuild/berth/internal/dial/dialtest"
)

// script runs a shell script as the helper.
func script(t *testing.T, text string) *Conn {
	t.Helper()
	dialtest.NoLeaks(t)
	c, err := Command(exec.Command("sh", "-c", text), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	return c
}

// The words of a helper that fails are the error.
func TestHelperFails(t *testing.T) {
	for _, tc := range []struct {
		script, got, says string
		heals             bool
	}{
		{"echo no such daemon >&2; exit 1", "", "sh says: no such daemon", true},
		{"printf hello; echo it broke >&2; exit 3", "hello", "sh says: it broke", true},
		{"exit 4", "", "sh ended (exit status 4)", true},
		{"echo not there >&2; exit 127", "", "sh says: not there", false},
		{"exit 126", "", "sh ended (exit status 126)", false},
		{"kill -9 $$", "", "sh ended (signal: killed)", true},
		{":", "", "sh ended without a word", true},
		{"echo only words >&2", "", "sh says: only words", true},
		{"sleep 60 >&2 & echo left one behind >&2; exit 1", "", "sh says: left one behind", true},
	} {
		t.Run(tc.says, func(t *testing.T) {
			c := script(t, tc.script)
			got, err := io.ReadAll(c)
			var e *dial.Error
			if string(got) != tc.got || !errors.As(err, &e) || e.Class != HelperFailed || e.Text != tc.says || e.Heals != tc.heals {
				t.Errorf("read %q, %#v", got, err)
			}
			if tc.got == "" { // noticed by writing as well
				if _, err := c.Write([]byte("x")); !errors.As(err, &e) || e.Text != tc.says {
					t.Errorf("write: %v", err)
				}
			}
		})
	}
}

// A helper that has worked and ends well is the end of a connection.
func TestHelperEndsWell(t *testing.T) {
	for _, text := range []string{"printf bye", "printf bye; echo chatter >&2", "printf bye; sleep 60 <&- >&- &"} {
		c := script(t, text)
		if got, err := io.ReadAll(c); string(got) != "bye" || err != nil {
			t.Errorf("%s: read %q, %v", text, got, err)
		}
	}
}

// A helper that writes to its standard error for ever neither blocks nor fills
// the memory, and is ended.
func TestEndlessStderr(t *testing.T) {
	c := script(t, `echo first >&2; (while :; do echo noise noise noise noise noise noise; done) >&2 & cat`)
	for range 100 {
		if _, err := c.Write([]byte("ping")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, make([]byte, 4)); err != nil {
			t.Fatal(err)
		}
	}
}

// The words are bounded.
func TestManyWords(t *testing.T) {
	c := script(t, `echo first >&2; head -c 3000000 /dev/zero | tr '\0' x >&2; echo ' last' >&2; exit 1`)
	_, err := io.ReadAll(c)
	var e *dial.Error
	if !errors.As(err, &e) || len(e.Text) > 3*tailSize || !strings.HasPrefix(e.Text, "sh says: first x") || !strings.HasSuffix(e.Text, "x last") {
		t.Errorf("%.200v", err)
	}
}

// Close ends a helper that heeds neither the end of its input nor SIGTERM,
// and what it has started, while somebody reads and writes.
func TestCloseEndsTheStubborn(t *testing.T) {
	c := script(t, `trap '' TERM HUP INT; sh -c "trap '' TERM HUP INT; echo \$\$; while :; do sleep 1; done" & echo $$; while :; do sleep 1; done`)
	lines := bufio.NewScanner(c)
	var pids []int
	for range 2 {
		if !lines.Scan() {
			t.Fatal(lines.Err())
		}
		pid, err := strconv.Atoi(lines.Text())
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	over := make(chan error, 2)
	go func() {
		_, err := io.Copy(c, neverEnding{}) // blocks: nobody reads it
		over <- err
	}()
	go func() {
		_, err := io.Copy(io.Discard, c)
		over <- err
	}()
	start := time.Now()
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took > 5*time.Second { // far from what it takes, far below what a wait would
		t.Errorf("Close took %s", took)
	}
	for range 2 {
		<-over
	}
	for _, pid := range pids {
		gone(t, pid)
	}
}

type neverEnding struct{}

func (neverEnding) Read(b []byte) (int, error) { return len(b), nil }

// gone waits until a process has ended.
func gone(t *testing.T, pid int) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; {
		if err := syscall.Kill(pid, 0); errors.Is(err, syscall.ESRCH) || zombie(pid) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("process %d is left", pid)
		}
		time.Sleep(5 * time.Millisecond) // nobody tells when a stranger's child has ended
	}
}

// zombie: a container's init may not reap what it inherits.
func zombie(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, rest, _ := strings.Cut(string(b), ") ")
	return err == nil && strings.HasPrefix(rest, "Z")
}

// The helper is killed in the middle of what it says.
func TestKilledMidStream(t *testing.T) {
	c := script(t, `echo $$; while :; do echo data; done`)
	lines := bufio.NewReader(c)
	first, err := lines.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(first))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	var e *dial.Error
	if _, err := io.Copy(io.Discard, lines); !errors.As(err, &e) || e.Text != "sh ended (signal: killed)" {
		t.Errorf("read: %v", err)
	}
}

// A Ctrl-C in the terminal is not the helper's: it has a session of its own.
func TestSessionOfItsOwn(t *testing.T) {
	c := script(t, `echo $$; cat`)
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	if group, err := syscall.Getpgid(pid); err != nil || group != pid {
		t.Errorf("the helper %d is in group %d, %v", pid, group, err)
	}
}

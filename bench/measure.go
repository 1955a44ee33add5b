package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"time"

	"github.com/creack/pty"
)

type tool struct{ name, path string }

// sample is one call.
type sample struct {
	wall, cpu time.Duration
	rss       int64         // bytes, at the most
	first     time.Duration // until the terminal showed the text; 0 without a terminal
	step      time.Duration // of the scenario's step; 0 without one
	daemon    time.Duration // CPU of the daemon meanwhile
	moved     int64         // bytes through the scenario's link
}

// measure runs the tool once. What it prints is kept only
// for the error.
func measure(ctx context.Context, t tool, s scenario, env []string) (sample, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	if s.atOnce > 0 {
		return atOnce(ctx, t, s, env)
	}
	cmd := exec.CommandContext(ctx, t.path, s.args[t.name]...)
	cmd.Env = env
	var one sample
	var err error
	if s.terminal != "" {
		one.first, one.wall, err = onTerminal(cmd, s.terminal)
	} else {
		var out []byte
		if one.wall, out, err = plain(cmd, s.says); err == nil && s.step != "" {
			one.step, err = stepTime(out, s.step)
		}
	}
	if err != nil {
		return one, err
	}
	usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	if !ok {
		return one, errors.New("no resource usage")
	}
	one.cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	one.rss = usage.Maxrss << 10
	return one, nil
}

func plain(cmd *exec.Cmd, says string) (time.Duration, []byte, error) {
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	start := time.Now()
	if err := cmd.Run(); err != nil {
		return 0, nil, fmt.Errorf("%w\n%s", err, out.Bytes())
	}
	wall := time.Since(start)
	if !bytes.Contains(out.Bytes(), []byte(says)) {
		return 0, nil, fmt.Errorf("no %q in:\n%s", says, out.Bytes())
	}
	return wall, out.Bytes(), nil
}

// onTerminal tells when the text appeared for the first time, and when the
// command ended.
func onTerminal(cmd *exec.Cmd, text string) (first, wall time.Duration, err error) {
	start := time.Now()
	terminal, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 50, Cols: 200})
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = terminal.Close() }()
	var seen bytes.Buffer
	buf := make([]byte, 4096)
	for {
		n, err := terminal.Read(buf)
		seen.Write(buf[:n])
		if first == 0 && bytes.Contains(seen.Bytes(), []byte(text)) {
			first = time.Since(start)
		}
		if err != nil { // EIO: nobody has the other end open any more
			if !errors.Is(err, syscall.EIO) && !errors.Is(err, io.EOF) {
				return 0, 0, err
			}
			break
		}
	}
	if err := cmd.Wait(); err != nil {
		return 0, 0, fmt.Errorf("%w\n%s", err, seen.Bytes())
	}
	wall = time.Since(start)
	if first == 0 {
		return 0, 0, fmt.Errorf("%q never appeared in:\n%s", text, seen.Bytes())
	}
	return first, wall, nil
}

// floor is the peak memory that the smallest of programs is measured with: a
// child inherits the high-water mark of the process that started it.
func floor() (int64, error) {
	cmd := exec.Command("true")
	if err := cmd.Run(); err != nil {
		return 0, err
	}
	usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	if !ok {
		return 0, errors.New("no resource usage")
	}
	return usage.Maxrss << 10, nil
}

func median[T int64 | time.Duration](samples []sample, of func(sample) T) T {
	var values []T
	for _, s := range samples {
		values = append(values, of(s))
	}
	slices.Sort(values)
	n := len(values)
	if n == 0 {
		return 0
	}
	return (values[(n-1)/2] + values[n/2]) / 2
}

func size(path string) (int64, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	return fi.Size(), nil
}

//go:build e2e && linux

package lab

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// sweep ends every process that belongs to dir and unmounts everything below
// it. It is bounded: what cannot be ended within 10 s is left to the report.
func sweep(dir string) {
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
		pids := processes(dir)
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		points := mounts(dir)
		for _, p := range points {
			_ = syscall.Unmount(p, syscall.MNT_DETACH)
		}
		if len(pids) == 0 && len(points) == 0 {
			return
		}
		time.Sleep(20 * time.Millisecond) // a poll: the kernel tells nobody when it is done
	}
}

// settle waits until nothing of dir is left, at most for the given time, and
// says what still is.
func settle(dir string, limit time.Duration) []string {
	for end := time.Now().Add(limit); ; {
		left := leftovers(dir)
		if len(left) == 0 || time.Now().After(end) {
			return left
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func leftovers(dir string) []string {
	var left []string
	for _, pid := range processes(dir) {
		cmdline, _ := os.ReadFile(procFile(pid, "cmdline"))
		left = append(left, fmt.Sprintf("process %d: %s", pid, bytes.ReplaceAll(cmdline, []byte{0}, []byte{' '})))
	}
	for _, p := range mounts(dir) {
		left = append(left, "mount "+p)
	}
	return left
}

// processes are those that carry the lab's mark for dir or a folder in it, and
// those that live in a mount namespace of their own made of dir's files: the
// processes of containers, which do not inherit the mark.
func processes(dir string) []int {
	entries, _ := os.ReadDir("/proc")
	own, _ := os.Readlink("/proc/self/ns/mnt")
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		if marked(pid, dir) || contained(pid, dir, own) {
			pids = append(pids, pid)
		}
	}
	return pids
}

func marked(pid int, dir string) bool {
	env, err := os.ReadFile(procFile(pid, "environ"))
	if err != nil {
		return false // gone, or not ours to read
	}
	for _, kv := range bytes.Split(env, []byte{0}) {
		if v, ok := bytes.CutPrefix(kv, []byte(markEnv+"=")); ok && within(string(v), dir) {
			return true
		}
	}
	return false
}

func contained(pid int, dir, ownNS string) bool {
	ns, err := os.Readlink(procFile(pid, "ns/mnt"))
	if err != nil || ownNS == "" || ns == ownNS {
		return false
	}
	info, err := os.ReadFile(procFile(pid, "mountinfo"))
	if err != nil {
		return false
	}
	// Only the root mount counts: a mount namespace that was copied from the
	// host's, such as a service's, lists the host's mounts too.
	for line := range strings.Lines(string(info)) {
		f := strings.Fields(line)
		if len(f) > 4 && f[4] == "/" && strings.Contains(line, dir+"/") {
			return true
		}
	}
	return false
}

// mounts are the mount points in dir, the innermost first.
func mounts(dir string) []string {
	info, _ := os.ReadFile("/proc/self/mountinfo")
	var points []string
	for line := range strings.Lines(string(info)) {
		if f := strings.Fields(line); len(f) > 4 && within(f[4], dir) {
			points = append(points, f[4])
		}
	}
	slices.Reverse(points)
	return points
}

func within(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, dir+"/")
}

func procFile(pid int, name string) string {
	return filepath.Join("/proc", strconv.Itoa(pid), name)
}

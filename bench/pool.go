package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	poolDaemons  = 3
	poolBuilds   = 24
	poolParallel = 2 // steps that one of them runs at once
	poolWork     = 2 // seconds that each build takes
)

// poolScenarios are many builds at once on three daemons, which each run two steps
// at a time; and one build on a builder of which one daemon swallows what it is sent.
func (b *bench) poolScenarios(ctx context.Context, only *regexp.Regexp) ([]scenario, error) {
	together := scenario{
		title: fmt.Sprintf("%d builds of %d s at once, on %d daemons that run %d steps at a time", poolBuilds, poolWork, poolDaemons, poolParallel),
		state: "pool", atOnce: poolBuilds, runs: min(3, b.heavyRuns),
	}
	blackholed := scenario{title: "a build with one of two nodes that swallows what it is sent", state: "hole"}
	if b.heavyRuns == 0 || b.berth == "" || !only.MatchString(together.title) && !only.MatchString(blackholed.title) {
		return nil, nil
	}
	shell, err := exec.LookPath("busybox")
	if err != nil {
		return nil, err
	}
	dir, err := b.contextOf("pool", fmt.Sprintf("FROM scratch\nCOPY busybox /bin/sh\nARG N\nRUN echo $N; sleep %d\n", poolWork))
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(shell)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "busybox"), text, 0o755); err != nil {
		return nil, err
	}
	for i := range poolDaemons {
		home := filepath.Join(b.dir, fmt.Sprint("pool-", i))
		if err := os.Mkdir(home, 0o755); err != nil {
			return nil, err
		}
		d, err := startDaemon(ctx, b.options, home, fmt.Sprintf("[worker.oci]\nmax-parallelism = %d\n", poolParallel))
		if err != nil {
			return nil, err
		}
		b.others = append(b.others, d)
		for _, t := range b.tools() {
			if t.name == "buildctl" {
				continue
			}
			limit := ""
			if t.name == "berth" {
				limit = fmt.Sprintf(",max-builds=%d", poolParallel)
			}
			if err := b.addNode(ctx, t, "pool", fmt.Sprint("pool", i), i == 0, d, d.endpoint, limit); err != nil {
				return nil, err
			}
			if i == 0 {
				hole := b.others[len(b.others)-1]
				if err := b.addNode(ctx, t, "hole", "hole0", true, hole, b.swallowing(), ""); err != nil {
					return nil, err
				}
				if err := b.addNode(ctx, t, "hole", "hole1", false, hole, d.endpoint, ""); err != nil {
					return nil, err
				}
			}
		}
	}
	line := func(more ...string) []string {
		return append([]string{"build", "--progress", "plain", "--no-cache", "--build-arg", "N={n}"}, append(more, dir)...)
	}
	together.args = map[string][]string{"berth": line("--affinity", "work-{n}"), "buildx": line()}
	quick := []string{"build", "--platform", "linux/amd64", "--progress", "plain", b.context}
	blackholed.args = map[string][]string{"berth": quick, "buildx": quick}
	blackholed.runs = min(3, b.heavyRuns)
	return []scenario{together, blackholed}, nil
}

// swallowing is the endpoint of a hole that takes connections and never answers.
func (b *bench) swallowing() string {
	h, err := newBlackhole()
	if err != nil {
		return "tcp://127.0.0.1:1"
	}
	b.holes = append(b.holes, h)
	return h.endpoint
}

// addNode makes a builder, or adds a node to it, in a state of its own.
func (b *bench) addNode(ctx context.Context, t tool, state, node string, first bool, d *daemon, endpoint, more string) error {
	args := []string{"create", "--name", state, "--node", node, "--driver", "remote",
		"--driver-opt", fmt.Sprintf("cacert=%[1]s/ca.pem,cert=%[1]s/cert.pem,key=%[1]s/key.pem", d.certs) + more}
	if first {
		args = append(args, "--use")
	} else {
		args = append(args, "--append")
	}
	cmd := exec.CommandContext(ctx, t.path, append(args, endpoint)...)
	cmd.Env = b.env(t.name, state)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %v: %w\n%s", t.name, args, err, out)
	}
	return nil
}

// atOnce runs a tool several times at once, and measures until the last has ended.
// "{n}" in its arguments is the number of each.
func atOnce(ctx context.Context, t tool, s scenario, env []string) (sample, error) {
	var all sync.WaitGroup
	var mu sync.Mutex
	var sum sample
	var failed error
	start := time.Now()
	for i := range s.atOnce {
		all.Go(func() {
			var args []string
			for _, a := range s.args[t.name] {
				args = append(args, strings.ReplaceAll(a, "{n}", strconv.Itoa(i)))
			}
			cmd := exec.CommandContext(ctx, t.path, args...)
			cmd.Env = env
			var out bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &out
			err := cmd.Run()
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failed = fmt.Errorf("%w\n%s", err, out.Bytes())
				return
			}
			sum.cpu += cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
			if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
				sum.rss = max(sum.rss, usage.Maxrss<<10)
			}
		})
	}
	all.Wait()
	sum.wall = time.Since(start)
	return sum, failed
}

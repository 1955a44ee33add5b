package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
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
// at a time; and one build on a builder with one node, with a limit of builds, and
// with another node that swallows what it is sent and of which nothing is remembered.
// buildx is not asked the last, which it fails.
func (b *bench) poolScenarios(ctx context.Context, only *regexp.Regexp) ([]scenario, error) {
	const cached = "a build that is cached, on a builder with one node"
	quick := []string{"build", "--progress", "plain", "--platform", "linux/amd64", b.context}
	all := []scenario{
		{
			title: fmt.Sprintf("%d builds of %d s at once, on %d daemons that run %d steps at a time", poolBuilds, poolWork, poolDaemons, poolParallel),
			state: "pool", atOnce: poolBuilds, runs: min(3, b.heavyRuns),
		},
		{title: cached, state: "alone", args: map[string][]string{"berth": quick, "buildx": quick}},
		{title: cached + " that has `max-builds`", state: "limited", args: map[string][]string{"berth": quick}},
		{
			title: cached + ", and another one before that, which swallows what it is sent", state: "hole", args: map[string][]string{"berth": quick},
			before: func(_ context.Context, tool string) error { return b.forgetLapses(tool, "hole") },
		},
	}
	if b.heavyRuns == 0 || b.berth == "" || !slices.ContainsFunc(all, func(s scenario) bool { return only.MatchString(s.title) }) {
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
		if err := b.addToPools(ctx, i, d); err != nil {
			return nil, err
		}
	}
	line := func(more ...string) []string {
		return append([]string{"build", "--progress", "plain", "--no-cache", "--build-arg", "N={n}"}, append(more, dir)...)
	}
	all[0].args = map[string][]string{"berth": line("--affinity", "work-{n}"), "buildx": line()}
	return all, nil
}

// addToPools gives both tools a node of the pool, and with the first daemon the
// builders that are for one build.
func (b *bench) addToPools(ctx context.Context, i int, d *daemon) error {
	limit := fmt.Sprintf(",max-builds=%d", poolParallel)
	for _, t := range b.tools() {
		if t.name == "buildctl" {
			continue
		}
		more := ""
		if t.name == "berth" {
			more = limit
		}
		if err := b.addNode(ctx, t, "pool", fmt.Sprint("pool", i), i == 0, d, d.endpoint, more); err != nil {
			return err
		}
		if i > 0 {
			continue
		}
		if err := b.addNode(ctx, t, "alone", "alone0", true, d, d.endpoint, ""); err != nil {
			return err
		}
		if t.name != "berth" {
			continue
		}
		if err := errors.Join(
			b.addNode(ctx, t, "limited", "limited0", true, d, d.endpoint, limit),
			b.addNode(ctx, t, "hole", "hole0", true, d, b.swallowing(), ",pool=first"),
			b.addNode(ctx, t, "hole", "hole1", false, d, d.endpoint, ""),
		); err != nil {
			return err
		}
	}
	return nil
}

// forgetLapses has a tool know nothing of nodes that did not answer before.
func (b *bench) forgetLapses(tool, state string) error {
	for _, e := range b.env(tool, state) {
		if dir, ok := strings.CutPrefix(e, "BUILDX_CONFIG="); ok {
			return os.RemoveAll(filepath.Join(dir, "lapses.json"))
		}
	}
	return nil
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

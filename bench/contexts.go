package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"go/build"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// The slow network, and what goes through it.
const (
	slowDelay  = 25 * time.Millisecond // one way
	slowRate   = 5_000_000             // bytes a second
	slowNoise  = 32 << 20
	slowSource = 80 << 20
)

// contextScenarios are builds that begin with a context that the daemon has seen:
// unchanged, with one file changed, and checked out anew; near and over a slow
// network.
func (b *bench) contextScenarios(ctx context.Context) ([]scenario, error) {
	if b.heavyRuns == 0 {
		return nil, nil
	}
	tree := filepath.Join(b.dir, "tree") // of buildScenarios
	away, err := newLink(outside(), b.daemon.endpoint, slowDelay, slowRate)
	if err != nil {
		return nil, err
	}
	b.links = append(b.links, away)
	if err := b.createBuilder(ctx, "slow", away.endpoint()); err != nil {
		return nil, err
	}
	source, err := b.sourceTree()
	if err != nil {
		return nil, err
	}
	noise, err := b.noiseContext("slow-noise", slowNoise)
	if err != nil {
		return nil, err
	}
	files := fmt.Sprintf("%d files", treeFolders*treeFiles)
	one := filepath.Join(tree, "large", "folder-250", "file-050.txt")
	slow := func(title, dir string, before func(context.Context, string) error) scenario {
		s := b.uploadTo(title+", over 5 MB/s with 50 ms", dir, before, "slow", away.endpoint())
		s.link = away
		return s
	}
	changed := b.upload("the context of "+files+", one of them changed", tree, func(context.Context, string) error {
		return os.WriteFile(one, fmt.Appendf(nil, "%020d", time.Now().UnixNano()), 0o644)
	})
	for tool, args := range changed.args {
		changed.args[tool] = replaced(args, "plain", "rawjson")
	}
	changed.step = "load build context"
	list := []scenario{
		b.upload("the context of "+files+", unchanged, with the daemon's part", tree, nil),
		changed,
		b.upload("a new checkout of the same "+files, tree, renewed(tree)),
		slow("the context of "+files+", unchanged", tree, nil),
		slow("a new checkout of the same "+files, tree, renewed(tree)),
		slow(fmt.Sprintf("a source tree of %d MiB, nothing of it known to the daemon", slowSource>>20), source, b.forget),
		slow(fmt.Sprintf("one file of %d MiB that does not compress, nothing of it known to the daemon", slowNoise>>20), noise, b.forget),
	}
	for i := range list {
		list[i].daemon = true
	}
	return list, nil
}

func replaced(args []string, old, with string) []string {
	var out []string
	for _, a := range args {
		if a == old {
			a = with
		}
		out = append(out, a)
	}
	return out
}

// uploadTo is upload through another builder.
func (b *bench) uploadTo(title, dir string, before func(context.Context, string) error, builder, endpoint string) scenario {
	s := b.upload(title, dir, before)
	for tool, args := range s.args {
		args = replaced(args, "live", builder)
		if tool == "buildctl" {
			args = append([]string{"--tlsservername", "localhost"}, replaced(args, b.daemon.endpoint, endpoint)...)
		}
		s.args[tool] = args
	}
	return s
}

// renewed gives all files of a folder new times, as a checkout does: the bytes are the
// same, and nothing that the system tells of them is.
func renewed(dir string) func(context.Context, string) error {
	return func(context.Context, string) error {
		now := time.Now()
		return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			return os.Chtimes(path, now, now)
		})
	}
}

// sourceTree makes a context of text: Go's own sources, up to slowSource bytes.
func (b *bench) sourceTree() (string, error) {
	dir, err := b.contextOf("source", bindAll)
	if err != nil {
		return "", err
	}
	root := filepath.Join(build.Default.GOROOT, "src")
	var sum int64
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || filepath.Ext(path) != ".go" {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if sum += int64(len(text)); sum > slowSource {
			return filepath.SkipAll
		}
		to := filepath.Join(dir, "large", strings.TrimPrefix(path, root))
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		return os.WriteFile(to, text, 0o644)
	})
	if err == nil && sum < slowSource {
		err = fmt.Errorf("%s has only %d bytes of Go", root, sum)
	}
	return dir, err
}

// stepTime is how long a step took, by the progress in JSON that a tool printed: the
// last vertex of that name counts.
func stepTime(out []byte, step string) (time.Duration, error) {
	type vertex struct {
		Name      string
		Started   *time.Time
		Completed *time.Time
	}
	var took time.Duration
	for line := range bytes.Lines(out) {
		var s struct{ Vertexes []vertex }
		if json.Unmarshal(line, &s) != nil {
			continue // what is printed besides
		}
		for _, v := range s.Vertexes {
			if strings.HasSuffix(v.Name, step) && v.Started != nil && v.Completed != nil {
				took = max(took, v.Completed.Sub(*v.Started))
			}
		}
	}
	if took == 0 {
		return 0, fmt.Errorf("no step %q in:\n%s", step, out)
	}
	return took, nil
}

// cpu is what the daemon has used so far, user and system.
func (d *daemon) cpu() time.Duration {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", d.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(text), ") ") // the name may have anything in it
	f := strings.Fields(rest)
	if len(f) < 13 {
		return 0
	}
	user, _ := strconv.ParseInt(f[11], 10, 64)
	system, _ := strconv.ParseInt(f[12], 10, 64)
	return time.Duration(user+system) * (time.Second / 100) // USER_HZ, which is 100 everywhere
}

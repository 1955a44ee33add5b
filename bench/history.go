package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
)

const (
	historyDaemons = 3
	historyBuilder = "history"
	historyJobs    = 8 // builds at once on a daemon
)

// historyConfig lets a daemon keep more records than it usually does.
const historyConfig = "[history]\nmaxAge = 604800\nmaxEntries = 100000\n"

// historyScenarios list the records of three daemons. Making them takes a while,
// so they are made only when they are asked for.
func (b *bench) historyScenarios(ctx context.Context, only *regexp.Regexp) ([]scenario, error) {
	listed := func(title string, flags ...string) scenario {
		return scenario{
			title: fmt.Sprintf("`history ls`, %d records over %d daemons, %s", b.historyRecords, historyDaemons, title),
			state: "history", says: "Completed",
			args: map[string][]string{"berth": append([]string{"history", "ls"}, flags...), "buildx": {"history", "ls"}},
		}
	}
	all := []scenario{
		listed("the 50 newest of each"),
		listed("all of them (buildx: the 50 newest of each)", "--limit", "0"),
	}
	if b.historyRecords == 0 || b.berth == "" || !slices.ContainsFunc(all, func(s scenario) bool { return only.MatchString(s.title) }) {
		return nil, nil
	}
	var daemons []*daemon
	for i := range historyDaemons {
		dir := filepath.Join(b.dir, fmt.Sprintf("history-%d", i))
		if err := os.Mkdir(dir, 0o755); err != nil {
			return nil, err
		}
		d, err := startDaemon(ctx, b.options, dir, historyConfig)
		if err != nil {
			return nil, err
		}
		b.others = append(b.others, d)
		daemons = append(daemons, d)
	}
	for _, t := range b.tools() {
		if t.name == "buildctl" {
			continue
		}
		for i, d := range daemons {
			if err := b.addHistoryNode(ctx, t, i, d); err != nil {
				return nil, err
			}
		}
	}
	if err := b.makeRecords(ctx, daemons); err != nil {
		return nil, err
	}
	return all, nil
}

func (b *bench) addHistoryNode(ctx context.Context, t tool, i int, d *daemon) error {
	args := []string{"create", "--name", historyBuilder, "--node", historyNode(i), "--driver", "remote",
		"--driver-opt", fmt.Sprintf("cacert=%[1]s/ca.pem,cert=%[1]s/cert.pem,key=%[1]s/key.pem", d.certs)}
	if i == 0 {
		args = append(args, "--use")
	} else {
		args = append(args, "--append")
	}
	return b.run(ctx, t, append(args, d.endpoint)...)
}

func historyNode(i int) string { return fmt.Sprintf("%s%d", historyBuilder, i) }

// run runs a tool on the builder of this file.
func (b *bench) run(ctx context.Context, t tool, args ...string) error {
	cmd := exec.CommandContext(ctx, t.path, args...)
	cmd.Env = b.env(t.name, "history")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %v: %w\n%s", t.name, args, err, out)
	}
	return nil
}

// makeRecords builds as often as there are to be records, the same small thing
// each time, and gives both tools the references that builds of their own would
// have left.
func (b *bench) makeRecords(ctx context.Context, daemons []*daemon) error {
	dir := filepath.Join(b.dir, "record")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM scratch\nCOPY Dockerfile /\n"), 0o644); err != nil {
		return err
	}
	buildctl := filepath.Join(b.options.tools, "buildctl")
	var wg sync.WaitGroup
	failed := make(chan error, historyDaemons*historyJobs)
	for i, d := range daemons {
		for job := range historyJobs {
			wg.Go(func() {
				for n := i + job*historyDaemons; n < b.historyRecords; n += historyDaemons * historyJobs {
					cmd := exec.CommandContext(ctx, buildctl, "--addr", d.endpoint, "--tlsdir", d.certs, "build", "--progress", "plain", "--frontend", "dockerfile.v0",
						"--opt", "filename=Dockerfile", "--local", "context="+dir, "--local", "dockerfile="+dir)
					cmd.Env = b.env("buildctl", "history")
					if out, err := cmd.CombinedOutput(); err != nil {
						failed <- fmt.Errorf("making a record: %w\n%s", err, out)
						return
					}
				}
			})
		}
	}
	wg.Wait()
	close(failed)
	var all []error
	for err := range failed {
		all = append(all, err)
	}
	if len(all) > 0 {
		return errors.Join(all...)
	}
	return b.keepReferences(ctx, dir)
}

func (b *bench) keepReferences(ctx context.Context, dir string) error {
	cmd := exec.CommandContext(ctx, b.berth, "history", "ls", "--limit", "0", "--format", "json")
	cmd.Env = b.env("berth", "history")
	out, err := cmd.Output()
	if err != nil {
		return err
	}
	text, err := json.Marshal(map[string]string{"Target": "default", "LocalPath": dir, "DockerfilePath": ""})
	if err != nil {
		return err
	}
	n := 0
	for line := range strings.Lines(string(out)) {
		var r struct{ Ref string }
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			return err
		}
		for _, tool := range []string{"berth", "buildx"} {
			path := filepath.Join(b.dir, "home-"+tool, "history", "refs", r.Ref)
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				return err
			}
			if err := os.WriteFile(path, text, 0o644); err != nil {
				return err
			}
		}
		n++
	}
	if n != b.historyRecords {
		return fmt.Errorf("the daemons have %d records, not %d", n, b.historyRecords)
	}
	return nil
}

// stopOthers ends the daemons that scenarios have started.
func (b *bench) stopOthers() error {
	var all []error
	for _, d := range b.others {
		all = append(all, d.stop())
	}
	return errors.Join(all...)
}

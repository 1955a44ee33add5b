package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

const (
	treeFolders, treeFiles = 500, 100 // files in each folder
	treeFileSize           = 4000     // bytes
	oneFile                = 1 << 30  // bytes
	manySteps              = 40
)

// buildScenarios are whole builds whose time is in moving files: contexts to
// the daemon, cold and unchanged, a folder back, and a long Dockerfile that is
// cached from its first step to its last.
func (b *bench) buildScenarios() ([]scenario, error) {
	if b.heavyRuns == 0 {
		return nil, nil
	}
	tree, err := b.makeTree()
	if err != nil {
		return nil, err
	}
	file, err := b.noiseContext("one-file", oneFile)
	if err != nil {
		return nil, err
	}
	steps, err := b.makeSteps()
	if err != nil {
		return nil, err
	}
	files := fmt.Sprintf("%d files of %d bytes", treeFolders*treeFiles, treeFileSize)
	return []scenario{
		b.upload("a context of "+files+", nothing of it known to the daemon", tree, b.forget),
		b.upload("the context of "+files+", unchanged", tree, nil),
		b.upload(fmt.Sprintf("a context of one file of %d MiB, nothing of it known to the daemon", oneFile>>20), file, b.forget),
		b.upload(fmt.Sprintf("the context of one file of %d MiB, unchanged", oneFile>>20), file, nil),
		b.upload(fmt.Sprintf("a build of %d steps, all cached, no output", manySteps), steps, nil),
		b.export("a local export of "+files+", into a new folder", tree),
	}, nil
}

// upload is a build of a folder without a result.
func (b *bench) upload(title, dir string, before func(context.Context, string) error) scenario {
	return scenario{
		title: title, state: "one", runs: b.heavyRuns, before: before,
		args: map[string][]string{
			"berth":    {"build", "--builder", "live", "--progress", "plain", dir},
			"buildx":   {"build", "--builder", "live", "--progress", "plain", dir},
			"buildctl": b.buildctl(dir),
		},
	}
}

// export is a build of a folder's stage "files" whose result is a folder.
func (b *bench) export(title, dir string) scenario {
	dest := filepath.Join(b.dir, "exported")
	out := "type=local,dest=" + dest
	return scenario{
		title: title, state: "one", runs: b.heavyRuns,
		before: func(context.Context, string) error { return os.RemoveAll(dest) },
		args: map[string][]string{
			"berth":    {"build", "--builder", "live", "--progress", "plain", "--target", "files", "-o", out, dir},
			"buildx":   {"build", "--builder", "live", "--progress", "plain", "--target", "files", "-o", out, dir},
			"buildctl": append(b.buildctl(dir), "--opt", "target=files", "--output", out),
		},
	}
}

func (b *bench) buildctl(dir string) []string {
	return []string{"--addr", b.daemon.endpoint, "--tlsdir", b.daemon.certs, "build", "--progress", "plain",
		"--frontend", "dockerfile.v0", "--local", "context=" + dir, "--local", "dockerfile=" + dir}
}

// forget empties the daemon's cache.
func (b *bench) forget(ctx context.Context, _ string) error {
	i := slices.IndexFunc(b.tools(), func(t tool) bool { return t.name == "buildctl" })
	cmd := exec.CommandContext(ctx, b.tools()[i].path, "--addr", b.daemon.endpoint, "--tlsdir", b.daemon.certs, "prune", "--all")
	cmd.Env = b.env("buildctl", "one")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("prune: %w\n%s", err, out)
	}
	return nil
}

// bindAll is a Dockerfile that wants all of the folder "large" without copying
// it, and has a stage "files" that is a copy of it.
const bindAll = `FROM scratch AS files
COPY large /
FROM scratch
COPY hello /hello
RUN --mount=type=bind,source=large,target=/large ["/hello", "note", "/note.txt"]
`

// makeTree makes a context of many small files, the same ones each time.
func (b *bench) makeTree() (string, error) {
	dir, err := b.contextOf("tree", bindAll)
	if err != nil {
		return "", err
	}
	for i := range treeFolders {
		folder := filepath.Join(dir, "large", fmt.Sprintf("folder-%03d", i))
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return "", err
		}
		for j := range treeFiles {
			line := fmt.Sprintf("folder %d, file %d\n", i, j)
			text := strings.Repeat(line, treeFileSize/len(line)+1)[:treeFileSize]
			if err := os.WriteFile(filepath.Join(folder, fmt.Sprintf("file-%03d.txt", j)), []byte(text), 0o644); err != nil {
				return "", err
			}
		}
	}
	return dir, nil
}

// noiseContext makes a context whose folder "large" has one file that does not
// compress.
func (b *bench) noiseContext(name string, size int64) (string, error) {
	dir, err := b.contextOf(name, bindAll)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Join(dir, "large"), 0o755); err != nil {
		return "", err
	}
	return dir, noise(filepath.Join(dir, "large", "new"), size)
}

// makeSteps makes a context with a long Dockerfile.
func (b *bench) makeSteps() (string, error) {
	var text strings.Builder
	text.WriteString("FROM scratch\nCOPY hello /hello\n")
	for i := range manySteps - 1 {
		fmt.Fprintf(&text, "RUN [\"/hello\", \"note\", \"/note-%d.txt\"]\n", i)
	}
	return b.contextOf("steps", text.String())
}

// contextOf makes a folder with the program hello and a Dockerfile.
func (b *bench) contextOf(name, dockerfile string) (string, error) {
	dir := filepath.Join(b.dir, name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", err
	}
	hello, err := os.ReadFile(b.hello)
	if err != nil {
		return "", fmt.Errorf("%w: run `make hello`", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "hello"), hello, 0o755); err != nil {
		return "", err
	}
	return dir, os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(dockerfile), 0o644)
}

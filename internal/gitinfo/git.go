package gitinfo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"
)

const (
	// maxOutput bounds what is kept of git's answers. The rest is dropped: all
	// that is asked has short answers, or ones of which any byte will do.
	maxOutput = 1 << 16
	// lastWords is how long a program that git has started may keep its output
	// open when git has ended.
	lastWords = 100 * time.Millisecond
)

// git asks about one folder.
type git struct {
	dir    string
	config []string // besides; "name=value"
}

// Failed is a git that ended with an error.
type Failed struct {
	Args   []string
	Code   int
	Stderr string // its first line
}

// Error says what git said.
func (f *Failed) Error() string {
	if f.Stderr != "" {
		return f.Stderr
	}
	return fmt.Sprintf("git %s: exit status %d", strings.Join(f.Args, " "), f.Code)
}

// none tells a folder without a repository, or with one that has no files. Git
// has no other way to say so than these sentences, which LC_ALL=C keeps from
// being translated.
func (f *Failed) none() bool {
	return slices.ContainsFunc([]string{"not a git repository", "must be run in a work tree", "cannot use bare repository"},
		func(s string) bool { return strings.Contains(f.Stderr, s) })
}

// unlessNone drops the error that says that there is no repository after all: a
// .git that leads nowhere, or one beyond the border of a file system.
func unlessNone(err error) error {
	var f *Failed
	if errors.As(err, &f) && f.none() {
		return nil
	}
	return err
}

func exitCode(err error) int {
	var f *Failed
	if errors.As(err, &f) {
		return f.Code
	}
	return -1
}

// run gives git's output. The error is a *Failed, exec.ErrNotFound, or ctx's
// cause.
func (g git) run(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", g.args(args)...) //nolint:gosec // no shell; see args
	cmd.Dir = g.dir
	cmd.Env = environment(cmd.Environ())
	cmd.WaitDelay = lastWords
	out, stderr := &capped{}, &capped{}
	cmd.Stdout, cmd.Stderr = out, stderr
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return "", context.Cause(ctx)
	case errors.As(err, &exit):
		line, _, _ := strings.Cut(stderr.String(), "\n")
		return out.String(), &Failed{Args: args, Code: exit.ExitCode(), Stderr: strings.TrimPrefix(strings.TrimSpace(line), "fatal: ")}
	case err != nil && !errors.Is(err, exec.ErrWaitDelay):
		return "", err
	}
	return out.String(), nil
}

// args puts before git's own what takes precedence over a repository's
// configuration: nothing that git is asked here starts a program then.
func (g git) args(args []string) []string {
	all := []string{"--no-pager", "--no-optional-locks"}
	for _, c := range slices.Concat([]string{
		"core.fsmonitor=", // not "false", which was the name of a program once
		"core.hooksPath=" + os.DevNull,
		"safe.bareRepository=explicit", // a bare one may hide among a context's files
		"submodule.recurse=false",
	}, g.config) {
		all = append(all, "-c", c)
	}
	return append(all, args...)
}

// environment is env without what would lead git to another repository than
// the folder's, such as that of a hook that berth runs in, and with what keeps
// it quiet and off the network. It goes on to believe the user's own
// configuration.
func environment(env []string) []string {
	elsewhere := []string{
		"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_PREFIX", "GIT_NAMESPACE",
		"GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_SHALLOW_FILE", "GIT_GRAFT_FILE",
	}
	out := slices.DeleteFunc(env, func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		return slices.Contains(elsewhere, name)
	})
	return append(out,
		"LC_ALL=C", "GIT_TERMINAL_PROMPT=0", "GIT_OPTIONAL_LOCKS=0",
		"GIT_NO_LAZY_FETCH=1", "GIT_ALLOW_PROTOCOL=none", // a partial clone would fetch what it lacks
	)
}

// capped keeps the first maxOutput bytes.
type capped struct{ bytes.Buffer }

// Write implements io.Writer.
func (c *capped) Write(p []byte) (int, error) {
	if room := maxOutput - c.Len(); room > 0 {
		_, _ = c.Buffer.Write(p[:min(room, len(p))]) // memory does not fail
	}
	return len(p), nil
}

var _ io.Writer = (*capped)(nil)

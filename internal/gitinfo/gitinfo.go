// Package gitinfo asks Git where a local folder comes from: its commit, the
// URL that it was cloned from, and its repository's root.
//
// It is not for Git contexts, which daemons fetch themselves, and it never
// speaks to a remote.
//
// Rules: a folder is data, not a program. The repository that it lies in may be
// hostile, so git runs without anything that a repository's own configuration
// could start: hooks, file system monitors, filters, transports. Git's refusal
// of repositories that belong to somebody else stands. No credentials leave
// this package. A question is bounded in time.
package gitinfo

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// limit is how long git may take for all that it is asked.
const limit = 2 * time.Second

// dirtyMark stands behind a commit that the folder is not quite.
const dirtyMark = "-dirty"

// Info is what Git says of a folder. The zero value: it is in no repository.
type Info struct {
	Root     string // the repository's root, absolute, symbolic links resolved
	Revision string // the commit, "-dirty" behind it where that was asked; empty before the first
	Source   string // the URL that it was cloned from, without credentials; empty when it has none
}

// Rel is dir as seen from the repository's root, with slashes; "." is the root
// itself. It is empty for a folder that lies elsewhere or is not there.
func (i Info) Rel(dir string) string {
	if i.Root == "" {
		return ""
	}
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return ""
	}
	rel, err := filepath.Rel(i.Root, dir)
	if err != nil || !filepath.IsLocal(rel) {
		return ""
	}
	return filepath.ToSlash(rel)
}

// Read asks about dir, which is absolute. With dirty it also looks whether the
// repository has anything that is not committed, which takes longer the more
// files there are.
//
// It takes at most two seconds, and ends with ctx. A folder without a repository
// is no error, and costs a look at the folders above it. An error is about a
// repository that is there: git is missing, does not trust it, or takes too
// long.
func Read(ctx context.Context, dir string, dirty bool) (Info, error) {
	return read(ctx, dir, dirty, limit)
}

func read(ctx context.Context, dir string, dirty bool, limit time.Duration) (Info, error) {
	if !within(dir) {
		return Info{}, nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("git did not answer within %s", limit))
	g := git{dir: dir}
	// Starting git is what takes the time, so the questions that need no other's
	// answer are asked at once.
	looked := later(func() state { return g.state(ctx, dirty) })
	origin := later(func() string { return g.url(ctx, "origin") })
	defer func() { // nothing is left running
		cancel()
		_, _ = looked(), origin()
	}()
	info, branch, err := g.head(ctx)
	if err != nil || info.Root == "" {
		return Info{}, unlessNone(err)
	}
	info.Source = g.source(ctx, branch, origin)
	st := looked()
	switch {
	case ctx.Err() != nil:
		return Info{}, context.Cause(ctx)
	case st.err != nil:
		return Info{}, st.err
	case st.dirty && info.Revision != "":
		info.Revision += dirtyMark
	}
	return info, nil
}

// later starts f, and gives what waits for its result.
func later[T any](f func() T) func() T {
	done := make(chan struct{})
	var value T
	go func() {
		defer close(done)
		value = f()
	}()
	return func() T {
		<-done
		return value
	}
}

// within looks for a repository around dir, so that git need not be started for
// the many folders that have none.
func within(dir string) bool {
	if resolved, err := filepath.EvalSymlinks(dir); err == nil {
		dir = resolved
	}
	for {
		if _, err := os.Lstat(filepath.Join(dir, ".git")); err == nil {
			return true
		}
		up := filepath.Dir(dir)
		if up == dir {
			return false
		}
		dir = up
	}
}

// head finds the root, the commit and the branch.
func (g git) head(ctx context.Context) (info Info, branch string, err error) {
	out, err := g.run(ctx, "rev-parse", "--show-toplevel", "--revs-only", "HEAD", "--symbolic-full-name", "HEAD")
	if err != nil {
		return Info{}, "", err
	}
	info, branch = parseHead(out)
	return info, branch, nil
}

// parseHead reads three lines: the root, which may have line breaks itself, the
// commit and the branch; or the first alone before there is a commit.
func parseHead(out string) (info Info, branch string) {
	lines := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
	if n := len(lines); n >= 3 && isCommit(lines[n-2]) {
		info.Revision, branch = lines[n-2], lines[n-1]
		lines = lines[:n-2]
	}
	if root := filepath.FromSlash(strings.Join(lines, "\n")); filepath.IsAbs(root) {
		info.Root = root
		return info, branch
	}
	return Info{}, ""
}

// isCommit tells whether s is a commit's name, SHA-1 or SHA-256.
func isCommit(s string) bool {
	if len(s) != 40 && len(s) != 64 {
		return false
	}
	return strings.Trim(s, "0123456789abcdef") == ""
}

// source is the URL of the remote that the branch follows, else of "origin",
// else of "upstream".
func (g git) source(ctx context.Context, branch string, origin func() string) string {
	if strings.HasPrefix(branch, "refs/heads/") {
		out, err := g.run(ctx, "for-each-ref", "--format=%(upstream:remotename)", branch)
		own := strings.TrimSuffix(out, "\n")
		if err == nil && own != "" && own != "origin" && own != "." { // "." is a branch of the same repository
			if url := g.url(ctx, own); url != "" {
				return url
			}
		}
	}
	if url := origin(); url != "" {
		return url
	}
	return g.url(ctx, "upstream")
}

// url is a remote's, without credentials; empty when there is no such remote.
func (g git) url(ctx context.Context, remote string) string {
	out, err := g.run(ctx, "remote", "get-url", "--", remote)
	if err != nil {
		return ""
	}
	url, _, _ := strings.Cut(out, "\n")
	return WithoutCredentials(url)
}

// state is whether something is not committed: changed, added, removed or not
// known to git, and not ignored. Submodules count by their commit.
type state struct {
	dirty bool
	err   error
}

func (g git) state(ctx context.Context, look bool) state {
	if !look {
		return state{}
	}
	filters, err := g.foreignFilters(ctx)
	if err != nil {
		return state{err: err}
	}
	g.config = filters
	out, err := g.run(ctx, "status", "--porcelain", "-z", "--untracked-files=normal", "--ignore-submodules=dirty")
	return state{out != "", err}
}

// foreignFilters is configuration that takes the filters away that the
// repository itself defines: git status would start them. The user's own stay,
// such as git-lfs.
func (g git) foreignFilters(ctx context.Context) ([]string, error) {
	out, err := g.run(ctx, "config", "-z", "--show-scope", "--includes", "--name-only", "--get-regexp", `^filter\..*\.(clean|smudge|process|required)$`)
	if err != nil && exitCode(err) != 1 { // 1: there are none
		return nil, err
	}
	return parseFilters(out)
}

// parseFilters reads pairs of a scope and a name, each ended by a zero byte.
func parseFilters(out string) ([]string, error) {
	var config []string
	fields := strings.Split(out, "\x00")
	for i := 0; i+1 < len(fields); i += 2 {
		scope, name := fields[i], fields[i+1]
		if scope == "system" || scope == "global" || scope == "command" {
			continue
		}
		if strings.Contains(name, "=") { // git would take another name for it
			return nil, fmt.Errorf("the repository defines a filter with a name that cannot be switched off: %q", name)
		}
		value := ""
		if strings.HasSuffix(name, ".required") {
			value = "false"
		}
		config = append(config, name+"="+value)
	}
	return config, nil
}

package snapshot

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/tonistiigi/fsutil"
)

// plainTree has names whose order is easily mistaken, and links.
func plainTree(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	for _, p := range []string{
		"a/b", "a/b.c", "a-b", "a.b", "a b", "ab", "B", "é", "a/c/d/e", "a/c/d.e", "a/c-d", "z/last", "w0.txt", "w1.txt", "x.log", "k/keep", "k/drop", "k/sub/keep", ".dockerignore",
	} {
		put(t, dir, p, "text of "+p)
	}
	put(t, dir, "empty", "")
	at := func(p string) string { return filepath.Join(dir, p) }
	ok(t,
		os.Mkdir(at("nothing"), 0o700), os.Chmod(at("a/c"), 0o750), os.Chmod(at("B"), 0o755), os.Chmod(at("ab"), 0o600),
		os.Symlink("a", at("to-a")), os.Symlink("to-a", at("to-to-a")), os.Symlink("a/c/d/e", at("to-e")), os.Symlink("../w0.txt", at("a/to-w0")),
		os.Symlink("/k", at("absolute")), os.Symlink("nowhere", at("dangling")), os.Symlink("loop2", at("loop1")), os.Symlink("loop1", at("loop2")), os.Symlink("../../..", at("a/outside")),
		os.Link(at("w0.txt"), at("k/hard")), os.Link(at("w0.txt"), at("zz-hard")), os.Link(at("k/keep"), at("a/hard-keep")),
	)
	return dir
}

var filters = []fsutil.FilterOpt{
	{},
	{FollowPaths: []string{".dockerignore"}},
	{FollowPaths: []string{"to-to-a", "absolute"}}, {FollowPaths: []string{"to-to-a/c"}}, {FollowPaths: []string{"to-e", "dangling"}}, {FollowPaths: []string{"loop1", "a/outside"}},
	{FollowPaths: []string{"w*.txt", "nosuch"}}, {FollowPaths: []string{"to-*"}}, {FollowPaths: []string{"a/*/d"}}, {FollowPaths: []string{"a/to-w0", "zz-hard"}},
	{IncludePatterns: []string{"a"}}, {IncludePatterns: []string{"a/c/*", "k/hard"}}, {IncludePatterns: []string{"**/keep"}}, {IncludePatterns: []string{"zz-hard", "k/hard"}},
	{ExcludePatterns: []string{"a"}}, {ExcludePatterns: []string{"a/*", "!a/c"}}, {ExcludePatterns: []string{"**/keep", "w0.txt"}}, {ExcludePatterns: []string{"*", "!k", "k/sub"}},
	{ExcludePatterns: []string{"k", "!k/sub/keep"}}, {ExcludePatterns: []string{"k", "!**/keep"}}, {ExcludePatterns: []string{"w0.txt"}, FollowPaths: []string{"zz-hard", "k"}},
	{ExcludePatterns: []string{"a/c"}, IncludePatterns: []string{"a"}}, {ExcludePatterns: []string{"*", "!a/c/d"}, FollowPaths: []string{"to-e"}},
}

// A daemon is sent the same of a snapshot as of the folder, in the same order, so
// that it finds what is in its cache from other clients.
func TestWalkIsAsFsutils(t *testing.T) {
	dir := plainTree(t)
	addOddFiles(t, dir)
	live, err := fsutil.NewFS(dir)
	ok(t, err)
	s := take(t, dir, Options{})
	for _, f := range filters {
		compare(t, fmt.Sprintf("%+v", f), stats(t, s, f), stats(t, live, f))
	}
	for _, target := range []string{"/", "", ".", "a", "a/c", "a/c/d/e", "/a", "nosuch", "a/nosuch", "to-e", "nothing"} {
		compare(t, "target "+target, walked(t, s, target), walked(t, live, target))
	}
	if s.Moved() != nil {
		t.Error(s.Moved())
	}
	if s.Files() < 20 {
		t.Error(s.Files())
	}
}

// What .dockerignore leaves out is not looked at, and what a daemon asks for is the
// same as without that.
func TestPruningIsAsFsutils(t *testing.T) {
	dir := plainTree(t)
	live, err := fsutil.NewFS(dir)
	ok(t, err)
	sets := [][]string{{"a"}, {"a/c"}, {"a/*", "!a/c"}, {"k", "!k/sub"}, {"k", "!k/s*"}, {"**/keep"}, {"*", "!.dockerignore"}, {"*", "!a/c/d", "a/c/d/e"}, {"w?.txt", "!w1.txt"}, {"a/", "/k/"}, {"k/**", "!k/sub/**"}}
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 1))
	words := []string{"a", "b", "c", "d", "k", "sub", "keep", "*", "**", "w*", "?", "a*", "z", "[ab]"}
	for range 150 {
		var set []string
		for range 1 + rnd.IntN(4) {
			p := words[rnd.IntN(len(words))]
			for range rnd.IntN(3) {
				p += "/" + words[rnd.IntN(len(words))]
			}
			if rnd.IntN(3) == 0 && len(set) > 0 {
				p = "!" + p
			}
			set = append(set, p)
		}
		sets = append(sets, set)
	}
	for _, set := range sets {
		s := take(t, dir, Options{Excludes: set, Always: []string{".dockerignore"}})
		for _, f := range []fsutil.FilterOpt{{}, {IncludePatterns: []string{"a/c", "k"}}, {FollowPaths: []string{"a/c", "k/hard"}}} {
			f.ExcludePatterns = set
			compare(t, fmt.Sprintf("seed %d: %q, %+v", seed, set, f), stats(t, s, f), stats(t, live, f))
		}
		// What an excluded link leads to is sent by fsutil, and is of no use.
		_ = stats(t, s, fsutil.FilterOpt{ExcludePatterns: set, FollowPaths: []string{"to-*", "k/*", "*/c", "absolute"}})
		ignore := fsutil.FilterOpt{FollowPaths: []string{".dockerignore"}}
		compare(t, fmt.Sprintf("%q: .dockerignore", set), stats(t, s, ignore), stats(t, live, ignore))
		if s.Moved() != nil {
			t.Fatalf("seed %d: %q: %v", seed, set, s.Moved())
		}
	}
}

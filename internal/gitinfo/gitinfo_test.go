package gitinfo

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// patience is a limit that a busy machine keeps.
const patience = 2 * time.Minute

// world gives git a home of its own.
func world(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip("SKIPPED: this machine has no git")
	}
	home := t.TempDir()
	put(t, filepath.Join(home, ".gitconfig"), "[user]\nname = n\nemail = n@example.com\n[init]\ndefaultBranch = main\n")
	t.Setenv("HOME", home)
	t.Setenv("XDG_CONFIG_HOME", home)
	t.Setenv("GIT_CONFIG_NOSYSTEM", "1")
}

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
}

func run(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %q: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// repo is a repository with one commit, and its commit.
func repo(t *testing.T) (dir, commit string) {
	t.Helper()
	dir = folder(t)
	run(t, dir, "init", "-q")
	put(t, filepath.Join(dir, "file"), "content")
	put(t, filepath.Join(dir, "sub", "file"), "content")
	run(t, dir, "add", "-A")
	run(t, dir, "commit", "-q", "-m", "one")
	return dir, run(t, dir, "rev-parse", "HEAD")
}

// folder is a new one by its real name.
func folder(t *testing.T) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func info(t *testing.T, dir string, dirty bool) Info {
	t.Helper()
	i, err := read(t.Context(), dir, dirty, patience)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func TestRead(t *testing.T) {
	world(t)
	dir, commit := repo(t)
	run(t, dir, "remote", "add", "origin", "https://me:secret@example.com/o/r.git")
	want := Info{Root: dir, Revision: commit, Source: "https://example.com/o/r.git"}
	if got := info(t, dir, false); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	sub := filepath.Join(dir, "sub")
	got := info(t, sub, true)
	if got != want {
		t.Errorf("from a folder inside, clean: %+v, want %+v", got, want)
	}
	link := filepath.Join(folder(t), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	if got := info(t, filepath.Join(link, "sub"), false); got != want {
		t.Errorf("through a link: %+v", got)
	}
	for path, rel := range map[string]string{
		dir: ".", sub: "sub", link: ".", filepath.Join(link, "sub"): "sub",
		filepath.Dir(dir): "", dir + "x": "", filepath.Join(dir, "nosuch"): "", t.TempDir(): "",
	} {
		if have := got.Rel(path); have != rel {
			t.Errorf("Rel(%s) = %q, want %q", path, have, rel)
		}
	}
	if have := (Info{}).Rel(dir); have != "" {
		t.Errorf("without a repository: %q", have)
	}
}

// Git itself is not even looked for where there is no repository.
func TestNoRepository(t *testing.T) {
	t.Setenv("PATH", "")
	if got, err := read(t.Context(), folder(t), true, patience); got != (Info{}) || err != nil {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestDirty(t *testing.T) {
	world(t)
	for what, change := range map[string]func(*testing.T, string){
		"changed":   func(t *testing.T, dir string) { put(t, filepath.Join(dir, "file"), "other content") },
		"untracked": func(t *testing.T, dir string) { put(t, filepath.Join(dir, "new"), "") },
		"staged": func(t *testing.T, dir string) {
			put(t, filepath.Join(dir, "new"), "")
			run(t, dir, "add", "-A")
		},
		"removed": func(t *testing.T, dir string) { run(t, dir, "rm", "-q", "file") },
	} {
		dir, commit := repo(t)
		change(t, dir)
		if got := info(t, filepath.Join(dir, "sub"), true); got.Revision != commit+"-dirty" {
			t.Errorf("%s: %q", what, got.Revision)
		}
		if got := info(t, dir, false); got.Revision != commit {
			t.Errorf("%s, not asked: %q", what, got.Revision)
		}
	}
	dir, commit := repo(t)
	put(t, filepath.Join(dir, ".git", "info", "exclude"), "ignored\n")
	put(t, filepath.Join(dir, "ignored"), "")
	if got := info(t, dir, true); got.Revision != commit {
		t.Errorf("with an ignored file: %q", got.Revision)
	}
}

func TestSource(t *testing.T) {
	world(t)
	dir, _ := repo(t)
	for _, step := range []struct {
		git  []string
		want string
	}{
		{nil, ""},
		{[]string{"remote", "add", "fork", "https://fork.example/x"}, ""},
		{[]string{"remote", "add", "upstream", "https://upstream.example/x"}, "https://upstream.example/x"},
		{[]string{"remote", "add", "origin", "git@example.com:o/r.git"}, "git@example.com:o/r.git"},
		{[]string{"config", "branch.main.merge", "refs/heads/main"}, "git@example.com:o/r.git"},
		{[]string{"config", "branch.main.remote", "fork"}, "https://fork.example/x"},
		{[]string{"config", "url.https://u:p@mirror.example/.insteadOf", "https://fork.example/"}, "https://mirror.example/x"},
		{[]string{"config", "branch.main.remote", "."}, "git@example.com:o/r.git"},
		{[]string{"config", "branch.main.remote", "fork"}, "https://mirror.example/x"},
		{[]string{"checkout", "-q", "--detach"}, "git@example.com:o/r.git"},
	} {
		if step.git != nil {
			run(t, dir, step.git...)
		}
		if got := info(t, dir, false).Source; got != step.want {
			t.Errorf("after %q: %q, want %q", step.git, got, step.want)
		}
	}
}

func TestOtherRepositories(t *testing.T) {
	world(t)
	dir, commit := repo(t)
	tree := filepath.Join(folder(t), "tree")
	run(t, dir, "worktree", "add", "-q", tree, "-b", "other")
	if got := info(t, tree, true); got.Root != tree || got.Revision != commit {
		t.Errorf("a linked work tree: %+v", got)
	}
	unborn := folder(t)
	run(t, unborn, "init", "-q")
	if got := info(t, unborn, true); got != (Info{Root: unborn}) {
		t.Errorf("before the first commit: %+v", got)
	}
	nowhere := folder(t)
	put(t, filepath.Join(nowhere, ".git"), "gitdir: /no/such/folder\n")
	garbage := folder(t)
	put(t, filepath.Join(garbage, ".git", "HEAD"), "\x00\xff")
	bare := filepath.Join(folder(t), ".git")
	run(t, filepath.Dir(bare), "init", "-q", "--bare", bare)
	for what, dir := range map[string]string{"a .git that leads nowhere": nowhere, "a .git that is none": garbage, "a bare one": bare} {
		if got := info(t, dir, true); got != (Info{}) {
			t.Errorf("%s: %+v", what, got)
		}
	}
	if runtime.GOOS != "windows" {
		strange := filepath.Join(folder(t), "two\nlines "+commit)
		if err := os.Rename(unborn, strange); err != nil {
			t.Fatal(err)
		}
		run(t, strange, "commit", "-q", "--allow-empty", "-m", "x")
		if got := info(t, strange, false); got.Root != strange || got.Revision == "" {
			t.Errorf("a folder with a line break: %+v", got)
		}
	}
}

// A hook of git's runs berth with variables that point to the hook's repository.
func TestEnvironmentLeadsNowhere(t *testing.T) {
	world(t)
	other, _ := repo(t)
	dir, _ := repo(t)
	run(t, dir, "commit", "-q", "--allow-empty", "-m", "two")
	want := run(t, dir, "rev-parse", "HEAD")
	t.Setenv("GIT_DIR", filepath.Join(other, ".git"))
	t.Setenv("GIT_WORK_TREE", other)
	t.Setenv("GIT_INDEX_FILE", filepath.Join(other, ".git", "index"))
	if got := info(t, dir, true); got.Root != dir || got.Revision != want {
		t.Errorf("%+v, want the commit %s of %s", got, want, dir)
	}
}

// A folder of the files of a bare repository is no repository.
func TestBareAmongTheFiles(t *testing.T) {
	world(t)
	dir, commit := repo(t)
	inner := filepath.Join(dir, "inner")
	run(t, dir, "init", "-q", "--bare", inner)
	if got := info(t, inner, true); got != (Info{}) {
		t.Errorf("%+v", got)
	}
	if got := info(t, dir, true); got.Revision != commit+dirtyMark {
		t.Errorf("around it: %+v", got)
	}
}

func TestGitIsMissing(t *testing.T) {
	world(t)
	dir, _ := repo(t)
	t.Setenv("PATH", t.TempDir())
	if got, err := read(t.Context(), dir, false, patience); got != (Info{}) || !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestEnvironment(t *testing.T) {
	got := environment([]string{"PATH=/bin", "GIT_DIR=/x", "GIT_CONFIG_GLOBAL=/c", "GIT_CONFIG_COUNT=1", "GIT_INDEX_FILE=y"})
	for _, want := range []string{"PATH=/bin", "GIT_CONFIG_GLOBAL=/c", "GIT_CONFIG_COUNT=1", "LC_ALL=C"} {
		if !slices.Contains(got, want) {
			t.Errorf("%q lacks %s", got, want)
		}
	}
	if slices.Contains(got, "GIT_DIR=/x") || slices.Contains(got, "GIT_INDEX_FILE=y") {
		t.Errorf("%q leads elsewhere", got)
	}
}

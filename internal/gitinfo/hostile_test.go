//go:build unix

package gitinfo

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// hostile is a repository that runs a program, which leaves a mark, from
// wherever its configuration can make git run one.
func hostile(t *testing.T) (dir, mark string) {
	t.Helper()
	dir, _ = repo(t)
	mark = filepath.Join(folder(t), "mark")
	evil := filepath.Join(dir, ".git", "evil")
	put(t, evil, "#!/bin/sh\necho $0 $* >> "+mark+"\ncat\n")
	for _, hook := range []string{"post-index-change", "fsmonitor-watchman", "post-checkout", "reference-transaction"} {
		put(t, filepath.Join(dir, ".git", "hooks", hook), "#!/bin/sh\necho hook >> "+mark+"\n")
	}
	put(t, filepath.Join(dir, ".git", "included"), "[filter \"two\"]\nclean = "+evil+" two\nrequired = true\n")
	config := "[core]\nfsmonitor = " + evil + "\npager = " + evil + "\nsshCommand = " + evil + "\neditor = " + evil + "\naskPass = " + evil +
		"\ngitProxy = " + evil + "\nalternateRefsCommand = " + evil + "\n[pager]\nstatus = " + evil + "\nconfig = " + evil + "\n" +
		"[filter \"one\"]\nclean = " + evil + " one\nprocess = " + evil + " process\nrequired = true\n" +
		"[include]\npath = included\n[diff]\nexternal = " + evil + "\n[status]\nsubmoduleSummary = true\n" +
		"[alias]\nstatus = !" + evil + "\nrev-parse = !" + evil + "\n[gpg]\nprogram = " + evil + "\n[log]\nshowSignature = true\n" +
		"[remote \"origin\"]\nurl = ext::" + evil + "\nuploadpack = " + evil + "\npromisor = true\n[credential]\nhelper = !" + evil + "\n"
	f, err := os.OpenFile(filepath.Join(dir, ".git", "config"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(config); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(dir, ".gitattributes"), "file filter=one\nsub/file filter=two\n")
	put(t, filepath.Join(dir, "file"), "CONTENT") // as long as before: git has to look inside
	put(t, filepath.Join(dir, "sub", "file"), "CONTENT")
	return dir, mark
}

func TestHostileRepositoryRunsNothing(t *testing.T) {
	world(t)
	dir, mark := hostile(t)
	got := info(t, dir, true)
	if !strings.HasSuffix(got.Revision, dirtyMark) {
		t.Errorf("%+v", got)
	}
	if text, err := os.ReadFile(mark); err == nil {
		t.Errorf("the repository ran a program:\n%s", text)
	}
	// The trap is a real one.
	cmd := exec.Command("git", "status")
	cmd.Dir = dir
	_ = cmd.Run()
	if _, err := os.Stat(mark); err != nil {
		t.Error("nothing would have run by plain git either")
	}

	run(t, dir, "config", "core.fsmonitor", "false")
	run(t, dir, "config", "filter.x=y.clean", "evil")
	if _, err := read(t.Context(), dir, true, patience); err == nil || !strings.Contains(err.Error(), "x=y") {
		t.Errorf("a filter with a name that tricks git: %v", err)
	}
}

// Another's repository is not trusted, and git's own words say so.
func TestRepositoryOfSomebodyElse(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: root only: it gives a folder away")
	}
	world(t)
	dir, _ := repo(t)
	if err := os.Chown(dir, 12345, -1); err != nil {
		t.Fatal(err)
	}
	got, err := read(t.Context(), dir, true, patience)
	var f *Failed
	if got != (Info{}) || !errors.As(err, &f) || !strings.Contains(err.Error(), dir) {
		t.Errorf("%+v, %v", got, err)
	}
	run(t, dir, "config", "--global", "safe.directory", dir)
	if got := info(t, dir, true); got.Root != dir {
		t.Errorf("trusted by the user: %+v", got)
	}
}

// Ctrl-C ends a git that does not answer, and gives its own cause.
func TestCancelled(t *testing.T) {
	dir := folder(t)
	put(t, filepath.Join(dir, ".git", "HEAD"), "")
	bin := t.TempDir()
	started := filepath.Join(bin, "started")
	if err := syscall.Mkfifo(started, 0o600); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(bin, "git"), "#!/bin/sh\n: > "+started+"\nexec /bin/sleep 600\n")
	t.Setenv("PATH", bin)
	why := errors.New("interrupted")
	ctx, cancel := context.WithCancelCause(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := read(ctx, dir, false, patience)
		done <- err
	}()
	f, err := os.Open(started) // until the other side opens it, too
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	cancel(why)
	if err := <-done; !errors.Is(err, why) {
		t.Errorf("%v", err)
	}
}

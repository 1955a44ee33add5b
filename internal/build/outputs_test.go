package build

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/berthbuild/berth/internal/buildflag"
	"github.com/berthbuild/berth/internal/buildkittest"
	"github.com/berthbuild/berth/internal/dial/dialtest"
	"github.com/moby/buildkit/session/filesync"
)

// A file appears whole, or not at all.
func TestFile(t *testing.T) {
	dialtest.NoLeaks(t)
	boom := errors.New("process exited with 1")
	half := func(ctx context.Context, b *buildkittest.Build) error {
		_, err := sending(ctx, b, 0, []byte("half of "))
		return err
	}
	for _, c := range []struct {
		name  string
		solve func(ctx context.Context, b *buildkittest.Build) error
		want  string // in the error; "" is success
	}{
		{"sent", func(ctx context.Context, b *buildkittest.Build) error { return b.SendFile(ctx, 0, []byte("whole")) }, ""},
		{"fails after half", func(ctx context.Context, b *buildkittest.Build) error { return errors.Join(half(ctx, b), boom) }, boom.Error()},
		{"fails after all", func(ctx context.Context, b *buildkittest.Build) error {
			return errors.Join(b.SendFile(ctx, 0, []byte("whole")), boom)
		}, boom.Error()},
		{"sends nothing", func(context.Context, *buildkittest.Build) error { return nil }, "the daemon sent nothing"},
		{"sends twice", func(ctx context.Context, b *buildkittest.Build) error {
			return errors.Join(b.SendFile(ctx, 0, []byte("whole")), b.SendFile(ctx, 0, []byte("again")))
		}, "the daemon sent the output twice"},
		{"hides that it sent twice", func(ctx context.Context, b *buildkittest.Build) error {
			_ = errors.Join(b.SendFile(ctx, 0, []byte("whole")), b.SendFile(ctx, 0, []byte("again")))
			return nil
		}, "the daemon sent the output twice"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, before := range []string{"", "old"} {
				dir := t.TempDir()
				dest := filepath.Join(dir, "new", "x.tar")
				if before != "" {
					put(t, dest, before)
				}
				s := daemon(t, func(ctx context.Context, b *buildkittest.Build) (map[string]string, error) {
					return nil, c.solve(ctx, b)
				})
				_, err := Run(t.Context(), builderOf(node("n0", s.Endpoint())), req(t, output("tar", dest)), options(t))
				switch {
				case c.want == "":
					if err != nil || read(t, dest) != "whole" {
						t.Errorf("%v", err)
					}
					equal(t, "beside it", names(t, filepath.Dir(dest)), []string{"x.tar"})
					continue
				case err == nil || !strings.Contains(err.Error(), c.want):
					t.Errorf("%v, want %q", err, c.want)
				case !strings.Contains(err.Error(), boom.Error()) && !strings.HasPrefix(err.Error(), "writing "+dest+": "):
					t.Errorf("which file? %v", err)
				}
				if before != "" {
					equal(t, "beside it", names(t, filepath.Dir(dest)), []string{"x.tar"})
					if read(t, dest) != before {
						t.Error("the old file was touched")
					}
				} else if left := names(t, dir); len(left) > 0 {
					t.Errorf("left: %q", left)
				}
			}
		})
	}
}

// Links stay links, and permissions what they were.
func TestFileThatExists(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("links and permissions")
	}
	dir := t.TempDir()
	put(t, filepath.Join(dir, "real"), "old")
	if err := errors.Join(os.Chmod(filepath.Join(dir, "real"), 0o600), os.Symlink("real", filepath.Join(dir, "link"))); err != nil {
		t.Fatal(err)
	}
	s := daemon(t, func(ctx context.Context, b *buildkittest.Build) (map[string]string, error) {
		return nil, b.SendFile(ctx, 0, []byte("new"))
	})
	if _, err := Run(t.Context(), builderOf(node("n0", s.Endpoint())), req(t, output("oci", filepath.Join(dir, "link"))), options(t)); err != nil {
		t.Fatal(err)
	}
	link, err := os.Lstat(filepath.Join(dir, "link"))
	target, rerr := os.Stat(filepath.Join(dir, "real"))
	if err != nil || rerr != nil || link.Mode()&os.ModeSymlink == 0 || target.Mode().Perm() != 0o600 || read(t, filepath.Join(dir, "real")) != "new" {
		t.Errorf("%v %v, %v %v", link, err, target, rerr)
	}
}

// What cannot be renamed over is written to.
func TestDevice(t *testing.T) {
	dialtest.NoLeaks(t)
	if runtime.GOOS == "windows" {
		t.Skip("no such devices")
	}
	send := func(ctx context.Context, b *buildkittest.Build) (map[string]string, error) {
		return nil, b.SendFile(ctx, 0, []byte("data"))
	}
	s := daemon(t, send)
	if _, err := Run(t.Context(), builderOf(node("n0", s.Endpoint())), req(t, output("tar", os.DevNull)), options(t)); err != nil {
		t.Errorf("%s: %v", os.DevNull, err)
	}
	if fi, err := os.Stat(os.DevNull); err != nil || fi.Mode().IsRegular() {
		t.Fatalf("%s was replaced: %v, %v", os.DevNull, fi, err)
	}
	if _, err := os.Stat("/dev/full"); err != nil {
		t.Skip(err)
	}
	_, err := Run(t.Context(), builderOf(node("n0", s.Endpoint())), req(t, output("tar", "/dev/full")), options(t))
	if !errors.Is(err, syscall.ENOSPC) || !strings.HasPrefix(err.Error(), "writing /dev/full: ") {
		t.Errorf("a full disk: %v", err)
	}
}

func TestStdout(t *testing.T) {
	dialtest.NoLeaks(t)
	full := &os.PathError{Op: "write", Path: "/dev/stdout", Err: syscall.ENOSPC}
	for _, c := range []struct {
		name, want string
		write      func([]byte) (int, error)
		solve      func(ctx context.Context, b *buildkittest.Build) error
	}{
		{"written", "", nil, func(ctx context.Context, b *buildkittest.Build) error { return b.SendFile(ctx, 0, []byte("data")) }},
		{"full", "writing the output to standard output: no space left on device", func([]byte) (int, error) { return 0, full },
			func(ctx context.Context, b *buildkittest.Build) error { return b.SendFile(ctx, 0, []byte("data")) }},
		{"full, and the daemon does not care", "no space left on device", func([]byte) (int, error) { return 0, full },
			func(ctx context.Context, b *buildkittest.Build) error {
				_ = b.SendFile(ctx, 0, []byte("data"))
				return nil
			}},
		{"nothing sent", "the daemon sent nothing", nil, func(context.Context, *buildkittest.Build) error { return nil }},
		{"twice", "the daemon sent the output twice", nil, func(ctx context.Context, b *buildkittest.Build) error {
			return errors.Join(b.SendFile(ctx, 0, []byte("data")), b.SendFile(ctx, 0, []byte("data")))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out buffer
			o := options(t)
			o.Stdout = &out
			if c.write != nil {
				o.Stdout = writer(c.write)
			}
			s := daemon(t, func(ctx context.Context, b *buildkittest.Build) (map[string]string, error) {
				return nil, c.solve(ctx, b)
			})
			_, err := Run(t.Context(), builderOf(node("n0", s.Endpoint())), req(t, output("tar", buildflag.Stdout)), o)
			if c.want == "" && (err != nil || out.String() != "data") || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%q, %v", out.String(), err)
			}
			if c.write != nil && !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("%v is not the cause", err)
			}
		})
	}
}

// A standard output that hangs holds up neither Ctrl-C nor what comes after,
// and nothing is written once the build is over.
func TestStdoutHangs(t *testing.T) {
	dialtest.NoLeaks(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("interrupted")
	release, written := make(chan struct{}), make(chan struct{}, 100)
	o := options(t)
	o.Stdout = writer(func(b []byte) (int, error) {
		cancel(why)
		<-release
		written <- struct{}{}
		return len(b), nil
	})
	s := daemon(t, func(ctx context.Context, b *buildkittest.Build) (map[string]string, error) {
		stream, err := sending(ctx, b, 0, []byte("1"))
		if err == nil {
			_ = stream.SendMsg(&filesync.BytesMessage{Data: []byte("2")})
		}
		<-ctx.Done()
		return nil, ctx.Err()
	})
	_, err := Run(ctx, builderOf(node("n0", s.Endpoint())), req(t, output("tar", buildflag.Stdout)), o)
	if !errors.Is(err, why) {
		t.Errorf("%v", err)
	}
	close(release)
	<-written
}

// A daemon that sends what nobody asked for is told so, and nothing comes of it.
func TestUnasked(t *testing.T) {
	dialtest.NoLeaks(t)
	dir := t.TempDir()
	dest := filepath.Join(dir, "x.tar")
	s := daemon(t, func(ctx context.Context, b *buildkittest.Build) (map[string]string, error) {
		for _, id := range []int{1, 7, -1} {
			stream, err := sending(ctx, b, id, []byte("unasked"))
			if err == nil {
				err = ended(stream)
			}
			if err == nil || errors.Is(err, io.EOF) {
				t.Errorf("export %d was taken: %v", id, err)
			}
		}
		return nil, b.SendFile(ctx, 0, []byte("asked"))
	})
	if _, err := Run(t.Context(), builderOf(node("n0", s.Endpoint())), req(t, output("tar", dest), output("image", "")), options(t)); err != nil {
		t.Error(err)
	}
	equal(t, "files", names(t, dir), []string{"x.tar"})
	if read(t, dest) != "asked" {
		t.Errorf("%q", read(t, dest))
	}
	without := daemon(t, func(ctx context.Context, b *buildkittest.Build) (map[string]string, error) {
		stream, err := sending(ctx, b, 0, []byte("unasked"))
		if err == nil {
			err = ended(stream)
		}
		if err == nil || errors.Is(err, io.EOF) {
			t.Errorf("taken without any output: %v", err)
		}
		return nil, nil
	})
	if _, err := Run(t.Context(), builderOf(node("n0", without.Endpoint())), req(t), options(t)); err != nil {
		t.Error(err)
	}
}

func TestFolder(t *testing.T) {
	dialtest.NoLeaks(t)
	dir := t.TempDir()
	dest := filepath.Join(dir, "a", "b")
	src := tree(t, map[string]string{"x": "1", "sub/y": "2"})
	s := daemon(t, func(ctx context.Context, b *buildkittest.Build) (map[string]string, error) {
		return nil, b.SendDir(ctx, 0, src)
	})
	put(t, filepath.Join(dest, "old"), "kept")
	if _, err := Run(t.Context(), builderOf(node("n0", s.Endpoint())), req(t, output("local", dest)), options(t)); err != nil {
		t.Fatal(err)
	}
	if read(t, filepath.Join(dest, "x")) != "1" || read(t, filepath.Join(dest, "sub", "y")) != "2" || read(t, filepath.Join(dest, "old")) != "kept" {
		t.Errorf("%q", names(t, dest))
	}
	// A build that fails leaves no folders behind that it made.
	boom := daemon(t, func(context.Context, *buildkittest.Build) (map[string]string, error) { return nil, errors.New("boom") })
	for _, o := range []buildflag.Output{output("local", filepath.Join(dir, "p", "q")), output("oci", filepath.Join(dir, "p", "q"), "tar", "false"), output("tar", filepath.Join(dir, "p", "q"))} {
		if _, err := Run(t.Context(), builderOf(node("n0", boom.Endpoint())), req(t, o), options(t)); err == nil {
			t.Error("no error")
		}
		equal(t, "folders", names(t, dir), []string{"a"})
	}
	for _, o := range []buildflag.Output{output("local", filepath.Join(dest, "x")), output("tar", dest), output("tar", filepath.Join(dest, "x", "y")), output("local", filepath.Join(dest, "x", "y"))} {
		_, err := Run(t.Context(), builderOf(node("n0", s.Endpoint())), req(t, o), options(t))
		if err == nil || !strings.HasPrefix(err.Error(), "output f") {
			t.Errorf("%v: %v", o, err)
		}
	}
	if got := read(t, filepath.Join(dest, "x")); got != "1" || len(boom.Requests()) != 3 || len(s.Requests()) != 1 {
		t.Errorf("%q, %d builds", got, len(s.Requests()))
	}
}

//go:build e2e && linux

package test

import (
	"archive/tar"
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berthbuild/berth/test/lab"
)

// simple is a context whose two Dockerfiles copy its file to two places.
func simple(t *testing.T) string {
	t.Helper()
	return lab.Context(t, map[string]string{
		"Dockerfile": "FROM scratch\nCOPY f /default\n", "Other": "FROM scratch\nCOPY f /other\n", "f": "text",
	})
}

// tarOf is a folder as an archive, made by tar with more arguments.
func tarOf(t *testing.T, dir string, args ...string) []byte {
	t.Helper()
	lab.Need(t, "tar")
	out, err := exec.Command("tar", append(args, "-C", dir, "-c", ".")...).Output()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// packed is data through a program that packs.
func packed(t *testing.T, data []byte, program ...string) []byte {
	t.Helper()
	lab.Need(t, program[0])
	cmd := exec.Command(program[0], program[1:]...)
	cmd.Stdin = bytes.NewReader(data)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Every kind of archive that BuildKit can unpack comes by standard input, and
// leaves no file here.
func TestContextArchives(t *testing.T) {
	berth, _ := shared(t)
	dir := simple(t)
	plain := tarOf(t, dir)
	for name, data := range map[string][]byte{
		"plain": plain, "old": tarOf(t, dir, "--format=v7"), "times in headers of their own": tarOf(t, dir, "--format=pax"),
		"gzip": packed(t, plain, "gzip", "-c"), "zstd": packed(t, plain, "zstd", "-c", "-q"),
		"bzip2": packed(t, plain, "bzip2", "-c"), "xz": packed(t, plain, "xz", "-c"),
	} {
		for file, want := range map[string]string{"": "default", "Other": "other", join(dir, "Other"): "other"} {
			if file != "" && name != "plain" {
				continue
			}
			args, out := []string{"build", "-o", t.TempDir(), "-"}, ""
			if out = args[2]; file != "" {
				args = append(args, "-f", file)
			}
			r := berth.Cmd(args...).Stdin(bytes.NewReader(data)).Run()
			if r.Code != 0 {
				t.Errorf("%s, -f %q: %s", name, file, r)
			} else if got := read(t, join(out, want)); got != "text" {
				t.Errorf("%s, -f %q: %q", name, file, got)
			}
		}
	}
	r := berth.Cmd("build", "-f", "nosuch", "-").Stdin(bytes.NewReader(plain)).Run()
	if r.Code != 1 {
		t.Error(r)
	}
	has(t, "last line", lastLine(r.Stderr), "failed to read dockerfile", "nosuch")
	if left := berth.TempFiles(); len(left) > 0 {
		t.Errorf("left %q", left)
	}
}

// Changed content is never taken for the old one, and the same is found in the
// cache although it was sent again.
func TestContextArchiveChanges(t *testing.T) {
	berth, _ := shared(t)
	dir := simple(t)
	build := func() (string, lab.Result) {
		out := t.TempDir()
		r := berth.Cmd("build", "--progress", "plain", "-o", out, "-").Stdin(bytes.NewReader(tarOf(t, dir, "--mtime=2020-01-01"))).Run()
		if r.Code != 0 {
			t.Fatal(r)
		}
		return read(t, join(out, "default")), r
	}
	if got, _ := build(); got != "text" {
		t.Error(got)
	}
	if _, r := build(); !strings.Contains(r.Stderr, "COPY f /default\n") || !strings.Contains(r.Stderr, "CACHED") {
		t.Errorf("the same archive was not found in the cache: %s", r)
	}
	if err := os.WriteFile(join(dir, "f"), []byte("TEXT"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got, _ := build(); got != "TEXT" {
		t.Errorf("another archive: %q", got)
	}
}

func TestContextDockerfileAlone(t *testing.T) {
	berth, _ := shared(t)
	out := t.TempDir()
	r := berth.Cmd("build", "-o", out, "-").Stdin(strings.NewReader("FROM scratch\nCOPY <<EOF /made\nhere\nEOF\n")).Run()
	if r.Code != 0 || read(t, join(out, "made")) != "here\n" {
		t.Error(r)
	}
	r = berth.Cmd("build", "-").Stdin(strings.NewReader("FROM scratch\nCOPY f /\n")).Run()
	if r.Code != 1 || !strings.Contains(lastLine(r.Stderr), `"/f": not found`) {
		t.Errorf("COPY without a context: %s", r)
	}
}

// Two builds at once of two archives on one daemon get what is theirs.
func TestContextArchivesAtOnce(t *testing.T) {
	berth, _ := shared(t)
	type running struct {
		p    *lab.Process
		want string
		out  string
	}
	var all []running
	for _, text := range []string{"one", "two", "three"} {
		dir := simple(t)
		if err := os.WriteFile(join(dir, "f"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		out := t.TempDir()
		all = append(all, running{berth.Cmd("build", "-o", out, "-").Stdin(bytes.NewReader(tarOf(t, dir))).Start(), text, out})
	}
	for _, b := range all {
		if r := b.p.Wait(); r.Code != 0 {
			t.Error(r)
		} else if got := read(t, join(b.out, "default")); got != b.want {
			t.Errorf("%q, wanted %q", got, b.want)
		}
	}
}

// Each of two nodes gets the whole archive.
func TestContextArchiveOnTwoNodes(t *testing.T) {
	amd := lab.BuildKit(t, lab.BuildKitOpts{Platforms: []string{"linux/amd64"}})
	arm := lab.BuildKit(t, lab.BuildKitOpts{Platforms: []string{"linux/arm64"}})
	berth := lab.Berth(t)
	berth.OK("create", "--use", "--name", "two", amd.UnixAddr())
	berth.OK("create", "--name", "two", "--append", "--platform", "linux/arm64", arm.UnixAddr())
	dir := simple(t)
	if err := os.WriteFile(join(dir, "Dockerfile"), []byte("FROM scratch\nARG TARGETARCH\nCOPY f /for-$TARGETARCH\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	out := t.TempDir()
	r := berth.Cmd("build", "--platform", "linux/amd64,linux/arm64", "-o", out, "-").Stdin(bytes.NewReader(tarOf(t, dir))).Run()
	if r.Code != 0 {
		t.Fatal(r)
	}
	for _, arch := range []string{"amd64", "arm64"} {
		if got := read(t, join(out, "linux_"+arch, "for-"+arch)); got != "text" {
			t.Errorf("%s: %q", arch, got)
		}
	}
	if left := berth.TempFiles(); len(left) > 0 {
		t.Errorf("left %q", left)
	}
}

// A build that waits for standard input ends at once when it is interrupted:
// before anything came, and in the middle of an archive.
func TestContextStdinInterrupted(t *testing.T) {
	berth, _ := shared(t)
	var half bytes.Buffer
	w := tar.NewWriter(&half)
	for _, h := range []*tar.Header{{Name: "Dockerfile", Size: 13, Mode: 0o644}, {Name: "large", Size: 1 << 30, Mode: 0o644}} {
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(append([]byte("FROM scratch\n"), make([]byte, max(0, min(h.Size-13, 1<<20)))...)); err != nil {
			t.Fatal(err)
		}
	}
	for what, data := range map[string][]byte{"a byte": []byte("F"), "half an archive": half.Bytes()} {
		in, more, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		p := berth.Cmd("build", "--progress", "plain", "-").Stdin(in).Start()
		if _, err := more.Write(data); err != nil {
			t.Fatal(err)
		}
		untilRead(t, in)
		if len(data) > 1 {
			p.WaitFor("load remote build context")
		}
		p.Interrupt()
		if r := p.Wait(); r.Code != 130 || !strings.HasPrefix(lastLine(r.Stderr), "ERROR: ") {
			t.Errorf("%s: %s", what, r)
		}
		_, _ = in.Close(), more.Close()
	}
}

// untilRead waits until the other side has taken all that was written.
func untilRead(t *testing.T, pipe *os.File) {
	t.Helper()
	for limit := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		left, err := unix.IoctlGetInt(int(pipe.Fd()), unix.TIOCINQ)
		if err != nil {
			t.Fatal(err)
		}
		if left == 0 {
			return
		}
		if time.Now().After(limit) {
			t.Fatalf("%d bytes were not read", left)
		}
	}
}

// An archive that ends too early is an error of the build, not a hang.
func TestContextArchiveCutShort(t *testing.T) {
	berth, _ := shared(t)
	data := tarOf(t, simple(t))
	for what, cut := range map[string][]byte{
		"plain": data[:1500], "gzip": packed(t, data, "gzip", "-c")[:100], "only the magic": {0x1f, 0x8b, 0x08, 0, 0, 0, 0, 0},
	} {
		r := berth.Cmd("build", "-").Stdin(bytes.NewReader(cut)).Run()
		if r.Code != 1 || !strings.HasPrefix(lastLine(r.Stderr), "ERROR: failed to build: ") {
			t.Errorf("%s: %s", what, r)
		}
	}
}

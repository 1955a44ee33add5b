//go:build e2e && linux

package lab

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// HelloContext is a fresh copy of examples/hello that can be built: its
// Dockerfile (FROM scratch, several stages, a RUN step) and its static binary.
// No image is pulled by building it. The test may change it.
func HelloContext(t testing.TB) string {
	t.Helper()
	bin, err := theRun.hello()
	if err != nil {
		t.Fatal("lab: ", err)
	}
	dir := t.TempDir()
	dockerfile := filepath.Join(ModuleRoot(t), "examples", "hello", "Dockerfile")
	copyFile(t, dockerfile, filepath.Join(dir, "Dockerfile"), 0o644)
	copyFile(t, bin, filepath.Join(dir, "hello"), 0o755)
	return dir
}

// HelloBinary is the static program of HelloContext, for contexts of a test's
// own; it must not be changed. Called without arguments it prints a greeting.
func HelloBinary(t testing.TB) string {
	t.Helper()
	bin, err := theRun.hello()
	if err != nil {
		t.Fatal("lab: ", err)
	}
	return bin
}

// Context is a fresh build context with the given files (name → text).
func Context(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal("lab: ", err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal("lab: ", err)
		}
	}
	return dir
}

func copyFile(t testing.TB, from, to string, mode os.FileMode) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal("lab: ", err)
	}
	if err := os.WriteFile(to, b, mode); err != nil {
		t.Fatal("lab: ", err)
	}
}

// buildHello is called once; see theRun.
func buildHello() (string, error) { return buildStatic("hello", "./examples/hello") }

// buildFrontend is called once; see theRun.
func buildFrontend() (string, error) { return buildStatic("frontend", "./test/frontend") }

// buildStatic builds a program that runs in an image made FROM scratch.
func buildStatic(name, pkg string) (string, error) {
	root, err := moduleRoot()
	if err != nil {
		return "", err
	}
	bin := filepath.Join(theRun.dir, "bin", name)
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", bin, pkg)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building %s: %w\n%s", pkg, err, out)
	}
	return bin, nil
}

// FrontendContext is a fresh build context whose image is the frontend of
// test/frontend, with the given label lines.
func FrontendContext(t testing.TB, labels string) string {
	t.Helper()
	bin, err := theRun.answers()
	if err != nil {
		t.Fatal("lab: ", err)
	}
	dir := Context(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY frontend /frontend\n" + labels + "\nENTRYPOINT [\"/frontend\"]\n"})
	copyFile(t, bin, filepath.Join(dir, "frontend"), 0o755)
	return dir
}

// Busybox is the machine's static busybox. Copied into an image as /bin/sh it
// makes plain `RUN command` steps work: FROM scratch, COPY sh /bin/sh.
func Busybox(t testing.TB) string {
	t.Helper()
	Need(t, "busybox")
	path, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal("lab: ", err)
	}
	return path
}

// ShellContext is a fresh build context with the given files and a static shell
// named sh beside them; its Dockerfile begins with `FROM scratch` and `COPY sh
// /bin/sh` and continues with the given lines, so that `RUN echo hi` works.
func ShellContext(t testing.TB, dockerfile string, files map[string]string) string {
	t.Helper()
	dir := Context(t, files)
	copyFile(t, Busybox(t), filepath.Join(dir, "sh"), 0o755)
	text := "FROM scratch\nCOPY sh /bin/sh\n" + dockerfile
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(text), 0o644); err != nil {
		t.Fatal("lab: ", err)
	}
	return dir
}

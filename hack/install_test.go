// Package hack has the scripts that the Makefile calls; only their tests are Go.
package hack

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// world is a clone with nothing but the script and a binary, and a home.
type world struct {
	t                    *testing.T
	clone, home          string
	berth, plugin, saved string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	if _, err := exec.LookPath("bash"); err != nil {
		t.Skip("no bash")
	}
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, clone: filepath.Join(dir, "my clone"), home: filepath.Join(dir, "home")}
	w.berth = filepath.Join(w.home, "prefix", "bin", "berth")
	w.plugin = filepath.Join(w.home, ".docker", "cli-plugins", "docker-buildx")
	w.saved = w.plugin + ".before-berth"
	script, err := os.ReadFile("install.sh")
	if err != nil {
		t.Fatal(err)
	}
	w.write(filepath.Join(w.clone, "hack", "install.sh"), string(script))
	w.write(filepath.Join(w.clone, "bin", "berth"), "#!/bin/sh\necho berth\n")
	return w
}

func (w *world) write(path, text string) {
	w.t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) run(ok bool, arg string) string {
	w.t.Helper()
	cmd := exec.Command("bash", filepath.Join(w.clone, "hack", "install.sh"), arg)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + w.home, "PREFIX=" + filepath.Join(w.home, "prefix")}
	out, err := cmd.CombinedOutput()
	if (err == nil) != ok {
		w.t.Fatalf("%s: %v\n%s", arg, err, out)
	}
	return string(out)
}

// is checks what a path says when it is run; "" means that it is not there.
func (w *world) is(path, want string) {
	w.t.Helper()
	if want == "" {
		if _, err := os.Lstat(path); !os.IsNotExist(err) {
			w.t.Errorf("%s is there (%v)", path, err)
		}
		return
	}
	out, err := exec.Command(path).CombinedOutput()
	if err != nil || strings.TrimSpace(string(out)) != want {
		w.t.Errorf("%s says %q, %v; wanted %q", path, out, err, want)
	}
}

func TestInstallOnAnEmptyHome(t *testing.T) {
	w := newWorld(t)
	for range 2 {
		w.run(true, "install")
		w.is(w.berth, "berth")
		w.is(w.plugin, "berth")
		w.is(w.saved, "")
	}
	for range 2 {
		w.run(true, "uninstall")
		w.is(w.berth, "")
		w.is(w.plugin, "")
	}
}

func TestInstallKeepsThePluginThatWasThere(t *testing.T) {
	w := newWorld(t)
	w.write(w.plugin, "#!/bin/sh\necho buildx\n")
	for range 2 {
		w.run(true, "install")
		w.is(w.plugin, "berth")
		w.is(w.saved, "buildx")
	}
	for range 2 {
		w.run(true, "uninstall")
		w.is(w.plugin, "buildx")
		w.is(w.saved, "")
	}
}

func TestInstallRefusesToOverwrite(t *testing.T) {
	w := newWorld(t)
	w.write(w.berth, "#!/bin/sh\necho another\n")
	w.run(false, "install")
	w.is(w.berth, "another")
	w.is(w.plugin, "")
	w.run(true, "uninstall")
	w.is(w.berth, "another")

	w = newWorld(t)
	w.write(w.plugin, "#!/bin/sh\necho new\n")
	w.write(w.saved, "#!/bin/sh\necho old\n")
	w.run(false, "install")
	w.is(w.plugin, "new")
	w.is(w.saved, "old")
}

func TestUninstallLeavesAPluginThatCameLater(t *testing.T) {
	w := newWorld(t)
	w.write(w.plugin, "#!/bin/sh\necho old\n")
	w.run(true, "install")
	if err := os.Remove(w.plugin); err != nil {
		t.Fatal(err)
	}
	w.write(w.plugin, "#!/bin/sh\necho new\n")
	w.run(true, "uninstall")
	w.is(w.plugin, "new")
	w.is(w.saved, "old")
}

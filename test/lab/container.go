//go:build e2e && linux

package lab

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The images that a Dockerd or Podman of the lab has after their Images method.
const (
	BuildKitImage = "localhost/buildkit:lab" // stands in for moby/buildkit: buildkitd, buildctl, runc, a shell
	PlainImage    = "localhost/plain:lab"    // a shell, and no buildctl
)

// BuildKitFlags are what a container of BuildKitImage needs besides a name,
// without CAP_SYS_RESOURCE, which the machine's root may lack. What follows the
// image are buildkitd's flags.
func BuildKitFlags() []string {
	return []string{
		"--network", "none", "--cap-add", "ALL", "--cap-drop", "SYS_RESOURCE", "--security-opt", "seccomp=unconfined",
		"-v", "/sys/fs/cgroup:/sys/fs/cgroup:rw", "-v", "/var/lib/buildkit",
	}
}

// imageTar makes an image's files as a tar archive: a busybox with its commands,
// and the programs with the libraries they are linked to.
func imageTar(t testing.TB, dir, name string, programs ...string) string {
	t.Helper()
	root := filepath.Join(dir, name)
	for _, d := range []string{"bin", "usr/bin", "etc", "tmp", "run", "root"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal("lab: ", err)
		}
	}
	copyFile(t, Busybox(t), filepath.Join(root, "bin/busybox"), 0o755)
	for _, applet := range []string{"sh", "cat", "ls", "sleep", "ps", "rm"} {
		if err := os.Symlink("busybox", filepath.Join(root, "bin", applet)); err != nil {
			t.Fatal("lab: ", err)
		}
	}
	for path, text := range map[string]string{"etc/passwd": "root:x:0:0:root:/root:/bin/sh\n", "etc/group": "root:x:0:\n"} {
		if err := os.WriteFile(filepath.Join(root, path), []byte(text), 0o644); err != nil {
			t.Fatal("lab: ", err)
		}
	}
	library := regexp.MustCompile(`/(?:lib|usr)\S*`)
	for _, p := range programs {
		copyFile(t, p, filepath.Join(root, "usr/bin", filepath.Base(p)), 0o755)
		out, _ := exec.Command("ldd", p).Output() // fails for a static program
		for _, lib := range library.FindAllString(string(out), -1) {
			if err := os.MkdirAll(filepath.Join(root, filepath.Dir(lib)), 0o755); err != nil {
				t.Fatal("lab: ", err)
			}
			copyFile(t, lib, filepath.Join(root, lib), 0o755)
		}
	}
	tar := root + ".tar"
	if out, err := exec.Command("tar", "-C", root, "-cf", tar, ".").CombinedOutput(); err != nil {
		t.Fatalf("lab: tar: %v\n%s", err, out)
	}
	return tar
}

// importImages makes both images with a command line like docker's.
func importImages(t testing.TB, dir string, run func(args ...string) string) {
	t.Helper()
	Need(t, "runc", "busybox")
	tools := FindTools(t)
	runc, err := exec.LookPath("runc")
	if err != nil {
		t.Fatal("lab: ", err)
	}
	plain := imageTar(t, dir, "plain")
	run("import", "--change", "ENV PATH=/usr/bin:/bin", "--change", `CMD ["sleep","100000"]`, plain, PlainImage)
	bk := imageTar(t, dir, "buildkit", tools.BuildKitd, tools.BuildCtl, runc)
	run("import", "--change", "ENV PATH=/usr/bin:/bin", "--change", `ENTRYPOINT ["/usr/bin/buildkitd"]`, bk, BuildKitImage)
}

// Images makes the images in the engine.
func (e *Dockerd) Images(t testing.TB) {
	t.Helper()
	importImages(t, e.d.dir, func(args ...string) string { return e.CLI(t, args...) })
}

// BuildKit runs a container with a BuildKit daemon, and waits until it answers.
// The engine needs its Images.
func (e *Dockerd) BuildKit(t testing.TB, name string) {
	t.Helper()
	flags := BuildKitFlags()
	if i := slices.Index(flags, "--cap-drop"); e.modern { // it adds what there is, and drops nothing else
		flags = slices.Delete(flags, i, i+2)
	}
	args := append([]string{"run", "-d", "--name", name, "--security-opt", "systempaths=unconfined"}, flags...)
	e.CLI(t, append(args, BuildKitImage, "--oci-worker-net=host")...)
	e.WaitBuildKit(t, name)
}

// WaitBuildKit waits until the daemon in a container answers.
func (e *Dockerd) WaitBuildKit(t testing.TB, name string) {
	t.Helper()
	waitBuildKit(t, name, func(ctx context.Context, args ...string) *exec.Cmd {
		cmd := exec.CommandContext(ctx, "docker", args...)
		cmd.Env = append(baseEnv(e.d.dir), "DOCKER_HOST="+e.Host())
		return cmd
	})
}

func waitBuildKit(t testing.TB, name string, command func(context.Context, ...string) *exec.Cmd) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), readyLimit)
	defer cancel()
	for {
		out, err := command(ctx, "exec", name, "buildctl", "debug", "workers").CombinedOutput()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("lab: the BuildKit in container %s was not ready after %v: %s", name, readyLimit, out)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Podman is podman with a storage of the lab's own.
type Podman struct{ dir string }

// NewPodman prepares it, and ends its containers with the test.
func NewPodman(t testing.TB) *Podman {
	t.Helper()
	Need(t, "root", "podman", "runc")
	p := &Podman{dir: newDir(t)}
	t.Cleanup(func() { removeDir(t, p.dir) })
	driver := "vfs"
	if theRun.overlay() {
		driver = "overlay"
	}
	at := func(name string) string { return filepath.Join(p.dir, name) }
	for name, text := range map[string]string{
		"storage.conf": fmt.Sprintf("[storage]\ndriver = %q\ngraphroot = %q\nrunroot = %q\n", driver, at("root"), at("run")),
		"containers.conf": fmt.Sprintf("[engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"none\"\ntmp_dir = %q\nstatic_dir = %q\nvolume_path = %q\n",
			at("tmp"), at("static"), at("volumes")),
	} {
		if err := os.WriteFile(at(name), []byte(text), 0o644); err != nil {
			t.Fatal("lab: ", err)
		}
	}
	t.Cleanup(func() { // before the folder is removed
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if out, err := p.command(ctx, "rm", "--all", "--force", "--time", "0").CombinedOutput(); err != nil {
			t.Errorf("lab: podman rm: %v\n%s", err, out)
		}
	})
	return p
}

// Env is the environment by which podman finds its storage.
func (p *Podman) Env() []string {
	return []string{"CONTAINERS_STORAGE_CONF=" + filepath.Join(p.dir, "storage.conf"), "CONTAINERS_CONF=" + filepath.Join(p.dir, "containers.conf")}
}

func (p *Podman) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "podman", args...)
	cmd.Env = append(baseEnv(p.dir), p.Env()...)
	return cmd
}

// CLI runs podman and gives its output; it fails the test when that fails.
func (p *Podman) CLI(t testing.TB, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := p.command(ctx, args...)
	cmd.WaitDelay = time.Second // a container's monitor keeps the output open
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil && cmd.ProcessState.ExitCode() != 0 {
		t.Fatalf("podman %v: %v\n%s", args, err, &out)
	}
	return out.String()
}

// Images makes the images.
func (p *Podman) Images(t testing.TB) {
	t.Helper()
	importImages(t, p.dir, func(args ...string) string { return p.CLI(t, args...) })
}

// Run runs a container in the background with the limits that this machine's
// root may set.
func (p *Podman) Run(t testing.TB, name string, args ...string) {
	t.Helper()
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		t.Fatal("lab: ", err)
	}
	most := strconv.FormatUint(files.Max, 10)
	limits := []string{"run", "-d", "--name", name, "--ulimit", "nofile=" + most + ":" + most, "--ulimit", "nproc=1000:1000"}
	p.CLI(t, append(limits, args...)...)
}

// BuildKit runs a container with a BuildKit daemon, and waits until it answers.
func (p *Podman) BuildKit(t testing.TB, name string) {
	t.Helper()
	args := append(BuildKitFlags(), "--security-opt", "unmask=ALL", BuildKitImage, "--oci-worker-net=host")
	p.Run(t, name, args...)
	waitBuildKit(t, name, p.command)
}

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// imagePlatforms are those of the image that is looked at.
const imagePlatforms = "linux/amd64,linux/arm64,linux/arm/v7,linux/s390x"

// imageScenarios look at an image of four platforms with attestations, in a registry on
// this machine. Where there is no registry program there are none.
func (b *bench) imageScenarios(ctx context.Context) (list []scenario, stop func(), err error) {
	nothing := func() {}
	if _, err := exec.LookPath("docker-registry"); errors.Is(err, exec.ErrNotFound) {
		return nil, nothing, nil
	}
	addr, stop, err := b.startRegistry(ctx)
	if err != nil {
		return nil, nothing, err
	}
	ref := addr + "/app:1"
	if err := b.pushImage(ctx, ref); err != nil {
		stop()
		return nil, nothing, err
	}
	inspect := func(title, says string, args ...string) scenario {
		args = append([]string{"imagetools", "inspect"}, append(args, ref)...)
		return scenario{title: title, state: "one", says: says, args: map[string][]string{"berth": args, "buildx": args}}
	}
	return []scenario{
		inspect("`imagetools inspect` of an index of 4 platforms with attestations", "Platform:    unknown/unknown"),
		inspect("`imagetools inspect --format '{{json .Provenance}}'` of the same", "buildDefinition", "--format", "{{json .Provenance}}"),
		inspect("`imagetools inspect --format '{{json .Image}}'` of the same", "rootfs", "--format", "{{json .Image}}"),
	}, stop, nil
}

// startRegistry starts Debian's registry, and gives its address.
func (b *bench) startRegistry(ctx context.Context) (addr string, stop func(), err error) {
	if addr, err = freeAddr(); err != nil {
		return "", nil, err
	}
	config := filepath.Join(b.dir, "registry.yml")
	text := fmt.Sprintf("version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: %q}}\nhttp: {addr: %s}\n", filepath.Join(b.dir, "registry"), addr)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return "", nil, err
	}
	cmd := exec.Command("docker-registry", "serve", config)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	stop = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			return addr, stop, conn.Close()
		}
		if time.Now().After(end) || ctx.Err() != nil {
			stop()
			return "", nil, fmt.Errorf("docker-registry does not listen: %w", err)
		}
	}
}

// pushImage builds the image, which needs nothing of other platforms, and pushes it.
func (b *bench) pushImage(ctx context.Context, ref string) error {
	dir, err := b.contextOf("image", "FROM scratch\nCOPY hello /hello\n")
	if err != nil {
		return err
	}
	args := append(b.buildctl(dir), "--opt", "platform="+imagePlatforms, "--opt", "attest:provenance=mode=max",
		"--output", "type=image,oci-mediatypes=true,push=true,name="+ref)
	cmd := exec.CommandContext(ctx, filepath.Join(b.options.tools, "buildctl"), args...)
	cmd.Env = b.env("buildctl", "one")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("pushing the image to look at: %w\n%s", err, out)
	}
	return nil
}

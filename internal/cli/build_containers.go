package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/berthbuild/berth/internal/buildflag"
	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/request"
)

// setContainers reads what the build's containers get: hosts, network, limits.
func (a *app) setContainers(r *request.Request, o buildOptions) (err error) {
	if r.Hosts, err = buildflag.ParseHosts(o.addHosts); err != nil {
		return err
	}
	if r.Network, err = buildflag.ParseNetwork(o.network); err != nil {
		return err
	}
	if r.Ulimits, err = buildflag.ParseUlimits(o.ulimits); err != nil {
		return err
	}
	if r.Resources, err = buildflag.ParseResources(o.resources); err != nil {
		return err
	}
	if o.given["shm-size"] {
		if r.ShmSize, err = buildflag.ParseShmSize(o.shmSize); err != nil {
			return err
		}
	}
	if o.given["cgroup-parent"] {
		r.CgroupParent, err = buildflag.ParseCgroupParent(o.cgroupParent)
	}
	return err
}

// setAnnotations reads --annotation.
func (a *app) setAnnotations(r *request.Request, o buildOptions) (err error) {
	if r.Annotations, err = buildflag.ParseAnnotations(o.annotations); err != nil {
		return err
	}
	if len(r.Annotations) > 0 && len(r.Outputs) > 0 && !slices.ContainsFunc(r.Outputs, request.Annotatable) {
		a.warn("--annotation has no effect: no output of this build is an image")
	}
	return nil
}

// setEntitlements reads --allow.
func (a *app) setEntitlements(r *request.Request, o buildOptions) error {
	allowed, err := buildflag.ParseAllow(o.allow)
	if err != nil {
		return err
	}
	r.Entitlements = allowed.Daemon
	if allowed.LocalDelete {
		return nil
	}
	for _, out := range r.Outputs {
		if out.Type == buildflag.OutputLocal && out.Attrs["mode"] == "delete" && !a.below(out.Dest) {
			return hint.New(fmt.Sprintf("--output type=local,dest=%s,mode=delete: mode=delete local exports outside the working directory need --allow=buildx.local.delete, and so does the working directory itself", out.Dest),
				"files there that are not of the build would be removed; if that is meant: --allow=buildx.local.delete")
		}
	}
	return nil
}

// below tells whether path is really below the working directory, whatever
// links are on the way to it. It need not exist.
func (a *app) below(path string) bool {
	rel, err := filepath.Rel(realPath(a.dir), realPath(path))
	return err == nil && rel != "." && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator))
}

// realPath resolves the links in the part of a path that exists. A link that
// leads nowhere is not what the path is about, so that it counts as outside.
func realPath(path string) string {
	for dir, rest := path, ""; ; dir, rest = filepath.Dir(dir), filepath.Join(filepath.Base(dir), rest) {
		if led, err := filepath.EvalSymlinks(dir); err == nil {
			return filepath.Join(led, rest)
		}
		if _, err := os.Lstat(dir); err == nil || dir == filepath.Dir(dir) {
			return string(filepath.Separator)
		}
	}
}

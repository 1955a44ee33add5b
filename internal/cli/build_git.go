package cli

import (
	"context"
	"fmt"
	"path"
	"strconv"
	"sync"

	"github.com/berthbuild/berth/internal/buildflag"
	"github.com/berthbuild/berth/internal/gitinfo"
	"github.com/berthbuild/berth/internal/request"
)

// The variables that say what is asked of Git about a local context. As in
// buildx, a value that is not known counts as one that is not given.
const (
	envGitInfo   = "BUILDX_GIT_INFO"        // false: nothing for the provenance
	envGitLabels = "BUILDX_GIT_LABELS"      // true or full: labels for the image
	envGitDirty  = "BUILDX_GIT_CHECK_DIRTY" // true: look for what is not committed
)

// The labels, of which the last is docker's own.
const (
	labelRevision   = "org.opencontainers.image.revision"
	labelSource     = "org.opencontainers.image.source"
	labelEntrypoint = "com.docker.image.source.entrypoint"
)

// gitReader is gitinfo.Read, or something in its place.
type gitReader func(ctx context.Context, dir string, dirty bool) (gitinfo.Info, error)

// readOnce is a gitReader for several builds of the same folders.
func readOnce() gitReader {
	type answer struct {
		once sync.Once
		info gitinfo.Info
		err  error
	}
	var mu sync.Mutex
	known := map[string]*answer{}
	return func(ctx context.Context, dir string, dirty bool) (gitinfo.Info, error) {
		mu.Lock()
		a := known[dir]
		if a == nil {
			a = &answer{}
			known[dir] = a
		}
		mu.Unlock()
		a.once.Do(func() { a.info, a.err = gitinfo.Read(ctx, dir, dirty) })
		return a.info, a.err
	}
}

// origin asks Git where the build's context comes from, which the build does
// while it connects. It is nil when nothing is to be asked.
func (a *app) origin(r request.Request, read gitReader) func(context.Context) (request.VCS, error) {
	if r.Context.Dir == "" || !r.Call.IsBuild() {
		return nil
	}
	provenance := true
	if on, err := strconv.ParseBool(a.env(envGitInfo)); err == nil {
		provenance = on
	}
	labels, err := strconv.ParseBool(a.env(envGitLabels))
	labels = err == nil && labels || a.env(envGitLabels) == "full"
	if !provenance && !labels {
		return nil
	}
	dirty, err := strconv.ParseBool(a.env(envGitDirty))
	dirty = err == nil && dirty
	return func(ctx context.Context) (request.VCS, error) {
		info, err := read(ctx, r.Context.Dir, dirty)
		if err != nil {
			return request.VCS{}, fmt.Errorf("current commit information was not captured by the build: %w", err)
		}
		return describe(r, info, provenance, labels), nil
	}
}

// describe says what Git knows as the frontend takes it.
func describe(r request.Request, info gitinfo.Info, provenance, labels bool) request.VCS {
	dockerfile := ""
	if r.Dockerfile.Dir != "" {
		dockerfile = info.Rel(r.Dockerfile.Dir)
	}
	var v request.VCS
	if provenance {
		v = request.VCS{Source: info.Source, Revision: info.Revision, Context: info.Rel(r.Context.Dir), Dockerfile: dockerfile}
	}
	if !labels {
		return v
	}
	entrypoint := ""
	if dockerfile != "" {
		entrypoint = path.Join(dockerfile, r.DockerfileName())
	}
	for _, l := range []buildflag.KV{
		{Key: labelEntrypoint, Value: entrypoint}, {Key: labelRevision, Value: info.Revision}, {Key: labelSource, Value: info.Source},
	} {
		if l.Value != "" {
			l.HasValue = true
			v.Labels = append(v.Labels, l)
		}
	}
	return v
}

package cli

import (
	"context"
	"strings"

	"github.com/berthbuild/berth/internal/builder"
	"github.com/berthbuild/berth/internal/buildflag"
	"github.com/berthbuild/berth/internal/gitinfo"
	"github.com/berthbuild/berth/internal/request"
	"github.com/berthbuild/berth/internal/state"
)

// saveRef keeps what a build that starts is made of, so that history can show
// it, and find the folder again. A question (--call) makes no build.
func (a *app) saveRef(ctx context.Context, s *builder.Service, b *builder.Builder, r request.Request, o buildOptions) func(node, ref string) {
	return a.saveReference(ctx, s, b, r, a.reference(r, o))
}

func (a *app) saveReference(ctx context.Context, s *builder.Service, b *builder.Builder, r request.Request, kept state.Ref) func(node, ref string) {
	if !b.KeepsRecords() || !r.Call.IsBuild() {
		return nil
	}
	return func(node, ref string) {
		// A record that cannot be written must not stop a build that can.
		if err := s.Store.SaveRef(ctx, b.Name, node, ref, kept); err != nil && a.debug {
			a.warn("the build's reference was not kept: %v", err)
		}
	}
}

// reference names the sources as the user did, in the form that buildx writes:
// folders and files absolute, and what a daemon fetches, or standard input, as
// typed. Others may read it, so it has no credentials.
func (a *app) reference(r request.Request, o buildOptions) state.Ref {
	ref := state.Ref{Target: "default", LocalPath: gitinfo.WithoutCredentials(o.context), DockerfilePath: o.file}
	if r.Context.Dir != "" {
		ref.LocalPath = a.abs(o.context)
	}
	switch {
	case o.file == "", o.file == buildflag.Stdout:
	case strings.Contains(o.file, "://"):
		ref.DockerfilePath = gitinfo.WithoutCredentials(o.file)
	case r.Context.Dir != "":
		ref.DockerfilePath = a.abs(o.file)
	}
	return ref
}

package builder

import (
	"context"
	"fmt"
	"slices"

	"github.com/berthbuild/berth/internal/hint"
	"github.com/containerd/platforms"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// NodeFor is the node of b that builds for the platform: one whose owner fixed
// it, else the first that says so itself. Without a platform it is the first
// node, and none is asked.
func (s *Service) NodeFor(ctx context.Context, b *Builder, want *ocispecs.Platform, o ProbeOptions) (Node, error) {
	if err := b.Usable(); err != nil {
		return Node{}, err
	}
	if want == nil {
		return b.Nodes[0], nil
	}
	for _, n := range b.Nodes {
		if builds(n.Platforms, *want) {
			return n, nil
		}
	}
	all := make([]Status, len(b.Nodes))
	s.ProbeAll(ctx, []*Builder{b}, o, func(_, n int, st Status) { all[n] = st })
	if ctx.Err() != nil {
		return Node{}, context.Cause(ctx)
	}
	for i, n := range b.Nodes {
		if builds(Offered(n, all[i]), *want) {
			return n, nil
		}
	}
	for _, st := range all {
		if st.Err != nil { // this may be the one
			return Node{}, st.Err
		}
	}
	return Node{}, hint.New(fmt.Sprintf("no node of builder %s builds for %s", b.Name, platforms.FormatAll(*want)), "see what they build for: berth inspect "+b.Name)
}

func builds(list []ocispecs.Platform, want ocispecs.Platform) bool {
	m := platforms.OnlyStrict(want)
	return slices.ContainsFunc(list, func(p ocispecs.Platform) bool { return m.Match(platforms.Normalize(p)) })
}

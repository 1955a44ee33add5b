package request

import (
	"fmt"
	"slices"
	"strings"

	"github.com/distribution/reference"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthbuild/berth/internal/buildflag"
	"github.com/berthbuild/berth/internal/hint"
)

// ForNode is one node's part of the build. With split, other nodes build the
// other platforms: images are pushed by digest, for an index that names them
// all (see PushTags), and what each node exports has a folder, or an index, for its
// platforms, so that all can be put together.
func (r Request) ForNode(platforms []ocispecs.Platform, split bool) (Request, error) {
	out := r.WithPlatforms(platforms)
	if !split {
		return out, nil
	}
	out.split = true
	out.Annotations = annotationsFor(out.Annotations, platforms)
	for i, o := range out.Outputs { // out's own copy
		if _, told := o.Attrs["platform-split"]; o.Type == buildflag.OutputLocal && !told {
			o.Attrs["platform-split"] = "true" // out's own
		}
		if !pushes(o) {
			continue
		}
		next, err := r.splitPush(o)
		if err != nil {
			return Request{}, err
		}
		out.Outputs[i] = next
	}
	return out, nil
}

func (r Request) splitPush(o buildflag.Output) (buildflag.Output, error) {
	repos, err := repositories(r.names(o))
	if err != nil {
		return o, err
	}
	if len(repos) == 0 {
		return o, r.checkPush()
	}
	if o.Type == buildflag.OutputRegistry {
		asRegistry(o)
	}
	o.Type = buildflag.OutputImage
	o.Attrs["push"] = "true"
	o.Attrs["push-by-digest"] = "true"
	o.Attrs["name"] = strings.Join(repos, ",")
	return o, nil
}

// PushTags are the references under which a split build's index is pushed, in
// order, each once. None when nothing is pushed, or only by digest.
func (r Request) PushTags() []string {
	var out []string
	for _, o := range r.Outputs {
		if !pushes(o) || o.Bool("push-by-digest", false) {
			continue
		}
		for _, name := range r.names(o) {
			if !slices.Contains(out, name) {
				out = append(out, name)
			}
		}
	}
	return out
}

// PushInsecure tells whether the outputs that are pushed allow a registry
// without a trusted certificate, or without TLS (registry.insecure=true).
func (r Request) PushInsecure() bool {
	return slices.ContainsFunc(r.Outputs, func(o buildflag.Output) bool {
		return pushes(o) && o.Bool("registry.insecure", false)
	})
}

// repositories are the names without tags, each once.
func repositories(names []string) ([]string, error) {
	var out []string
	for _, name := range names {
		named, err := reference.ParseNormalizedNamed(name)
		if err != nil {
			return nil, hint.Wrap(err, fmt.Sprintf("image name %q", name))
		}
		if repo := named.Name(); !slices.Contains(out, repo) {
			out = append(out, repo)
		}
	}
	return out, nil
}

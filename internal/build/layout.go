package build

import (
	"fmt"

	"github.com/berthbuild/berth/internal/buildflag"
	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/ocilayout"
	"github.com/berthbuild/berth/internal/request"
	digest "github.com/opencontainers/go-digest"
)

// findLayouts looks up the tags of the layouts among a build's contexts.
func findLayouts(r request.Request) (request.Request, error) {
	digests := map[string]string{}
	for _, c := range r.Contexts {
		if c.Kind != buildflag.ContextLayout || c.Digest != "" {
			continue
		}
		d, err := findInLayout(c)
		if err != nil {
			return r, hint.Wrap(err, fmt.Sprintf("build context %q", c.Name))
		}
		digests[c.Name] = d.String()
	}
	return r.WithDigests(digests), nil
}

// findInLayout looks a tag up in the layout's index.
func findInLayout(c buildflag.NamedContext) (digest.Digest, error) {
	d, err := ocilayout.At(c.Value).Find(c.Tag)
	return d.Digest, err
}

package buildflag

import (
	"fmt"
	"slices"

	"github.com/distribution/reference"

	"github.com/berthbuild/berth/internal/hint"
)

// ParseTags reads the values of --tag into full references: "test" becomes
// docker.io/library/test:latest. Each comes once, in the order given.
func ParseTags(vals []string) ([]string, error) {
	var out []string
	for _, v := range vals {
		named, err := reference.ParseNormalizedNamed(v)
		if err != nil {
			return nil, hint.Wrap(err, fmt.Sprintf("invalid tag %q", v), "a tag is [HOST[:PORT]/]NAME[:TAG], the name in lower case")
		}
		if _, ok := named.(reference.Digested); ok {
			return nil, hint.New(fmt.Sprintf("invalid tag %q: a digest cannot be chosen, it comes out of the build", v), "leave out @sha256:…")
		}
		if full := reference.TagNameOnly(named).String(); !slices.Contains(out, full) {
			out = append(out, full)
		}
	}
	return out, nil
}

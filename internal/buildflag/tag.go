package buildflag

import (
	"fmt"
	"slices"

	"github.com/distribution/reference"

	"github.com/berthbuild/berth/internal/hint"
)

// ParseTags reads the values of --tag. They are kept as they were typed, for
// that is what buildx sends and what image.name of the metadata then says. Each
// image comes once, in the order given, however it is written.
func ParseTags(vals []string) ([]string, error) {
	var out, full []string
	for _, v := range vals {
		named, err := reference.ParseNormalizedNamed(v)
		if err != nil {
			return nil, hint.Wrap(err, fmt.Sprintf("invalid tag %q", v), "a tag is [HOST[:PORT]/]NAME[:TAG], the name in lower case")
		}
		if _, ok := named.(reference.Digested); ok {
			return nil, hint.New(fmt.Sprintf("invalid tag %q: a digest cannot be chosen, it comes out of the build", v), "leave out @sha256:…")
		}
		if name := reference.TagNameOnly(named).String(); !slices.Contains(full, name) {
			full, out = append(full, name), append(out, v)
		}
	}
	return out, nil
}

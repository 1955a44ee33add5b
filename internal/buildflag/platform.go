package buildflag

import (
	"fmt"
	"strings"

	"github.com/containerd/platforms"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthbuild/berth/internal/hint"
)

// ParsePlatforms reads the values of --platform, each a platform or several
// with commas between them. "local" is the platform of this program. The
// result is normalised (linux/arm64/v8 is linux/arm64), each platform once, in
// the order of their first mention.
func ParsePlatforms(vals []string) ([]ocispecs.Platform, error) {
	var out []ocispecs.Platform
	seen := map[string]bool{}
	for _, v := range vals {
		for one := range strings.SplitSeq(v, ",") {
			p, err := parsePlatform(strings.TrimSpace(one))
			if err != nil {
				return nil, hint.Wrap(err, fmt.Sprintf("--platform %q", v), "a platform is OS/ARCH[/VARIANT], such as linux/amd64 or linux/arm/v7")
			}
			if key := platforms.FormatAll(p); !seen[key] {
				seen[key] = true
				out = append(out, p)
			}
		}
	}
	return out, nil
}

func parsePlatform(s string) (ocispecs.Platform, error) {
	if s == "" {
		return ocispecs.Platform{}, hint.New("a platform is empty")
	}
	if strings.EqualFold(s, "local") {
		return imagePlatform(platforms.DefaultSpec()), nil
	}
	p, err := platforms.Parse(s)
	if err != nil {
		return ocispecs.Platform{}, err
	}
	// A bare architecture was completed with this program's OS.
	if !strings.Contains(s, "/") && !strings.HasPrefix(strings.ToLower(s), p.OS) {
		p = imagePlatform(p)
	}
	return platforms.Normalize(p), nil
}

// imagePlatform turns the platform of a desktop into the one that its images
// are for: there are no images for macOS, its users run Linux ones.
func imagePlatform(p ocispecs.Platform) ocispecs.Platform {
	p = platforms.Normalize(p)
	if p.OS != "windows" && p.OS != "freebsd" {
		p.OS = "linux"
		p.OSVersion = ""
	}
	return p
}

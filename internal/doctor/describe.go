package doctor

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/berthbuild/berth/internal/endpoint"
	"github.com/berthbuild/berth/internal/remote"
)

// describeTarget is the endpoint and the names of the options, and of the
// values those that are no paths and no secrets.
func describeTarget(t remote.Target, shown string) string {
	if t.Endpoint.Scheme == endpoint.SchemeDockerEngine {
		return "the BuildKit of the engine of docker context " + t.Endpoint.Host
	}
	options := t.Options.Map()
	names := slices.Sorted(maps.Keys(options))
	for i, n := range names {
		if n == endpoint.OptServerName || n == endpoint.OptConnectTimeout || n == endpoint.OptDefaultLoad {
			names[i] = n + "=" + options[n]
		}
	}
	if t.Options.FromEnv {
		names = append(names, "certificates from BERTH_TLS_*")
	}
	if len(names) == 0 {
		return shown
	}
	return fmt.Sprintf("%s with %s", shown, strings.Join(names, ", "))
}

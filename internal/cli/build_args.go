package cli

import (
	"maps"
	"slices"
	"strings"

	"github.com/berthbuild/berth/internal/buildflag"
)

// resolveArgs takes the value of a bare name from the environment, and drops
// the argument where it has none, as docker does. SOURCE_DATE_EPOCH is passed
// on by itself, for reproducible builds, and so are the proxies of docker's
// configuration: where the user named one, in whatever case, that one counts.
func (a *app) resolveArgs(args []buildflag.KV) ([]buildflag.KV, error) {
	var all []buildflag.KV
	for _, kv := range args {
		if !kv.HasValue {
			if kv.Value, kv.HasValue = a.lookupEnv(kv.Key); !kv.HasValue {
				continue
			}
		}
		all = append(all, kv)
	}
	if v := a.env("SOURCE_DATE_EPOCH"); v != "" && !slices.ContainsFunc(all, isEpoch) {
		all = append(all, buildflag.KV{Key: "SOURCE_DATE_EPOCH", Value: v, HasValue: true})
	}
	config, err := a.dockerConfig()
	if err != nil {
		return nil, err
	}
	proxies := config.BuildProxies()
	for _, name := range slices.Sorted(maps.Keys(proxies)) {
		if !hasArg(all, name) {
			all = append(all, buildflag.KV{Key: name, Value: proxies[name], HasValue: true})
		}
	}
	return all, nil
}

func isEpoch(kv buildflag.KV) bool { return kv.Key == "SOURCE_DATE_EPOCH" }

// hasArg looks for a name in whatever case.
func hasArg(all []buildflag.KV, name string) bool {
	return slices.ContainsFunc(all, func(kv buildflag.KV) bool { return strings.EqualFold(kv.Key, name) })
}

package cli

import (
	"strconv"

	"github.com/berthbuild/berth/internal/buildflag"
	"github.com/berthbuild/berth/internal/request"
)

// envGHAToken is the token of a GitHub runner's cache.
const envGHAToken = "ACTIONS_RUNTIME_TOKEN"

// setCaches reads --cache-from, --cache-to and --no-cache-filter.
func (a *app) setCaches(r *request.Request, o buildOptions) (err error) {
	if r.CacheFrom, err = a.caches(buildflag.FlagCacheFrom, o.cacheFrom, o.foreign); err != nil {
		return err
	}
	if r.CacheTo, err = a.caches(buildflag.FlagCacheTo, o.cacheTo, o.foreign); err != nil {
		return err
	}
	r.NoCacheFilter, err = buildflag.ParseNoCacheFilter(o.noCacheFilter)
	return err
}

// caches completes what was given with what the environment knows. That of a
// foreign definition is told apart by grant, and gets no token for an address of
// its own.
func (a *app) caches(flag string, vals []string, foreign bool) ([]buildflag.Cache, error) {
	all, err := buildflag.ParseCaches(flag, vals)
	if err != nil {
		return nil, err
	}
	var out []buildflag.Cache
	for _, c := range all {
		if !c.KnownType() {
			a.warn("%s type=%s is not known to berth; it is left to the daemon", flag, c.Type)
		}
		if dir := c.Dir(flag); dir != "" {
			c = c.WithDir(flag, a.abs(dir))
		}
		switch c.Type {
		case buildflag.CacheGHA:
			if !a.fillGHA(c.Attrs, foreign) {
				continue // outside of GitHub's runners there is no such cache
			}
		case buildflag.CacheS3:
			a.fillS3(c.Attrs)
		}
		out = append(out, c)
	}
	return out, nil
}

// fillGHA adds the address and the token of the cache service of a GitHub
// runner, and tells whether there is one.
func (a *app) fillGHA(attrs map[string]string, foreign bool) bool {
	fill := func(key string, vars ...string) {
		if _, own := attrs[key]; own {
			return
		}
		for _, name := range vars {
			if v := a.env(name); v != "" {
				attrs[key] = v
				return
			}
		}
	}
	own := attrs["url"] != "" || attrs["url_v2"] != ""
	if on, _ := strconv.ParseBool(a.env("ACTIONS_CACHE_SERVICE_V2")); on {
		fill("url_v2", "ACTIONS_RESULTS_URL")
	}
	fill("url", "ACTIONS_CACHE_URL", "ACTIONS_RESULTS_URL")
	if !foreign || !own {
		fill("token", envGHAToken)
	}
	return attrs["token"] != "" && (attrs["url"] != "" || attrs["url_v2"] != "")
}

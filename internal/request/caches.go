package request

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/buildkit/client"

	"github.com/berthbuild/berth/internal/buildflag"
	"github.com/berthbuild/berth/internal/hint"
)

// argInlineCache is the build argument that asks for the inline cache, from
// before there was --cache-to.
const argInlineCache = "BUILDKIT_INLINE_CACHE"

// checkCaches refuses what contradicts itself.
func (r Request) checkCaches() error {
	if r.NoCache && len(r.NoCacheFilter) > 0 {
		return hint.New("--no-cache and --no-cache-filter cannot currently be used together",
			"--no-cache is for all stages, --no-cache-filter for those that it names")
	}
	seen := map[string]bool{}
	for _, c := range r.CacheTo {
		dir := c.Dir(buildflag.FlagCacheTo)
		if dir == "" {
			continue
		}
		if dir = filepath.Clean(dir); seen[dir] {
			return hint.New(fmt.Sprintf("--cache-to: two caches go to %s", dir), "give each a folder of its own: dest=FOLDER")
		}
		seen[dir] = true
	}
	return nil
}

// noCacheAttr is what the frontend is told of stages without cache.
func (r Request) noCacheAttr() (value string, set bool) {
	return strings.Join(r.NoCacheFilter, ","), r.NoCache || len(r.NoCacheFilter) > 0
}

// addCaches adds where earlier work is found, and where it is kept.
func (r Request) addCaches(opt *client.SolveOpt, c Capabilities) error {
	exports := r.cacheExports()
	if err := checkCacheExports(exports, c); err != nil {
		return err
	}
	for _, from := range r.CacheFrom {
		if err := checkCacheType(buildflag.FlagCacheFrom, from, c); err != nil {
			return err
		}
	}
	opt.CacheImports = cacheEntries(r.CacheFrom)
	opt.CacheExports = cacheEntries(exports)
	return nil
}

// ExportsCache tells whether the build is to leave a cache somewhere, or in its image.
func (r Request) ExportsCache() bool { return len(r.cacheExports()) > 0 }

// cacheExports adds the inline cache that a build argument asks for.
func (r Request) cacheExports() []buildflag.Cache {
	all := slices.Clone(r.CacheTo)
	inline := func(c buildflag.Cache) bool { return c.Type == buildflag.CacheInline }
	if r.boolArg(argInlineCache) && !slices.ContainsFunc(all, inline) {
		all = append(all, buildflag.Cache{Type: buildflag.CacheInline})
	}
	return all
}

// boolArg tells whether a build argument has a value that means yes.
func (r Request) boolArg(name string) bool {
	on := false
	for _, kv := range r.BuildArgs {
		if kv.Key == name && kv.HasValue {
			on, _ = strconv.ParseBool(kv.Value) // what is neither is a no, to buildx too
		}
	}
	return on
}

func checkCacheExports(exports []buildflag.Cache, c Capabilities) error {
	for _, to := range exports {
		if err := checkCacheType(buildflag.FlagCacheTo, to, c); err != nil {
			return err
		}
		if c.Engine != "" && !c.ContainerdStore && to.Type != buildflag.CacheInline {
			return needsStore(c, fmt.Sprintf("--cache-to type=%s: Cache export is not supported for the docker driver: it", to.Type),
				"put the cache into the image: --cache-to type=inline")
		}
	}
	if len(exports) > 1 && !c.since(0, 11) {
		return hint.New(fmt.Sprintf("more than one --cache-to needs BuildKit v0.11 or newer, and the daemon is %s", c.name()),
			"give one of them")
	}
	return nil
}

// checkCacheType refuses the kinds that came later than the daemon did.
func checkCacheType(flag string, cache buildflag.Cache, c Capabilities) error {
	if (cache.Type == buildflag.CacheS3 || cache.Type == buildflag.CacheAzblob) && !c.since(0, 11) {
		return hint.New(fmt.Sprintf("%s type=%s needs BuildKit v0.11 or newer, and the daemon is %s", flag, cache.Type, c.name()),
			"keep the cache in a registry: "+flag+" type=registry,ref=REGISTRY/NAME:TAG")
	}
	return nil
}

// cacheEntries are copies: BuildKit's client writes into the attributes.
func cacheEntries(caches []buildflag.Cache) []client.CacheOptionsEntry {
	var out []client.CacheOptionsEntry
	for _, c := range caches {
		attrs := maps.Clone(c.Attrs)
		if attrs == nil {
			attrs = map[string]string{}
		}
		out = append(out, client.CacheOptionsEntry{Type: c.Type, Attrs: attrs})
	}
	return out
}

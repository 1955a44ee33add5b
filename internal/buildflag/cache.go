package buildflag

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/distribution/reference"

	"github.com/berthbuild/berth/internal/hint"
)

// The kinds of cache that berth knows something about. A daemon may know more.
const (
	CacheRegistry = "registry"
	CacheLocal    = "local"
	CacheInline   = "inline" // in the image itself
	CacheGHA      = "gha"    // of GitHub's actions
	CacheS3       = "s3"
	CacheAzblob   = "azblob"
)

// The two flags that ParseCaches reads.
const (
	FlagCacheFrom = "--cache-from"
	FlagCacheTo   = "--cache-to"
)

// cacheTypes are the known ones.
func cacheTypes() []string {
	return []string{CacheRegistry, CacheLocal, CacheInline, CacheGHA, CacheS3, CacheAzblob}
}

// KnownType tells whether berth knows the kind of cache. Any other is left to
// the daemon, which may be newer.
func (c Cache) KnownType() bool { return slices.Contains(cacheTypes(), c.Type) }

// Dir is the folder of a local cache on this machine: its "src" to read from
// it, its "dest" to write to it; "" for any other cache.
func (c Cache) Dir(flag string) string {
	if c.Type != CacheLocal {
		return ""
	}
	return c.Attrs[dirKey(flag)]
}

// WithDir is the same cache in another folder.
func (c Cache) WithDir(flag, dir string) Cache {
	c.Attrs = maps.Clone(c.Attrs)
	c.Attrs[dirKey(flag)] = dir
	return c
}

func dirKey(flag string) string {
	if flag == FlagCacheTo {
		return "dest"
	}
	return "src"
}

// ParseCaches reads the values of --cache-from or --cache-to, in their order. A
// value without a "=" is the name of an image in a registry, or several with
// commas between them. What is named twice is read once, and not written twice.
//
// There may be keys and tokens in the values, so that errors repeat only the
// names of attributes and of images.
func ParseCaches(flag string, vals []string) ([]Cache, error) {
	var out []Cache
	for i, v := range vals {
		doing := flag
		if len(vals) > 1 {
			doing = fmt.Sprintf("%s (number %d)", flag, i+1)
		}
		some, err := parseCache(flag, v)
		if err != nil {
			return nil, hint.Wrap(err, doing, "write "+flag+" IMAGE, or "+flag+" type=TYPE,KEY=VALUE")
		}
		for _, c := range some {
			twice := slices.ContainsFunc(out, func(o Cache) bool { return o.Type == c.Type && maps.Equal(o.Attrs, c.Attrs) })
			switch {
			case !twice:
				out = append(out, c)
			case flag == FlagCacheTo && c.Type != CacheInline:
				return nil, hint.New(doing+": the same cache is given twice", "name each place once")
			}
		}
	}
	return out, nil
}

func parseCache(flag, value string) ([]Cache, error) {
	if strings.TrimSpace(value) == "" {
		return nil, hint.New("it is empty", "leave "+flag+" out")
	}
	parts, err := fields(value)
	if err != nil {
		return nil, err
	}
	if !strings.Contains(value, "=") {
		return cacheImages(parts)
	}
	c := Cache{Attrs: map[string]string{}}
	seen := map[string]bool{}
	for i, part := range parts {
		key, val, ok := splitPair(part)
		if !ok || key == "" {
			return nil, fmt.Errorf("part %d is not KEY=VALUE", i+1)
		}
		if seen[key] {
			return nil, fmt.Errorf("%s is given twice", shown(key))
		}
		seen[key] = true
		if key == "type" {
			c.Type = val
			continue
		}
		c.Attrs[key] = val
	}
	return []Cache{c}, c.check(flag)
}

// cacheImages is the short form.
func cacheImages(names []string) ([]Cache, error) {
	var out []Cache
	for _, name := range names {
		c := Cache{Type: CacheRegistry, Attrs: map[string]string{"ref": name}}
		if err := c.checkRef(); err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, nil
}

// check refuses what can be known to be wrong from the one value alone.
func (c Cache) check(flag string) error {
	switch {
	case c.Type == "":
		return hint.New(`"type" is missing`, "the types are "+strings.Join(cacheTypes(), ", "))
	case strings.ContainsFunc(c.Type, func(r rune) bool { return !isWord(r) }):
		return hint.New("the type is not one word", "the types are "+strings.Join(cacheTypes(), ", "))
	case c.Type == CacheRegistry:
		if err := c.checkRef(); err != nil {
			return err
		}
	case c.Type == CacheLocal && c.Dir(flag) == "":
		return hint.New(fmt.Sprintf("type=local needs %q", dirKey(flag)), fmt.Sprintf("write %s type=local,%s=FOLDER", flag, dirKey(flag)))
	}
	if c.KnownType() {
		return c.checkValues()
	}
	return nil
}

func (c Cache) checkRef() error {
	ref := c.Attrs["ref"]
	if ref == "" {
		return hint.New(`type=registry needs "ref"`, "write type=registry,ref=REGISTRY/NAME:TAG")
	}
	if _, err := reference.ParseNormalizedNamed(ref); err != nil {
		return hint.Wrap(printable(err), shown(ref)+" is not the name of an image", "such as registry.example.com/app:cache")
	}
	return nil
}

// checkValues refuses what a daemon would pass over in silence.
func (c Cache) checkValues() error {
	if mode, ok := c.Attrs["mode"]; ok && mode != "min" && mode != "max" {
		return hint.New(`"mode" must be min or max`, "min keeps the layers of the result, max those of all steps")
	}
	for _, key := range []string{"ignore-error", "image-manifest", "oci-mediatypes", "force-compression", "reset"} {
		v, ok := c.Attrs[key]
		if !ok {
			continue
		}
		if _, err := strconv.ParseBool(v); err != nil {
			return fmt.Errorf("%q must be true or false", key)
		}
	}
	return nil
}

// isWord are the characters of a type's name.
func isWord(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_.", r)
}

// printable takes out of an error that repeats what was typed what a terminal
// would act on, and what is longer than a line or two.
func printable(err error) error {
	if err == nil {
		return nil
	}
	return errors.New(strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, short(err.Error(), 240)))
}

// shown quotes what was typed for an error, and not more of it than fits.
func shown(s string) string { return strconv.Quote(short(s, 120)) }

func short(s string, most int) string {
	if r := []rune(s); len(r) > most {
		return string(r[:most]) + "…"
	}
	return s
}

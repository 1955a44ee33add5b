package build

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/berthbuild/berth/internal/atomicdir"
	"github.com/berthbuild/berth/internal/buildflag"
	"github.com/berthbuild/berth/internal/hint"
	"github.com/moby/buildkit/client"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// maxCacheIndex bounds the index.json of a local cache, in bytes.
const maxCacheIndex = 16 << 20

// openCaches looks at the folders of local caches. One that has nothing to read
// is left out with a word about it, as on the first run of every build; one that
// cannot be written is an error, while nothing has run.
func (outs *outputs) openCaches(opt *client.SolveOpt, o Options) error {
	var imports []client.CacheOptionsEntry
	for _, c := range opt.CacheImports {
		if c.Type == buildflag.CacheLocal {
			if err := findCache(c.Attrs); err != nil {
				step := o.Progress.Step("[internal] local cache import at " + c.Attrs["src"])
				step.Log("WARNING: skipped: " + err.Error())
				step.Done(nil)
				continue
			}
		}
		imports = append(imports, c)
	}
	opt.CacheImports = imports
	for _, c := range opt.CacheExports {
		if c.Type != buildflag.CacheLocal {
			continue
		}
		if err := outs.openCache(c.Attrs["dest"]); err != nil {
			return hint.Wrap(withoutPath(err), "--cache-to type=local,dest="+c.Attrs["dest"], "name a folder that can be written")
		}
	}
	return nil
}

// findCache sets the digest of the cache that attrs name by a tag, and sees that
// it is there. Nothing is made where there is no cache, which BuildKit's client
// would do.
func findCache(attrs map[string]string) error {
	want := digest.Digest(attrs["digest"])
	if want == "" {
		index, err := readCacheIndex(filepath.Join(attrs["src"], ocispecs.ImageIndexFile))
		if err != nil {
			return err
		}
		tag, given := attrs["tag"]
		if !given {
			tag = "latest"
		}
		if want = tagged(index, tag); want == "" {
			return fmt.Errorf("no cache has the tag %q", tag)
		}
	}
	if err := want.Validate(); err != nil {
		return err
	}
	blob := filepath.Join(attrs["src"], ocispecs.ImageBlobsDir, want.Algorithm().String(), want.Encoded())
	if _, err := os.Stat(blob); err != nil {
		return missing(err)
	}
	attrs["digest"] = want.String()
	return nil
}

// tagged finds a manifest by its full name, or else by its tag; "" for none.
func tagged(index ocispecs.Index, tag string) digest.Digest {
	for _, by := range []string{"io.containerd.image.name", ocispecs.AnnotationRefName} {
		for _, m := range index.Manifests {
			if text, ok := m.Annotations[by]; ok && text == tag {
				return m.Digest
			}
		}
	}
	return ""
}

func readCacheIndex(path string) (ocispecs.Index, error) {
	var index ocispecs.Index
	f, err := os.Open(path)
	if err != nil {
		return index, missing(err)
	}
	defer f.Close() //nolint:errcheck // it was only read
	data, err := io.ReadAll(io.LimitReader(f, maxCacheIndex))
	if err != nil {
		return index, err
	}
	if err := json.Unmarshal(data, &index); err != nil {
		return index, fmt.Errorf("its %s cannot be read: %w", ocispecs.ImageIndexFile, err)
	}
	return index, nil
}

// missing says it shortly where there is no cache at all.
func missing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return errors.New("there is no cache yet")
	}
	return err
}

// openCache makes the folder of a cache that is written. BuildKit's client
// writes whole blobs into it, and the index last of all, so that a build that
// fails leaves the cache that was there before; see cacheSink for the rest.
func (outs *outputs) openCache(dest string) error {
	if fi, err := os.Stat(dest); err == nil && !fi.IsDir() {
		return errors.New("it is a file")
	}
	if err := outs.makeFolder(dest); err != nil {
		return err
	}
	outs.mu.Lock()
	outs.sinks = append(outs.sinks, cacheSink(dest))
	outs.mu.Unlock()
	return atomicdir.Check(dest)
}

// cacheSink is the folder of a local cache.
type cacheSink string

// settle implements sink: BuildKit's client has written the index already.
func (cacheSink) settle([]Part) error { return nil }

// finish takes back the empty folders that a failed build has made. Blobs that
// nothing refers to yet stay: another build may be writing there, and the next
// one will want them.
func (s cacheSink) finish(failed error) error {
	if failed == nil {
		return nil
	}
	for _, name := range []string{"ingest", filepath.Join(ocispecs.ImageBlobsDir, "sha256"), ocispecs.ImageBlobsDir} {
		_ = os.Remove(filepath.Join(string(s), name)) // it says so when something is in it
	}
	return nil
}

package load

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	imageapi "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/client"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
)

// What an inventory may cost, whatever the engine holds. The daemon keeps the
// results of a build for us until it has been made, and can do so for few at a time.
const (
	atOnce     = 8       // questions that wait for an answer
	mostLooks  = 32      // images of other names that are looked at on a graph driver
	mostRoots  = 8       // images remembered that are looked for in containerd's store
	bigEnough  = 1 << 20 // bytes that are worth looking further
	wideBudget = 3 * time.Second
)

// known is what an engine has, in the terms of its store. The zero value is nothing.
type known struct {
	chains map[digest.Digest]bool // a graph driver's layers
	blobs  map[digest.Digest]bool // containerd's
}

func (k known) has(l layer) bool { return k.chains[l.chainID] || k.blobs[l.digest] }

func newKnown() known {
	return known{chains: map[digest.Digest]bool{}, blobs: map[digest.Digest]bool{}}
}

// kept is an image as the engine has it.
type kept struct {
	id        digest.Digest // "" for none
	diffIDs   []digest.Digest
	available map[digest.Digest]bool // by manifest; containerd's store only
}

// complete tells whether all of it is there.
func (k kept) complete() bool {
	for _, ok := range k.available {
		if !ok {
			return false
		}
	}
	return k.id != ""
}

// inventory finds out what an engine has of an image.
type inventory struct {
	engine Asker
	facts  Facts
	memory *Memory

	mu    sync.Mutex
	wide  bool  // looked further already
	extra known // what that has found
}

// get asks for one image, by name or ID. None is no error.
func (v *inventory) get(ctx context.Context, ref string) (kept, error) {
	var opts []client.ImageInspectOption
	if v.facts.Store == Containerd {
		opts = append(opts, client.ImageInspectWithManifests(true))
	}
	res, err := v.engine.ImageInspect(ctx, ref, opts...)
	if errdefs.IsNotFound(err) {
		return kept{}, nil
	}
	if err != nil {
		return kept{}, err
	}
	k := kept{id: fullID(res.ID)}
	for _, d := range res.RootFS.Layers {
		k.diffIDs = append(k.diffIDs, digest.Digest(d))
	}
	if v.facts.Store == Containerd {
		k.available = map[digest.Digest]bool{}
		for _, m := range res.Manifests {
			k.available[digest.Digest(m.ID)] = m.Available
		}
	}
	return k, nil
}

// fullID names the algorithm, which some engines leave out.
func fullID(id string) digest.Digest {
	if id != "" && !strings.Contains(id, ":") {
		return digest.NewDigestFromEncoded(digest.SHA256, id)
	}
	return digest.Digest(id)
}

// all asks for several images at once. An engine that does not answer for one has
// nothing of it, as far as what is left out goes; the error is for those who
// have to know.
func (v *inventory) all(ctx context.Context, refs []string) ([]kept, error) {
	found := make([]kept, len(refs))
	errs := make([]error, len(refs))
	slots := make(chan struct{}, atOnce)
	var wg sync.WaitGroup
	for i, ref := range refs {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			found[i], errs[i] = v.get(ctx, ref)
		})
	}
	wg.Wait()
	return found, errors.Join(errs...)
}

// known is what images that the engine has tell of layers.
func (v *inventory) known(images []kept) known {
	k := newKnown()
	for _, i := range images {
		v.learn(k, i)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	for d := range v.extra.chains {
		k.chains[d] = true
	}
	for d := range v.extra.blobs {
		k.blobs[d] = true
	}
	return k
}

// learn adds what one image tells. The containerd store's own answers do not
// name blobs: which ones belong to an image is remembered from when we sent it.
func (v *inventory) learn(k known, i kept) {
	switch {
	case i.id == "":
	case v.facts.Store == Graph:
		for _, c := range identity.ChainIDs(slices.Clone(i.diffIDs)) {
			k.chains[c] = true
		}
	case i.complete():
		for _, d := range v.memory.Layers(i.id) {
			k.blobs[d] = true
		}
	}
}

// widen looks further than the image's own names when much would have to be
// sent. It is done once. repos are the names without tags.
func (v *inventory) widen(ctx context.Context, missing []layer, repos []string) {
	v.mu.Lock()
	done := v.wide
	v.wide = true
	v.mu.Unlock()
	if done || sizeOf(missing) < bigEnough {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, wideBudget)
	defer cancel()
	refs := v.memory.having(missing, mostRoots)
	if v.facts.Store == Graph {
		refs = v.others(ctx, repos)
	}
	found, _ := v.all(ctx, refs) // what is not answered is not known
	extra := newKnown()
	for _, i := range found {
		v.learn(extra, i)
	}
	v.mu.Lock()
	v.extra = extra
	v.mu.Unlock()
}

// others are the images that most likely share layers with ours: of the same
// repositories, then the newest, then the largest.
func (v *inventory) others(ctx context.Context, repos []string) []string {
	list, err := v.engine.ImageList(ctx, client.ImageListOptions{})
	if err != nil {
		return nil
	}
	return likely(list.Items, repos, mostLooks)
}

func likely(items []imageapi.Summary, repos []string, most int) []string {
	own := func(s imageapi.Summary) bool {
		return slices.ContainsFunc(s.RepoTags, func(tag string) bool {
			return slices.ContainsFunc(repos, func(repo string) bool { return strings.HasPrefix(tag, repo+":") })
		})
	}
	newest := slices.Clone(items)
	slices.SortStableFunc(newest, func(a, b imageapi.Summary) int {
		if x, y := own(a), own(b); x != y {
			if x {
				return -1
			}
			return 1
		}
		return cmp.Compare(b.Created, a.Created)
	})
	largest := slices.Clone(items)
	slices.SortStableFunc(largest, func(a, b imageapi.Summary) int { return cmp.Compare(b.Size, a.Size) })
	var ids []string
	add := func(list []imageapi.Summary, upTo int) {
		for _, s := range list {
			if len(ids) < upTo && !slices.Contains(ids, s.ID) {
				ids = append(ids, s.ID)
			}
		}
	}
	add(newest, most/2)
	add(largest, most)
	return ids
}

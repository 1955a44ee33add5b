package build

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/berthbuild/berth/internal/atomicdir"
	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/imageindex"
	"github.com/berthbuild/berth/internal/ocilayout"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/client/ociindex"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// layoutSink is a folder with an OCI layout, which may have other images already:
// the blobs are added, and then the index.
type layoutSink struct {
	outs *outputs
	dest string

	mu     sync.Mutex
	dir    *atomicdir.Dir // from the first blob on
	stores []*sinkStore
	desc   *ocispecs.Descriptor // of the image of several nodes
	names  []string

	put func() error // makes the new index, from what the folder has then
}

func (s *layoutSink) doing() string { return "writing to " + s.dest }

// attach lets the daemon write into a content store.
func (s *layoutSink) attach(p part, ex *client.ExportEntry) (taker, error) {
	store := &sinkStore{sink: s, node: p.Node.Name}
	s.mu.Lock()
	s.stores = append(s.stores, store)
	s.mu.Unlock()
	ex.OutputStore = store
	return nil, nil
}

// stage makes the place for a node's blobs.
func (s *layoutSink) stage(node string) (atomicdir.Tree, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dir == nil {
		if err := s.outs.makeFolder(filepath.Dir(s.dest)); err != nil {
			return atomicdir.Tree{}, err
		}
		dir, err := atomicdir.Create(s.dest)
		if err != nil {
			return atomicdir.Tree{}, err
		}
		s.dir = dir
	}
	return s.dir.NewTree("node " + node)
}

func (s *layoutSink) end() error {
	var errs []error
	for _, store := range s.stores {
		errs = append(errs, store.end())
	}
	return hint.Wrap(withoutPath(errors.Join(errs...)), s.doing())
}

// settle joins what the nodes made, and makes a new index beside it: finish makes
// it again, but what is wrong with the folder's own is said now.
func (s *layoutSink) settle(done []Part) error {
	if err := s.end(); err != nil {
		return err
	}
	return hint.Wrap(withoutPath(s.index(done)), s.doing())
}

func (s *layoutSink) index(done []Part) error {
	var nodes []imageindex.Local
	for _, p := range done {
		top, err := topOf(p)
		if err != nil {
			return err
		}
		store := s.storeOf(p.Node)
		if err := store.begin(false); err != nil { // nothing was sent, since the folder has it all
			return err
		}
		if _, err := store.blob(top.Digest); err != nil {
			return fmt.Errorf("the image of node %s: %w", p.Node, err)
		}
		nodes = append(nodes, imageindex.Local{Node: p.Node, Top: top, Blob: store.blob})
	}
	top := nodes[0].Top
	if len(nodes) > 1 {
		var err error
		if top, err = s.join(nodes); err != nil {
			return err
		}
		s.desc, s.names = &top, namesOf(done[0])
	}
	tree, err := s.dir.Join(atomicdir.Blobs)
	if err != nil {
		return err
	}
	s.put = func() error { return s.writeIndex(tree.Path, top, namesOf(done[0])) }
	return s.put()
}

// join makes one index of those of the nodes, which are not needed any more.
func (s *layoutSink) join(nodes []imageindex.Local) (ocispecs.Descriptor, error) {
	raw, joined, err := imageindex.Join(nodes, s.outs.order)
	if err != nil {
		return joined, err
	}
	for _, n := range nodes {
		if types.MediaType(n.Top.MediaType).IsIndex() {
			_ = os.Remove(s.storeOf(n.Node).path(n.Top.Digest)) // it would lie there unused
		}
	}
	joined.Annotations = nodes[0].Top.Annotations
	path := s.stores[0].path(joined.Digest)
	return joined, errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, raw, 0o444))
}

// topOf is the image that a node's daemon says it has sent.
func topOf(p Part) (ocispecs.Descriptor, error) {
	var d ocispecs.Descriptor
	raw, err := base64.StdEncoding.DecodeString(p.Response[exptypes.ExporterImageDescriptorKey])
	if err != nil || len(raw) == 0 {
		return d, fmt.Errorf("node %s does not say which image it has sent", p.Node)
	}
	if err := json.Unmarshal(raw, &d); err != nil {
		return d, fmt.Errorf("node %s does not say which image it has sent: %w", p.Node, err)
	}
	return d, d.Digest.Validate()
}

func namesOf(p Part) []string {
	if all := p.Response[exptypes.ExporterImageNameKey]; all != "" {
		return strings.Split(all, ",")
	}
	return nil
}

// writeIndex makes the index.json that the folder will have: what it has, with the
// new image under its names.
func (s *layoutSink) writeIndex(tree string, top ocispecs.Descriptor, names []string) error {
	made := filepath.Join(tree, ocispecs.ImageIndexFile)
	if err := os.Remove(made); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err // that of settle, which may know of images that are gone
	}
	old, err := os.ReadFile(filepath.Join(s.dest, ocispecs.ImageIndexFile))
	if err == nil {
		err = os.WriteFile(made, old, 0o644)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	tags := []ociindex.NameOrTag{ociindex.Tag("latest")} // as for every image without a name
	if len(names) > 0 {
		tags = nil
		for _, n := range names {
			tags = append(tags, ociindex.Name(n))
		}
	}
	return ociindex.NewStoreIndex(tree).Put(top, tags...)
}

func (s *layoutSink) storeOf(node string) *sinkStore {
	for _, store := range s.stores {
		if store.node == node {
			return store
		}
	}
	return nil
}

func (s *layoutSink) joined() (*ocispecs.Descriptor, []string) { return s.desc, s.names }

func (s *layoutSink) finish(failed error) error {
	own := s.end()
	if failed != nil || own != nil {
		if s.dir != nil {
			_ = s.dir.Abort() // a hidden folder is all that could be left
		}
		return own
	}
	err := s.commit()
	_ = s.dir.Abort() // where it never came to Commit
	return hint.Wrap(err, s.doing())
}

// commit adds the image to those that the folder has by now: other builds may have
// written to it since settle, and none of theirs may be lost.
func (s *layoutSink) commit() error {
	unlock, err := ocilayout.Lock(s.outs.ctx, s.dest, s.outs.makeFolder)
	if err != nil {
		return withoutPath(err)
	}
	defer unlock()
	if err := s.put(); err != nil {
		return withoutPath(err)
	}
	return s.dir.Commit(atomicdir.Options{Blobs: ocispecs.ImageBlobsDir})
}

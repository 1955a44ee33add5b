package build

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"

	"github.com/berthbuild/berth/internal/atomicdir"
	"github.com/berthbuild/berth/internal/buildflag"
	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/receive"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/session/filesync"
)

// folderSink is a folder that the results are merged into. A daemon sends a tree
// of files for each platform, at the same time, or one for all; each is staged by
// itself.
type folderSink struct {
	outs   *outputs
	dest   string
	remove bool // what is not in the results
	apart  bool // each platform has a folder of its own

	ctx     context.Context //nolint:containedctx // of all streams, which come without one of the build's
	cancel  context.CancelFunc
	running sync.WaitGroup

	mu    sync.Mutex
	dir   *atomicdir.Dir // from the first stream on
	nodes map[string]*folderNode
	over  bool
	err   error // the first of our own
}

// folderNode is a node that sends trees.
type folderNode struct {
	name   string
	sender receive.Sender
	may    int // how many it may send
	begun  int
	trees  int // of those, how many have come
}

// moreTrees is how many trees a node may send besides one for each platform that it
// was asked for: a frontend may build for others of its own accord.
const moreTrees = 16

func newFolderSink(outs *outputs, wanted buildflag.Output) *folderSink {
	s := &folderSink{
		outs: outs, dest: wanted.Dest, nodes: map[string]*folderNode{},
		remove: wanted.Attrs["mode"] == "delete", apart: wanted.Bool("platform-split", true),
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// attach hides mode=delete from the daemon: what goes is known here, when all has
// come, and daemons before v0.26 would not send the platforms together.
func (s *folderSink) attach(p part, ex *client.ExportEntry) (taker, error) {
	delete(ex.Attrs, "mode")
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.nodes[p.Name]
	if n == nil {
		n = &folderNode{name: p.Name}
		s.nodes[n.name] = n
	}
	n.may += len(p.req.Platforms) + moreTrees
	return folderTaker{s, n}, nil
}

// folderTaker is a folderSink for one node.
type folderTaker struct {
	sink *folderSink
	node *folderNode
}

func (t folderTaker) take(stream filesync.FileSend_DiffCopyServer) error {
	s := t.sink
	dir, tree, err := s.begin(t.node)
	if err != nil {
		return err
	}
	defer s.running.Done()
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	into, err := dir.Open(tree)
	if err != nil {
		return s.note(err)
	}
	defer into.Close() //nolint:errcheck // a folder; what is in it has been closed
	if err := t.node.sender.Tree(ctx, stream, into); err != nil {
		var broken *receive.Broken
		if ctx.Err() == nil && !errors.As(err, &broken) {
			return s.note(err)
		}
		return err
	}
	s.mu.Lock()
	t.node.trees++
	s.mu.Unlock()
	return nil
}

// begin stages another tree. The caller ends it by running.Done.
func (s *folderSink) begin(n *folderNode) (dir *atomicdir.Dir, tree atomicdir.Tree, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return nil, tree, errors.New("the build is over")
	}
	if n.begun++; n.begun > n.may {
		err = fmt.Errorf("node %s sends more than %d trees of files", n.name, n.may)
		s.keep(err)
		return nil, tree, err
	}
	if s.dir == nil {
		if err = s.outs.makeFolder(filepath.Dir(s.dest)); err == nil {
			s.dir, err = atomicdir.Create(s.dest)
		}
	}
	if err == nil {
		tree, err = s.dir.NewTree("node " + n.name)
	}
	if err != nil {
		s.keep(err)
		return nil, tree, err
	}
	s.running.Add(1)
	return s.dir, tree, nil
}

// note keeps the first error, in words for the user.
func (s *folderSink) note(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keep(err)
	return err
}

func (s *folderSink) keep(err error) {
	if s.err != nil {
		return
	}
	var tries []string
	var refused *receive.Refused
	if errors.As(err, &refused) && refused.Special {
		tries = []string{"an archive can hold it: --output type=tar,dest=FILE"}
	}
	var pe *fs.PathError
	if errors.As(err, &pe) && !filepath.IsAbs(pe.Path) {
		err = fmt.Errorf("%s: %w", pe.Path, pe.Err) // of the results, not of where they are staged
	} else {
		err = withoutPath(err)
	}
	s.err = hint.Wrap(err, "writing to "+s.dest, tries...)
}

// end ends the taking, and waits for what is being written: that is bounded by the
// disk.
func (s *folderSink) end() error {
	s.mu.Lock()
	s.over = true
	s.mu.Unlock()
	s.cancel()
	s.running.Wait()
	return s.err
}

func (s *folderSink) settle([]Part) error {
	if err := s.end(); err != nil {
		return err
	}
	for _, n := range s.nodes {
		switch {
		case n.begun == 0:
			return hint.Wrap(errNothing, "writing to "+s.dest)
		case n.trees != n.begun: // though the daemon says that all is well
			return hint.Wrap(fmt.Errorf("node %s ended %d of the %d trees of files that it sent before they were complete", n.name, n.begun-n.trees, n.begun), "writing to "+s.dest)
		}
	}
	how := atomicdir.Together
	if s.apart && s.outs.parts > 1 {
		how = atomicdir.Apart
	}
	_, err := s.dir.Join(how)
	return hint.Wrap(withoutPath(err), "writing to "+s.dest)
}

func (s *folderSink) finish(failed error) error {
	own := s.end()
	if failed != nil || own != nil {
		if s.dir != nil {
			_ = s.dir.Abort() // a hidden folder is all that could be left
		}
		return own
	}
	return hint.Wrap(s.dir.Commit(atomicdir.Options{Delete: s.remove}), "writing to "+s.dest)
}

package build

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"

	"github.com/berthbuild/berth/internal/archives"
	"github.com/berthbuild/berth/internal/atomicfile"
	"github.com/berthbuild/berth/internal/buildflag"
	"github.com/berthbuild/berth/internal/hint"
	"github.com/moby/buildkit/client"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// gatherSink makes one archive out of those that several nodes send. Each is kept
// in a file of its own until all have come.
type gatherSink struct {
	outs   *outputs
	wanted buildflag.Output

	nodes []nodeArchive
	whole wholeArchive
	to    *streamSink // where the one archive goes; nil before settle
	desc  *ocispecs.Descriptor
	names []string
}

// nodeArchive is what one node sends.
type nodeArchive struct {
	node string
	sink *streamSink // into a file, which is never kept
}

// errGathered ends a node's archive: what was in it is in the whole one.
var errGathered = errors.New("it was gathered")

// wholeArchive is one of internal/archives.
type wholeArchive interface{ Write(io.Writer) error }

func (s *gatherSink) doing() string {
	if toStdout(s.wanted.Dest) {
		return "writing the output to standard output"
	}
	return "writing " + s.wanted.Dest
}

func (s *gatherSink) attach(p part, _ *client.ExportEntry) (taker, error) {
	sink := &streamSink{doing: s.doing(), open: func() (opened, error) {
		f, err := s.keepPart()
		if err != nil {
			return opened{}, err
		}
		return opened{w: f, drop: func() { _, _ = f.Close(), os.Remove(f.Name()) }}, nil // a hidden file is all that could be left
	}}
	s.nodes = append(s.nodes, nodeArchive{p.Name, sink})
	return sink.attach(p, nil)
}

// keepPart makes a file for a part: beside the result, where there must be room, or
// with other temporary files.
func (s *gatherSink) keepPart() (*os.File, error) {
	dir := ""
	if fi, err := os.Stat(s.wanted.Dest); !toStdout(s.wanted.Dest) && (err != nil || fi.Mode().IsRegular()) {
		dir = filepath.Dir(behind(s.wanted.Dest))
		if err := s.outs.makeFolder(dir); err != nil {
			return nil, err
		}
	}
	return os.CreateTemp(dir, atomicfile.TempPattern)
}

func (s *gatherSink) settle(done []Part) error {
	var parts []archives.Part
	for _, n := range s.nodes {
		if err := n.sink.settle(done); err != nil {
			return err
		}
		f, ok := n.sink.to.w.(*os.File)
		if !ok { // a stream that is only now beginning
			return hint.Wrap(errNothing, s.doing())
		}
		fi, err := f.Stat()
		if err != nil {
			return hint.Wrap(withoutPath(err), s.doing())
		}
		parts = append(parts, archives.Part{Node: n.node, Data: untilDone{ctx: s.outs.ctx, r: f}, Size: fi.Size()})
	}
	if err := s.join(parts); err != nil {
		return hint.Wrap(withoutPath(err), s.doing())
	}
	s.to = s.outs.streamTo(s.wanted.Dest)
	if s.later() {
		return nil
	}
	return s.write()
}

// later tells whether the archive can only be written when all else is done, since
// it cannot be taken back.
func (s *gatherSink) later() bool {
	if toStdout(s.wanted.Dest) {
		return true
	}
	fi, err := os.Stat(s.wanted.Dest)
	return err == nil && !fi.Mode().IsRegular()
}

func (s *gatherSink) join(parts []archives.Part) error {
	if s.wanted.Type == buildflag.OutputTar {
		whole, err := archives.OpenTar(parts)
		s.whole = whole
		return err
	}
	whole, err := archives.OpenOCI(parts, s.outs.order)
	if err != nil {
		return err
	}
	s.whole, s.desc, s.names = whole, &whole.Index, whole.Names
	return nil
}

// write writes the archive.
func (s *gatherSink) write() error {
	w, err := s.to.begin()
	if err == nil {
		err = s.whole.Write(untilDone{ctx: s.outs.ctx, w: w})
	}
	if own := s.to.end(err); own != nil {
		return own
	}
	return hint.Wrap(err, s.doing())
}

// writeLate is write to what may hang, such as a pipe that nobody opens or reads. When
// the build is interrupted that is left to itself; it gets nothing more.
func (s *gatherSink) writeLate() error {
	written := make(chan error, 1)
	go func() { written <- s.write() }()
	select {
	case err := <-written:
		return err
	case <-s.outs.ctx.Done():
		return interrupted(s.outs.ctx)
	}
}

// untilDone is a file for as long as a context lasts.
type untilDone struct {
	ctx context.Context //nolint:containedctx // io's methods take none
	r   io.ReaderAt
	w   io.Writer
}

func (u untilDone) ReadAt(b []byte, at int64) (int, error) {
	if err := interrupted(u.ctx); err != nil {
		return 0, err
	}
	return u.r.ReadAt(b, at)
}

func (u untilDone) Write(b []byte) (int, error) {
	if err := interrupted(u.ctx); err != nil {
		return 0, err
	}
	return u.w.Write(b)
}

func (s *gatherSink) joined() (*ocispecs.Descriptor, []string) { return s.desc, s.names }

func (s *gatherSink) finish(failed error) error {
	var own error
	if failed == nil && s.later() {
		failed = s.writeLate()
		own = failed
	}
	if s.to != nil {
		if err := s.to.finish(failed); own == nil {
			own = err
		}
	}
	for _, n := range s.nodes {
		if err := n.sink.finish(errGathered); own == nil {
			own = err
		}
	}
	return own
}

package build

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/berthbuild/berth/internal/atomicdir"
	"github.com/berthbuild/berth/internal/buildflag"
	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/request"
	"github.com/moby/buildkit/client"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// outputs are the places that a build writes to, whichever nodes build it. finish
// must be called once, when all daemons are done; it makes the results visible, or
// takes back all that was staged.
//
// Nothing is staged before a daemon sends it: the place may be in the build
// context, which is read until then.
type outputs struct {
	ctx   context.Context //nolint:containedctx // the build's: an engine loads on when the last daemon is done
	o     Options
	in    *inputs
	into  *engines
	parts int
	order []ocispecs.Platform // as they were asked for

	irrevocable bool        // an export is seen elsewhere before the build has ended
	exporting   atomic.Bool // a daemon has begun to export

	mu    sync.Mutex
	sinks []sink
	dests map[string]shared // those that any node may write to, by destination

	making sync.Mutex // taken by sinks that hold their own
	made   []string   // folders that were not there before, each before the one that it is in
}

// gone tells whether something may have been exported that cannot be taken back. A
// call has no outputs.
func (outs *outputs) gone() bool {
	return outs.begun() && outs.irrevocable
}

// begun tells whether a daemon has begun to export.
func (outs *outputs) begun() bool { return outs != nil && outs.exporting.Load() }

// sink is one place.
type sink interface {
	// settle is called when all daemons have succeeded, with what each of them
	// made. What can go wrong is done now; what the user has is not touched yet.
	settle(done []Part) error
	// finish ends the output. Without failed it makes the result visible, and
	// says whether that went well. With failed it takes back what was staged,
	// and gives the sink's own error where that came first: the daemon only
	// knows that its stream broke.
	finish(failed error) error
}

// shared is a sink for what every node exports.
type shared interface {
	sink
	// attach connects a node's export. A taker is called for what the daemon
	// sends; without one, the export has all it needs.
	attach(p part, ex *client.ExportEntry) (taker, error)
}

// joiner is a sink that may have made one image out of those of several nodes: its
// index, nil when it has not, and the image's names.
type joiner interface {
	joined() (*ocispecs.Descriptor, []string)
}

// outputKind is what kind of place an output goes to.
type outputKind int

const (
	toDaemon outputKind = iota // which keeps it, or pushes it
	toEngine
	toFolder
	toLayout // a folder with an OCI layout
	toStream // a file, a device, the standard output
)

func kindOf(out buildflag.Output) outputKind {
	switch out.Type {
	case buildflag.OutputLocal:
		return toFolder
	case buildflag.OutputOCI, buildflag.OutputDocker:
		switch {
		case out.Loads():
			return toEngine
		case !out.Bool("tar", true):
			return toLayout
		}
		return toStream
	case buildflag.OutputTar:
		return toStream
	}
	return toDaemon
}

// checkOutputs refuses destinations that cannot be written to, before anything is
// contacted.
func checkOutputs(req request.Request) error {
	for _, out := range req.Exported() {
		switch kindOf(out) {
		case toFolder, toLayout:
			if err := checkFolder(out.Dest); err != nil {
				return err
			}
		case toStream:
			if err := checkFile(out.Dest); err != nil {
				return hint.Wrap(err, "output file")
			}
		}
	}
	return nil
}

func checkFolder(dest string) error {
	if fi, err := os.Stat(dest); err == nil && !fi.IsDir() {
		return hint.New(fmt.Sprintf("output folder %s: is a file", dest), "choose another folder: dest=FOLDER")
	}
	return hint.Wrap(atomicdir.Check(dest), "output folder")
}

func checkFile(dest string) error {
	if toStdout(dest) {
		return nil
	}
	path := behind(dest)
	switch fi, err := os.Stat(path); {
	case err == nil && fi.IsDir():
		return &fs.PathError{Op: "write", Path: dest, Err: errors.New("is a directory")}
	case err == nil && !fi.Mode().IsRegular():
		return nil // it is opened when the bytes come
	}
	return atomicdir.Check(filepath.Dir(path))
}

func toStdout(dest string) bool { return dest == buildflag.Stdout || dest == "" }

// behind is what a path leads to: what is behind a link is written, and the link
// stays.
func behind(path string) string {
	if led, err := filepath.EvalSymlinks(path); err == nil {
		return led
	}
	return path
}

// openOutputs prepares the outputs of a build for all its parts.
func openOutputs(ctx context.Context, req request.Request, parts []part, in *inputs, into *engines, o Options) *outputs {
	outs := &outputs{ctx: ctx, o: o, in: in, into: into, parts: len(parts), order: req.Platforms, dests: map[string]shared{}, irrevocable: irrevocable(req)}
	for i := range parts {
		parts[i].outs = outs
	}
	return outs
}

// attach connects a part's exports to their destinations.
func (outs *outputs) attach(p part, opt *client.SolveOpt) error {
	takers := exports{}
	store := hasLayout(p.req)
	for i, wanted := range p.req.Exported() {
		ex := &opt.Exports[i]
		t, err := outs.connect(p, i, ex, wanted, store)
		store = store || ex.OutputStore != nil
		if err != nil {
			return err
		}
		if t != nil {
			takers[i] = t
		}
	}
	takers.attach(opt)
	return nil
}

// hasLayout tells whether one of the outputs has the one content store that
// BuildKit's client can offer to a solve.
func hasLayout(req request.Request) bool {
	return slices.ContainsFunc(req.Exported(), func(o buildflag.Output) bool { return kindOf(o) == toLayout })
}

// connect gives the export number i its place. store: the solve offers a
// content store to another export.
func (outs *outputs) connect(p part, i int, ex *client.ExportEntry, wanted buildflag.Output, store bool) (taker, error) {
	kind := kindOf(wanted)
	key := wanted.Dest
	switch kind {
	case toDaemon:
		return nil, nil
	case toEngine:
		key = fmt.Sprintf("engine %d", i) // the nodes' exports have the same order; no path begins so, they are absolute
	}
	outs.mu.Lock()
	defer outs.mu.Unlock()
	s := outs.dests[key]
	if s == nil {
		s = outs.open(kind, wanted)
		outs.dests[key] = s
		outs.sinks = append(outs.sinks, s)
	}
	if l, ok := s.(*loadSink); ok && store {
		l.crowded = true
	}
	return s.attach(p, ex)
}

func (outs *outputs) open(kind outputKind, wanted buildflag.Output) shared {
	switch {
	case kind == toEngine:
		return newLoadSink(outs, wanted)
	case kind == toFolder:
		return newFolderSink(outs, wanted)
	case kind == toLayout:
		return &layoutSink{outs: outs, dest: wanted.Dest}
	case outs.parts > 1:
		return &gatherSink{outs: outs, wanted: wanted}
	}
	return outs.streamTo(wanted.Dest)
}

// streamTo is the sink for one stream of bytes.
func (outs *outputs) streamTo(dest string) *streamSink {
	if toStdout(dest) {
		return &streamSink{
			doing: "writing the output to standard output",
			open:  func() (opened, error) { return opened{w: outs.o.Stdout}, nil },
		}
	}
	if fi, err := os.Stat(dest); err == nil && !fi.IsDir() && !fi.Mode().IsRegular() {
		return newDeviceSink(dest)
	}
	return newFileSink(dest, outs.makeFolder)
}

// makeFolder makes a folder and those above it.
func (outs *outputs) makeFolder(dir string) error {
	outs.making.Lock()
	defer outs.making.Unlock()
	var made []string
	for d := dir; d != filepath.Dir(d); d = filepath.Dir(d) {
		if _, err := os.Stat(d); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		made = append(made, d)
	}
	outs.made = append(made, outs.made...)
	return os.MkdirAll(dir, 0o755)
}

// settle does what remains when all daemons have succeeded, and gives the one image
// that was made of several, if any.
func (outs *outputs) settle(done []Part) (*ocispecs.Descriptor, []string, error) {
	var desc *ocispecs.Descriptor
	var names []string
	for _, s := range outs.sinks {
		if err := s.settle(done); err != nil {
			return nil, nil, err
		}
		if j, ok := s.(joiner); ok && desc == nil {
			desc, names = j.joined()
		}
	}
	return desc, names, nil
}

// finish ends every output. The first that fails ends all that follow as failed;
// folders, which fail least, come last. After a failure the folders that were made
// go too, as long as nothing is in them.
func (outs *outputs) finish(failed error) error {
	slices.SortStableFunc(outs.sinks, func(a, b sink) int { return lateness(a) - lateness(b) })
	var errs []error
	for _, s := range outs.sinks {
		err := s.finish(failed)
		if failed == nil {
			failed = err
		}
		errs = append(errs, err)
	}
	if failed != nil {
		for _, dir := range outs.made {
			_ = os.Remove(dir) // it says so when something is in it
		}
	}
	return errors.Join(errs...)
}

// lateness says which sinks are finished first: what others may refuse, and what
// cannot be taken back.
func lateness(s sink) int {
	switch s.(type) {
	case *loadSink:
		return 0
	case *folderSink, *layoutSink:
		return 2
	}
	return 1
}

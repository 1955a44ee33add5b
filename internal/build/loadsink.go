package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/berthbuild/berth/internal/buildflag"
	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/imageindex"
	"github.com/berthbuild/berth/internal/load"
	"github.com/berthbuild/berth/internal/progress"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"github.com/moby/buildkit/session"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// loadSink feeds a Docker engine: with what it lacks, or with the daemon's archive
// where that cannot be.
type loadSink struct {
	outs   *outputs
	into   *intoEngine
	wanted buildflag.Output

	crowded bool // another export has the solve's content store
	nodes   []loadNode
	company []func() // end the sessions that the nodes' connections need
	partial *load.Partial
	whole   *load.Loader
	index   []byte            // of several nodes
	notes   map[string]string // on the whole, which an engine keeps too
	desc    *ocispecs.Descriptor
	names   []string

	mu   sync.Mutex
	step *progress.Step // from the first thing on that there is to show
}

// loadNode is a node with what it builds of the image.
type loadNode struct {
	part   part
	source *load.Source
}

func newLoadSink(outs *outputs, wanted buildflag.Output) *loadSink {
	return &loadSink{outs: outs, into: outs.into.get(wanted), wanted: wanted}
}

// attach lets the daemon write the image's documents to a content store, or its
// archive to the engine.
func (s *loadSink) attach(p part, ex *client.ExportEntry) (taker, error) {
	if why := s.into.wholeReason(p, s.wanted, s.crowded); why != "" {
		return s.attachWhole(p, why)
	}
	if s.partial == nil {
		s.names, _ = p.req.LoadNames(s.wanted)
		s.partial = load.NewPartial(s.outs.ctx, s.into.asker, s.into.facts, s.names, s.outs.o.Loaded, s)
	}
	if err := s.accompany(p); err != nil {
		return nil, err
	}
	source := s.partial.Source(p.conn.Client().ContentClient())
	s.nodes = append(s.nodes, loadNode{p, source})
	ex.OutputStore = source
	ex.Attrs["tar"] = "false"
	return nil, nil
}

// accompany keeps a session on the part's connection until the load is over,
// though nobody asks anything of it: the solve's own ends with the solve, and a
// daemon hangs up on a client that sends it pings and has none. Without pings a
// daemon that fell silent would not be noticed while layers are read from it.
func (s *loadSink) accompany(p part) error {
	ctx, cancel := context.WithCancel(s.outs.ctx)
	company, err := session.NewSession(ctx, "")
	if err != nil {
		cancel()
		return err
	}
	var running sync.WaitGroup
	running.Go(func() {
		_ = company.Run(ctx, p.conn.Client().Dialer()) // the load says so when it was needed
	})
	s.company = append(s.company, func() {
		cancel()
		_ = company.Close()
		running.Wait()
	})
	return nil
}

func (s *loadSink) attachWhole(p part, why string) (taker, error) {
	if s.outs.parts > 1 {
		return nil, hint.New(fmt.Sprintf("node %s: what several nodes build cannot be loaded into one engine here: %s", p.Node.Name, why),
			"build for one platform: --platform", "or push the image: --push")
	}
	s.whole = load.New(s.outs.ctx, s.into.engine, s.Engine)
	if s.into.asker != nil {
		s.Said("sending the whole image: " + why)
	}
	return takeArchive(s.whole), nil
}

// takeArchive is the taker of an archive for an engine.
func takeArchive(l *load.Loader) taker {
	write := l.Output()
	return bytesTaker(func() (io.WriteCloser, error) { return write(nil) })
}

// begin gives the step that shows the load. The caller holds mu.
func (s *loadSink) begin() *progress.Step {
	if s.step == nil {
		s.step = s.outs.o.Progress.Step("importing to docker")
	}
	return s.step
}

// Engine implements load.Display: the engine's words are a step of the build.
func (s *loadSink) Engine(st load.Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if step := s.begin(); st.ID != "" && st.Total > 0 {
		step.Progress("loading layer "+st.ID, st.Current, st.Total)
	}
}

// Sent implements load.Display.
func (s *loadSink) Sent(text string, current, total int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if total == 0 {
		s.begin().Note(text)
		return
	}
	s.begin().Progress(text, current, total)
}

// Said implements load.Display.
func (s *loadSink) Said(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.begin().Note(text)
}

// settle leaves the loading to finish: an engine that has the whole image keeps it.
func (s *loadSink) settle(done []Part) error {
	if s.into.facts.Store == load.Containerd {
		for _, p := range done {
			delete(p.Response, exptypes.ExporterImageConfigDigestKey) // such engines know images by manifests and indexes
		}
	}
	if len(s.nodes) == 1 {
		s.notes = s.notesOf(done[0])
	}
	if len(s.nodes) < 2 {
		return nil
	}
	var parts []imageindex.Local
	for _, n := range s.nodes {
		top, err := n.source.Root()
		if err != nil {
			return hint.Wrap(err, "the image of node "+n.part.Node.Name)
		}
		parts = append(parts, imageindex.Local{Node: n.part.Node.Name, Top: top, Blob: n.source.Document})
	}
	raw, desc, err := imageindex.Join(parts, s.outs.order)
	if err != nil {
		return err
	}
	s.index, s.desc = raw, &desc
	return nil
}

// notesOf are what the daemon has noted on the image, where it tells: of several
// outputs it describes one.
func (s *loadSink) notesOf(done Part) map[string]string {
	top, err := topOf(done)
	root, rerr := s.nodes[0].source.Root()
	if err == nil && rerr == nil && top.Digest == root.Digest {
		return top.Annotations
	}
	return map[string]string{ocispecs.AnnotationCreated: time.Now().UTC().Format(time.RFC3339)} // as a daemon does
}

// joined implements joiner.
func (s *loadSink) joined() (*ocispecs.Descriptor, []string) { return s.desc, s.names }

func (s *loadSink) finish(failed error) error {
	err := s.end(failed)
	for _, leave := range s.company {
		leave()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.step != nil {
		s.step.Done(err)
	}
	if failed != nil && errors.Is(err, failed) {
		return nil // it comes back as it went in
	}
	return err
}

func (s *loadSink) end(failed error) error {
	switch {
	case s.partial == nil && s.whole == nil:
		return failed
	case s.partial == nil:
		return s.whole.Finish(failed)
	case failed != nil:
		s.partial.Abort()
		return failed
	}
	err := s.partial.Finish(s.index, s.notes)
	var unreadable *load.Unreadable
	if !errors.As(err, &unreadable) || interrupted(s.outs.ctx) != nil {
		return err
	}
	if len(s.nodes) > 1 {
		return hint.Wrap(err, "", "build again: what was removed from the daemon meanwhile is made again")
	}
	return s.again(unreadable)
}

// again has the daemon make its archive: a second solve, which has all of the
// first one's steps in its cache but what was removed.
func (s *loadSink) again(why error) error {
	s.Said("sending the whole image: " + why.Error())
	whole := load.New(s.outs.ctx, s.into.engine, s.Engine)
	return whole.Finish(resend(s.outs.ctx, s.nodes[0].part, s.outs.in, s.outs.o, s.wanted, takeArchive(whole)))
}

// resend solves a part once more, for one of its outputs.
func resend(ctx context.Context, p part, in *inputs, o Options, out buildflag.Output, t taker) error {
	p.req = p.req.WithOutputs([]buildflag.Output{out})
	opt, err := p.resolve(ctx, in)
	if err != nil {
		return err
	}
	opt.CacheExports, opt.CacheImports = nil, nil // the first solve has read and written them
	exports{0: t}.attach(&opt)
	_, begun, err := watch(ctx, p, in, o, func(ctx context.Context, statuses chan *client.SolveStatus) (*client.SolveResponse, error) {
		return p.conn.Client().Solve(ctx, nil, opt, statuses)
	})
	if err == nil {
		return nil
	}
	return explain(ctx, p, in, err, begun, o)
}

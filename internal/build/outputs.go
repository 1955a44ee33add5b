package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"github.com/berthbuild/berth/internal/atomicfile"
	"github.com/berthbuild/berth/internal/buildflag"
	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/load"
	"github.com/berthbuild/berth/internal/progress"
	"github.com/moby/buildkit/client"
)

// outputs are the places that one solve writes to. finish must be called with
// the solve's error; it makes the results visible, or takes back all that was
// staged.
type outputs struct {
	sinks []sink
}

// sink is one place.
type sink interface {
	// finish ends the output. Without failed it makes the result visible, and
	// says whether that went well. With failed it takes back what was staged,
	// and gives the sink's own error where that came first: the daemon only
	// knows that its stream broke.
	finish(failed error) error
}

// openOutputs connects a part's exports to their destinations.
func openOutputs(ctx context.Context, p part, opt *client.SolveOpt, o Options) (*outputs, error) {
	outs := &outputs{}
	for i, wanted := range p.req.Exported() {
		if err := outs.open(ctx, &opt.Exports[i], wanted, o); err != nil {
			_ = outs.finish(err) // the first error is the one to tell
			return nil, err
		}
	}
	return outs, nil
}

func (outs *outputs) open(ctx context.Context, ex *client.ExportEntry, wanted buildflag.Output, o Options) error {
	dest := wanted.Dest
	switch ex.Type {
	case client.ExporterLocal:
		return openFolder(ex, dest)
	case client.ExporterOCI, client.ExporterDocker:
		if !wanted.Bool("tar", true) {
			return openFolder(ex, dest)
		}
		if ex.Type == client.ExporterDocker && dest == "" {
			return outs.openLoad(ctx, ex, wanted.Attrs["context"], o)
		}
		return outs.openFile(ex, dest, o)
	case client.ExporterTar:
		return outs.openFile(ex, dest, o)
	}
	return nil // image: the daemon keeps or pushes it
}

func openFolder(ex *client.ExportEntry, dest string) error {
	if fi, err := os.Stat(dest); err == nil && !fi.IsDir() {
		return hint.New(fmt.Sprintf("output folder %s: is a file", dest), "choose another: --output type=local,dest=FOLDER")
	}
	if err := os.MkdirAll(dest, 0o755); err != nil {
		return hint.Wrap(err, "output folder")
	}
	ex.OutputDir = dest
	return nil
}

func (outs *outputs) openFile(ex *client.ExportEntry, dest string, o Options) error {
	if dest == buildflag.Stdout || dest == "" {
		s := &streamSink{w: o.Stdout}
		outs.sinks = append(outs.sinks, s)
		ex.Output = s.open
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(dest), 0o755); err != nil {
		return hint.Wrap(err, "output file")
	}
	f, err := atomicfile.Create(dest, 0o644)
	if err != nil {
		return hint.Wrap(err, "output file")
	}
	s := &fileSink{dest: dest, file: f}
	outs.sinks = append(outs.sinks, s)
	ex.Output = s.open
	return nil
}

func (outs *outputs) openLoad(ctx context.Context, ex *client.ExportEntry, dockerContext string, o Options) error {
	engine, err := o.Engine(ctx, dockerContext)
	if err != nil {
		return err
	}
	s := &loadSink{engine: engine}
	s.loader = load.New(ctx, engine, func(st load.Status) { s.show(o.Progress, st) })
	outs.sinks = append(outs.sinks, s)
	ex.Output = s.loader.Output()
	return nil
}

// finish ends every output, also when one before it fails.
func (outs *outputs) finish(failed error) error {
	var errs []error
	for _, s := range outs.sinks {
		errs = append(errs, s.finish(failed))
	}
	return errors.Join(errs...)
}

// fileSink stages a file and renames it when the build has succeeded.
type fileSink struct {
	dest string
	file *atomicfile.File

	mu     sync.Mutex
	opened bool
	err    error
}

// open is asked once by an honest daemon; a second stream would be appended to
// the first, so it is refused.
func (s *fileSink) open(map[string]string) (io.WriteCloser, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.opened {
		return nil, errors.New("the daemon sent the output twice")
	}
	s.opened = true
	return nopCloser{s}, nil
}

// Write keeps the first error, which the daemon would only echo.
func (s *fileSink) Write(b []byte) (int, error) {
	n, err := s.file.Write(b)
	if err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.err == nil {
			s.err = hint.Wrap(unwrapPath(err), "writing "+s.dest)
		}
	}
	return n, err
}

func (s *fileSink) finish(failed error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if failed != nil {
		_ = s.file.Abort() // a hidden temporary file is all that could be left
		return s.err
	}
	if !s.opened {
		_ = s.file.Abort()
		return fmt.Errorf("writing %s: the daemon sent nothing", s.dest)
	}
	return hint.Wrap(s.file.Commit(), "writing "+s.dest)
}

// unwrapPath drops the staging file's name, which means nothing to the user.
func unwrapPath(err error) error {
	var pe *os.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

// streamSink writes to standard output as the bytes come.
type streamSink struct {
	w   io.Writer
	mu  sync.Mutex
	err error
}

func (s *streamSink) open(map[string]string) (io.WriteCloser, error) { return nopCloser{s}, nil }

func (s *streamSink) Write(b []byte) (int, error) {
	n, err := s.w.Write(b)
	if err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.err == nil {
			s.err = hint.Wrap(unwrapPath(err), "writing the output to standard output")
		}
	}
	return n, err
}

func (s *streamSink) finish(error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

// loadSink feeds a Docker engine.
type loadSink struct {
	engine Engine
	loader *load.Loader

	mu   sync.Mutex
	step *progress.Step // from the engine's first word on
}

// show passes the engine's words on as a step of the build.
func (s *loadSink) show(p *progress.Printer, st load.Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.step == nil {
		s.step = p.Step("importing to docker")
	}
	if st.ID != "" && st.Total > 0 {
		s.step.Progress("loading layer "+st.ID, st.Current, st.Total)
	}
}

func (s *loadSink) finish(failed error) error {
	defer s.engine.Close() //nolint:errcheck // an engine client holds nothing worth an error
	err := s.loader.Finish(failed)
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

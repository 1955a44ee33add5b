package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/berthbuild/berth/internal/buildflag"
	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/load"
	"github.com/moby/buildkit/client"
)

// outputs are the places that one solve writes to. finish must be called with
// the solve's error; it makes the results visible, or takes back all that was
// staged.
type outputs struct {
	sinks []sink
	made  []string // folders that were not there before, each before the one that it is in
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
		return outs.openFolder(ex, dest)
	case client.ExporterOCI, client.ExporterDocker:
		if !wanted.Bool("tar", true) {
			return outs.openFolder(ex, dest)
		}
		if ex.Type == client.ExporterDocker && dest == "" {
			return outs.openLoad(ctx, ex, wanted.Attrs["context"], o)
		}
		return outs.openStream(ex, dest, o)
	case client.ExporterTar:
		return outs.openStream(ex, dest, o)
	}
	return nil // image: the daemon keeps or pushes it
}

func (outs *outputs) openFolder(ex *client.ExportEntry, dest string) error {
	if fi, err := os.Stat(dest); err == nil && !fi.IsDir() {
		return hint.New(fmt.Sprintf("output folder %s: is a file", dest), "choose another folder: dest=FOLDER")
	}
	if err := outs.makeFolder(dest); err != nil {
		return hint.Wrap(err, "output folder")
	}
	if err := tryFolder(dest, nil); err != nil {
		return hint.Wrap(withoutPath(err), "output folder "+dest)
	}
	outs.sinks = append(outs.sinks, folderSink(dest))
	ex.OutputDir = dest
	return nil
}

func (outs *outputs) openStream(ex *client.ExportEntry, dest string, o Options) error {
	if dest == buildflag.Stdout || dest == "" {
		outs.add(ex, &streamSink{
			doing:  "writing the output to standard output",
			target: func() (io.Writer, error) { return o.Stdout, nil },
		})
		return nil
	}
	if err := outs.makeFolder(filepath.Dir(dest)); err != nil {
		return hint.Wrap(err, "output file")
	}
	if fi, err := os.Stat(dest); err == nil && !fi.IsDir() && !fi.Mode().IsRegular() {
		outs.add(ex, newDeviceSink(dest))
		return nil
	}
	s, err := newFileSink(dest)
	if err != nil {
		return hint.Wrap(err, "output file")
	}
	outs.add(ex, s)
	return nil
}

func (outs *outputs) add(ex *client.ExportEntry, s *streamSink) {
	outs.sinks = append(outs.sinks, s)
	ex.Output = s.open
}

// makeFolder makes a folder and those above it.
func (outs *outputs) makeFolder(dir string) error {
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

// finish ends every output, also when one before it fails. After a failure the
// folders that were made for them go too, as long as nothing is in them.
func (outs *outputs) finish(failed error) error {
	var errs []error
	for _, s := range outs.sinks {
		errs = append(errs, s.finish(failed))
	}
	err := errors.Join(errs...)
	if failed != nil || err != nil {
		for _, dir := range outs.made {
			_ = os.Remove(dir) // it says so when something is in it
		}
	}
	return err
}

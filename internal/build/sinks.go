package build

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/berthbuild/berth/internal/atomicfile"
	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/load"
	"github.com/berthbuild/berth/internal/progress"
)

// streamSink takes an output that comes as one stream of bytes. A daemon is not
// trusted to send it once, or at all. That it was sent to its end, only the
// success of the solve tells: a stream that broke is closed like any other.
type streamSink struct {
	doing  string                    // for errors: "writing x.tar"
	target func() (io.Writer, error) // where the bytes go; asked when they come
	keep   func() error              // makes the result visible; may be nil
	drop   func()                    // takes it back; may be nil

	mu     sync.Mutex
	w      io.Writer
	opened bool
	over   bool  // finish was called: nothing more is taken
	err    error // the first of our own, which the daemon would only echo
}

// newFileSink stages a file and renames it when the build has succeeded.
func newFileSink(dest string) (*streamSink, error) {
	path, mode := dest, os.FileMode(0o644)
	if behind, err := filepath.EvalSymlinks(dest); err == nil {
		path = behind // what is behind a link is written, and the link stays
	}
	if fi, err := os.Stat(path); err == nil {
		mode = fi.Mode().Perm() // who could not read it before cannot now
	}
	f, err := atomicfile.Create(path, mode)
	if err != nil {
		return nil, err
	}
	return &streamSink{
		doing:  "writing " + dest,
		target: func() (io.Writer, error) { return f, nil },
		keep:   f.Commit,
		drop:   func() { _ = f.Abort() }, // a hidden temporary file is all that could be left
	}, nil
}

// newDeviceSink writes to what cannot be renamed over: a pipe, a terminal,
// /dev/null. It is opened when the bytes come, since a pipe that nobody reads
// would hold us here.
func newDeviceSink(dest string) *streamSink {
	s := &streamSink{doing: "writing " + dest}
	s.target = func() (io.Writer, error) { return os.OpenFile(dest, os.O_WRONLY, 0) }
	end := func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		if f, ok := s.w.(*os.File); ok {
			return f.Close()
		}
		return nil
	}
	s.keep, s.drop = end, func() { _ = end() } // the build has failed already
	return s
}

// open is asked once by an honest daemon; a second stream would be appended to
// the first.
func (s *streamSink) open(map[string]string) (io.WriteCloser, error) {
	s.mu.Lock()
	again := s.opened || s.over
	s.opened = true
	s.mu.Unlock()
	if again {
		return nil, s.note(errors.New("the daemon sent the output twice"))
	}
	w, err := s.target()
	if err != nil {
		return nil, s.note(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.w = w
	return s, nil
}

// note keeps the first error, in words for the user.
func (s *streamSink) note(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = hint.Wrap(withoutPath(err), s.doing)
	}
	return err
}

// Write implements io.Writer. It is not held back by finish: a write to a pipe
// can hang for ever.
func (s *streamSink) Write(b []byte) (int, error) {
	s.mu.Lock()
	w, over := s.w, s.over
	s.mu.Unlock()
	if over {
		return 0, io.ErrClosedPipe
	}
	n, err := w.Write(b)
	if err != nil {
		return n, s.note(err)
	}
	return n, nil
}

// Close implements io.Closer, and says nothing.
func (s *streamSink) Close() error { return nil }

func (s *streamSink) finish(failed error) error {
	err := s.settle(failed)
	if failed != nil || err != nil {
		if s.drop != nil {
			s.drop()
		}
		return err
	}
	if s.keep == nil {
		return nil
	}
	return hint.Wrap(withoutPath(s.keep()), s.doing)
}

// settle ends the taking, and gives our own error.
func (s *streamSink) settle(failed error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
	switch {
	case s.err != nil || failed != nil:
		return s.err
	case !s.opened:
		return hint.Wrap(errors.New("the daemon sent nothing"), s.doing)
	}
	return nil
}

// withoutPath drops the staging file's name, which means nothing to the user.
func withoutPath(err error) error {
	var pe *os.PathError
	var le *os.LinkError
	switch {
	case errors.As(err, &pe):
		return pe.Err
	case errors.As(err, &le):
		return le.Err
	}
	return err
}

// folderSink is a folder that BuildKit's client writes to. What goes wrong
// there it tells the daemon alone, which often gives back no more than that its
// stream broke. So after a failure it is looked at whether the folder takes files.
type folderSink string

// room is more than what a file system keeps for small files.
const room = 64 << 10

func (dir folderSink) finish(failed error) error {
	if failed == nil {
		return nil
	}
	err := tryFolder(string(dir), make([]byte, room))
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return hint.Wrap(fmt.Errorf("%w (%w)", withoutPath(err), failed), "writing to "+string(dir))
}

// tryFolder writes a file into a folder and removes it.
func tryFolder(dir string, data []byte) error {
	f, err := os.CreateTemp(dir, ".berth-*.tmp")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) //nolint:errcheck // a hidden temporary file is all that could be left
	_, err = f.Write(data)
	if err == nil && len(data) > 0 {
		err = f.Sync() // some file systems look for room only then
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

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

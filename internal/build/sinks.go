package build

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"

	"github.com/berthbuild/berth/internal/atomicfile"
	"github.com/berthbuild/berth/internal/hint"
	"github.com/moby/buildkit/client"
)

// streamSink takes an output that comes as one stream of bytes. A daemon is not
// trusted to send it once, or at all. That it was sent to its end, only the
// success of the solve tells: a stream that broke is closed like any other.
type streamSink struct {
	doing string                 // for errors: "writing x.tar"
	open  func() (opened, error) // where the bytes go; asked when they come
	slow  bool                   // open may wait for others, so that the end must not wait for it

	mu   sync.Mutex
	to   opened
	came bool
	over bool  // settle or finish was called: nothing more is taken
	err  error // the first of our own, which the daemon would only echo
}

var errNothing = errors.New("the daemon sent nothing")

// opened is where a stream goes.
type opened struct {
	w    io.Writer
	keep func() error // makes the result visible; may be nil
	drop func()       // takes it back; may be nil
}

// newFileSink stages a file and renames it when the build has succeeded.
func newFileSink(dest string, makeFolder func(string) error) *streamSink {
	return &streamSink{doing: "writing " + dest, open: func() (opened, error) {
		f, err := stageFile(dest, makeFolder)
		if err != nil {
			return opened{}, err
		}
		// A hidden temporary file is all that could be left.
		return opened{w: f, keep: f.Commit, drop: func() { _ = f.Abort() }}, nil
	}}
}

// newDeviceSink writes to what cannot be renamed over: a pipe, a terminal,
// /dev/null. It is opened when the bytes come, since a pipe that nobody reads
// would hold us here.
func newDeviceSink(dest string) *streamSink {
	return &streamSink{doing: "writing " + dest, slow: true, open: func() (opened, error) {
		f, err := os.OpenFile(dest, os.O_WRONLY, 0)
		if err != nil {
			return opened{}, err
		}
		return opened{w: f, keep: f.Close, drop: func() { _ = f.Close() }}, nil // the build has failed already
	}}
}

func (s *streamSink) attach(part, *client.ExportEntry) (taker, error) {
	return bytesTaker(s.begin), nil
}

// begin is asked once by an honest daemon; a second stream would be appended to
// the first. The end waits for what is being opened, where that cannot take long: a
// folder that is made after it would stay.
func (s *streamSink) begin() (io.WriteCloser, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.came || s.over {
		return nil, s.noteLocked(errors.New("the daemon sent the output twice"))
	}
	s.came = true
	if s.slow {
		s.mu.Unlock()
	}
	to, err := s.open()
	if s.slow {
		s.mu.Lock()
	}
	switch {
	case err != nil:
		return nil, s.noteLocked(err)
	case s.over:
		if to.drop != nil {
			to.drop()
		}
		return nil, io.ErrClosedPipe
	}
	s.to = to
	return s, nil
}

// note keeps the first error, in words for the user.
func (s *streamSink) note(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.noteLocked(err)
}

func (s *streamSink) noteLocked(err error) error {
	if s.err == nil {
		s.err = hint.Wrap(withoutPath(err), s.doing)
	}
	return err
}

// Write implements io.Writer. It is not held back by finish: a write to a pipe
// can hang for ever.
func (s *streamSink) Write(b []byte) (int, error) {
	s.mu.Lock()
	w, over := s.to.w, s.over
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

// settle ends the taking.
func (s *streamSink) settle([]Part) error { return s.end(nil) }

// end ends the taking, and gives our own error.
func (s *streamSink) end(failed error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
	switch {
	case s.err != nil || failed != nil:
		return s.err
	case !s.came:
		return hint.Wrap(errNothing, s.doing)
	}
	return nil
}

func (s *streamSink) finish(failed error) error {
	err := s.end(failed)
	if failed != nil || err != nil {
		if s.to.drop != nil {
			s.to.drop()
		}
		return err
	}
	if s.to.keep == nil {
		return nil
	}
	return hint.Wrap(withoutPath(s.to.keep()), s.doing)
}

// stageFile begins a file, in a folder that is made when it is missing.
func stageFile(dest string, makeFolder func(string) error) (*atomicfile.File, error) {
	path, mode := behind(dest), os.FileMode(0o644)
	if fi, err := os.Stat(path); err == nil {
		mode = fi.Mode().Perm() // who could not read it before cannot now
	}
	if err := makeFolder(filepath.Dir(path)); err != nil {
		return nil, err
	}
	return atomicfile.Create(path, mode)
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

package snapshot

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
)

const hashSize = sha256.Size

// readers is how many files are read at once.
func readers() int { return 2 * runtime.GOMAXPROCS(0) }

// Open implements fsutil.FS. An error is given by the first Read: those who send
// files take one that does not open for an empty one.
func (s *Snapshot) Open(path string) (io.ReadCloser, error) {
	path = strings.Trim(path, "/")
	i, ok := s.index()[path]
	if !ok {
		return failing{s.move(path, "is not a part of it")}, nil
	}
	e := s.entries[i]
	if e.mode&fs.ModeSocket != 0 {
		return failing{io.EOF}, nil // BuildKit knows no sockets; it is announced as an empty file
	}
	file, err := s.dir.OpenPlain(path)
	if err != nil {
		return failing{s.move(path, "cannot be opened: "+cause(err))}, nil
	}
	r := &reader{s: s, e: e, file: file}
	if !e.hashed {
		if err := e.same(file); err != nil {
			_ = file.Close() // it was only read
			return failing{s.move(path, err.Error())}, nil
		}
		return r, nil
	}
	r.sum = sha256.New()
	return r, nil
}

// cause is an error without the path, which is told already.
func cause(err error) string {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err.Error()
	}
	return err.Error()
}

type failing struct{ err error }

// Read implements io.Reader.
func (f failing) Read([]byte) (int, error) { return 0, f.err }

// Close implements io.Closer.
func (failing) Close() error { return nil }

// reader reads a file, and ends with an error when that was not what was named.
type reader struct {
	s    *Snapshot
	e    *entry
	file *os.File
	sum  hash.Hash // nil where the content was not hashed
	size int64
}

// Read implements io.Reader.
func (r *reader) Read(p []byte) (int, error) {
	n, err := r.file.Read(p)
	r.size += int64(n)
	if r.sum != nil {
		_, _ = r.sum.Write(p[:n]) // a hash takes everything
	}
	switch {
	case errors.Is(err, io.EOF):
		if why := r.check(); why != nil {
			return n, r.s.move(r.e.path, why.Error())
		}
	case err != nil:
		return n, r.s.move(r.e.path, "cannot be read: "+cause(err))
	case r.size > r.e.size: // it may grow for ever
		return n, r.s.move(r.e.path, "has grown while it was sent")
	}
	return n, err
}

// check is made when all has been read.
func (r *reader) check() error {
	switch {
	case r.size != r.e.size:
		return errors.New("has another size than when the folder was looked at")
	case r.sum == nil:
		return r.e.same(r.file)
	case !bytes.Equal(r.sum.Sum(nil), r.e.hash[:]):
		return errors.New("has changed since the folder was looked at")
	}
	return nil
}

// Close implements io.Closer.
func (r *reader) Close() error { return r.file.Close() }

// errFresh is a folder with so much that was just written that it is not read.
var errFresh = errors.New("much of it was changed just now")

// ErrBlind is the trouble with a folder that is too large to be read each time, on a
// system that does not tell when a file was changed. Nothing better can be done with
// it than to compare sizes and times.
var ErrBlind = errors.New("there is more in it than is read each time, and this system does not tell when a file was changed")

// hash reads the files whose content is not known: those that could change again
// without a trace, and the others if they are not too many.
func (s *Snapshot) hash(ctx context.Context) error {
	var fresh, was, settled []*entry
	var freshBytes, wasBytes, settledBytes int64
	for _, e := range s.entries {
		switch {
		case !e.mode.IsRegular() || e.left || e.hashed:
		case e.fresh:
			fresh, freshBytes = append(fresh, e), freshBytes+e.size
		case s.known.wasFresh(e.path): // announced by its content, it goes on to be
			was, wasBytes = append(was, e), wasBytes+e.size
		default:
			settled, settledBytes = append(settled, e), settledBytes+e.size
		}
	}
	if freshBytes > s.opts.HashLimit {
		s.trouble = errFresh
		if !tellsChanges {
			s.trouble = ErrBlind
		}
		return nil
	}
	if freshBytes+wasBytes <= s.opts.HashLimit {
		fresh = append(fresh, was...)
	}
	if freshBytes+wasBytes+settledBytes <= s.opts.HashLimit {
		fresh = append(fresh, settled...)
	}
	s.read = len(fresh)
	s.changed = s.read > 0 || s.known.differs(s.entries)
	s.known = &record{generation: s.known.generation} // the rest is large
	return s.hashAll(ctx, fresh)
}

func (s *Snapshot) hashAll(ctx context.Context, unknown []*entry) error {
	var next atomic.Int64
	var failed atomic.Pointer[error]
	var running sync.WaitGroup
	for range min(readers(), len(unknown)) {
		running.Go(func() {
			buf := make([]byte, 256<<10)
			sum := sha256.New()
			for ctx.Err() == nil && failed.Load() == nil {
				i := int(next.Add(1)) - 1
				if i >= len(unknown) {
					return
				}
				if err := s.hashOne(ctx, unknown[i], sum, buf); err != nil {
					err = fmt.Errorf("%s %w", unknown[i].path, err)
					failed.CompareAndSwap(nil, &err)
				}
			}
		})
	}
	running.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := failed.Load(); err != nil {
		s.trouble = *err
	}
	return nil
}

func (s *Snapshot) hashOne(ctx context.Context, e *entry, sum hash.Hash, buf []byte) error {
	file, err := s.dir.OpenPlain(e.path)
	if err != nil {
		return fmt.Errorf("cannot be opened: %s", cause(err))
	}
	defer file.Close() //nolint:errcheck // it was only read
	if err := e.same(file); err != nil {
		return err
	}
	sum.Reset()
	var size int64
	for {
		n, err := file.Read(buf)
		size += int64(n)
		_, _ = sum.Write(buf[:n])
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("cannot be read: %s", cause(err))
		}
		if size > e.size || ctx.Err() != nil {
			return errors.New("grows")
		}
	}
	if err := e.same(file); err != nil {
		return err
	}
	sum.Sum(e.hash[:0])
	e.hashed = true
	return nil
}

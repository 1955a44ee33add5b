package load

import (
	"context"
	"errors"
	"io"
	"sync"
)

// trailer is how much is held back: a tar archive ends with two empty blocks,
// and a reader that has not seen them knows that there is more to come.
const trailer = 2 * 512

// Loader is the way of one docker export into an engine. It is made before the
// build, and Finish must be called after it.
type Loader struct {
	engine     Engine
	onProgress func(Status)
	caller     context.Context //nolint:containedctx // BuildKit calls Output without one
	ctx        context.Context //nolint:containedctx // caller's, and ended by Finish
	cancel     context.CancelFunc
	pr         *io.PipeReader
	pw         *io.PipeWriter
	answered   chan struct{} // closed when the engine is done, with err set
	err        error

	mu       sync.Mutex // guards what follows; not held while writing
	opened   bool
	started  bool
	ended    bool   // by Finish
	complete bool   // the engine may see the end of the archive
	tail     []byte // the last bytes, at most trailer of them
}

// New makes a Loader; nothing is sent before the build's first bytes. Ending
// ctx ends the load. onProgress may be nil; it is called from one goroutine.
func New(ctx context.Context, engine Engine, onProgress func(Status)) *Loader {
	l := &Loader{engine: engine, onProgress: onProgress, caller: ctx, answered: make(chan struct{})}
	l.ctx, l.cancel = context.WithCancel(ctx)
	l.pr, l.pw = io.Pipe()
	return l
}

// Output is what client.ExportEntry.Output takes. The writer that it opens
// never ends the image; only Finish does.
func (l *Loader) Output() func(map[string]string) (io.WriteCloser, error) {
	return func(map[string]string) (io.WriteCloser, error) {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.opened || l.ended {
			return nil, errors.New("the image is sent a second time")
		}
		l.opened = true
		return archive{l}, nil
	}
}

// archive is the exporter's side. Close says nothing: a stream that broke is
// closed like one that is complete.
type archive struct{ l *Loader }

func (a archive) Write(b []byte) (int, error) { return a.l.write(b) }
func (a archive) Close() error                { return nil }

// write passes on all but the last bytes.
func (l *Loader) write(b []byte) (int, error) {
	ready, err := l.hold(b)
	if err != nil {
		return 0, err
	}
	for _, part := range ready {
		if _, err := l.pw.Write(part); err != nil {
			return 0, l.refusal(err)
		}
	}
	return len(b), nil
}

// refusal is why the engine takes no more: its answer, which may come a moment
// after it has stopped reading.
func (l *Loader) refusal(err error) error {
	select {
	case <-l.answered:
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.err != nil {
			return l.err
		}
	case <-l.ctx.Done():
	}
	return err
}

// hold keeps the last bytes of what has come so far, and gives what may go. It
// opens the engine's side when there is something to send.
func (l *Loader) hold(b []byte) ([][]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return nil, io.ErrClosedPipe
	}
	var ready [][]byte
	give := func(part []byte) {
		if len(part) > 0 {
			ready = append(ready, part)
		}
	}
	if len(b) >= trailer {
		give(l.tail)
		give(b[:len(b)-trailer])
		l.tail = append([]byte(nil), b[len(b)-trailer:]...)
	} else if l.tail = append(l.tail, b...); len(l.tail) > trailer {
		cut := len(l.tail) - trailer
		give(l.tail[:cut:cut])
		l.tail = append([]byte(nil), l.tail[cut:]...)
	}
	if len(ready) > 0 {
		l.start()
	}
	return ready, nil
}

// start begins the engine's side, once. The caller holds mu.
func (l *Loader) start() {
	if l.started {
		return
	}
	l.started = true
	go func() {
		defer close(l.answered)
		err := Docker(l.ctx, l.engine, l.pr, l.onProgress)
		l.mu.Lock()
		if err == nil && !l.complete {
			err = l.tooEarly()
		}
		l.err = err
		l.mu.Unlock()
		if err == nil {
			err = io.ErrClosedPipe
		}
		_ = l.pr.CloseWithError(err) // whoever still writes learns of it
	}()
}

// Finish ends the load and gives the error to report. cause is how the build
// ended: nil lets the engine have the rest and waits for it; anything else
// takes the image back, and comes back itself unless it was the engine that
// failed first. A Loader can be finished once.
func (l *Loader) Finish(cause error) error {
	defer l.cancel()
	if cause != nil {
		return l.abort(cause)
	}
	l.mu.Lock()
	tail, opened := l.tail, l.opened
	l.ended, l.complete = true, true
	if len(tail) > 0 {
		l.start()
	}
	started := l.started
	l.mu.Unlock()
	if !opened || !started {
		return explain(l.engine, errors.New("the build daemon sent no image"))
	}
	_, err := l.pw.Write(tail)
	_ = l.pw.Close()
	<-l.answered
	if l.err == nil && err != nil {
		return l.tooEarly()
	}
	return l.err
}

// tooEarly is about an engine that says it is done and cannot be.
func (l *Loader) tooEarly() error {
	return explain(l.engine, errors.New("it ended before it had the whole image"))
}

// abort takes the image back. Both ways of ending the request are needed: the
// pipe for a writer that waits, the context for an engine that does not answer.
func (l *Loader) abort(cause error) error {
	l.mu.Lock()
	l.ended = true
	started, first := l.started, l.err
	l.mu.Unlock()
	_ = l.pw.CloseWithError(cause)
	l.cancel()
	if !started {
		return cause
	}
	<-l.answered
	if first != nil && l.caller.Err() == nil { // else both failed because the caller cancelled
		return first
	}
	return cause
}

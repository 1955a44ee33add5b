package historypage

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/berthbuild/berth/internal/history"
	"github.com/moby/buildkit/client"
)

// followed is a build that runs, and that somebody looks at.
type followed struct {
	record *history.Record
	detail history.Detail
	idle   *time.Timer
	begun  chan struct{} // closed when something is known
	done   chan struct{} // closed when it is followed no longer
	err    error         // why, where that was before its end; set before done is closed

	mu     sync.Mutex
	course history.Course
}

// follow follows a build until it ends, or nobody has looked for a while. It takes h
// over. Who asks for the same build at the same time gets the one that is there.
func (d *Daemons) follow(ctx context.Context, key string, h *history.History, r *history.Record) (*followed, error) {
	detail := h.Detail(ctx, r, d.o.Dir)
	d.mu.Lock()
	defer d.mu.Unlock()
	if f := d.followed[key]; f != nil {
		h.Close()
		return f, nil
	}
	if len(d.followed) >= maxFollowed || d.ctx.Err() != nil {
		h.Close()
		return nil, errors.New("too many builds are followed already; close some pages")
	}
	following, stop := context.WithCancel(d.ctx)
	f := &followed{record: r, detail: detail, idle: time.AfterFunc(idle, stop), begun: make(chan struct{}), done: make(chan struct{})}
	d.followed[key] = f
	d.wg.Go(func() {
		defer h.Close()
		defer stop()
		defer f.idle.Stop()
		var once sync.Once
		f.err = r.Progress(following, func(s *client.SolveStatus) {
			f.mu.Lock()
			f.course.Add(s)
			f.mu.Unlock()
			once.Do(func() { close(f.begun) })
		})
		d.mu.Lock()
		delete(d.followed, key)
		d.mu.Unlock()
		close(f.done)
	})
	return f, nil
}

// now is how far the build is; nil when it is not followed any longer.
func (f *followed) now(ctx context.Context) *Build {
	f.idle.Reset(idle)
	first := time.NewTimer(time.Second)
	defer first.Stop()
	select {
	case <-f.begun:
	case <-first.C:
	case <-f.done:
	case <-ctx.Done():
	}
	select {
	case <-f.done:
		return nil
	default:
	}
	return f.made()
}

// made is what is known of the build.
func (f *followed) made() *Build {
	f.mu.Lock()
	defer f.mu.Unlock()
	return Make(Facts{Record: f.record, Detail: f.detail, Course: &f.course, Now: time.Now()})
}

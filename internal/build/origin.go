package build

import (
	"context"

	"github.com/berthbuild/berth/internal/request"
)

// question is asked while the nodes are being connected to, so that its answer
// costs a build no time of its own.
type question struct {
	cancel context.CancelFunc
	done   chan struct{}
	vcs    request.VCS
	err    error
}

// askOrigin starts asking where the context comes from. The caller ends it.
func askOrigin(ctx context.Context, o Options) *question {
	q := &question{done: make(chan struct{})}
	if o.Origin == nil {
		q.cancel = func() {}
		close(q.done)
		return q
	}
	ctx, q.cancel = context.WithCancel(ctx)
	go func() {
		defer close(q.done)
		q.vcs, q.err = o.Origin(ctx)
	}()
	return q
}

// answer waits for it. The error is for a warning: such a build is as good, and
// only tells less of itself.
func (q *question) answer() (request.VCS, error) {
	<-q.done
	return q.vcs, q.err
}

// end drops a question whose answer nobody wants any more.
func (q *question) end() {
	q.cancel()
	<-q.done
}

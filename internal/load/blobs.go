package load

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	"github.com/opencontainers/go-digest"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Unreadable is a layer that the daemon does not give, or an image that does not
// fit in here in its parts. It can only come as the daemon's own archive then.
type Unreadable struct {
	Digest digest.Digest // of the layer; "" for the image
	Cause  error
}

// Error says which layer.
func (u *Unreadable) Error() string {
	if u.Digest == "" {
		return u.Cause.Error()
	}
	return fmt.Sprintf("the build daemon does not give layer %s: %v", u.Digest, u.Cause)
}

// Unwrap gives the daemon's answer.
func (u *Unreadable) Unwrap() error { return u.Cause }

// Gone tells whether the daemon had the layer and has it no more.
func (u *Unreadable) Gone() bool { return status.Code(u.Cause) == codes.NotFound }

// probeBudget bounds the question whether a daemon gives layers at all.
const probeBudget = 5 * time.Second

// Readable tells whether the daemon's content can be read: not of daemons before
// v0.11, nor through a proxy that passes on only what it knows. What it asks, a
// daemon answers with nothing: asked for a blob that it has not, it would log an
// error with each load.
func Readable(ctx context.Context, c contentapi.ContentClient) bool {
	ctx, cancel := context.WithTimeout(ctx, probeBudget)
	defer cancel()
	_, err := c.ListStatuses(ctx, &contentapi.ListStatusesRequest{Filters: []string{"ref==berth"}})
	return err == nil
}

// How much may be pinned. A stream that nobody reads from holds what its window
// lets through, which is at most about perPin.
const (
	maxPins = 64
	perPin  = 2 << 20
	pinSpan = 64 << 20
)

// blobs reads layers from one daemon.
type blobs struct {
	ctx    context.Context //nolint:containedctx // of all streams, which outlive the calls that open them
	client contentapi.ContentClient

	mu     sync.Mutex
	pinned map[digest.Digest]*blobReader
	held   int64
}

func newBlobs(ctx context.Context, c contentapi.ContentClient) *blobs {
	return &blobs{ctx: ctx, client: c, pinned: map[digest.Digest]*blobReader{}}
}

// pin opens layers so that they can be read even when the daemon removes them
// meanwhile: it holds a file open from the first byte on that it has sent. What
// cannot be pinned is left; who needs it finds out.
func (b *blobs) pin(ctx context.Context, layers []layer) {
	layers = slices.Clone(layers)
	slices.SortStableFunc(layers, func(x, y layer) int { return cmp.Compare(y.size, x.size) })
	var wg sync.WaitGroup
	for _, l := range layers {
		if !b.room(l) {
			continue
		}
		wg.Go(func() {
			r, err := b.begin(ctx, l)
			b.mu.Lock()
			defer b.mu.Unlock()
			if err == nil {
				b.pinned[l.digest] = r
			}
		})
	}
	wg.Wait()
}

// room counts a pin, where there is place for it.
func (b *blobs) room(l layer) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	holds := min(l.size, perPin)
	if _, twice := b.pinned[l.digest]; twice || len(b.pinned) >= maxPins || b.held+holds > pinSpan {
		return false
	}
	b.held += holds
	b.pinned[l.digest] = nil // until it has been opened
	return true
}

// open gives a layer's reader: the pinned one, once.
func (b *blobs) open(l layer) (io.ReadCloser, error) {
	b.mu.Lock()
	r := b.pinned[l.digest]
	delete(b.pinned, l.digest)
	b.mu.Unlock()
	if r != nil {
		return r, nil
	}
	return b.begin(b.ctx, l)
}

// begin opens a stream and waits for its first bytes, at most until ctx ends.
func (b *blobs) begin(ctx context.Context, l layer) (*blobReader, error) {
	own, cancel := context.WithCancel(b.ctx)
	stop := context.AfterFunc(ctx, cancel)
	defer stop()
	r := &blobReader{layer: l, cancel: cancel}
	var err error
	if r.stream, err = b.client.Read(own, &contentapi.ReadContentRequest{Digest: l.digest.String()}); err == nil {
		err = r.receive()
	}
	if err != nil && !errors.Is(err, io.EOF) {
		cancel()
		return nil, &Unreadable{Digest: l.digest, Cause: err}
	}
	return r, nil
}

// close lets go of what is pinned still.
func (b *blobs) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, r := range b.pinned {
		if r != nil {
			r.cancel()
		}
	}
	clear(b.pinned)
}

// blobReader is one layer on its way.
type blobReader struct {
	layer  layer
	stream contentapi.Content_ReadClient
	cancel context.CancelFunc
	data   []byte // received, and not given yet
	got    int64
	end    error
}

// receive waits for the next message.
func (r *blobReader) receive() error {
	if r.end != nil {
		return r.end
	}
	m, err := r.stream.Recv()
	if err != nil {
		r.end = err
		return err
	}
	r.data = m.Data
	r.got += int64(len(m.Data))
	return nil
}

// Read implements io.Reader. A layer that is shorter or longer than the
// manifest says is an error: it would end the archive in the wrong place.
func (r *blobReader) Read(p []byte) (int, error) {
	for len(r.data) == 0 {
		switch err := r.receive(); {
		case errors.Is(err, io.EOF) && r.got == r.layer.size:
			return 0, io.EOF
		case errors.Is(err, io.EOF):
			return 0, &Unreadable{Digest: r.layer.digest, Cause: fmt.Errorf("it has %d bytes, and the manifest says %d", r.got, r.layer.size)}
		case err != nil:
			return 0, &Unreadable{Digest: r.layer.digest, Cause: err}
		}
	}
	if r.got > r.layer.size {
		return 0, &Unreadable{Digest: r.layer.digest, Cause: fmt.Errorf("it has more than the %d bytes that the manifest says", r.layer.size)}
	}
	n := copy(p, r.data)
	r.data = r.data[n:]
	return n, nil
}

// Close implements io.Closer.
func (r *blobReader) Close() error {
	r.cancel()
	return nil
}

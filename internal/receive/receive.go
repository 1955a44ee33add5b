// Package receive takes a tree of files that a daemon sends, in fsutil's
// protocol, and writes it into a folder.
//
// It is not for choosing the folder, nor for bringing the tree to the place
// where the user wants it: that is internal/atomicdir.
//
// Rules: the sender is not trusted. Every name is checked before it is used, and
// all is written through an os.Root; a symbolic link is content and is never
// followed; nothing but files, folders and links is made. A tree is complete or
// it is an error: a file that is shorter than it was announced is one. What a
// sender can have held in memory is bounded; what it can have written is bounded
// by the disk alone.
package receive

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"github.com/tonistiigi/fsutil/types"
	"golang.org/x/sync/errgroup"
)

const (
	writers = 2       // goroutines that write files
	queued  = 64      // packets between two goroutines; each holds up to 32 KiB
	asked   = 2048    // files that the sender is asked for at once
	maxHeld = 1 << 30 // bytes, about, of what is remembered of what has yet to be made or ended
)

// Stream is what packets come and go on: a gRPC stream of either side.
type Stream interface {
	SendMsg(any) error
	RecvMsg(any) error
}

// Refused is what the sender did that is never right.
type Refused struct {
	Path    string // as it was sent; "" when it is about the whole
	Why     string
	Special bool // it is a device, a pipe or a socket, which an image may well have
}

// Error names the file first.
func (r *Refused) Error() string {
	if r.Path == "" {
		return "the daemon " + r.Why
	}
	return fmt.Sprintf("the daemon sent %q, which %s", r.Path, r.Why)
}

// Broken is a stream that ended before the tree was complete. Why, the daemon's
// answer to the build tells better.
type Broken struct{ Cause error }

// Error is the stream's own.
func (b *Broken) Error() string { return b.Cause.Error() }

// Unwrap gives the stream's error.
func (b *Broken) Unwrap() error { return b.Cause }

// Sender bounds what one sender, of however many trees, can have held in memory. Its
// zero value is ready.
type Sender struct{ held atomic.Int64 }

// Tree receives one tree into an empty folder, which nobody else writes to, and
// returns when the sender has said that it is done too, or else when the stream has
// ended after the tree was complete: a build may be over at once then. The error is a *Refused,
// a *Broken, ctx's cause, or an *fs.PathError with the path in the tree of what
// the disk did not take. Nothing is written after it has returned, but goroutines may remain until the stream has
// ended: a gRPC stream ends when its handler returns.
func (s *Sender) Tree(ctx context.Context, stream Stream, into *os.Root) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	group, gctx := errgroup.WithContext(ctx)
	t := &transfer{
		ctx: gctx, sender: s, disk: disk{root: into, at: cursor{root: into}}, asks: newAsker(stream),
		packets: make(chan incoming, queued), complete: make(chan struct{}),
		files: map[uint32]*file{},
	}
	t.left.Store(1) // the list itself
	go t.read(stream)
	go t.asks.run(gctx)
	for range writers {
		w := &writer{transfer: t, in: make(chan piece, queued), at: cursor{root: into}}
		t.writers = append(t.writers, w)
		group.Go(w.run)
	}
	group.Go(func() error {
		err := t.take()
		for _, w := range t.writers {
			close(w.in)
		}
		return err
	})
	err := group.Wait()
	s.held.Add(-t.held)
	return err
}

// transfer is one Tree.
type transfer struct {
	ctx     context.Context //nolint:containedctx // that of Tree
	packets chan incoming
	writers []*writer
	asks    *asker
	sender  *Sender

	left     atomic.Int64  // what has yet to be written: files, and the rest of the list
	complete chan struct{} // closed when there is nothing left

	// Below is take's own.
	disk   disk
	order  orders
	files  map[uint32]*file // announced, and not yet complete
	number uint32           // of the next file
	held   int64            // of what the sender has held
	listed bool             // the list is complete
	made   bool             // so is the tree
}

type incoming struct {
	packet *types.Packet
	err    error
}

// read passes packets on until the stream ends. It touches no file.
func (t *transfer) read(stream Stream) {
	for {
		p := types.PacketFromVTPool()
		err := stream.RecvMsg(p)
		select {
		case t.packets <- incoming{p, err}:
		case <-t.ctx.Done():
			return
		}
		if err != nil {
			return
		}
	}
}

// take works through what comes.
func (t *transfer) take() error {
	defer t.disk.close()
	complete := t.complete
	for {
		select {
		case <-t.ctx.Done():
			return t.broken(context.Cause(t.ctx))
		case <-complete:
			if err := t.disk.finish(); err != nil {
				return err
			}
			complete, t.made = nil, true // and now wait for the sender to say the same
			t.asks.fin()
		case in := <-t.packets:
			if in.err != nil {
				return t.broken(&Broken{in.err})
			}
			done, err := t.packet(in.packet)
			if done || err != nil {
				return err
			}
		}
	}
}

// broken is why the stream ended, if that matters.
func (t *transfer) broken(err error) error {
	if t.made {
		return nil
	}
	return err
}

// packet acts on one. done is the end of all.
func (t *transfer) packet(p *types.Packet) (done bool, err error) {
	switch p.Type {
	case types.PACKET_STAT:
		if p.Stat == nil {
			return false, t.endOfList()
		}
		err = t.announce(p.Stat)
	case types.PACKET_DATA:
		return false, t.data(p)
	case types.PACKET_ERR:
		err = &Broken{errors.New(string(p.Data))}
	case types.PACKET_FIN:
		if t.made { // an honest sender waits until it is told so
			return true, nil
		}
		err = &Refused{Why: "said that it was done before it was"}
	default:
		err = &Refused{Why: "sent a packet of an unknown type"}
	}
	p.ReturnToVTPool()
	return false, err
}

func (t *transfer) endOfList() error {
	if t.listed {
		return &Refused{Why: "ended its list of files twice"}
	}
	t.listed = true
	t.done(1)
	return nil
}

// announce is the next entry of the list.
func (t *transfer) announce(st *types.Stat) error {
	e, err := t.order.check(st, t.listed)
	if err != nil {
		return err
	}
	id := t.number
	t.number++
	switch e.kind {
	case kindFolder:
		if err := t.hold(e.size()); err != nil { // until finish
			return err
		}
		return t.disk.folder(e)
	case kindSymlink:
		return t.disk.symlink(e)
	case kindHardlink:
		t.disk.links = append(t.disk.links, link{e.path, e.target})
		return t.hold(e.size())
	}
	f := &file{entry: e, id: id}
	t.files[id] = f
	t.left.Add(1)
	t.asks.ask(id)
	return t.hold(e.size())
}

// hold bounds what is remembered.
func (t *transfer) hold(n int64) error {
	t.held += n
	if t.sender.held.Add(n) > maxHeld {
		return &Refused{Why: "announced more files and folders than can be kept in mind"}
	}
	return nil
}

// data is the next piece of a file, or without any its end. The packet is the
// writer's from here on.
func (t *transfer) data(p *types.Packet) error {
	f := t.files[p.ID]
	if f == nil {
		return &Refused{Why: fmt.Sprintf("sent data of a file (number %d) that it has not announced, or that had come already", p.ID)}
	}
	f.got += int64(len(p.Data))
	end := len(p.Data) == 0
	switch {
	case f.got > f.length:
		return &Refused{Path: f.sent, Why: fmt.Sprintf("is longer than the %d bytes that it announced", f.length)}
	case end && f.got < f.length:
		return &Refused{Path: f.sent, Why: fmt.Sprintf("ended after %d of the %d bytes that it announced", f.got, f.length)}
	case end:
		delete(t.files, p.ID)
		t.held -= f.size()
		t.sender.held.Add(-f.size())
	}
	w := t.writers[p.ID%writers]
	select {
	case w.in <- piece{f, p}:
		return nil
	case <-t.ctx.Done():
		return context.Cause(t.ctx)
	}
}

// done notes that n things less are left.
func (t *transfer) done(n int64) {
	if t.left.Add(-n) == 0 {
		close(t.complete)
	}
}

// asker asks the sender for files. Sending may block for as long as the sender
// does not read, so it is never waited for.
type asker struct {
	stream Stream
	slots  chan struct{} // full when enough has been asked for
	news   chan struct{}

	mu    sync.Mutex
	queue []uint32
	over  bool
}

func newAsker(stream Stream) *asker {
	return &asker{stream: stream, slots: make(chan struct{}, asked), news: make(chan struct{}, 1)}
}

func (a *asker) ask(id uint32) { a.add(func() { a.queue = append(a.queue, id) }) }
func (a *asker) fin()          { a.add(func() { a.over = true }) }

func (a *asker) add(f func()) {
	a.mu.Lock()
	f()
	a.mu.Unlock()
	select {
	case a.news <- struct{}{}:
	default:
	}
}

// came makes room for another question.
func (a *asker) came() {
	select {
	case <-a.slots:
	default: // the sender did not wait to be asked
	}
}

// run ends with ctx, with the last message, or with the stream. A stream that
// takes no message has broken, which whoever reads from it will see.
func (a *asker) run(ctx context.Context) {
	for {
		a.mu.Lock()
		ids, over := a.queue, a.over
		a.queue = nil
		a.mu.Unlock()
		for _, id := range ids {
			select {
			case a.slots <- struct{}{}:
			case <-ctx.Done():
				return
			}
			if a.stream.SendMsg(&types.Packet{Type: types.PACKET_REQ, ID: id}) != nil {
				return
			}
		}
		if over {
			_ = a.stream.SendMsg(&types.Packet{Type: types.PACKET_FIN})
			return
		}
		select {
		case <-a.news:
		case <-ctx.Done():
			return
		}
	}
}

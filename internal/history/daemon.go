package history

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/berthbuild/berth/internal/builder"
	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/remote"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/content/proxy"
	"github.com/containerd/platforms"
	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/util/grpcerrors"
	"google.golang.org/grpc/codes"
)

// listBudget is how long a daemon may take for its list.
const listBudget = 30 * time.Second

// maxRecords bounds the list of one daemon. They keep some hundreds.
const maxRecords = 100_000

// errNoHistory is a daemon from before there were records.
var errNoHistory = errors.New("the daemon keeps no build records: BuildKit has them since v0.12")

// daemon is a node.
type daemon struct {
	n           builder.Node
	o           Options
	builderName string

	mu     sync.Mutex
	conn   *remote.Conn
	target remote.Target
	closed bool
}

func (d *daemon) builder() string { return d.builderName }
func (d *daemon) node() string    { return d.n.Stored() }
func (d *daemon) name() string    { return d.n.Name }

func (d *daemon) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	if d.conn != nil {
		_ = d.conn.Close() // what was asked for is here
	}
}

// connect gives the node's one connection.
func (d *daemon) connect(ctx context.Context) (*remote.Conn, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.closed:
		return nil, net.ErrClosed
	case d.conn != nil:
		return d.conn, nil
	}
	t, err := d.n.Target()
	if err != nil {
		return nil, err
	}
	d.target = t
	d.conn, err = remote.Connect(ctx, t, remote.Config{Schemes: d.o.Schemes, Budget: d.o.Budget, OnWait: d.o.OnWait})
	return d.conn, err
}

// with calls ask for as long as the daemon is there.
func (d *daemon) with(ctx context.Context, ask func(context.Context, *remote.Conn) error) error {
	c, err := d.connect(ctx)
	if err != nil {
		return err
	}
	watched, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go c.Watch(watched, d.o.pulse, cancel)
	err = ask(watched, c)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(context.Cause(watched), remote.ErrSilent):
		return remote.ErrSilent
	case c.Lost() != nil:
		return remote.LostText(c.Lost())
	case grpcerrors.Code(err) == codes.Unimplemented:
		return errNoHistory
	}
	return err
}

func (d *daemon) explain(err error) error {
	var failure *remote.Failure
	if err == nil || errors.As(err, &failure) { // it says where
		return err
	}
	d.mu.Lock()
	t := d.target
	d.mu.Unlock()
	if t.Endpoint.IsZero() { // it has none, and the error says so
		return err
	}
	var tries []string
	switch {
	case errors.Is(err, remote.ErrSilent):
		tries = []string{"see how it is: berth doctor " + d.builderName}
	case errors.Is(err, errNoHistory):
		tries = []string{"a newer BuildKit keeps them"}
	}
	return hint.Wrap(err, t.String(), tries...)
}

func (d *daemon) records(ctx context.Context, q Query) ([]*Record, error) {
	budget := d.o.list
	if budget == 0 {
		budget = listBudget
	}
	var all []*Record
	err := d.with(ctx, func(ctx context.Context, c *remote.Conn) error {
		ctx, cancel := context.WithTimeoutCause(ctx, budget, fmt.Errorf("the daemon has not listed its records within %s", budget))
		defer cancel()
		found, err := List(ctx, c.Client(), q)
		if err != nil && ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		if err != nil {
			return err
		}
		for _, rec := range found {
			all = append(all, &Record{BuildHistoryRecord: rec})
		}
		return nil
	})
	if err != nil && q.ID != "" && isMissing(err) {
		return nil, nil // it was removed a moment ago
	}
	return all, err
}

// List gives the records of q that a daemon has at the moment; one that does
// not know bounds gives more. A build that ends while they are listed is there once,
// as it has ended.
func List(ctx context.Context, c *client.Client, q Query) ([]*controlapi.BuildHistoryRecord, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	events, err := c.ControlClient().ListenBuildHistory(ctx, &controlapi.BuildHistoryRequest{Ref: q.ID, EarlyExit: true, Limit: int32(min(q.Newest, maxRecords))}) //nolint:gosec // it has a bound
	if err != nil {
		return nil, err
	}
	var all []*controlapi.BuildHistoryRecord
	at := map[string]int{}
	for {
		ev, err := events.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return all, nil
		case err != nil:
			return nil, err
		case ev.Record == nil || ev.Record.Ref == "" || ev.Type == controlapi.BuildHistoryEventType_DELETED:
			continue
		case len(all) == maxRecords:
			return nil, fmt.Errorf("the daemon has more than %d records", maxRecords)
		}
		if i, known := at[ev.Record.Ref]; known {
			all[i] = ev.Record
			continue
		}
		at[ev.Record.Ref] = len(all)
		all = append(all, ev.Record)
	}
}

func (d *daemon) reading(ctx context.Context, _ *Record, read func(context.Context, content.Provider) error) error {
	return d.with(ctx, func(ctx context.Context, c *remote.Conn) error {
		return read(ctx, proxy.NewContentStore(c.Client().ContentClient()))
	})
}

func (d *daemon) status(ctx context.Context, r *Record, send func(*client.SolveStatus)) error {
	err := d.with(ctx, func(ctx context.Context, c *remote.Conn) error {
		stream, err := c.Client().ControlClient().Status(ctx, &controlapi.StatusRequest{Ref: r.Ref})
		if err != nil {
			return err
		}
		for {
			s, err := stream.Recv()
			switch {
			case errors.Is(err, io.EOF):
				return nil
			case err != nil:
				return err
			}
			send(client.NewSolveStatus(s))
		}
	})
	return gone(err)
}

func (d *daemon) remove(ctx context.Context, id string) error {
	return d.update(ctx, &controlapi.UpdateBuildHistoryRequest{Ref: id, Delete: true})
}

func (d *daemon) finalize(ctx context.Context, id string) error {
	return d.update(ctx, &controlapi.UpdateBuildHistoryRequest{Ref: id, Finalize: true})
}

func (d *daemon) update(ctx context.Context, req *controlapi.UpdateBuildHistoryRequest) error {
	return gone(d.with(ctx, func(ctx context.Context, c *remote.Conn) error {
		_, err := c.Client().ControlClient().UpdateBuildHistory(ctx, req)
		return err
	}))
}

func (d *daemon) platform(ctx context.Context) (string, error) {
	c, err := d.connect(ctx)
	if err != nil {
		return "", err
	}
	workers, err := c.Workers(ctx)
	if err != nil || len(workers) == 0 || len(workers[0].Platforms) == 0 {
		return "", err
	}
	return platforms.FormatAll(platforms.Normalize(workers[0].Platforms[0])), nil
}

// gone turns what daemons say of a record that is not there into ErrGone.
func gone(err error) error {
	if isMissing(err) {
		return fmt.Errorf("%w%w", ErrGone, hint.Quietly(err))
	}
	return err
}

// isMissing tells whether a daemon says that something is not there. It has a
// code for that in some places only.
func isMissing(err error) bool {
	if err == nil {
		return false
	}
	if grpcerrors.Code(err) == codes.NotFound {
		return true
	}
	text := err.Error()
	return strings.HasSuffix(text, ": not found") || strings.Contains(text, " is deleted: ") || strings.HasSuffix(text, "file does not exist")
}

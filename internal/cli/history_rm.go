package cli

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/history"
	"github.com/spf13/cobra"
)

type historyRmOptions struct {
	*historyOptions
	refs []string
	all  bool
}

func newHistoryRmCmd(a *app, shared *historyOptions) *cobra.Command {
	o := historyRmOptions{historyOptions: shared}
	cmd := &cobra.Command{
		Use:     "rm [OPTIONS] [REF...]",
		Aliases: []string{"remove"},
		Short:   "Remove build records",
		Long: `Remove build records, with their logs and traces. What was built stays, and so do
builds that run.

All references are looked up before the first record is removed, so ^0 ^1 are the
two newest. One that no record has is no failure, and told of. While a node cannot
be asked, ^N and the beginning of an id may mean another record, and nothing is
removed.`,
		Example: `  berth history rm qu2gsuo8ejqrwdfii23xkkckt
  berth history rm ^0 ^1
  berth history rm --all`,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.refs = args
			return a.traced(cmd, func(ctx context.Context) error { return a.runHistoryRm(ctx, o) })
		},
	}
	cmd.Flags().BoolVar(&o.all, "all", false, "remove all records of the builder")
	return cmd
}

func (a *app) runHistoryRm(ctx context.Context, o historyRmOptions) error {
	switch {
	case o.all && len(o.refs) > 0:
		return errors.New("rm requires either --all or at least one argument")
	case !o.all && len(o.refs) == 0:
		return hint.New("rm requires at least one argument", "list the records: berth history ls", "remove all of them: berth history rm --all")
	}
	refs, err := references(o.refs)
	if err != nil {
		return err
	}
	hs, err := a.newHistories(o.historyOptions)
	if err != nil {
		return err
	}
	defer hs.close()
	var all []*history.Record
	var failed []error
	if o.all {
		if all, failed, err = a.everyRecord(ctx, hs); err != nil {
			return err
		}
	} else if all, err = a.chosenRecords(ctx, hs, refs); err != nil {
		return err
	}
	hs.wait.close()
	failed = append(failed, a.removeRecords(ctx, all)...)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return errors.Join(failed...)
}

// everyRecord is all that the builder's nodes have, but for builds that run.
func (a *app) everyRecord(ctx context.Context, hs *histories) ([]*history.Record, []error, error) {
	h, err := hs.of(ctx, "")
	if err != nil {
		return nil, nil, err
	}
	found, err := h.Records(ctx, history.Filter{})
	if err != nil {
		return nil, nil, err
	}
	var ended []*history.Record
	for _, r := range found {
		if r.Status() != history.Running {
			ended = append(ended, r)
		}
	}
	return ended, h.Failed(), nil
}

// chosenRecords are those that were named, each once.
func (a *app) chosenRecords(ctx context.Context, hs *histories, refs []history.Reference) ([]*history.Record, error) {
	var all []*history.Record
	seen := map[string]bool{}
	for _, ref := range refs {
		h, err := hs.of(ctx, ref.Builder)
		if err != nil {
			return nil, err
		}
		r, err := h.Find(ctx, ref)
		switch {
		case ref.ID != "" && history.OnlyNotFound(err):
			a.warn("%v", err)
		case err != nil:
			return nil, err
		case h.Sure(ref, r) != nil:
			return nil, h.Sure(ref, r)
		case r.Status() == history.Running:
			return nil, fmt.Errorf("build %s still runs", r.Ref)
		case !seen[r.Reference()]:
			seen[r.Reference()] = true
			all = append(all, r)
		}
	}
	return all, nil
}

// removeRecords removes on all nodes at once, one after the other on each.
func (a *app) removeRecords(ctx context.Context, all []*history.Record) []error {
	byNode := map[string][]*history.Record{}
	for _, r := range all {
		node := r.Builder + "/" + r.Node
		byNode[node] = append(byNode[node], r)
	}
	var mu sync.Mutex
	var failed []error
	var wg sync.WaitGroup
	for _, records := range byNode {
		wg.Go(func() {
			for _, r := range records {
				if err := r.Remove(ctx); err != nil && !errors.Is(err, history.ErrGone) {
					mu.Lock()
					failed = append(failed, err)
					mu.Unlock()
				}
				if ctx.Err() != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	return failed
}

package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/berthbuild/berth/internal/builder"
	"github.com/berthbuild/berth/internal/hint"
	"github.com/spf13/cobra"
)

type rmOptions struct {
	names       []string
	allInactive bool
	force       bool
	timeout     time.Duration
}

func newRmCmd(a *app) *cobra.Command {
	var o rmOptions
	cmd := &cobra.Command{
		Use:   "rm [OPTIONS] [NAME…]",
		Short: "Forget builders",
		Long: `Forget builders: the chosen one, those that are named, or with --all-inactive all
that do not answer. Their daemons are not touched and need not answer; those that
buildx started go on, and the command that ends them is said.`,
		Example: `  berth rm remote
  berth rm --all-inactive --force`,
		ValidArgsFunction: a.completeBuilders,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.names = args
			return a.runRm(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&o.allInactive, "all-inactive", false, "forget all builders that do not answer")
	f.BoolVarP(&o.force, "force", "f", false, "do not ask")
	f.DurationVar(&o.timeout, "timeout", snapshotBudget, "how long --all-inactive waits for each daemon")
	f.Bool("keep-daemon", false, "")
	f.Bool("keep-state", false, "")
	hideFlags(cmd, "keep-daemon", "keep-state") // buildx's; a remote daemon and its state are always kept
	return cmd
}

func (a *app) runRm(ctx context.Context, o rmOptions) error {
	s := a.service()
	if o.allInactive {
		if len(o.names) > 0 {
			return hint.New("--all-inactive and names exclude each other", "leave one out")
		}
		return a.rmInactive(ctx, s, o)
	}
	if len(o.names) == 0 {
		b, err := s.Find(ctx, a.builderName(nil))
		if err != nil {
			return err
		}
		o.names = []string{b.Name}
		if b.Source == builder.OfURL {
			o.names = []string{b.Nodes[0].Endpoint} // to be told why not
		}
	}
	return a.rmNamed(ctx, s, o.names)
}

// rmNamed removes as many as it can, and fails when one was not there.
func (a *app) rmNamed(ctx context.Context, s *builder.Service, names []string) error {
	var failed []error
	for _, name := range names {
		b := s.Lookup(ctx, name) // nil for a damaged one, which can be removed, too
		if err := s.Remove(ctx, name); err != nil {
			fmt.Fprintf(a.io.Err, "failed to remove %s: %v\n", name, err)
			failed = append(failed, err)
			continue
		}
		fmt.Fprintf(a.io.Err, "%s removed\n", name)
		a.sayLeft(b)
	}
	if len(failed) > 0 {
		return hint.Wrap(errors.New("failed to remove one or more builders"), "", hint.Of(errors.Join(failed...))...)
	}
	return nil
}

// sayLeft names what buildx started for a builder: berth ends no daemons.
func (a *app) sayLeft(b *builder.Builder) {
	if b == nil {
		return
	}
	for _, command := range builder.Left(b) {
		fmt.Fprintf(a.io.Err, "its daemon was started by buildx and goes on; this ends it: %s\n", command)
	}
}

func (a *app) rmInactive(ctx context.Context, s *builder.Service, o rmOptions) error {
	all, err := s.List(ctx)
	if err != nil {
		return err
	}
	alive := make([]bool, len(all))
	s.ProbeAll(ctx, all, builder.ProbeOptions{Budget: o.timeout, Once: true}, func(b, _ int, st builder.Status) {
		alive[b] = alive[b] || st.State == builder.Running
	})
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var names []string
	for i, b := range all {
		if !alive[i] && b.Err == nil && b.Driver == builder.DriverRemote && b.Source == builder.Stored {
			names = append(names, b.Name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	slices.Sort(names)
	if !o.force {
		ok, err := a.confirm(fmt.Sprintf("This removes the builders that do not answer: %s. Continue?", strings.Join(names, ", ")))
		if err != nil || !ok {
			return err
		}
	}
	return a.rmNamed(ctx, s, names)
}

// confirm asks on the terminal. Without one nothing is assumed.
func (a *app) confirm(question string) (bool, error) {
	if !a.io.InTTY {
		return false, hint.New("this asks for confirmation, and there is no terminal to ask on", "add --force")
	}
	fmt.Fprintf(a.io.Err, "%s [y/N] ", question)
	line, err := bufio.NewReader(a.io.In).ReadString('\n')
	if err != nil && line == "" {
		return false, nil // end of input is a no
	}
	answer := strings.ToLower(strings.TrimSpace(line))
	return answer == "y" || answer == "yes", nil
}

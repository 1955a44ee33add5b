package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"
	"unicode"

	"github.com/berthbuild/berth/internal/builder"
	"github.com/berthbuild/berth/internal/builderfile"
	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/ui"
	"github.com/spf13/cobra"
)

type trustOptions struct {
	files  []string
	list   bool
	revoke bool
	digest string
}

func newTrustCmd(a *app) *cobra.Command {
	var o trustOptions
	cmd := &cobra.Command{
		Use:   "trust [OPTIONS] [FILE…]",
		Short: "Agree to use the builders of a file",
		Long: `Agree to use the builders of a definition file, such as a berth.yaml that came
with a repository: show where they are and what they run on this machine, and
record the agreement in the state folder. Nothing is contacted.

Without FILE it is the one in force: BERTH_FILE, or the berth.yaml of the working
directory or of a folder above it.

The agreement holds for the file at its place with its content as it is now;
where the file changes, it is asked for again. With --digest, only that content
is agreed to, as a pipeline should that checks out what others wrote.`,
		Example: `  berth trust
  berth trust --digest sha256:0f3a… ci/berth.yaml
  berth trust --list
  berth trust --revoke ./berth.yaml`,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.files = args
			return a.runTrust(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&o.list, "list", false, "list what was agreed to, and whether it still holds")
	f.BoolVar(&o.revoke, "revoke", false, "take the agreement back; the file need not be there any more")
	f.StringVar(&o.digest, "digest", "", "agree only when the file has this digest (sha256:…)")
	return cmd
}

func (a *app) runTrust(ctx context.Context, o trustOptions) error {
	switch {
	case o.list && (o.revoke || o.digest != "" || len(o.files) > 0):
		return hint.New("--list takes no files and no other options", "berth trust --list")
	case o.revoke && o.digest != "":
		return hint.New("--revoke and --digest exclude each other", "leave one out")
	case o.list:
		return a.listTrust(ctx)
	}
	if len(o.files) == 0 {
		path := a.definitionPath()
		if path == "" {
			return hint.New(fmt.Sprintf("there is no %s here or above", builderfile.Name), "name the file: berth trust FILE")
		}
		o.files = []string{path}
	}
	if o.digest != "" && len(o.files) > 1 {
		return hint.New("--digest is that of one file", "name one file")
	}
	for _, path := range o.files {
		act := a.agree
		if o.revoke {
			act = a.revoke
		}
		if err := act(ctx, a.abs(path), o.digest); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) agree(ctx context.Context, path, digest string) error {
	d, err := builder.ReadDefinition(path)
	if err != nil {
		return err
	}
	if digest != "" && digest != d.Digest && "sha256:"+digest != d.Digest {
		return hint.New(fmt.Sprintf("%s has the digest %s, and not %s: nothing was agreed to", d.Path, d.Digest, safe(digest)),
			"see what changed before giving its new digest")
	}
	s := a.service()
	c, err := s.Consent(ctx, d)
	if err != nil {
		return err
	}
	a.showReview(a.io.Out, d, c)
	if c != builder.Agreed {
		if err := s.Trust(ctx, d); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintf(a.io.Out, "agreed: %s %s\n", safe(d.Path), d.Digest)
	return err
}

func (a *app) revoke(ctx context.Context, path, _ string) error {
	resolved, _ := builder.RealPath(path) // the file may be gone
	err := a.store().Revoke(ctx, resolved)
	if errors.Is(err, fs.ErrNotExist) {
		return hint.New("there is no agreement about "+safe(resolved), "list them: berth trust --list")
	}
	if err == nil {
		fmt.Fprintf(a.io.Err, "%s: the agreement is taken back\n", safe(resolved))
	}
	return err
}

func (a *app) listTrust(ctx context.Context) error {
	all, damages, err := a.store().Agreements(ctx)
	if err != nil {
		return err
	}
	header := []string{"FILE", "AGREED", "NOW"}
	rows := [][]string{}
	for _, g := range all {
		now := "as agreed"
		switch d, err := builder.ReadDefinition(g.Path); {
		case errors.Is(err, fs.ErrNotExist):
			now = "missing"
		case err != nil:
			now = "unreadable"
		case d.Path != g.Path || d.Digest != g.Digest:
			now = "changed"
		}
		rows = append(rows, []string{safe(g.Path), g.At.Format(time.RFC3339), now})
	}
	table := ui.NewTable(a.io.Out, header, rows...)
	for _, row := range append([][]string{header}, rows...) {
		if err := table.Row(row...); err != nil {
			return err
		}
	}
	var damaged []error
	for i := range damages {
		damaged = append(damaged, &damages[i])
	}
	return errors.Join(damaged...)
}

// showReview prints what a file's builders are, for a person to judge: first
// the nodes, and last, next to the question, what they run on this machine.
// Nothing of the file can move the cursor or hide a part of itself.
func (a *app) showReview(out io.Writer, d *builder.Definition, c builder.Consent) {
	var text, runs strings.Builder
	state := map[builder.Consent]string{
		builder.Unknown: "has builders that nobody has agreed to use yet",
		builder.Changed: "HAS CHANGED since you agreed to use its builders",
		builder.Agreed:  "has builders that you have agreed to use",
	}[c]
	fmt.Fprintf(&text, "%s %s:\n", safe(d.Path), state)
	last := ""
	for _, r := range d.Review(a.home(), a.env) {
		if r.Builder != last {
			fmt.Fprintf(&text, "  builder %s\n", safe(r.Builder))
			last = r.Builder
		}
		fmt.Fprintf(&text, "    node %s at %s\n", safe(r.Node), safe(r.Endpoint))
		for _, o := range r.Options {
			fmt.Fprintf(&text, "      %s\n", safe(o))
		}
		for _, m := range r.Minds {
			fmt.Fprintf(&text, "      ! %s\n", safe(m))
		}
		for _, run := range r.Runs {
			fmt.Fprintf(&runs, "  ! node %s %s\n", safe(r.Node), safe(run))
		}
	}
	if d.Owner != "" {
		fmt.Fprintf(&text, "  ! the file belongs to another user: %s\n", safe(d.Owner))
	}
	text.WriteString("Whoever runs these daemons gets what builds send them: files, secrets, ssh agents, registry logins.\n")
	if runs.Len() > 0 {
		text.WriteString("Using them does this on your machine:\n" + runs.String())
	}
	_, _ = io.WriteString(out, text.String()) // a reader that went away answers nothing
}

// safe makes a text from elsewhere fit for a terminal: what is not printable,
// or changes the direction of writing, is shown by its number.
func safe(s string) string {
	if strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if unicode.IsPrint(r) {
			b.WriteRune(r)
		} else {
			fmt.Fprintf(&b, `\u{%x}`, r)
		}
	}
	return b.String()
}

// askYes asks on the terminal and takes only a yes for one. It ends with ctx.
func (a *app) askYes(ctx context.Context, question string) (bool, error) {
	fmt.Fprint(a.io.Err, question)
	answer := make(chan string, 1)
	go func() { // ends with the process where nobody answers
		line, _ := bufio.NewReader(a.io.In).ReadString('\n') // an end of input is a no
		answer <- line
	}()
	select {
	case line := <-answer:
		line = strings.ToLower(strings.TrimSpace(line))
		return line == "y" || line == "yes", nil
	case <-ctx.Done():
		fmt.Fprintln(a.io.Err)
		return false, context.Cause(ctx)
	}
}

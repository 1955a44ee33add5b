package cli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/pool"
	"github.com/berthbuild/berth/internal/termtext"
	"github.com/berthbuild/berth/internal/ui"
	"github.com/docker/go-units"
	"github.com/spf13/cobra"
)

// maxTopText bounds in bytes what a daemon may say in one line.
const maxTopText = 200

type topOptions struct {
	format  string
	every   time.Duration
	once    bool
	timeout time.Duration
}

func newTopCmd(a *app) *cobra.Command {
	var o topOptions
	cmd := &cobra.Command{
		Use:   "top [OPTIONS] [NAME]",
		Short: "Show what a builder's daemons are doing",
		Long: `Show all daemons of a builder, also those behind one endpoint: how they are, the
size of their caches, and the builds that they have, whoever began them, with the
steps that run. On a terminal it is shown anew until Ctrl-C; otherwise once.

--format takes table, or json (one document).`,
		Example: `  berth top
  berth top --format json team`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: a.completeOneBuilder,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.runTop(cmd.Context(), a.builderName(args), o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.format, "format", ui.FormatTable, "table or json")
	f.DurationVar(&o.every, "interval", 2*time.Second, "how long to rest between two looks")
	f.BoolVar(&o.once, "once", false, "look once, on a terminal too")
	f.DurationVar(&o.timeout, "timeout", snapshotBudget, "how long to wait for each daemon's answer")
	completeWith(cmd, "format", completeWords(ui.FormatTable, ui.FormatJSON))
	return cmd
}

func (a *app) runTop(ctx context.Context, name string, o topOptions) error {
	format, err := ui.ParseFormat(o.format)
	switch {
	case err != nil:
		return err
	case !format.IsJSON() && !format.IsTable():
		return hint.New("--format takes table or json", "templates: berth history ls --filter status=running --format …")
	case o.timeout <= 0:
		return hint.New(fmt.Sprintf("--timeout %s leaves no time to ask", o.timeout), "give a time such as 3s")
	case o.every <= 0:
		return hint.New(fmt.Sprintf("--interval %s is no time to rest", o.every), "give a time such as 2s")
	}
	s := a.service()
	b, err := s.Find(ctx, name)
	if err != nil {
		return err
	}
	if err := b.Usable(); err != nil {
		return err
	}
	start := "\x1b[2J\x1b[H" // an empty screen, once
	for {
		seen := pool.Survey(ctx, pool.Members(ctx, b.Nodes, s.Schemes), s.Schemes, o.timeout)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		now := time.Now()
		if format.IsJSON() {
			return ui.WriteJSON(a.io.Out, newTopView(b.Name, seen, now))
		}
		text := topText(b.Name, seen, now)
		if o.once || !a.io.OutTTY {
			_, err := io.WriteString(a.io.Out, text)
			return err
		}
		// The new text with what is left of each line cleared, then the rest.
		if _, err := io.WriteString(a.io.Out, start+strings.ReplaceAll(text, "\n", "\x1b[K\n")+"\x1b[J"); err != nil {
			return err
		}
		start = "\x1b[H"
		rest := time.NewTimer(o.every)
		select {
		case <-rest.C:
		case <-ctx.Done():
			rest.Stop()
			return context.Cause(ctx)
		}
	}
}

// topView is what --format json prints.
type topView struct {
	Builder string      `json:"builder"`
	At      time.Time   `json:"at"`
	Members []topMember `json:"members"`
}

type topMember struct {
	Name     string     `json:"name"`
	Node     string     `json:"node"`
	Endpoint string     `json:"endpoint"`
	Status   string     `json:"status"`
	Error    string     `json:"error,omitempty"`
	ErrClass string     `json:"errClass,omitempty"`
	Version  string     `json:"version,omitempty"`
	Active   *int       `json:"active"` // null where it is not known
	Cache    *int64     `json:"cacheBytes"`
	Builds   []topBuild `json:"builds"`
}

type topBuild struct {
	Ref     string    `json:"ref"`
	Name    string    `json:"name,omitempty"`
	Source  string    `json:"source,omitempty"`
	Started time.Time `json:"started"`
	Seconds float64   `json:"seconds"`
	Steps   []string  `json:"steps"`
}

func newTopView(builder string, seen []pool.Sight, now time.Time) topView {
	v := topView{Builder: builder, At: now.UTC(), Members: []topMember{}}
	for _, s := range seen {
		m := topMember{
			Name: s.Name, Node: s.Node.Name, Endpoint: s.Target.Endpoint.String(), Status: "running", Version: s.Version, Builds: []topBuild{},
		}
		if s.Err != nil {
			m.Status, m.Error, m.ErrClass = "inactive", errText(s.Err), errClass(s.Err)
		}
		if s.Known {
			n := len(s.Builds)
			m.Active = &n
		}
		if s.Cache >= 0 {
			m.Cache = &s.Cache
		}
		for _, b := range s.Builds {
			steps := b.Steps
			if steps == nil {
				steps = []string{}
			}
			m.Builds = append(m.Builds, topBuild{
				Ref: b.Ref, Name: b.Name, Source: b.Source, Started: b.Started.UTC(), Seconds: max(0, now.Sub(b.Started).Seconds()), Steps: steps,
			})
		}
		v.Members = append(v.Members, m)
	}
	return v
}

// topText is the same for people. What daemons say is made fit for a terminal.
func topText(builder string, seen []pool.Sight, now time.Time) string {
	var text strings.Builder
	healthy, active := 0, 0
	for _, s := range seen {
		if s.Err == nil {
			healthy++
		}
		active += len(s.Builds)
	}
	fmt.Fprintf(&text, "%s: %d of %d daemons answer, %s, %s\n\n", builder, healthy, len(seen), countOf(active, "build"), now.Format(time.TimeOnly))
	header := []string{"NODE", "STATUS", "BUILDKIT", "CACHE", "BUILDS"}
	var rows [][]string
	for _, s := range seen {
		row := []string{s.Name, "running", s.Version, "-", "-"}
		if s.Err != nil {
			row[1] = "inactive"
			if class := errClass(s.Err); class != "" {
				row[1] += " (" + class + ")"
			}
		}
		if s.Cache >= 0 {
			row[3] = units.HumanSize(float64(s.Cache))
		}
		if s.Known {
			row[4] = fmt.Sprint(len(s.Builds))
		}
		for i := range row {
			row[i] = termtext.Line(row[i], maxTopText)
		}
		rows = append(rows, row)
	}
	table := ui.NewTable(&text, header, rows...)
	_ = table.Row(header...) // into memory
	for i, row := range rows {
		_ = table.Row(row...)
		for _, b := range seen[i].Builds {
			what := b.Name
			if what == "" {
				what = b.Ref
			}
			if b.Source != "" && b.Source != what {
				what += " of " + b.Source
			}
			fmt.Fprintf(&text, "  %s, for %s\n", termtext.Line(what, maxTopText), max(0, now.Sub(b.Started)).Round(time.Second))
			for _, step := range b.Steps {
				fmt.Fprintf(&text, "    %s\n", termtext.Line(step, maxTopText))
			}
		}
	}
	return text.String()
}

// countOf is a number with its thing.
func countOf(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

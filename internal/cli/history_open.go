package cli

import (
	"context"
	"fmt"
	"os/exec"
	"runtime"

	"github.com/berthbuild/berth/internal/history"
	"github.com/berthbuild/berth/internal/historypage"
	"github.com/spf13/cobra"
)

type historyOpenOptions struct {
	*historyOptions
	args      []string
	addr      string
	noBrowser bool
}

func newHistoryOpenCmd(a *app, shared *historyOptions) *cobra.Command {
	o := historyOpenOptions{historyOptions: shared}
	cmd := &cobra.Command{
		Use:   "open [OPTIONS] [REF]",
		Short: "Show builders and builds in a browser",
		Long: `Show builders and builds on a page in the browser, until Ctrl-C: how the members of
all builders are, the builds as they happen, and of each build a timeline of its
steps, what its length hung on, its log, inputs, outputs and provenance; and two
builds side by side, with what got slower. With --builder it is that builder only;
with REF the page begins with that build.

The page is served on this machine's loopback only, to who has the URL, which has a
secret in it, and nothing can be changed by it. berth history report writes a file
for others.`,
		Example: `  berth history open
  berth history open ^1
  berth history open --addr 127.0.0.1:8080 --no-browser`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.args = args
			return a.traced(cmd, func(ctx context.Context) error { return a.runHistoryOpen(ctx, o) })
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.addr, "addr", "", "the loopback address to serve on, such as 127.0.0.1:8080 (default: a free port)")
	f.BoolVar(&o.noBrowser, "no-browser", false, "print the URL, and open no browser")
	return cmd
}

func (a *app) runHistoryOpen(ctx context.Context, o historyOpenOptions) error {
	if err := checkTimeout(o.timeout); err != nil {
		return err
	}
	only := a.builderName(nil)
	if len(o.args) > 0 {
		ref, err := oneReference(o.args)
		if err != nil {
			return err
		}
		if ref.Builder == history.Imported {
			only = history.Imported
		}
	}
	if only != "" && only != history.Imported {
		if _, err := a.service().Find(ctx, only); err != nil {
			return err
		}
	}
	l, err := historypage.Listen(ctx, o.addr)
	if err != nil {
		return err
	}
	defer l.Close() //nolint:errcheck // the server has closed it, or has not begun
	first := ""
	if len(o.args) > 0 { // a mistake in it is told here rather than on the page
		err := a.withRecord(ctx, o.historyOptions, o.args, func(_ *history.History, r *history.Record, _ history.Reference) error {
			first = r.Reference()
			return nil
		})
		if err != nil {
			return err
		}
	}
	source := historypage.NewDaemons(historypage.Options{Service: a.service(), Only: only, Budget: o.timeout, Dir: a.dir, Expand: a.expand})
	defer source.Close()
	server := historypage.NewServer(l, source, first)
	if _, err := fmt.Fprintln(a.io.Out, server.URL()); err != nil {
		return err
	}
	if !o.noBrowser && a.io.OutTTY {
		a.openBrowser(server.Ticket())
	}
	fmt.Fprintln(a.io.Err, "the page is there until Ctrl-C")
	return server.Serve(ctx, l)
}

// openBrowser opens a page where there is a browser to open it in: not over ssh, and not
// without a display. That there is none is no failure, since the URL is printed.
func (a *app) openBrowser(url string) {
	var cmd *exec.Cmd
	switch runtime.GOOS {
	case "windows":
		cmd = exec.Command("rundll32", "url.dll,FileProtocolHandler", url)
	case "darwin":
		cmd = exec.Command("open", url)
	default:
		if a.env("DISPLAY") == "" && a.env("WAYLAND_DISPLAY") == "" {
			return
		}
		cmd = exec.Command("xdg-open", url)
	}
	if a.env("SSH_CONNECTION") != "" {
		return
	}
	if a.environ != nil {
		cmd.Env = a.environ()
	}
	if cmd.Start() == nil {
		go func() { _ = cmd.Wait() }() // see above
	}
}

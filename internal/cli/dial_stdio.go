package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/berthbuild/berth/internal/builder"
	"github.com/berthbuild/berth/internal/buildflag"
	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/progress"
	"github.com/berthbuild/berth/internal/remote"
	"github.com/containerd/platforms"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"
)

type dialStdioOptions struct {
	platform string
	progress string
	timeout  time.Duration
}

func newDialStdioCmd(a *app) *cobra.Command {
	var o dialStdioOptions
	cmd := &cobra.Command{
		Use:   "dial-stdio [OPTIONS]",
		Short: "Connect standard input and output to a builder's daemon",
		Long: `Pass bytes between standard input and output and the BuildKit API of a builder's
daemon, so that other programs can use every endpoint that berth can reach. Why
it waits, and errors, go to standard error.

With --platform, the first node that builds for it is taken, otherwise the first
node.`,
		Example: `  berth dial-stdio --builder remote
  berth dial-stdio --platform linux/arm64 --progress plain`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.runDialStdio(cmd.Context(), o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.platform, "platform", "", "take a node that builds for this platform")
	f.StringVar(&o.progress, "progress", string(progress.None), "say on standard error what is waited for: auto, plain, tty, rawjson, quiet or none")
	f.DurationVar(&o.timeout, "timeout", 0, "how long to wait for the daemon (default: the node's connect-timeout, 20s)")
	completeWith(cmd, "progress", completeWords("auto", "plain", "tty", "rawjson", "quiet", "none"))
	return cmd
}

func (a *app) runDialStdio(ctx context.Context, o dialStdioOptions) error {
	if o.timeout < 0 {
		return hint.New(fmt.Sprintf("--timeout %s is negative", o.timeout), "give a time such as 20s")
	}
	mode, err := progress.ParseMode(o.progress)
	if err != nil {
		return err
	}
	want, err := onePlatform(o.platform)
	if err != nil {
		return err
	}
	s := a.service()
	b, err := s.Find(ctx, a.builderName(nil))
	if err != nil {
		return err
	}
	w := a.newWaiting()
	defer w.close()
	onWait := w.show
	if mode == progress.Quiet || mode == progress.None || mode == progress.RawJSON {
		onWait = nil
	}
	n, err := s.NodeFor(ctx, b, want, builder.ProbeOptions{Budget: o.timeout, OnWait: onWait})
	if err != nil {
		return err
	}
	t, err := n.Target()
	if err != nil {
		return err
	}
	conn, err := remote.Dial(ctx, t, remote.Config{Schemes: s.Schemes, Budget: o.timeout, OnWait: onWait})
	if err != nil {
		return err
	}
	w.close()
	defer conn.Close() //nolint:errcheck // everything has been passed on, or has failed
	if err := proxy(ctx, conn, a.io.In, a.io.Out, afterInput); err != nil {
		return hint.Wrap(err, t.String())
	}
	return nil
}

// onePlatform reads --platform; nil when nothing was said.
func onePlatform(flag string) (*ocispecs.Platform, error) {
	all, err := buildflag.ParsePlatforms([]string{flag})
	switch {
	case flag == "":
		return nil, nil
	case err != nil:
		return nil, err
	case len(all) != 1:
		return nil, hint.New("dial-stdio connects to one node: --platform takes one platform", "--platform "+platforms.FormatAll(all[0]))
	}
	return &all[0], nil
}

// afterInput is how long the daemon may be silent once the input has ended:
// whoever had more to ask is gone then, and a daemon that hangs must not keep
// this process for ever.
const afterInput = 10 * time.Second

// proxy passes bytes both ways until the daemon closes the connection, or is
// silent for as long as quiet after the input has ended, or ctx ends.
func proxy(ctx context.Context, conn net.Conn, in io.Reader, out io.Writer, quiet time.Duration) error {
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	var over atomic.Bool // the input has ended
	sent := make(chan error, 1)
	go func() {
		_, err := io.Copy(conn, in)
		if h, ok := conn.(interface{ CloseWrite() error }); ok && err == nil {
			err = h.CloseWrite()
		}
		sent <- err
		over.Store(true)
		_ = conn.SetReadDeadline(time.Now().Add(quiet))
	}()
	err := passOn(conn, out, &over, quiet)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	select {
	case serr := <-sent:
		if err == nil && !closed(serr) {
			err = serr
		}
	default: // the daemon is done; what is not sent yet has no reader
	}
	return err
}

// passOn copies what the daemon says.
func passOn(conn net.Conn, out io.Writer, over *atomic.Bool, quiet time.Duration) error {
	buf := make([]byte, 64<<10)
	for {
		n, err := conn.Read(buf)
		if n > 0 {
			if _, werr := out.Write(buf[:n]); werr != nil {
				return fmt.Errorf("writing to standard output: %w", werr)
			}
		}
		switch {
		case errors.Is(err, io.EOF), over.Load() && errors.Is(err, os.ErrDeadlineExceeded):
			return nil
		case err != nil:
			return err
		case over.Load():
			_ = conn.SetReadDeadline(time.Now().Add(quiet))
		}
	}
}

// closed tells whether a copy ended because one side was done.
func closed(err error) bool {
	return err == nil || errors.Is(err, net.ErrClosed) || errors.Is(err, io.ErrClosedPipe)
}

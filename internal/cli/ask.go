package cli

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/containerd/console"
	"golang.org/x/term"
)

// asker is how schemes ask the person at the terminal, nil where nobody is
// there to read the question and to answer it.
func (a *app) asker() func(ctx context.Context, question string) (string, error) {
	in, ok := a.io.In.(*os.File)
	if !ok || !a.io.InTTY || !a.io.ErrTTY {
		return nil
	}
	return func(ctx context.Context, question string) (string, error) {
		return a.ask(ctx, in, question)
	}
}

// ask reads a line that is not shown. It ends with ctx; the line that is typed
// then is lost, which does not matter to a command that ends too.
func (a *app) ask(ctx context.Context, in *os.File, question string) (string, error) {
	fd := int(in.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return "", err
	}
	// Before the question: whoever answers quickly must not see the answer.
	if tty, err := console.ConsoleFromFile(in); err != nil {
		return "", err
	} else if err := tty.DisableEcho(); err != nil {
		return "", err
	}
	defer term.Restore(fd, before)            //nolint:errcheck // there is nothing else to try
	fmt.Fprint(a.io.Err, "\r\x1b[K"+question) // over a line that says what is waited for
	type line struct {
		text []byte
		err  error
	}
	typed := make(chan line, 1)
	go func() {
		text, err := term.ReadPassword(fd)
		typed <- line{text, err}
	}()
	defer fmt.Fprintln(a.io.Err)
	select {
	case l := <-typed:
		return strings.TrimRight(string(l.text), "\r"), l.err
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

// Package ui is where output meets a person or a pipe: the three streams, a
// table, and the --format option.
//
// Results (names, ids, tables, JSON) go to Out; progress, warnings and errors
// go to Err, so that a script can read one without the other. The package
// knows nothing of builders or builds.
package ui

import (
	"io"
	"os"

	"golang.org/x/term"
)

// Streams are a process's input and outputs, with what is known about them.
type Streams struct {
	In  io.Reader
	Out io.Writer
	Err io.Writer

	InTTY  bool // In is a terminal: somebody can be asked
	OutTTY bool // Out is a terminal: rows may be shown as they come, bytes may not
	ErrTTY bool // Err is a terminal: a line may be rewritten
}

// System is the process's own streams.
func System() *Streams {
	return &Streams{
		In: os.Stdin, Out: os.Stdout, Err: os.Stderr,
		InTTY:  term.IsTerminal(int(os.Stdin.Fd())),
		OutTTY: term.IsTerminal(int(os.Stdout.Fd())),
		ErrTTY: term.IsTerminal(int(os.Stderr.Fd())),
	}
}

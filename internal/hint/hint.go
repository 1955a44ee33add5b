// Package hint carries what a person needs to know about a failure: what was
// being done, the real cause, and what to try next.
//
// It is not for deciding anything: code tells errors apart with errors.Is and
// errors.As on the types of the packages that make them. A hint is attached
// where the cause is known, never by looking at an error's text.
package hint

import (
	"errors"
	"slices"
	"strings"
)

// Hinter is an error that knows remedies for itself. Each hint is one line
// that can be read, or pasted, on its own.
type Hinter interface {
	error
	Hints() []string
}

// Error says what was being done, why it failed, and what to try.
type Error struct {
	Doing string   // "reading builder remote"; empty when Cause says it all
	Cause error    // never nil
	Tries []string // lines to read or paste, best first
}

// Error is "doing: cause"; hints are left to whoever prints.
func (e *Error) Error() string {
	if e.Doing == "" {
		return e.Cause.Error()
	}
	return e.Doing + ": " + e.Cause.Error()
}

// Unwrap gives the cause, so that errors.Is and errors.As see through.
func (e *Error) Unwrap() error { return e.Cause }

// Hints implements Hinter.
func (e *Error) Hints() []string { return e.Tries }

// Wrap says what was being done when cause happened. A nil cause stays nil.
func Wrap(cause error, doing string, hints ...string) error {
	if cause == nil {
		return nil
	}
	return &Error{Doing: doing, Cause: cause, Tries: hints}
}

// New is a failure without a deeper cause.
func New(msg string, hints ...string) error {
	return &Error{Cause: errors.New(msg), Tries: hints}
}

// Of collects the hints along err's chain, the outermost first, each once.
func Of(err error) []string {
	var all []string
	collect(err, &all)
	return all
}

func collect(err error, all *[]string) {
	if err == nil {
		return
	}
	if h, ok := err.(Hinter); ok { //nolint:errorlint // each link of the chain is asked in turn
		for _, line := range h.Hints() {
			if line != "" && !slices.Contains(*all, line) {
				*all = append(*all, line)
			}
		}
	}
	switch u := err.(type) { //nolint:errorlint // walking the chain by hand, as errors.As does
	case interface{ Unwrap() error }:
		collect(u.Unwrap(), all)
	case interface{ Unwrap() []error }:
		for _, e := range u.Unwrap() {
			collect(e, all)
		}
	}
}

// Quietly keeps an error in a chain without its text, where the sentence around
// it has said all of it: fmt.Errorf("no builder %q found%w", name, Quietly(err)).
func Quietly(err error) error { return quiet{err} }

type quiet struct{ error }

func (quiet) Error() string   { return "" }
func (q quiet) Unwrap() error { return q.error }

// Quote makes an argument of a line that is to be pasted one word of a shell's.
func Quote(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_-./:,=@%+", r)
	}
	if s != "" && !strings.ContainsFunc(s, func(r rune) bool { return !plain(r) }) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

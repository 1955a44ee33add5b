package hint

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"
)

func TestErrorTextAndChain(t *testing.T) {
	err := Wrap(io.ErrUnexpectedEOF, "reading the answer", "try again")
	if got, want := err.Error(), "reading the answer: unexpected EOF"; got != want {
		t.Errorf("Error() = %q, want %q", got, want)
	}
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Error("the cause cannot be found through the hint")
	}
	if Wrap(nil, "anything") != nil {
		t.Error("a nil cause must stay nil")
	}
	if got := New("plain").Error(); got != "plain" {
		t.Errorf("New without a doing = %q", got)
	}
}

func TestOfCollectsOutermostFirstOnce(t *testing.T) {
	inner := New("inner", "third", "second")
	outer := Wrap(fmt.Errorf("between: %w", inner), "outer", "first", "second")
	joined := errors.Join(outer, New("other", "fourth", ""))
	want := []string{"first", "second", "third", "fourth"}
	if got := Of(joined); !slices.Equal(got, want) {
		t.Errorf("Of = %q, want %q", got, want)
	}
	if got := Of(io.EOF); got != nil {
		t.Errorf("Of an error without hints = %q", got)
	}
}

func TestQuietly(t *testing.T) {
	err := fmt.Errorf("nothing more came%w", Quietly(io.ErrUnexpectedEOF))
	if err.Error() != "nothing more came" || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%q, chain kept: %v", err, errors.Is(err, io.ErrUnexpectedEOF))
	}
}

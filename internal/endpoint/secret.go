package endpoint

import "fmt"

// Secret is a text that must not be seen: however a value that holds one is
// printed, logged or written as JSON, the text is not there. Equal secrets are
// equal by == only when one is a copy of the other.
type Secret struct {
	text *string // package fmt follows no pointers within a struct
}

// NewSecret hides text; "" is the zero Secret.
func NewSecret(text string) Secret {
	if text == "" {
		return Secret{}
	}
	return Secret{&text}
}

// Reveal is the text itself, for whoever it was given for.
func (s Secret) Reveal() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}

// IsZero tells whether there is none.
func (s Secret) IsZero() bool { return s.text == nil }

// Format implements fmt.Formatter: it says that there is something, and no more.
func (s Secret) Format(f fmt.State, _ rune) {
	if !s.IsZero() {
		_, _ = f.Write([]byte("(hidden)"))
	}
}

// MarshalText implements encoding.TextMarshaler, by saying nothing.
func (s Secret) MarshalText() ([]byte, error) { return nil, nil }

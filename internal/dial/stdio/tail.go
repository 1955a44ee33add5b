package stdio

import (
	"strings"
	"sync"
	"unicode"
)

// tailSize is how much of a standard error is kept, in bytes, at its beginning
// and at its end: the reason stands at one of them, and a hostile process could
// write for ever.
const tailSize = 2 << 10

// Tail keeps the beginning and the end of what is written. It takes everything,
// so that the writer never blocks. The zero value is ready.
type Tail struct {
	mu        sync.Mutex
	head, end []byte
	cut       bool
}

// Write implements io.Writer.
func (t *Tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := len(b)
	if room := tailSize - len(t.head); room > 0 {
		take := min(room, len(b))
		t.head = append(t.head, b[:take]...)
		b = b[take:]
	}
	if len(b) > tailSize {
		b, t.cut = b[len(b)-tailSize:], true
	}
	t.end = append(t.end, b...)
	if over := len(t.end) - tailSize; over > 0 {
		t.end, t.cut = append([]byte(nil), t.end[over:]...), true
	}
	return n, nil
}

// String is what was kept, on one line and fit for a terminal.
func (t *Tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	text := string(t.head)
	if t.cut {
		text += " … "
	}
	text = strings.ToValidUTF8(text+string(t.end), "")
	text = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case !unicode.IsPrint(r):
			return -1
		}
		return r
	}, text)
	return strings.Join(strings.Fields(text), " ")
}

package termtext

import "unicode/utf8"

// The states of a Filter: which part of a control sequence it is in.
type state uint8

const (
	text        state = iota
	escape            // behind ESC
	escapeMore        // behind ESC and an intermediate, such as ESC ( B
	control           // behind ESC [
	controlSkip       // the same, and it is no colour
	message           // behind ESC ], ESC P and the like, until it is ended
	messageEsc        // the same, behind an ESC that may end it
)

const (
	// maxColour bounds a colour: the longest real ones have about 40 bytes.
	maxColour = 64
	// maxMessage bounds what an unended message swallows.
	maxMessage = 4096
)

// Filter takes a stream to pieces, such as the output of a program. Letters,
// tabs, line breaks, carriage returns, backspaces and colours pass. The zero
// value is ready; one goroutine at a time may use it.
type Filter struct {
	noColour bool

	state   state
	pending []byte // the beginning of a letter
	params  []byte // of an unfinished colour
	skipped int    // bytes of a message
	colour  bool   // a colour is on
}

// Append adds to dst what of p may pass. What p ends in the middle of comes
// with the next call.
func (f *Filter) Append(dst, p []byte) []byte {
	for len(p) > 0 {
		if f.state != text {
			dst = f.sequence(dst, p[0])
			p = p[1:]
			continue
		}
		var n int
		dst, n = f.letter(dst, p)
		p = p[n:]
	}
	return dst
}

// Flush adds what was held back of a letter that did not come to its end. An
// unfinished control sequence is forgotten.
func (f *Filter) Flush(dst []byte) []byte {
	if f.state == text {
		for range f.pending {
			dst = utf8.AppendRune(dst, utf8.RuneError)
		}
	}
	f.state, f.pending = text, f.pending[:0]
	return dst
}

// Coloured says that the text so far has left a colour on.
func (f *Filter) Coloured() bool { return f.colour }

// letter takes the next letter of p, with what is pending of it before, and
// says how many bytes of p it took.
func (f *Filter) letter(dst, p []byte) ([]byte, int) {
	if len(f.pending) == 0 && p[0] < utf8.RuneSelf {
		return f.ascii(dst, p[0]), 1
	}
	held := len(f.pending)
	whole := append(f.pending, p[:min(len(p), utf8.UTFMax-held)]...)
	if !utf8.FullRune(whole) {
		f.pending = whole
		return dst, len(whole) - held
	}
	r, n := utf8.DecodeRune(whole)
	f.pending = f.pending[:0]
	if r == utf8.RuneError && n == 1 {
		// The first byte begins no letter; the others may.
		dst = utf8.AppendRune(dst, utf8.RuneError)
		if held == 0 {
			return dst, 1
		}
		rest := append([]byte(nil), whole[1:held]...)
		return f.Append(dst, rest), 0
	}
	if r < 0xa0 { // the control characters beyond ASCII, which some terminals obey
		return dst, n - held
	}
	return append(dst, whole[:n]...), n - held
}

func (f *Filter) ascii(dst []byte, c byte) []byte {
	switch {
	case c == 0x1b:
		f.state = escape
	case c == '\n', c == '\t':
		dst = append(dst, c)
	case c == '\r', c == '\b':
		if !f.noColour || c == '\r' {
			dst = append(dst, c)
		}
	case c >= ' ' && c != 0x7f:
		dst = append(dst, c)
	}
	return dst
}

// sequence takes the next byte of a control sequence.
func (f *Filter) sequence(dst []byte, c byte) []byte {
	switch {
	case c == 0x18, c == 0x1a: // these end any sequence
		f.state = text
	case f.state == message || f.state == messageEsc:
		return f.inMessage(dst, c)
	case c == 0x1b:
		f.state = escape
	case c < ' ' || c >= 0x7f: // terminals obey such inside a sequence; we end it
		f.state = text
		return f.Append(dst, []byte{c})
	case f.state == escape:
		f.afterEscape(c)
	case f.state == escapeMore:
		if c >= 0x30 {
			f.state = text
		}
	default:
		return f.inControl(dst, c)
	}
	return dst
}

func (f *Filter) afterEscape(c byte) {
	f.state = text
	switch {
	case c == '[':
		f.state, f.params = control, f.params[:0]
	case c == ']', c == 'P', c == 'X', c == '^', c == '_':
		f.state, f.skipped = message, 0
	case c < 0x30:
		f.state = escapeMore
	}
}

func (f *Filter) inControl(dst []byte, c byte) []byte {
	switch {
	case c >= 0x40: // the last byte
		keep := f.state == control && c == 'm' && !f.noColour
		f.state = text
		if keep {
			f.colour = !resets(f.params)
			dst = append(dst, 0x1b, '[')
			dst = append(append(dst, f.params...), c)
		}
	case (c >= '0' && c <= '9' || c == ';' || c == ':') && len(f.params) < maxColour:
		f.params = append(f.params, c)
	default:
		f.state = controlSkip
	}
	return dst
}

// resets tells a colour that is none: ESC [ m, ESC [ 0 m.
func resets(params []byte) bool {
	for _, c := range params {
		if c != '0' && c != ';' {
			return false
		}
	}
	return true
}

func (f *Filter) inMessage(dst []byte, c byte) []byte {
	f.skipped++
	switch {
	case c == 0x07, f.state == messageEsc && c == '\\':
		f.state = text
	case c == '\n', f.skipped > maxMessage: // it was never meant to be one
		f.state = text
		return f.Append(dst, []byte{c})
	case f.state == messageEsc && c != 0x1b: // another sequence has begun
		f.state = escape
		return f.sequence(dst, c)
	case c == 0x1b:
		f.state = messageEsc
	}
	return dst
}

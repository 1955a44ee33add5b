package termtext

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestClean(t *testing.T) {
	for in, want := range map[string]string{
		"":                                "",
		"plain, with\ttabs\nand lines":    "plain, with\ttabs\nand lines",
		"naïve 世界 🚢":                      "naïve 世界 🚢",
		"a\x1b[31mred\x1b[0m":             "ared",
		"\x1b[2J\x1b[H\x1b]0;title\atext": "text",
		"\x1b]52;c;aGk=\x1b\\after":       "after",
		"\x1bPq sixel \x1b\\after":        "after",
		"\x1bc\x1b(B\x1b7x":               "x",
		"\u009b31mx\u0085y":               "31mxy",
		"bell\a null\x00 del\x7f bs\b":    "bell null del bs",
		"lost\x1b":                        "lost",
		"lost\x1b[1;2":                    "lost",
		"bad \xff\xfe utf8 \xe4\xb8":      "bad \ufffd\ufffd utf8 \ufffd\ufffd",
		"line\r\nfeed":                    "line\r\nfeed",
		"\x1b]0;never ended\nnext line":   "\nnext line",
		"\x1b[1\n2":                       "\n2",
		"\x1b[1\x18mx":                    "mx",
	} {
		if got := Clean(in); got != want {
			t.Errorf("%q = %q, want %q", in, got, want)
		}
	}
}

func TestLine(t *testing.T) {
	for _, c := range []struct {
		in   string
		max  int
		want string
	}{
		{"[1/2] RUN x", 100, "[1/2] RUN x"},
		{"a\r\nb\nc\rd\te", 100, "a b c d e"},
		{"abcdef", 3, "abc…"},
		{"世界", 4, "世…"},
		{"a\x1b[2Jb", 100, "ab"},
		{"\x80\x80\x80", 2, "…"},
	} {
		if got := Line(c.in, c.max); got != c.want {
			t.Errorf("%q = %q, want %q", c.in, got, c.want)
		}
	}
	if got := Line(strings.Repeat("x", 10<<20), 1000); len(got) != 1000+len("…") {
		t.Errorf("%d bytes are left", len(got))
	}
}

func TestFilterKeepsColours(t *testing.T) {
	var f Filter
	got := f.Append(nil, []byte("\x1b[1;38:2::1:2:3mbold\x1b[0m \x1b[Kx\x1b[5Ay\x1b[?25l\rz\b\x1b[>4;2mq\x1b[;m"))
	if want := "\x1b[1;38:2::1:2:3mbold\x1b[0m xy\rz\bq\x1b[;m"; string(got) != want {
		t.Errorf("%q, want %q", got, want)
	}
	if f.Coloured() {
		t.Error("the last colour was the default")
	}
	if f.Append(nil, []byte("\x1b[31m")); !f.Coloured() {
		t.Error("red was overlooked")
	}
	long := "\x1b[" + strings.Repeat("1;", 1000) + "m"
	if got := f.Append(nil, []byte(long)); len(got) != 0 {
		t.Errorf("a colour of %d bytes passes", len(long))
	}
}

// What is begun and never ended swallows a bounded part.
func TestFilterUnended(t *testing.T) {
	var f Filter
	got := f.Append(nil, append([]byte("\x1b]0;"), bytes.Repeat([]byte("x"), 3*maxMessage)...))
	if n := len(got); n < 2*maxMessage || n >= 3*maxMessage {
		t.Errorf("%d bytes are left of %d", n, 3*maxMessage)
	}
}

func FuzzFilter(f *testing.F) {
	for _, s := range []string{
		"", "plain", "\x1b[31mred\x1b[0m", "\x1b]8;;http://x\x1b\\link\x1b]8;;\a", "\xe4\xb8\x1b[", "\x1b\x1b\x1b[m", "世\xe7", "\x1bP\x1b\x1b\\", "\u009b1m", "\xf0\x9f\x98\n",
		"\x1b[38;5;1\xffm", "\x1b(\x1b]\x1b[1m",
	} {
		f.Add([]byte(s), uint(1))
	}
	f.Fuzz(func(t *testing.T, in []byte, step uint) {
		var whole, cut Filter
		want := whole.Flush(whole.Append(nil, in))
		var got []byte
		n := int(step%7) + 1
		for rest := in; len(rest) > 0; rest = rest[min(n, len(rest)):] {
			got = cut.Append(got, rest[:min(n, len(rest))])
		}
		got = cut.Flush(got)
		if !bytes.Equal(got, want) {
			t.Fatalf("%q in pieces of %d is %q, and whole %q", in, n, got, want)
		}
		check(t, want)
		clean := Clean(string(in))
		check(t, []byte(clean))
		if strings.ContainsRune(clean, 0x1b) || Clean(clean) != clean {
			t.Fatalf("%q is cleaned to %q", in, clean)
		}
		if line := Line(string(in), 20); strings.ContainsAny(line, "\r\n\t\x1b") {
			t.Fatalf("%q as a line is %q", in, line)
		}
	})
}

// check holds what passed against a list of what may: no control characters,
// and no sequences but colours.
func check(t *testing.T, out []byte) {
	t.Helper()
	if !utf8.Valid(out) {
		t.Fatalf("%q is not UTF-8", out)
	}
	for rest := out; len(rest) > 0; {
		if rest[0] == 0x1b {
			end := bytes.IndexByte(rest, 'm')
			if end < 0 || rest[1] != '[' || len(bytes.Trim(rest[2:end], "0123456789;:")) > 0 {
				t.Fatalf("%q has a sequence that is no colour", out)
			}
			rest = rest[end+1:]
			continue
		}
		r, n := utf8.DecodeRune(rest)
		if (r < ' ' && !strings.ContainsRune("\n\r\t\b", r)) || r >= 0x7f && r < 0xa0 {
			t.Fatalf("%q has %U", out, r)
		}
		rest = rest[n:]
	}
}

// Package termtext makes text from elsewhere fit for a terminal: names and
// messages of a daemon, lines of a Dockerfile, and what the programs of a build
// print, all of which somebody else may have chosen.
//
// It is not for colouring or layout. What it lets pass can show letters, begin
// a line and, in a Filter, change colours; it cannot move the cursor, clear the
// screen, set the title, write the clipboard or switch the terminal's mode.
//
// Rules: what comes out is valid UTF-8, for any input; a Filter gives the same
// whichever way its input is cut into pieces.
package termtext

import (
	"strings"
	"unicode/utf8"
)

// Clean is text of one or several lines: line breaks and tabs stay, colours and
// every other control go.
func Clean(s string) string {
	if plain(s) {
		return s
	}
	f := Filter{noColour: true}
	return string(f.Flush(f.Append(nil, []byte(s))))
}

// Line is Clean for what must stay one line: line breaks become spaces, and
// what follows the first max bytes is left out.
func Line(s string, maxBytes int) string {
	cut := ""
	if len(s) > maxBytes {
		for maxBytes > 0 && !utf8.RuneStart(s[maxBytes]) {
			maxBytes--
		}
		s, cut = s[:maxBytes], "…"
	}
	s = Clean(s)
	if strings.ContainsAny(s, "\r\n\t") {
		s = strings.NewReplacer("\r\n", " ", "\n", " ", "\r", " ", "\t", " ").Replace(s)
	}
	return s + cut
}

// plain tells text that needs no second look.
func plain(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; (c < ' ' && c != '\n' && c != '\t') || c >= 0x7f {
			return false
		}
	}
	return true
}

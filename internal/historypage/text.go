package historypage

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"github.com/berthbuild/berth/internal/history"
	"github.com/berthbuild/berth/internal/termtext"
)

// Bounds of what is shown, in bytes.
const (
	maxValue = 16 << 10  // a value, a name
	maxBlock = 64 << 10  // lines of a Dockerfile, a message
	maxDoc   = 512 << 10 // an attachment
	maxPairs = 2_000
)

// texts makes the text of one build fit to be shown. Values that look like secrets by
// the names of their build arguments are taken out wherever they appear: a report
// travels further than the daemon's records do.
type texts struct{ hide *strings.Replacer }

// hidden stands for what is not shown.
const hidden = "••••••"

// secretName matches names of arguments whose values are likely to be secret. It is no
// protection, which only --secret gives, but the mistake is common.
func secretName(name string) bool {
	return regexp.MustCompile(`(?i)(secret|passw(or)?d|passphrase|token|credential|api_?key|access_?key|private_?key|(^|_)auth($|_))`).MatchString(name)
}

// shortestHidden is the length from which a value is looked for in other text; a
// shorter one, such as "1", would take half of the log away.
const shortestHidden = 6

// newTexts makes the text of a build whose frontend was told attrs.
func newTexts(attrs map[string]string) texts {
	var pairs []string
	for _, key := range slices.Sorted(maps.Keys(attrs)) {
		name, ok := strings.CutPrefix(key, "build-arg:")
		if value := attrs[key]; ok && secretName(name) && len(value) >= shortestHidden {
			pairs = append(pairs, value, hidden)
			if quoted, err := json.Marshal(value); err == nil { // as documents have it
				pairs = append(pairs, string(quoted[1:len(quoted)-1]), hidden)
			}
		}
	}
	if len(pairs) == 0 {
		return texts{}
	}
	return texts{hide: strings.NewReplacer(pairs...)}
}

func (t texts) without(s string) string {
	if t.hide == nil {
		return s
	}
	return t.hide.Replace(s)
}

// line is text on one line.
func (t texts) line(s string) string {
	return visible(termtext.Line(cutLine(t.without(s), maxValue), maxValue))
}

// block is text of several lines.
func (t texts) block(s string, limit int) string {
	s = t.without(s)
	if len(s) > limit {
		s = strings.ToValidUTF8(s[:limit], "") + "\n…"
	}
	return visible(termtext.Clean(strings.ReplaceAll(s, "\r\n", "\n")))
}

// cutLine bounds what is cleaned: cleaning is linear, and a line may have a megabyte.
func cutLine(s string, limit int) string {
	if len(s) > limit {
		return strings.ToValidUTF8(s[:limit], "") + "…"
	}
	return s
}

// logLine is a line of a log as a terminal would show it in the end: what a carriage
// return has written over is gone.
func (t texts) logLine(l history.Line) string {
	s := strings.TrimRight(l.Text, "\r")
	if i := strings.LastIndexByte(s, '\r'); i >= 0 {
		s = s[i+1:]
	}
	s = t.without(s)
	s = visible(termtext.Clean(s))
	s = strings.ReplaceAll(s, "\n", " ")
	if l.Left > 0 {
		s += fmt.Sprintf("… (%d bytes more)", l.Left)
	}
	return s
}

// visible writes letters that are not seen, or that turn text around, by their numbers.
func visible(s string) string {
	if strings.IndexFunc(s, unseen) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if unseen(r) {
			fmt.Fprintf(&b, `\u{%x}`, r)
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

// unseen tells format characters (directions, joiners, byte order marks, tags), the
// separators that begin lines, and fillers.
func unseen(r rune) bool {
	return r >= 0x80 && (unicode.Is(unicode.Cf, r) || unicode.Is(unicode.Zl, r) || unicode.Is(unicode.Zp, r) || r == 0x3164 || r == 0x115f || r == 0x1160 || r == 0xffa0)
}

// document is an attachment, indented where it is JSON.
func (t texts) document(data []byte) string {
	cut := len(data) > maxDoc
	if !cut {
		var pretty bytes.Buffer
		if json.Indent(&pretty, data, "", "  ") == nil && pretty.Len() <= 2*maxDoc {
			return t.block(pretty.String(), 2*maxDoc)
		}
	}
	return t.block(string(data), maxDoc)
}

func (t texts) pairs(all []history.KeyValue) []Pair {
	var pairs []Pair
	for _, kv := range all[:min(len(all), maxPairs)] {
		pairs = append(pairs, Pair{t.line(kv.Name), t.line(kv.Value)})
	}
	return pairs
}

// args are pairs whose values are hidden where their names say so.
func (t texts) args(all []history.KeyValue) []Pair {
	all = slices.Clone(all)
	for i := range all {
		if secretName(all[i].Name) && all[i].Value != "" {
			all[i].Value = hidden + " (not shown: its name looks like that of a secret)"
		}
	}
	return t.pairs(all)
}

package cli

import (
	"regexp"
	"slices"
	"strings"

	"github.com/berthbuild/berth/internal/gitinfo"
	"github.com/berthbuild/berth/internal/hint"
)

// hiddenValue stands for what is not repeated.
const hiddenValue = "…"

// again is the command line of this call with more arguments, to be pasted into a
// POSIX shell. What may be secret in it is not repeated: a value that a variable
// of the environment has is that variable, and others are left out, which complete
// tells.
func (a *app) again(more ...string) (line string, complete bool) {
	args := a.args
	if len(args) == 0 {
		args = []string{"berth", "bake"}
	}
	if a.asPlugin {
		args = append([]string{"docker"}, args[1:]...)
	}
	end := slices.Index(args, "--")
	if end < 0 {
		end = len(args)
	}
	hide := a.newHider()
	var words []string
	complete = true
	add := func(list []string) {
		for i, word := range list {
			set := i > 0 && list[i-1] == "--set"
			if i == 0 && len(words) == 0 {
				word = strings.TrimSuffix(word, ".exe")
			}
			shown, whole := hide.word(word, set)
			words, complete = append(words, shown), complete && whole
		}
	}
	add(args[:end])
	for _, word := range more {
		words = append(words, hint.Quote(word))
	}
	add(args[end:])
	return strings.Join(words, " "), complete
}

// grantLine is what to paste to have the rights granted, and a line that says so
// where it cannot be pasted as it is.
func (a *app) grantLine(rights ...string) []string {
	var more []string
	for _, r := range rights {
		more = append(more, "--allow", r)
	}
	line, complete := a.again(more...)
	if !complete {
		return []string{line, "what may be secret in that line was left out: write it where there is " + hiddenValue}
	}
	return []string{line}
}

// hider takes out of arguments what may be secret.
type hider struct {
	values map[string]string // of secret variables of the environment → their names
	name   *regexp.Regexp    // of what is secret, with the = after it
	url    *regexp.Regexp

	variable *regexp.Regexp // who a URL is fetched as, where that is a variable
}

// shortestSecret is how long a variable's value must be to be looked for.
const shortestSecret = 6

func (a *app) newHider() *hider {
	const secret = `(?:token|passw|secret|credential|bearer|signature|authorization|_auth|auth_|(?:api|access|private|account|signing|ssh|session|encryption)[_-]?key)`
	h := &hider{
		values: map[string]string{},
		name:   regexp.MustCompile(`(?i)[\w.*-]*` + secret + `[\w-]*=`),
		url:    regexp.MustCompile(`[A-Za-z][A-Za-z0-9+.-]*://[^\s,]*`),

		variable: regexp.MustCompile(`^(?:[\w-]+:)?` + aside + `\w+` + aside + `$`),
	}
	if a.environ == nil {
		return h
	}
	for _, kv := range a.environ() {
		name, value, _ := strings.Cut(kv, "=")
		if len(value) >= shortestSecret && isShellName(name) && h.name.MatchString(name+"=") {
			h.values[value] = name
		}
	}
	return h
}

// isShellName tells whether a shell has variables of that name.
func isShellName(s string) bool {
	letter := func(r rune) bool { return r == '_' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' }
	for i, r := range s {
		if !letter(r) && (i == 0 || r < '0' || r > '9') {
			return false
		}
	}
	return s != ""
}

// aside is around a variable's name while a word is looked at: no argument of a
// process has that byte.
const aside = "\x00"

// word is an argument as it may be shown, quoted, and whether it is all there.
func (h *hider) word(word string, ofSet bool) (shown string, whole bool) {
	text := word
	values := make([]string, 0, len(h.values))
	for v := range h.values {
		values = append(values, v)
	}
	slices.SortFunc(values, func(x, y string) int { return len(y) - len(x) }) // one may be a part of another
	for _, v := range values {
		text = outsideMarks(text, v, aside+h.values[v]+aside)
	}
	marked := text
	text = h.url.ReplaceAllStringFunc(text, h.hideInURL)
	if !isSecretSetting(text, ofSet) {
		text = h.hideNamed(text)
	}
	var out strings.Builder
	for i, piece := range strings.Split(text, aside) {
		switch {
		case i%2 == 1:
			out.WriteString(`"$` + piece + `"`)
		case piece != "":
			out.WriteString(hint.Quote(piece))
		}
	}
	if word == "" {
		return hint.Quote(word), true
	}
	return out.String(), text == marked
}

// outsideMarks replaces a value, but not in what stands for another one.
func outsideMarks(text, value, with string) string {
	pieces := strings.Split(text, aside)
	for i := 0; i < len(pieces); i += 2 {
		pieces[i] = strings.ReplaceAll(pieces[i], value, with)
	}
	return strings.Join(pieces, aside)
}

// hideInURL takes the credentials out of a URL. What is called so and has no
// host stays what it is.
func (h *hider) hideInURL(u string) string {
	scheme, rest, _ := strings.Cut(u, "://")
	user, _, _ := strings.Cut(rest, "@")
	if slices.Contains([]string{"docker-image", "oci-layout", "cwd", "file"}, strings.ToLower(scheme)) || h.variable.MatchString(user) {
		return u
	}
	return gitinfo.WithoutCredentials(u)
}

// hideNamed takes out what stands after the first name that is one of a secret,
// to the end: a value may have commas.
func (h *hider) hideNamed(text string) string {
	at := h.name.FindStringIndex(text)
	if at == nil || at[1] == len(text) {
		return text
	}
	if name, ok := strings.CutPrefix(text[at[1]:], aside); ok && strings.Index(name, aside) == len(name)-1 {
		return text // a variable, and nothing else
	}
	return text[:at[1]] + hiddenValue
}

// isSecretSetting tells --set TARGET.secret=…, which says where a secret is.
func isSecretSetting(word string, ofSet bool) bool {
	if rest, ok := strings.CutPrefix(word, "--set="); ok {
		word, ofSet = rest, true
	}
	left, _, _ := strings.Cut(word, "=")
	parts := strings.SplitN(strings.TrimSuffix(left, "+"), ".", 3)
	return ofSet && len(parts) > 1 && slices.Contains([]string{"secret", "secrets"}, parts[1])
}

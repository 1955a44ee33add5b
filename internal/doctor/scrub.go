package doctor

import (
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// hidden stands in the place of a secret.
const hidden = "***"

// minSecret is how long in bytes a text must be to be looked for; shorter ones
// would be found everywhere.
const minSecret = 4

// scrubber takes secrets out of what is printed. It is the last line of
// defence: what makes a text should not have put one in.
type scrubber struct {
	known    *strings.Replacer
	userinfo *regexp.Regexp
	bearer   *regexp.Regexp
	pem      *regexp.Regexp
}

// newScrubber looks for the given texts, the longest first, and for what looks
// like a password in a URL, an authorization, or a private key.
func newScrubber(secrets []string) *scrubber {
	secrets = slices.DeleteFunc(slices.Clone(secrets), func(s string) bool { return len(s) < minSecret })
	slices.SortFunc(secrets, func(a, b string) int { return len(b) - len(a) })
	var pairs []string
	for _, s := range secrets {
		pairs = append(pairs, s, hidden)
	}
	return &scrubber{
		known:    strings.NewReplacer(pairs...),
		userinfo: regexp.MustCompile(`://([^\s:@/]*):[^\s]*@`),
		bearer:   regexp.MustCompile(`(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}`),
		pem:      regexp.MustCompile(`-----BEGIN [^-]*PRIVATE KEY-----.*`),
	}
}

// clean is text on one line, without secrets and without what a terminal would
// act on.
func (s *scrubber) clean(text string) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return ' '
		}
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, text)
	text = strings.Join(strings.Fields(text), " ")
	text = s.known.Replace(text)
	text = s.pem.ReplaceAllString(text, "(a private key)")
	text = s.bearer.ReplaceAllString(text, "$1 "+hidden)
	return s.userinfo.ReplaceAllString(text, "://$1:"+hidden+"@")
}

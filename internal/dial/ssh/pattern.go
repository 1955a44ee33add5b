package ssh

import "strings"

// matchWords is a Host line: one of the patterns matches, and none of those
// that begin with an exclamation mark.
func matchWords(patterns []string, s string) bool {
	found := false
	for _, p := range patterns {
		p, not := strings.CutPrefix(p, "!")
		if !wildcard(p, s) {
			continue
		}
		if not {
			return false
		}
		found = true
	}
	return found
}

// matchList is matchWords for patterns between commas.
func matchList(list, s string) bool { return matchWords(strings.Split(list, ","), s) }

// wildcard matches without regard for case: * is any text, ? one byte. It takes
// time in proportion to the product of the lengths at most.
func wildcard(pattern, s string) bool {
	p, i, star, mark := 0, 0, -1, 0
	pattern, s = strings.ToLower(pattern), strings.ToLower(s)
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, i
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == s[i]):
			p++
			i++
		case star >= 0:
			mark++
			p, i = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}

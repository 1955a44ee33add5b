package eval

import (
	"strings"
	"testing"
)

// The order of the lists that are compared as a whole; the expectations are what
// buildx v0.38.2 made of cache-from = ["c", "b", "c", "b"] and so on.
func TestDistinctBy(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "a": "a", "cbcb": "cb", "cccc": "c", "aaab": "ab", "babc": "bac", "bbac": "bca", "aabac": "acb",
		"adabcc": "adcb", "ccddba": "cbda", "dabdcb": "dabc", "accccbd": "acdb", "bdaaedbc": "bdace", "badacfeddc": "badecf",
		"gcebgbgcdfdb": "gcebfd", "afdgbbfedcgb": "afdgbce", "ccefcgddbfgc": "cdefbg", "abcadefaegh": "abchdefg", "ababcdceafg": "abefcdg",
	} {
		got := distinctBy(strings.Split(in, ""), func(s string) string { return s })
		if strings.Join(got, "") != want {
			t.Errorf("%s: got %s, wanted %s", in, strings.Join(got, ""), want)
		}
	}
}

package cli

import (
	"regexp"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

// cmpTimes is the command `cmptimes FILE GOLDEN` of scripts: FILE, "stdout" for
// the last command's, is like GOLDEN but for the times in it, which are "T"
// there, and for spaces.
func cmpTimes(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: cmptimes FILE GOLDEN")
	}
	times := regexp.MustCompile(`\b\d+(\.\d+)?(µs|ms|s)\b`)
	spaces := regexp.MustCompile(` +`)
	rates := regexp.MustCompile(`\b\d+(\.\d+)? (kB|MB) a second`)
	ours := regexp.MustCompile(`; berth was built with v\S+`) // which not every way to build a test knows
	clean := func(text string) string {
		text = ours.ReplaceAllString(text, "")
		text = times.ReplaceAllString(rates.ReplaceAllString(text, "RATE"), "T")
		var lines []string
		for line := range strings.Lines(text) {
			lines = append(lines, strings.TrimSpace(spaces.ReplaceAllString(line, " ")))
		}
		return strings.Join(lines, "\n")
	}
	got, want := clean(ts.ReadFile(args[0])), clean(expand(ts, ts.ReadFile(args[1])))
	if got != want {
		ts.Fatalf("%s differs from %s:\n%s\nwant\n%s", args[0], args[1], got, want)
	}
}

// expand puts the script's variables in place of $NAME.
func expand(ts *testscript.TestScript, text string) string {
	return regexp.MustCompile(`\$[A-Z]+\b`).ReplaceAllStringFunc(text, func(name string) string {
		if name == "$ADDR" {
			return strings.TrimPrefix(ts.Getenv("FREE"), "tcp://")
		}
		return ts.Getenv(name[1:])
	})
}

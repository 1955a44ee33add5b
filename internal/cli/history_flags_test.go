package cli

import (
	"bytes"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/berthbuild/berth/internal/ui"
	"github.com/spf13/pflag"
)

// peerHistory are the commands of `docker buildx history`, v0.38, with their flags
// as their help lists them.
func peerHistory() []struct {
	command string
	flags   []peerFlag
} {
	return []struct {
		command string
		flags   []peerFlag
	}{
		{"history ls", []peerFlag{
			{"filter", better, "<= and >= are taken, too, a status that there is not is refused, and builders of several nodes can be filtered", "TestHistoryBesideBuildx"},
			{"format", better, "templates have .Builder and .Node", "TestHistoryBesideBuildx"},
			{"local", same, "", "TestHistoryLocal"},
			{"no-trunc", same, "", "TestHistoryBesideBuildx"},
		}},
		{"history inspect", []peerFlag{
			{"format", better, "templates have docker's functions, such as json", "TestHistoryBesideBuildx"},
		}},
		{"history inspect attachment", []peerFlag{
			{"platform", better, "linux/arm64 and linux/arm64/v8 are one", "TestHistoryBesideBuildx"},
			{"type", better, "error is why the build failed, with the lines of the Dockerfile", "TestHistoryBesideBuildx"},
		}},
		{"history logs", []peerFlag{
			{"progress", same, "", "TestHistoryFollow"},
		}},
		{"history rm", []peerFlag{
			{"all", better, "builds that run stay", "TestHistoryBesideBuildx"},
		}},
		{"history export", []peerFlag{
			{"all", better, "a record that vanishes meanwhile is told of, and the others are written", "TestHistoryBundlesBesideBuildx"},
			{"finalize", same, "", "TestHistoryBundlesBesideBuildx"},
			{"output", better, "written whole or not at all, and readable by the user alone", "TestHistoryBundlesBesideBuildx"},
		}},
		{"history import", []peerFlag{
			{"file", better, "without Docker Desktop: the records are kept in the state folder, and checked first", "TestHistoryBundlesBesideBuildx"},
		}},
		{"history open", nil},
		{"history report", nil},
		{"history trace", []peerFlag{
			{"addr", notHere, "the trace is written, and no server is started for it; the flag is taken and does nothing", ""},
			{"compare", better, "both traces are written, to be opened wherever", "TestHistoryBundlesBesideBuildx"},
		}},
	}
}

// TestHistoryFlagTable holds docs/reference/history.md against the commands and the
// list above.
func TestHistoryFlagTable(t *testing.T) {
	a := &app{io: &ui.Streams{}, lookupEnv: func(string) (string, bool) { return "", false }}
	root := newBerthCmd(a, "berth")
	tests := endToEndTests(t)
	var page bytes.Buffer
	page.WriteString("# The flags of `berth history`, beside those of buildx\n\nEvery command of `docker buildx history` v0.38 with its flags, and what they are here; `--builder`, `--debug` and `--timeout` are those of all commands. " +
		"The page is made from the commands and checked by a test (`go test ./internal/cli -run TestHistoryFlagTable -update` writes it); the last column names the end-to-end test in `test/` that shows the flag at work on a real daemon.\n")
	for _, c := range peerHistory() {
		cmd, _, err := root.Find(strings.Fields(c.command))
		if err != nil || cmd.CommandPath() != "berth "+c.command {
			t.Fatal(c.command, err)
		}
		fmt.Fprintf(&page, "\n## %s\n%s.\n\n| flag | what it does | here | seen in |\n|---|---|---|---|\n", c.command, cmd.Short)
		known := []string{"help"}
		for _, p := range c.flags {
			known = append(known, p.name)
			f := flagOf(cmd, p.name)
			switch {
			case f == nil:
				t.Errorf("%s has no --%s", c.command, p.name)
				continue
			case p.verdict == notHere:
				if !f.Hidden {
					t.Errorf("--%s is here, and the table says that it is not", p.name)
				}
				fmt.Fprintf(&page, "| `--%s` | | %s: %s | |\n", p.name, p.verdict, p.because)
				continue
			case !slices.Contains(tests, p.proof):
				t.Errorf("--%s is shown by %q, which is no test in test/", p.name, p.proof)
			}
			verdict := p.verdict
			if p.because != "" {
				verdict += ": " + p.because
			}
			fmt.Fprintf(&page, "| %s | %s | %s | `%s` |\n", spelled(f), cell(f.Usage), verdict, p.proof)
		}
		cmd.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
			if !slices.Contains(known, f.Name) && !f.Hidden {
				fmt.Fprintf(&page, "| %s | %s | only here | |\n", spelled(f), cell(f.Usage))
			}
		})
	}
	golden(t, filepath.Join("..", "..", "docs", "reference", "history.md"), page.Bytes())
}

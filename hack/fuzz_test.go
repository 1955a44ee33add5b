package hack

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// fakeGo writes down what it is asked to fuzz. FuzzRace ends as Go's fuzzer now and
// then does, and FuzzBad as it does when it has found something.
const fakeGo = `#!/bin/sh
echo "$5 $7 $8" >>"$CALLS"
case $5 in
*Race*) printf -- '--- FAIL: FuzzRace (3.20s)\n    context deadline exceeded\nFAIL\n'; exit 1 ;;
*Bad*) printf -- '--- FAIL: FuzzBad (3.20s)\n    context deadline exceeded\n    Failing input written to testdata/fuzz/FuzzBad/1\nFAIL\n'; exit 1 ;;
esac
`

// hack/fuzz.sh runs the targets that are asked for, and knows a find from the end
// of the time.
func TestFuzz(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("no bash")
	}
	script, err := os.ReadFile("fuzz.sh")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, text := range map[string]string{
		"clone/hack/fuzz.sh": string(script), "bin/go": fakeGo, "clone/cmd/x/main.go": "package main\n",
		"clone/internal/a/a_test.go":   "func FuzzOne(f *testing.F) {}\nfunc FuzzTwo(f *testing.F) {}\n",
		"clone/internal/a/b/b_test.go": "func FuzzOne(f *testing.F) {}\n\nfunc FuzzRace(f *testing.F) {}\n",
		"clone/internal/c/c_test.go":   "func FuzzBad(f *testing.F) {}\n",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for args, want := range map[string]string{
		`5s ^internal/a`:              "^FuzzOne$ 5s ./internal/a, ^FuzzTwo$ 5s ./internal/a, ^FuzzOne$ 5s ./internal/a/b, ^FuzzRace$ 5s ./internal/a/b",
		`5s a\.FuzzOne$ Race`:         "^FuzzOne$ 5s ./internal/a, ^FuzzRace$ 5s ./internal/a/b",
		`5s internal/a\.Fuzz(Two|No)`: "^FuzzTwo$ 5s ./internal/a",
		`5s Bad`:                      "! ^FuzzBad$ 5s ./internal/c",
		`5s nosuch`:                   "! ",
		``:                            "! ^FuzzOne$ 10s ./internal/a, ^FuzzTwo$ 10s ./internal/a, ^FuzzOne$ 10s ./internal/a/b, ^FuzzRace$ 10s ./internal/a/b, ^FuzzBad$ 10s ./internal/c",
	} {
		calls := filepath.Join(t.TempDir(), "calls")
		cmd := exec.CommandContext(t.Context(), bash, append([]string{filepath.Join(dir, "clone", "hack", "fuzz.sh")}, strings.Fields(args)...)...)
		cmd.Env = append(os.Environ(), "CALLS="+calls, "PATH="+filepath.Join(dir, "bin")+":"+os.Getenv("PATH"))
		out, err := cmd.CombinedOutput()
		want, fails := strings.CutPrefix(want, "! ")
		did, _ := os.ReadFile(calls) // none where nothing was run
		if got := strings.ReplaceAll(strings.TrimSpace(string(did)), "\n", ", "); got != want || (err != nil) != fails {
			t.Errorf("fuzz.sh %s\ngot  %s (%v)\nwant %s\n%s", args, got, err, want, out)
		}
	}
}

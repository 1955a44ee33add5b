// Command gotest runs `go test` and prints what a person wants to see of it:
// the output of failed tests, and at the end the slowest ones, the skipped tests with their
// reasons and go test's own line for each package. Where CI=true a skipped test
// is a failure: nobody else would run it.
//
//	go run ./hack/gotest [go test's flags and packages]
package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// event is one line of `go test -json`; see `go doc test2json`.
type event struct {
	Action, Package, Test, Output string
	Elapsed                       float64 // seconds
}

// timed is how long a test took.
type timed struct {
	test    string
	seconds float64
}

// report collects a run.
type report struct {
	out     io.Writer
	output  map[string][]string // a test's output so far, by package and test
	summary []string            // go test's line for each package
	skipped []string
	slow    []timed
	passed  int
	failed  int
}

// A run says which tests took longest, of those that are worth a line.
const (
	slowSeconds = 20
	mostSlow    = 10
)

func main() {
	code, err := run(os.Args[1:], os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "gotest:", err)
	}
	os.Exit(code)
}

func run(args []string, out io.Writer) (int, error) {
	cmd := exec.Command("go", append([]string{"test", "-json"}, args...)...)
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return 1, err
	}
	if err := cmd.Start(); err != nil {
		return 1, err
	}
	r := &report{out: out, output: map[string][]string{}}
	if err := r.read(stdout); err != nil {
		return 1, err
	}
	waitErr := cmd.Wait()
	return r.finish(waitErr != nil, os.Getenv("CI") == "true"), nil
}

// read takes in the whole stream; a line that is no event is printed as it is.
func (r *report) read(stream io.Reader) error {
	lines := bufio.NewScanner(stream)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			r.print(lines.Text() + "\n")
			continue
		}
		r.take(e)
	}
	return lines.Err()
}

func (r *report) take(e event) {
	key := e.Package + " " + e.Test
	if (e.Action == "pass" || e.Action == "fail") && e.Test != "" && !strings.Contains(e.Test, "/") && e.Elapsed >= slowSeconds {
		r.slow = append(r.slow, timed{e.Test, e.Elapsed})
	}
	switch e.Action {
	case "build-output":
		r.print(e.Output)
	case "output":
		if e.Test == "" {
			r.packageLine(e.Output)
		} else {
			r.output[key] = append(r.output[key], e.Output)
		}
	case "pass":
		if e.Test != "" {
			r.passed++
			delete(r.output, key)
		}
	case "fail":
		if e.Test != "" {
			r.failed++
			r.print(strings.Join(r.output[key], ""))
			delete(r.output, key)
		}
	case "skip":
		if e.Test != "" {
			r.skipped = append(r.skipped, key+": "+reason(r.output[key]))
			delete(r.output, key)
		}
	}
}

// packageLine keeps go test's closing line of a package for the end, and prints
// everything else, such as a panic or what TestMain says.
func (r *report) packageLine(line string) {
	switch {
	case line == "PASS\n" || line == "FAIL\n" || strings.HasPrefix(line, "coverage:"):
	case strings.HasPrefix(line, "ok  \t") || strings.HasPrefix(line, "FAIL\t") || strings.HasPrefix(line, "?   \t"):
		r.summary = append(r.summary, line)
	default:
		r.print(line)
	}
}

// reason is what a skipped test said, without go test's own lines.
func reason(output []string) string {
	var said []string
	for _, line := range output {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "=== ") && !strings.HasPrefix(line, "--- ") {
			said = append(said, line)
		}
	}
	return strings.Join(said, " ")
}

// finish prints the end of the report and gives the exit code.
func (r *report) finish(failed, ci bool) int {
	for _, lines := range r.output { // tests that never ended: a panic, a timeout
		r.print(strings.Join(lines, ""))
	}
	slices.SortStableFunc(r.slow, func(a, b timed) int { return cmp.Compare(b.seconds, a.seconds) })
	for _, t := range r.slow[:min(len(r.slow), mostSlow)] {
		r.print(fmt.Sprintf("slow: %s took %.0f s\n", t.test, t.seconds))
	}
	if len(r.skipped) > 0 {
		r.print(fmt.Sprintf("skipped tests: %d\n", len(r.skipped)))
		for _, s := range r.skipped {
			r.print("  " + s + "\n")
		}
	}
	for _, line := range r.summary {
		r.print(line)
	}
	if ci && len(r.skipped) > 0 {
		r.print("a skipped test is a failure where CI=true\n")
		failed = true
	}
	r.print(fmt.Sprintf("%d passed, %d failed, %d skipped\n", r.passed, r.failed, len(r.skipped)))
	if failed || r.failed > 0 {
		return 1
	}
	return 0
}

// print writes to the person; a closed standard output is nobody to tell.
func (r *report) print(s string) { _, _ = io.WriteString(r.out, s) }

// Command scaling simulates many clients that share many daemons, under several
// policies for which daemon takes a build, and writes what it finds into
// docs/scaling.md and its plot. `make scaling` calls it.
//
// It is not a measurement: only the times of builds are (times.csv). Equal seeds
// give equal results, on every machine.
//
//	go run ./hack/scaling -times hack/scaling/times.csv -doc docs/scaling.md -plot docs/scaling.svg
package main

import (
	"flag"
	"fmt"
	"os"
)

func main() {
	times := flag.String("times", "hack/scaling/times.csv", "the recorded times of builds")
	doc := flag.String("doc", "docs/scaling.md", "the page whose tables are written")
	plot := flag.String("plot", "docs/scaling.svg", "the plot to write")
	flag.Parse()
	if err := write(*times, *doc, *plot); err != nil {
		fmt.Fprintln(os.Stderr, "scaling:", err)
		os.Exit(1)
	}
}

func write(times, doc, plot string) error {
	page, svg, err := render(times, doc)
	if err != nil {
		return err
	}
	if err := os.WriteFile(plot, svg, 0o644); err != nil {
		return err
	}
	return os.WriteFile(doc, page, 0o644)
}

// render is what the files are to hold.
func render(times, doc string) (page, svg []byte, err error) {
	text, err := os.ReadFile(times)
	if err != nil {
		return nil, nil, err
	}
	kinds, err := parseTimes(string(text))
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", times, err)
	}
	old, err := os.ReadFile(doc)
	if err != nil {
		return nil, nil, err
	}
	page, err = fill(old, tables(kinds))
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", doc, err)
	}
	return page, draw(curves(kinds)), nil
}

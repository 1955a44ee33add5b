package cli

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/solver/pb"
)

// findings are a check's answer.
type findings struct {
	Warnings []finding        `json:"warnings"`
	Sources  []*pb.SourceInfo `json:"sources"`
	Error    *struct {
		Message  string       `json:"message"`
		Location *pb.Location `json:"location"`
	} `json:"buildError"`
}

// finding is one thing that a check found.
type finding struct {
	RuleName string       `json:"ruleName"`
	URL      string       `json:"url"`
	Detail   string       `json:"detail"`
	Location *pb.Location `json:"location"`
}

// readFindings reads the answer, sorted by file and line.
func readFindings(raw string) (*findings, error) {
	if raw == "" {
		return nil, errors.New("it is empty")
	}
	f := &findings{}
	if err := json.Unmarshal([]byte(raw), f); err != nil {
		return nil, err
	}
	slices.SortStableFunc(f.Warnings, func(a, b finding) int {
		return cmp.Or(
			cmp.Compare(f.file(a.Location).GetFilename(), f.file(b.Location).GetFilename()),
			cmp.Compare(firstLine(a.Location.GetRanges()), firstLine(b.Location.GetRanges())))
	})
	return f, nil
}

// file is where a location is; nil when it is nowhere.
func (f *findings) file(l *pb.Location) *pb.SourceInfo {
	if i := l.GetSourceIndex(); l != nil && i >= 0 && int(i) < len(f.Sources) {
		return f.Sources[i]
	}
	return nil
}

// firstLine is where ranges begin; 0 without any.
func firstLine(ranges []*pb.Range) int32 {
	if len(ranges) == 0 {
		return 0
	}
	return ranges[0].GetStart().GetLine()
}

// print writes what was found, in the words that docker's commands use.
func (f *findings) print(out *bytes.Buffer, dockerfile sourceName) {
	switch n := len(f.Warnings); {
	case n == 0 && f.Error != nil:
		return // nothing is complete, and the error says why
	case n == 0:
		fmt.Fprintln(out, "Check complete, no warnings found.")
		return
	case n == 1:
		fmt.Fprintln(out, "Check complete, 1 warning has been found!")
	default:
		fmt.Fprintf(out, "Check complete, %d warnings have been found!\n", n)
	}
	for _, w := range f.Warnings {
		fmt.Fprintf(out, "\nWARNING: %s", w.RuleName)
		if w.URL != "" {
			fmt.Fprintf(out, " - %s", w.URL)
		}
		fmt.Fprintf(out, "\n%s\n", w.Detail)
		_ = dockerfile.source(f.file(w.Location), w.Location.GetRanges()).Print(out) // a buffer takes everything
	}
	if f.Error != nil {
		fmt.Fprintln(out)
	}
}

// failure is why the Dockerfile could not be read to its end, with the lines
// that it is about; nil when it could.
func (f *findings) failure(dockerfile sourceName) error {
	if f.Error == nil {
		return nil
	}
	return errdefs.WithSource(errors.New(f.Error.Message), dockerfile.source(f.file(f.Error.Location), f.Error.Location.GetRanges()))
}

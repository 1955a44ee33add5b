package cli

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/berthbuild/berth/internal/build"
	"github.com/berthbuild/berth/internal/buildflag"
	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/request"
	"github.com/berthbuild/berth/internal/termtext"
	"github.com/moby/buildkit/frontend/subrequests"
	"github.com/moby/buildkit/frontend/subrequests/outline"
	"github.com/moby/buildkit/frontend/subrequests/targets"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/solver/pb"
)

// printReport writes what a frontend answered: its own JSON, or text for
// people. The error is that of the Dockerfile where a check could not read it
// to its end, and errReported where the report itself is bad news.
func printReport(out io.Writer, c buildflag.Call, answer map[string]string, dockerfile sourceName) error {
	var text bytes.Buffer
	var broken error // the Dockerfile
	if c.IsCheck() {
		found, err := readFindings(answer[build.AnswerJSON])
		if err != nil {
			return fmt.Errorf("--call=%s: the frontend's answer cannot be read: %w", c.Method, err)
		}
		broken = found.failure(dockerfile)
		found.print(&text, dockerfile)
	} else {
		printAnswer(&text, c.Method, answer)
	}
	report := termtext.Clean(text.String())
	if c.JSON {
		raw := answer[build.AnswerJSON]
		if !json.Valid([]byte(raw)) {
			return hint.New(fmt.Sprintf("--call=%s: the frontend's answer is not JSON", c.Method), "leave out format=json")
		}
		report = strings.TrimSuffix(raw, "\n") + "\n"
	}
	if _, err := io.WriteString(out, report); err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	if broken != nil {
		return broken
	}
	if status, err := strconv.Atoi(answer[build.AnswerStatus]); err == nil && status != 0 && !c.IgnoreStatus {
		return errReported
	}
	return nil
}

// answerForm is the form of the answers that are known here. What has another
// one is shown as the frontend itself writes it.
const answerForm = "1."

// printAnswer writes an answer as text, by BuildKit's own printers.
func printAnswer(out *bytes.Buffer, method string, answer map[string]string) {
	printer := map[string]func([]byte, io.Writer) error{
		"outline":              outline.PrintOutline,
		"targets":              targets.PrintTargets,
		"subrequests.describe": subrequests.PrintDescribe,
	}[method]
	raw := answer[build.AnswerJSON]
	if printer != nil && strings.HasPrefix(answer[build.AnswerVersion], answerForm) && printer([]byte(raw), out) == nil {
		return
	}
	out.Reset()
	text := cmp.Or(answer[build.AnswerText], raw)
	out.WriteString(strings.TrimSuffix(text, "\n") + "\n")
}

// sourceName is how a Dockerfile is called where the frontend calls it by
// another name.
type sourceName struct{ sent, shown string }

// shownDockerfile is the Dockerfile as the user named it, so that a line of it
// can be found.
func shownDockerfile(r request.Request, o buildOptions) sourceName {
	n := sourceName{sent: r.DockerfileName()}
	switch {
	case o.file == "-":
		n.shown = "stdin"
	case o.file != "":
		n.shown = o.file
	case r.Context.Dir != "":
		n.shown = filepath.Join(o.context, r.DockerfileName())
	default:
		n.shown = n.sent
	}
	return n
}

// source is a piece of a file, made fit for printing: a daemon chose it.
func (n sourceName) source(info *pb.SourceInfo, ranges []*pb.Range) *errdefs.Source {
	s := &errdefs.Source{Ranges: wholeRanges(ranges)}
	if info == nil {
		return s
	}
	s.Info = info.CloneVT()
	if strings.EqualFold(s.Info.Filename, n.sent) {
		s.Info.Filename = n.shown
	}
	return s
}

// wholeRanges leaves out what has no beginning; what has no end is one line.
func wholeRanges(in []*pb.Range) []*pb.Range {
	var out []*pb.Range
	for _, r := range in {
		switch {
		case r == nil || r.Start == nil:
		case r.End == nil:
			out = append(out, &pb.Range{Start: r.Start, End: r.Start})
		default:
			out = append(out, r)
		}
	}
	return out
}

package historypage

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/history"
)

// readBudget is how long the reading of one build may take.
const readBudget = 80 * time.Second

// maxContents bounds the attachments that are within a report, all together.
const maxContents = 512 << 10

// Read reads all of a build that has ended, with its provenance. dir is the working
// directory, which paths below it are shown from. What cannot be read is missing, and
// the build's notes say why; the error is that of the steps, or ctx's.
func Read(ctx context.Context, h *history.History, r *history.Record, dir string) (*Build, error) {
	if r.Status() == history.Running {
		return nil, hint.New(fmt.Sprintf("build %s still runs; its report can be written when it has ended", r.Ref),
			"watch it: berth history open "+r.Reference(), "follow it to its end: berth history logs "+r.Ref)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, readBudget, fmt.Errorf("record %s was not read within %s", r.Ref, readBudget))
	defer cancel()
	f := Facts{Record: r, Detail: h.Detail(ctx, r, dir), Contents: map[string][]byte{}, Now: time.Now()}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	course, err := r.Course(ctx)
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, err
	}
	f.Course = course
	total := 0
	for _, a := range f.Detail.Attachments {
		if !strings.HasPrefix(a.Type, "https://slsa.dev/provenance/") || f.Contents[a.Digest] != nil {
			continue
		}
		data, err := r.Content(ctx, a.Digest)
		switch {
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case err != nil:
			f.Notes = append(f.Notes, err.Error())
		case total+len(data) > maxContents:
			f.Notes = append(f.Notes, fmt.Sprintf("the provenance %s has %d bytes and is not in here: berth history inspect attachment %s %s", a.Digest, len(data), r.Ref, a.Digest))
		default:
			total += len(data)
			f.Contents[a.Digest] = data
		}
	}
	return Make(f), nil
}

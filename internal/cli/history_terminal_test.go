package cli

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/berthbuild/berth/internal/history"
	controlapi "github.com/moby/buildkit/api/services/control"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// What a template makes out of a record goes to a terminal without controls, and
// elsewhere as it is.
func TestHistoryTemplatesOnATerminal(t *testing.T) {
	const hostile = "na\x1b]0;evil\amed\x1b[2J"
	record := &history.Record{BuildHistoryRecord: &controlapi.BuildHistoryRecord{Ref: hostile, CreatedAt: timestamppb.Now()}}
	for _, terminal := range []bool{false, true} {
		a := testApp(t)
		a.io.OutTTY = terminal
		rows, err := a.recordsView(historyLsOptions{format: "{{.Ref}}"})
		if err != nil {
			t.Fatal(err)
		}
		detail, err := a.detailView(historyInspectOptions{format: "{{.Name}}"})
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if err := rows([]historyRow{newHistoryRow(record, time.Now())}, &out); err != nil {
			t.Fatal(err)
		}
		if err := detail(history.Detail{Name: hostile}, &out); err != nil {
			t.Fatal(err)
		}
		if !terminal && out.String() != hostile+"\n"+hostile+"\n" || terminal && (strings.ContainsAny(out.String(), "\x1b\a") || strings.Count(out.String(), "\n") != 2) {
			t.Errorf("terminal %v: %q", terminal, out.String())
		}
	}
}

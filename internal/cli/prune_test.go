package cli

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"github.com/berthbuild/berth/internal/buildkittest"
	"github.com/berthbuild/berth/internal/ui"
	controlapi "github.com/moby/buildkit/api/services/control"
)

// watched is an output that calls seen when it has text in it.
type watched struct {
	bytes.Buffer
	text string
	seen func()
}

func (w *watched) WriteString(s string) (int, error) { return w.Write([]byte(s)) }

func (w *watched) Write(p []byte) (int, error) {
	n, err := w.Buffer.Write(p)
	if strings.Contains(w.String(), w.text) {
		w.seen()
	}
	return n, err
}

// Ctrl-C in the middle: what is gone is said.
func TestPruneInterrupted(t *testing.T) {
	s := buildkittest.New(t, buildkittest.Options{Prune: func(ctx context.Context, _ *controlapi.PruneRequest, removed func(*controlapi.UsageRecord) error) error {
		if err := removed(&controlapi.UsageRecord{ID: "gone", Size: 5000}); err != nil {
			return err
		}
		<-ctx.Done()
		return ctx.Err()
	}})
	ctx, cancel := context.WithCancelCause(t.Context())
	var stderr bytes.Buffer
	out := &watched{text: "gone", seen: func() { cancel(errCanceled) }}
	dir := t.TempDir()
	code := Run(ctx, Invocation{
		Args: []string{"berth", "prune", "--force", "--builder", s.Endpoint()}, Dir: dir,
		Streams: &ui.Streams{In: strings.NewReader(""), Out: out, Err: &stderr},
		LookupEnv: func(k string) (string, bool) {
			if k == "HOME" {
				return dir, true
			}
			return "", false
		},
	})
	if code != exitCanceled || !strings.Contains(out.String(), "\nTotal:\t5kB\n") || !strings.HasSuffix(stderr.String(), "ERROR: canceled\n") {
		t.Errorf("exit %d\n%s\n%s", code, out, &stderr)
	}
}

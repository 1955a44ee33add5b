package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestLapses(t *testing.T) {
	s := Open(filepath.Join(t.TempDir(), "buildx"))
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	if all := s.Lapses(now); len(all) != 0 {
		t.Errorf("nothing was remembered: %v", all)
	}
	if _, err := os.Stat(s.Dir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("looking left a trace: %v", err)
	}
	pause := func(at time.Time) time.Duration { return s.Lapses(at)["tcp://a:1"].Until.Sub(at) }
	lapse := func(at time.Time) {
		t.Helper()
		if err := s.Lapsed(t.Context(), "tcp://a:1", Lapse{Why: "refused " + strings.Repeat("x", 999)}, at); err != nil {
			t.Fatal(err)
		}
	}
	lapse(now)
	if got := pause(now); got != firstPause {
		t.Errorf("the first pause is %s", got)
	}
	lapse(now.Add(time.Second)) // another process saw the same
	if got := s.Lapses(now)["tcp://a:1"]; got.Times != 1 || len(got.Why) > maxWhy+len("…") {
		t.Errorf("%+v", got)
	}
	later := now
	for i := range 12 {
		later = later.Add(maxPause)
		lapse(later)
		if want, got := min(firstPause<<(i+1), maxPause), pause(later); got != want {
			t.Errorf("pause %d is %s, not %s", i+2, got, want)
		}
	}
	if got := s.Lapses(later.Add(forgotten + time.Second)); len(got) != 0 {
		t.Errorf("not forgotten: %v", got)
	}
	if got := s.Lapses(later.Add(-24 * time.Hour)); len(got) != 0 {
		t.Errorf("a clock that was set back keeps it out: %v", got)
	}
	if err := s.Recovered(t.Context(), "tcp://a:1", false, later); err != nil || len(s.Lapses(later)) != 0 {
		t.Errorf("not recovered: %v", err)
	}
	if err := s.Recovered(t.Context(), "tcp://b:1", false, later); err != nil {
		t.Error(err)
	}
}

// Processes that write at once lose nothing, the file stays small, and one that is
// damaged is written anew.
func TestLapsesTogether(t *testing.T) {
	s := Open(t.TempDir())
	now := time.Now()
	if err := os.WriteFile(s.path(lapsesFile), []byte(`{"x":`), 0o600); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			if err := s.Lapsed(t.Context(), fmt.Sprint("tcp://", i, ":1"), Lapse{Why: "silent"}, now); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if got := len(s.Lapses(now)); got != 20 {
		t.Errorf("%d of 20 are remembered", got)
	}
	many := map[string]Lapse{}
	for i := range maxLapses {
		many[fmt.Sprint("unix:///", i)] = Lapse{At: now.Add(time.Duration(i) * time.Millisecond), Until: now, Times: 1}
	}
	data, err := json.Marshal(many)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.path(lapsesFile), data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Lapsed(t.Context(), "tcp://new:1", Lapse{Why: "silent"}, now.Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	got := s.Lapses(now)
	if _, ok := got["unix:///0"]; len(got) != maxLapses || ok {
		t.Errorf("%d are remembered, the oldest among them: %v", len(got), ok)
	}
}

func TestNatives(t *testing.T) {
	s := Open(t.TempDir())
	if got := s.Native("tcp://a:1"); got != "" {
		t.Errorf("nothing was remembered: %q", got)
	}
	for _, native := range []string{"linux/amd64", "linux/amd64", "linux/arm64"} {
		if err := s.SetNative(t.Context(), "tcp://a:1", native); err != nil || s.Native("tcp://a:1") != native {
			t.Errorf("%q is remembered: %v", s.Native("tcp://a:1"), err)
		}
	}
	if err := os.WriteFile(s.path(nativesFile), []byte(`["x"]`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.SetNative(t.Context(), "tcp://b:1", "linux/amd64"); err != nil || s.Native("tcp://b:1") != "linux/amd64" || s.Native("tcp://a:1") != "" {
		t.Errorf("a damaged file is not written anew: %v", err)
	}
}

func FuzzLapses(f *testing.F) {
	f.Add([]byte(`{"tcp://a:1":{"at":"2026-01-02T03:04:05Z","until":"2026-01-02T03:04:10Z","times":1,"why":"refused"}}`))
	f.Add([]byte(`{}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, data []byte) {
		now := time.Date(2026, 1, 2, 3, 4, 6, 0, time.UTC)
		for address, l := range parseLapses(data, now) {
			if l.Times < 1 || l.Until.Sub(now) > maxPause {
				t.Errorf("%s: %+v", address, l)
			}
		}
	})
}

// A daemon that answers but does not build is remembered until it has built.
func TestLapseOfAnUnfitDaemon(t *testing.T) {
	s, now := Open(filepath.Join(t.TempDir(), "buildx")), time.Now()
	if err := s.Lapsed(t.Context(), "tcp://a:1", Lapse{Why: "its disk is full", Unfit: true}, now); err != nil {
		t.Fatal(err)
	}
	if err := s.Recovered(t.Context(), "tcp://a:1", false, now); err != nil || !s.Lapses(now)["tcp://a:1"].Unfit {
		t.Errorf("after an answer: %v, %v", s.Lapses(now), err)
	}
	if err := s.Recovered(t.Context(), "tcp://a:1", true, now); err != nil || len(s.Lapses(now)) != 0 {
		t.Errorf("after a build: %v, %v", s.Lapses(now), err)
	}
}

package snapshot

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/tonistiigi/fsutil"
	fstypes "github.com/tonistiigi/fsutil/types"
)

// long is a time at which nothing is fresh.
var long = time.Unix(1_000_000_000, 0)

// put writes a file, with the folders above it.
func put(t testing.TB, dir, path, text string) {
	t.Helper()
	at := filepath.Join(dir, filepath.FromSlash(path))
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(at, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// ok fails the test at the first error.
func ok(t testing.TB, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// take is a snapshot without trouble, closed with the test.
func take(t testing.TB, dir string, o Options) *Snapshot {
	t.Helper()
	if o.HashLimit == 0 {
		o.HashLimit = 1 << 30
	}
	s, err := Take(context.Background(), dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	if s.Trouble() != nil {
		t.Fatal(s.Trouble())
	}
	return s
}

// same gives a file a time and takes care that it has no other.
func sameTime(t testing.TB, path string) {
	t.Helper()
	ok(t, os.Chtimes(path, long, long))
}

// stats are what a daemon is sent of a folder that it asks for with these filters.
func stats(t testing.TB, folder fsutil.FS, o fsutil.FilterOpt) []*fstypes.Stat {
	t.Helper()
	o.Map = nil
	filtered, err := fsutil.NewFilterFS(folder, &o)
	if err != nil {
		t.Fatal(err)
	}
	return walked(t, fsutil.WithHardlinkReset(filtered), string(filepath.Separator))
}

// walked are the descriptions of what a walk comes by, without owners.
func walked(t testing.TB, folder fsutil.FS, target string) []*fstypes.Stat {
	t.Helper()
	var list []*fstypes.Stat
	err := folder.Walk(context.Background(), target, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := e.Info()
		if err != nil {
			return err
		}
		st := fi.Sys().(*fstypes.Stat).Clone() //nolint:errcheck // both give that
		if st.Path != path || fi.Name() != filepath.Base(path) || e.IsDir() != fi.IsDir() || e.Name() != fi.Name() {
			t.Errorf("%s is told to be %s", path, st.Path)
		}
		st.Uid, st.Gid = 0, 0
		list = append(list, st)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// compare holds two lists of descriptions against each other.
func compare(t testing.TB, what string, got, want []*fstypes.Stat) {
	t.Helper()
	for i := range max(len(got), len(want)) {
		switch {
		case i >= len(got):
			t.Errorf("%s: lacks %v", what, want[i])
		case i >= len(want):
			t.Errorf("%s: has %v", what, got[i])
		case !got[i].EqualVT(want[i]):
			t.Errorf("%s: %d is\n  %v, wanted\n  %v", what, i, got[i], want[i])
		default:
			continue
		}
		return
	}
}

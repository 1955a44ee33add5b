package snapshot

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// manyFiles is a tree of n files in folders of a hundred.
func manyFiles(tb testing.TB, n int) string {
	tb.Helper()
	dir := tb.TempDir()
	for i := range n {
		at := filepath.Join(dir, fmt.Sprintf("d%04d", i/100))
		if i%100 == 0 {
			if err := os.Mkdir(at, 0o755); err != nil {
				tb.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(at, fmt.Sprintf("file%02d.txt", i%100)), fmt.Appendf(nil, "%02000d", i), 0o644); err != nil {
			tb.Fatal(err)
		}
	}
	return dir
}

// BenchmarkTake is a folder of 50,000 files that was read before.
func BenchmarkTake(b *testing.B) {
	dir := manyFiles(b, 50_000)
	o := Options{HashLimit: 1 << 30, Store: NewStore(b.TempDir())}
	for b.Loop() {
		s, err := Take(context.Background(), dir, o)
		if err != nil || s.Trouble() != nil {
			b.Fatal(err, s.Trouble())
		}
		s.Announce(context.Background())
		_ = s.Close()
	}
}

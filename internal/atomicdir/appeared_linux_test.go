package atomicdir

import (
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"
)

// Two exports end in one folder at once. Elsewhere a rename cannot refuse to replace
// what has just appeared.
func TestCommitAtOnce(t *testing.T) {
	for range 3 {
		path := filepath.Join(t.TempDir(), "out")
		lay(t, filepath.Dir(path), "out/")
		var all [2]*Dir
		var want []string
		for i := range all {
			var things []string
			for n := range 100 { // so many that they meet
				things = append(things, fmt.Sprintf("bin%02d/%d=x", n, i), fmt.Sprintf("blobs/%02d=x", n))
				if i == 0 {
					want = append(want, fmt.Sprintf("bin%02d/", n), fmt.Sprintf("bin%02d/0=x", n), fmt.Sprintf("bin%02d/1=x", n), fmt.Sprintf("blobs/%02d=x", n))
				}
			}
			all[i] = staged(t, path, things)
		}
		var wg sync.WaitGroup
		for _, d := range all {
			wg.Go(func() {
				if err := d.Commit(Options{Blobs: "blobs"}); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		want = append(want, "blobs/")
		slices.Sort(want)
		same(t, "folder", found(t, path, false), want)
	}
}

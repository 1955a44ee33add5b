package atomicdir

import (
	"path/filepath"
	"testing"
)

// unseen merges as if nothing had stood in a folder when it was listed.
func unseen(t *testing.T, m *merge, src, dst *folder) {
	t.Helper()
	entries, err := src.list()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if err := m.entry(src, dst, e, nil, false, nil); err != nil {
			t.Error(err)
		}
	}
}

// What appears in a folder after it was listed is as if it had stood there; a blob
// that is the same stays.
func TestAppeared(t *testing.T) {
	for _, c := range []struct {
		name, in        string
		had, come, want []string
	}{
		{"anything", "", []string{"bin/a=theirs", "f=theirs", "k/x=theirs", "l=theirs"},
			[]string{"bin/b=1", "f=2", "k=3", "l/y=4", "n=5"},
			[]string{"bin/", "bin/a=theirs", "bin/b=1", "f=2", "k=3", "l/", "l/y=4", "n=5"}},
		{"blobs", "blobs/sha256", []string{"a=same theirs", "b=broken"},
			[]string{"a=same as ours", "b=whole", "c=new"},
			[]string{"a=same as ours", "b=whole", "c=new"}},
		{"equal blobs", "blobs/sha256", []string{"a=theirs"}, []string{"a=theyrs"}, []string{"a=theirs"}},
		{"files beside blobs", "blobs2", []string{"a=theirs"}, []string{"a=theyrs"}, []string{"a=theyrs"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := t.TempDir()
			lay(t, path, filepath.ToSlash(filepath.Join("s", c.in))+"/", filepath.ToSlash(filepath.Join("out", c.in))+"/", "old/")
			lay(t, filepath.Join(path, "s", c.in), c.come...)
			lay(t, filepath.Join(path, "out", c.in), c.had...)
			before := found(t, filepath.Join(path, "out", c.in), true)
			base, err := openFolder(path)
			if err != nil {
				t.Fatal(err)
			}
			defer base.close()
			src, dst, old := opened(t, base, filepath.Join("s", c.in)), opened(t, base, filepath.Join("out", c.in)), opened(t, base, "old")
			m := &merge{base: base, staged: old, replace: true, ours: map[string]bool{}, blobs: filepath.Join("out", "blobs")}
			unseen(t, m, src, dst)
			same(t, "folder", found(t, dst.path, false), c.want)
			if err := m.takeBack(); err != nil {
				t.Error(err)
			}
			m.tidy()
			same(t, "undone", found(t, dst.path, true), before)
		})
	}
}

func opened(t *testing.T, base *folder, rel string) *folder {
	t.Helper()
	f, err := base.at(rel)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.close)
	return f
}

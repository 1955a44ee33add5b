package atomicdir

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// merged brings new content in, without an end.
func merged(t *testing.T, d *Dir) *merge {
	t.Helper()
	st, err := d.base.open(d.temp)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(st.close)
	src, err := st.open("0")
	if err != nil {
		t.Fatal(err)
	}
	defer src.close()
	m := &merge{base: d.base, staged: st, replace: true, ours: map[string]bool{d.temp: true}}
	if err := m.folder(src, d.base); err != nil {
		t.Fatal(err)
	}
	return m
}

// What cannot be given back is not thrown away either, and the error says where it
// is.
func TestKept(t *testing.T) {
	path := t.TempDir()
	lay(t, path, "a=old", "b=old")
	d := staged(t, path, []string{"a=1", "b=2", "new=3"})
	m := merged(t, d)
	if err := os.Remove(filepath.Join(path, "a")); err != nil { // so that nothing can be exchanged any more
		t.Fatal(err)
	}
	err := d.giveBack(m, at(d.base, "c", errors.New("the disk is full")))
	kept := filepath.Join(path, d.temp)
	for _, want := range []string{filepath.Join(path, "c") + ": the disk is full", filepath.Join(path, "a"), "is in " + kept} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	if err := d.Abort(); err != nil {
		t.Error(err)
	}
	all := found(t, path, false)
	if !slices.ContainsFunc(all, func(s string) bool { return filepath.Base(s) == "a=old" }) {
		t.Errorf("a is lost: %q", all)
	}
	if !slices.Contains(all, "b=old") || slices.Contains(all, "new=3") {
		t.Errorf("the rest was not undone: %q", all)
	}
	if _, err := os.Lstat(kept); err != nil {
		t.Error(err)
	}
}

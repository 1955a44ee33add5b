package beneath

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// Links are followed inside only, and by OpenPlain, where the kernel can tell, not at
// all; a pipe is not waited for.
func TestOpen(t *testing.T) {
	dir := t.TempDir()
	in := filepath.Join(dir, "in")
	for _, err := range []error{
		os.MkdirAll(filepath.Join(in, "sub"), 0o755), os.WriteFile(filepath.Join(in, "sub", "f"), []byte("text"), 0o600),
		os.WriteFile(filepath.Join(dir, "secret"), []byte("secret"), 0o600),
		os.Symlink("sub/f", filepath.Join(in, "inside")), os.Symlink("../secret", filepath.Join(in, "outside")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	d, err := OpenDir(in)
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{"sub/f": true, ".": true, "sub": true, "inside": true, "outside": false, "../secret": false, "none": false} {
		f, err := d.Open(path)
		if (err == nil) != want {
			t.Errorf("%s: %v", path, err)
		}
		if err == nil {
			_ = f.Close() // it was only opened
		}
	}
	if f, err := d.OpenPlain("sub/f"); err != nil {
		t.Error(err)
	} else {
		_ = f.Close() // it was only opened
	}
	if _, err := d.OpenPlain("outside"); err == nil {
		t.Error("a link out of the folder was followed")
	}
	// Those who still open when it is closed are told so.
	var opening sync.WaitGroup
	for range 4 {
		opening.Go(func() {
			for {
				f, err := d.Open("sub/f")
				if errors.Is(err, fs.ErrClosed) {
					return
				}
				if err != nil {
					t.Error(err)
					return
				}
				_ = f.Close() // it was only opened
			}
		})
	}
	if err := errors.Join(d.Close(), d.Close()); err != nil {
		t.Error(err)
	}
	opening.Wait()
}

package ocilayout

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/gofrs/flock"
)

// A lock whose file its last holder has removed is nobody's any more: whoever comes
// next has another.
func TestLockIsStale(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("what is open cannot be removed")
	}
	dir := t.TempDir()
	lock := flock.New(filepath.Join(dir, "index.json.lock"))
	if ok, err := lock.TryLock(); !ok || err != nil || !stands(lock) {
		t.Fatal(ok, err)
	}
	defer lock.Close()
	if err := os.Remove(lock.Path()); err != nil || stands(lock) {
		t.Error("it stands, though its file is gone", err)
	}
	if err := os.WriteFile(lock.Path(), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if stands(lock) {
		t.Error("it stands, though the file is another")
	}
}

package snapshot

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/berthbuild/berth/internal/atomicfile"
	"github.com/gofrs/flock"
)

// The bounds of a Store.
const (
	maxRecords    = 64        // folders
	maxStoreBytes = 256 << 20 // of all records
	lockBudget    = 5 * time.Second
)

// Store is a folder with a record for each folder that was a build context: what
// its files held, and what was announced of them to daemons. A record that is
// missing or damaged costs reading and sending again, and nothing else. It may be
// used by several processes.
type Store struct{ dir string }

// NewStore is a Store in dir, which is made when there is something to write.
func NewStore(dir string) *Store { return &Store{dir: dir} }

// path is where the record is of a folder less what is excluded: one folder may be
// several contexts.
func (st *Store) path(folder string, excludes []string) string {
	var f fields
	f.text(folder)
	for _, x := range excludes {
		f.text(x)
	}
	sum := sha256.Sum256(f.b)
	return filepath.Join(st.dir, hex.EncodeToString(sum[:16])+".ctx")
}

// read is parts of a folder's record; one that knows nothing where there is none.
func (st *Store) read(folder string, excludes []string, want parts) *record {
	if st == nil {
		return &record{}
	}
	data, err := os.ReadFile(st.path(folder, excludes))
	if err != nil {
		return &record{}
	}
	r, err := decode(data, want)
	if err != nil {
		return &record{} // it will be written anew
	}
	return r
}

// Announce says that the snapshot will be offered to daemons, and gives the
// generation of its folder's copies there: 32 hexadecimal digits.
//
// A daemon keeps a copy of a folder under a key, and compares sizes and times with
// it to find what it lacks. Under one generation, a path is never announced with one
// size and time and two contents; when it would be, a new generation begins, whose
// copies are empty. Without a Store, or when it cannot be written, each snapshot
// begins one.
//
// It is the same for every call on one snapshot.
func (s *Snapshot) Announce(ctx context.Context) string {
	s.announcing.Do(func() { s.generation = s.announce(ctx) })
	return s.generation
}

func (s *Snapshot) announce(ctx context.Context) string {
	st := s.opts.Store
	if st == nil || s.trouble != nil {
		return newGeneration()
	}
	if !s.changed && s.known.generation != "" {
		now := time.Now()
		_ = os.Chtimes(st.path(s.real, s.opts.Excludes), now, now) // it is in use: the oldest are removed first
		return s.known.generation
	}
	if err := os.MkdirAll(st.dir, 0o700); err != nil {
		return newGeneration()
	}
	ctx, cancel := context.WithTimeout(ctx, lockBudget)
	defer cancel()
	lock := flock.New(filepath.Join(st.dir, ".lock"), flock.SetPermissions(0o600))
	if ok, err := lock.TryLockContext(ctx, 5*time.Millisecond); err != nil || !ok {
		return newGeneration()
	}
	defer lock.Close()                                 //nolint:errcheck // it ends with the process at the latest
	now := st.read(s.real, s.opts.Excludes, announced) // another process may have announced something meanwhile
	next := now.announce(s.entries)
	if err := atomicfile.Write(st.path(s.real, s.opts.Excludes), next.encode(), 0o600); err != nil {
		return newGeneration()
	}
	st.trim()
	return next.generation
}

// Distrust begins another generation: a daemon was lost, and its copies of the folder
// may not be what it will take them for. A daemon that is killed while it fetches
// files keeps those that it had got, and what it knew of the content before them.
func (s *Snapshot) Distrust(ctx context.Context) {
	st := s.opts.Store
	if st == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, lockBudget)
	defer cancel()
	lock := flock.New(filepath.Join(st.dir, ".lock"), flock.SetPermissions(0o600))
	if ok, err := lock.TryLockContext(ctx, 5*time.Millisecond); err != nil || !ok {
		_ = os.Remove(st.path(s.real, s.opts.Excludes)) // the same, at the price of reading all files again
		return
	}
	defer lock.Close() //nolint:errcheck // it ends with the process at the latest
	r := st.read(s.real, s.opts.Excludes, files)
	if r.generation == "" {
		return // there is none to end
	}
	r.generation, r.announced = "", nil // the next to announce something begins one
	if err := atomicfile.Write(st.path(s.real, s.opts.Excludes), r.encode(), 0o600); err != nil {
		_ = os.Remove(st.path(s.real, s.opts.Excludes))
	}
}

func newGeneration() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // it never fails
	return hex.EncodeToString(b[:])
}

// trim removes the records that were not used for the longest time.
func (st *Store) trim() {
	list, err := os.ReadDir(st.dir)
	if err != nil {
		return
	}
	var files []fs.FileInfo
	for _, e := range list {
		if fi, err := e.Info(); err == nil && filepath.Ext(e.Name()) == ".ctx" {
			files = append(files, fi)
		}
	}
	slices.SortFunc(files, func(a, b fs.FileInfo) int { return b.ModTime().Compare(a.ModTime()) })
	var total int64
	for i, fi := range files {
		total += fi.Size()
		if i > 0 && (i >= maxRecords || total > maxStoreBytes) {
			if err := os.Remove(filepath.Join(st.dir, fi.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return // what cannot be removed now can be the next time
			}
		}
	}
}

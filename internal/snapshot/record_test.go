package snapshot

import (
	"context"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

func someRecord(rnd *rand.Rand, files int) *record {
	r := &record{generation: newGeneration(), files: []file{}, announced: map[uint64]uint64{}}
	for i := range files {
		k := &known{
			mode: os.FileMode(rnd.Uint32()), size: rnd.Int64(), mtime: rnd.Int64() - 1<<62, ctime: rnd.Int64(), inode: rnd.Uint64(), device: rnd.Uint64(),
			hashed: rnd.IntN(2) == 0, fresh: rnd.IntN(2) == 0, plain: rnd.IntN(2) == 0,
		}
		if k.hashed {
			k.hash = sha256.Sum256([]byte{byte(i)})
		}
		r.files = append(r.files, file{fmt.Sprintf("d%d/é\n%d", rnd.IntN(5), i), k})
		r.announced[rnd.Uint64()] = rnd.Uint64()
	}
	slices.SortFunc(r.files, func(a, b file) int { return strings.Compare(a.path, b.path) })
	return r
}

func TestRecordComesBack(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for n := range 40 {
		r := someRecord(rnd, n)
		got, err := decode(r.encode(), files|announced)
		if err != nil || !reflect.DeepEqual(got, r) {
			t.Fatalf("%d files: %v\n%+v\n%+v", n, err, got, r)
		}
		for want, part := range map[parts]*record{
			files:     {generation: r.generation, files: r.files},
			announced: {generation: r.generation, announced: r.announced},
		} {
			if got, err := decode(r.encode(), want); err != nil || !reflect.DeepEqual(got, part) {
				t.Fatalf("parts %d of %d files: %v\n%+v\n%+v", want, n, err, got, part)
			}
		}
	}
}

// A record that was not written whole, or changed since, is none.
func TestRecordDamaged(t *testing.T) {
	data := someRecord(rand.New(rand.NewPCG(3, 4)), 5).encode()
	for i := range data {
		if r, err := decode(data[:i], files|announced); err == nil {
			t.Fatalf("cut to %d bytes: %v", i, r)
		}
		flipped := append([]byte(nil), data...)
		flipped[i] ^= 1 << (i % 8)
		if r, err := decode(flipped, files|announced); err == nil {
			t.Fatalf("a bit of byte %d: %v", i, r)
		}
	}
	if _, err := decode(append(data, 0), files|announced); err == nil {
		t.Error("with a byte too many")
	}
}

// FuzzRecord also gives decode what has the right hash: what is not ours must not
// bring it down.
func FuzzRecord(f *testing.F) {
	rnd := rand.New(rand.NewPCG(5, 6))
	for _, n := range []int{0, 1, 3} {
		data := someRecord(rnd, n).encode()
		f.Add(data[len(magic) : len(data)-hashSize])
	}
	f.Add([]byte{})
	f.Add(append(make([]byte, 16), 0xff, 0xff, 0xff, 0xff, 0x7f))
	f.Add(append(make([]byte, 16), 1, 0, 0xff, 0xff, 0x03))
	f.Fuzz(func(t *testing.T, body []byte) {
		_, _ = decode(body, files|announced)
		data := append([]byte(magic), body...)
		sum := sha256.Sum256(data)
		r, err := decode(append(data, sum[:]...), files|announced)
		if err != nil {
			return
		}
		again, err := decode(r.encode(), files|announced)
		if err != nil || !reflect.DeepEqual(again, r) {
			t.Errorf("%v: %+v is not %+v", err, again, r)
		}
	})
}

// generation is that of a folder as it is now.
func generation(t testing.TB, dir string, st *Store) string {
	t.Helper()
	s := take(t, dir, Options{Store: st})
	defer s.Close() //nolint:errcheck // it was only read
	return s.Announce(context.Background())
}

// The generation moves when a daemon's comparison would miss something, and only
// then.
func TestGeneration(t *testing.T) {
	dir, st := t.TempDir(), NewStore(t.TempDir())
	at := func(p string) string { return filepath.Join(dir, p) }
	put(t, dir, "d/f", "text")
	put(t, dir, "d/g", "text")
	sameTime(t, at("d/f"))
	last := generation(t, dir, st)
	stays := func(what string) {
		t.Helper()
		if next := generation(t, dir, st); next != last {
			t.Errorf("%s: another generation: everything is sent again", what)
			last = next
		}
	}
	moves := func(what string) {
		t.Helper()
		next := generation(t, dir, st)
		if next == last {
			t.Errorf("%s: the same generation: the daemon does not see it", what)
		}
		last = next
	}
	stays("nothing")
	put(t, dir, "d/f", "longer text")
	stays("another size")
	put(t, dir, "d/h", "text")
	stays("a new file")
	ok(t, os.Remove(at("d/h")))
	stays("a removal")
	ok(t, os.Chmod(at("d/f"), 0o600))
	stays("a mode")
	put(t, dir, "d/f", "text")
	ok(t, os.Chmod(at("d/f"), 0o644))
	sameTime(t, at("d/f"))
	stays("as at first")
	put(t, dir, "d/f", "TEXT")
	sameTime(t, at("d/f"))
	moves("other bytes, the same size and time")
	put(t, dir, "d/f", "text")
	sameTime(t, at("d/f"))
	moves("back")
	put(t, dir, "d/f", "TEXT")
	sameTime(t, at("d/f"))
	ok(t, os.Link(at("d/f"), at("a")))
	moves("other bytes, in a file that has become a link to one that is not sent")
	ok(t, os.Remove(at("a")))
	stays("its own file again")
	put(t, dir, "d/f", "text")
	sameTime(t, at("d/f"))
	moves("back again")
	ok(t, os.Chmod(at("d"), 0o700))
	moves("a folder's mode, which a daemon changes without noting it")
	ok(t, os.Remove(at("d/g")), os.Symlink("f", at("d/g")))
	stays("a link instead of a file")
	stays("nothing again")
	s := take(t, dir, Options{Store: st})
	s.Distrust(t.Context())
	moves("a daemon that was lost")
	stays("nothing after that")
	put(t, dir, "d/f", "TEXT")
	sameTime(t, at("d/f"))
	moves("what a daemon does not see, after one was lost")
	ok(t, os.RemoveAll(st.dir))
	s.Distrust(t.Context())
	moves("a store that was lost")
	moved := last
	ok(t, os.WriteFile(st.path(take(t, dir, Options{Store: st}).Path(), nil), []byte("rubbish"), 0o600))
	moves("a record that was damaged")
	if last == moved {
		t.Error("a generation came back")
	}
	if without := generation(t, dir, nil); generation(t, dir, nil) == without {
		t.Error("without a store two announcements share a generation")
	}
}

// What is announced of a folder that has not changed since a daemon was lost is known
// to have been announced.
func TestGenerationAfterDistrust(t *testing.T) {
	dir, st := t.TempDir(), NewStore(t.TempDir())
	put(t, dir, "f", "text")
	sameTime(t, filepath.Join(dir, "f"))
	take(t, dir, Options{Store: st, HashLimit: 1}).Announce(t.Context()) // it waits until all has settled
	first := generation(t, dir, st)
	take(t, dir, Options{Store: st}).Distrust(t.Context())
	second := generation(t, dir, st)
	if second == first {
		t.Error("the generation of a lost daemon goes on")
	}
	put(t, dir, "f", "TEXT")
	sameTime(t, filepath.Join(dir, "f"))
	if generation(t, dir, st) == second {
		t.Error("other bytes have the same generation")
	}
}

// However many announce at once: one generation never has two contents of a path at
// one size and time.
func TestAnnounceAtOnce(t *testing.T) {
	dir, st := t.TempDir(), NewStore(t.TempDir())
	type said struct{ generation, text string }
	var mu sync.Mutex
	var all []said
	for round := range 6 {
		var snaps []*Snapshot
		var texts []string
		for i := range 6 {
			text := fmt.Sprintf("%d%d", round, i%3)
			put(t, dir, "f", text)
			sameTime(t, filepath.Join(dir, "f"))
			snaps, texts = append(snaps, take(t, dir, Options{Store: NewStore(st.dir)})), append(texts, text)
		}
		var running sync.WaitGroup
		for i, s := range snaps {
			running.Go(func() {
				g := s.Announce(context.Background())
				mu.Lock()
				defer mu.Unlock()
				all = append(all, said{g, texts[i]})
			})
		}
		running.Wait()
	}
	holds := map[string]string{}
	for _, s := range all {
		if before, ok := holds[s.generation]; ok && before != s.text {
			t.Fatalf("generation %s has %q and %q", s.generation, before, s.text)
		}
		holds[s.generation] = s.text
	}
}

// A store keeps so many folders, the last used ones.
func TestStoreIsBounded(t *testing.T) {
	st := NewStore(t.TempDir())
	first := t.TempDir()
	put(t, first, "f", "text")
	g := generation(t, first, st)
	for i := range maxRecords + 20 {
		dir := t.TempDir()
		put(t, dir, "f", "text")
		generation(t, dir, st)
		if i%10 == 0 {
			path := st.path(take(t, first, Options{}).Path(), nil)
			soon := time.Now().Add(time.Minute) // it is used all the time
			ok(t, os.Chtimes(path, soon, soon))
		}
	}
	list, err := filepath.Glob(filepath.Join(st.dir, "*.ctx"))
	ok(t, err)
	if len(list) != maxRecords {
		t.Errorf("%d records", len(list))
	}
	if generation(t, first, st) != g {
		t.Error("the record that is used most was removed")
	}
}

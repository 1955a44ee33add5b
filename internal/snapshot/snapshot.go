// Package snapshot knows what a folder holds at one moment, so that a daemon that
// has it already need not be sent it again.
//
// Take walks a folder once and finds for each file what it holds: from the
// Store's record, when nothing about the file has changed since, or by reading it.
// The whole has a Name then: two folders of the same name have the same content. A
// daemon that was given a session by that name knows by itself that there is
// nothing to fetch. What is sent of a Snapshot is what was named: a file that has
// other bytes by then ends the sending (Moved), so that no bytes are ever known to
// a daemon by a name that is not theirs.
//
// It is not for folders that must be sent whatever happens to them meanwhile, and
// it knows nothing of sessions.
//
// Rules: nothing is trusted that could have changed unseen. A file that was written
// within the last tick of the clock is read anew each time; where the system tells
// no change time and no inode, every file is. A folder that cannot be read in all
// its parts has no name.
package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/berthbuild/berth/internal/beneath"
	"github.com/tonistiigi/fsutil"
	fstypes "github.com/tonistiigi/fsutil/types"
)

// Options say how a snapshot is taken.
type Options struct {
	// Excludes are the patterns of what the daemon will not ask for, as it will
	// give them: those of .dockerignore. What they match is not looked at.
	Excludes []string
	// Always are paths that are a part of it whatever Excludes says.
	Always []string
	// HashLimit is how many bytes may be read to learn what files hold, where the
	// Store does not know it. Above that the name is made of what the file system
	// tells (Name.Content is false).
	HashLimit int64
	// Store remembers what files hold. Nil remembers nothing.
	Store *Store
	// Salt is hashed into the name: only builds with the same salt share it.
	Salt string
	// Machine is hashed into names that are not by content: inodes and times mean
	// something on one machine only.
	Machine string
}

// Snapshot is a folder at the time of Take. It is an fsutil.FS, and safe for
// concurrent use. Whoever took it closes it.
type Snapshot struct {
	dir     *beneath.Dir
	real    string // the folder's own path, links resolved
	entries []*entry
	index   func() map[string]int
	opts    Options
	name    Name
	trouble error
	took    time.Duration
	files   int
	read    int
	known   *record
	changed bool // it is not the record's tree

	announcing sync.Once
	generation string

	mu     sync.Mutex
	moved  error
	broken chan struct{} // closed when moved is set
	told   []func(error)
}

// Name is what a snapshot is called.
type Name struct {
	// ID is 64 hexadecimal digits; empty when there is no name.
	ID string
	// Content says that it follows from what the files hold, on every machine, and
	// not from times and inodes.
	Content bool
}

// entry is a file or folder.
type entry struct {
	path     string // with slashes, from the root of the snapshot
	known           // as it is now, and will be remembered
	links    uint64 // how many names the file has; 0 where the system does not tell
	major    int64  // of a device file
	minor    int64
	link     string // of a symbolic link, or of a hard link the first path of the same file
	xattrs   map[string][]byte
	left     bool // nothing is known of it: it is excluded
	children []*entry
	end      int // index of what comes after it and all in it
}

// Moved is what reading a snapshot gives when the folder is not any more as it was
// taken, or when more is asked for than it knows. Taking another one, or sending the
// folder as it is, are ways out.
type Moved struct {
	Path string // in the folder
	Why  string
}

// Error names the file.
func (m *Moved) Error() string { return fmt.Sprintf("%s %s", m.Path, m.Why) }

// Take looks at the folder dir. What could not be read is no error: see Trouble.
func Take(ctx context.Context, dir string, o Options) (_ *Snapshot, err error) {
	began := time.Now()
	open, err := beneath.OpenDir(dir)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = open.Close() // it was only read
		}
	}()
	path, err := filepath.Abs(dir)
	if err == nil {
		path, err = filepath.EvalSymlinks(path)
	}
	if err != nil {
		return nil, err
	}
	s := &Snapshot{dir: open, real: path, opts: o, known: o.Store.read(path, o.Excludes, files), broken: make(chan struct{})}
	for range 2 {
		if err := s.look(ctx); err != nil {
			return nil, err
		}
		if !errors.Is(s.trouble, errFresh) {
			break
		}
		select { // it settles by itself, unless somebody goes on
		case <-time.After(2 * tick):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	if s.trouble == nil {
		s.name = s.makeName()
	}
	s.index = sync.OnceValue(s.byPath)
	s.took = time.Since(began)
	return s, nil
}

// look walks the folder and reads what has to be read.
func (s *Snapshot) look(ctx context.Context) error {
	s.entries, s.files, s.trouble = nil, 0, nil
	if err := s.walk(ctx, time.Now()); err != nil || s.trouble != nil {
		return err
	}
	return s.hash(ctx)
}

// Close lets go of the folder.
func (s *Snapshot) Close() error { return s.dir.Close() }

// Trouble is why the snapshot has no name: something could not be read, or changes
// so fast that it has none. It is nil otherwise. One with trouble is not to be sent.
func (s *Snapshot) Trouble() error { return s.trouble }

// Name is empty where there is Trouble.
func (s *Snapshot) Name() Name { return s.name }

// Files are how many files were looked at; folders do not count.
func (s *Snapshot) Files() int { return s.files }

// Read is how many files were read to learn what they hold.
func (s *Snapshot) Read() int { return s.read }

// Took is how long Take took.
func (s *Snapshot) Took() time.Duration { return s.took }

// Path is the folder's absolute path, with symbolic links resolved.
func (s *Snapshot) Path() string { return s.real }

// Moved is the first that any reader was told; nil when all was as it was taken.
func (s *Snapshot) Moved() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.moved
}

// Broken is closed when Moved is no longer nil.
func (s *Snapshot) Broken() <-chan struct{} { return s.broken }

// OnMoved has tell called when Moved is no longer nil, once and at once.
func (s *Snapshot) OnMoved(tell func(error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.moved != nil {
		tell(s.moved)
		return
	}
	s.told = append(s.told, tell)
}

func (s *Snapshot) move(path, why string) error {
	err := &Moved{Path: path, Why: why}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.moved == nil {
		s.moved = err
		close(s.broken)
		for _, tell := range s.told {
			tell(err)
		}
	}
	return err
}

// byPath is where each entry stands.
func (s *Snapshot) byPath() map[string]int {
	at := make(map[string]int, len(s.entries))
	for i, e := range s.entries {
		at[e.path] = i
	}
	return at
}

// Walk implements fsutil.FS. The folder itself is not looked at again.
func (s *Snapshot) Walk(ctx context.Context, target string, fn fs.WalkDirFunc) error {
	from, end, named := 0, len(s.entries), false
	if t := strings.Trim(filepath.ToSlash(filepath.Clean(target)), "/"); t != "" && t != "." {
		i, ok := s.index()[t]
		if !ok {
			return nil // as fsutil's own: what is not there is passed over
		}
		from, end, named = i, s.entries[i].end, true
	}
	for i := from; i < end; {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		e := s.entries[i]
		err := fn(filepath.FromSlash(e.path), &dirEntry{s, e}, nil)
		switch {
		case err == nil && e.left && e.mode.IsDir() && named && i == from:
			return nil // what links in it lead to is of no use to who is not sent them
		case err == nil && e.left && e.mode.IsDir():
			return s.move(e.path, "is asked for, and was left out by .dockerignore")
		case err == nil:
			i++
		case errors.Is(err, fs.SkipAll):
			return nil
		case errors.Is(err, fs.SkipDir) && e.mode.IsDir():
			i = e.end
		case errors.Is(err, fs.SkipDir): // the rest of its folder
			i = s.endOfFolder(i, end)
		default:
			return err
		}
	}
	return nil
}

// endOfFolder is the index of what comes after the folder that entry i is in.
func (s *Snapshot) endOfFolder(i, end int) int {
	folder, _, ok := cutLast(s.entries[i].path)
	if !ok {
		return end
	}
	return min(end, s.entries[s.index()[folder]].end)
}

func cutLast(path string) (folder, name string, ok bool) {
	i := strings.LastIndexByte(path, '/')
	if i < 0 {
		return "", path, false
	}
	return path[:i], path[i+1:], true
}

// dirEntry is an entry as fsutil wants it.
type dirEntry struct {
	s *Snapshot
	e *entry
}

// Name implements fs.DirEntry.
func (d *dirEntry) Name() string {
	_, name, _ := cutLast(d.e.path)
	return name
}

// IsDir implements fs.DirEntry.
func (d *dirEntry) IsDir() bool { return d.e.mode.IsDir() }

// Type implements fs.DirEntry. A link that is left out is not told to be one: a
// daemon would be sent what it leads to, and not the link.
func (d *dirEntry) Type() fs.FileMode {
	if d.e.left && d.e.mode&fs.ModeSymlink != 0 {
		return fs.ModeIrregular
	}
	return d.e.mode.Type()
}

// Info implements fs.DirEntry. Each call makes a description of its own: those who
// send it change it.
func (d *dirEntry) Info() (fs.FileInfo, error) {
	if d.e.left {
		return nil, d.s.move(d.e.path, "is asked for, and was left out by .dockerignore")
	}
	return &fsutil.StatInfo{Stat: d.e.stat()}, nil
}

func (e *entry) stat() *fstypes.Stat {
	st := &fstypes.Stat{
		Path: filepath.FromSlash(e.path), Mode: uint32(e.mode &^ fs.ModeSocket), ModTime: e.mtime,
		Linkname: e.link, Devmajor: e.major, Devminor: e.minor,
	}
	if !e.mode.IsDir() {
		st.Size = e.size
	}
	if len(e.xattrs) > 0 {
		st.Xattrs = make(map[string][]byte, len(e.xattrs))
		for k, v := range e.xattrs {
			st.Xattrs[k] = v
		}
	}
	return st
}

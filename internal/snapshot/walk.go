package snapshot

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/berthbuild/berth/internal/atomicfile"
	"github.com/moby/patternmatcher"
)

// tick is how coarse the clocks of file systems may be: a file that was changed
// within it can be changed again and have the same times.
const tick = 50 * time.Millisecond

// coarseTick is that of file systems whose times are whole seconds.
const coarseTick = 2 * time.Second

// walker looks at the folders, several at once.
type walker struct {
	s        *Snapshot
	ctx      context.Context //nolint:containedctx // it lives as long as the walk
	settled  int64           // what was changed after this, in nanoseconds, is fresh
	always   map[string]bool
	matchers sync.Pool // one is not for several goroutines
	excludes bool
	slots    chan struct{}

	count atomic.Int64
	mu    sync.Mutex
	err   error // the first thing that could not be read
}

// maxEntries bounds a snapshot, which takes some 300 bytes for each. A larger folder
// is sent as it is.
const maxEntries = 1 << 20

// walk fills in the entries.
func (s *Snapshot) walk(ctx context.Context, began time.Time) error {
	w := &walker{
		s: s, ctx: ctx, settled: began.Add(-tick).UnixNano(), always: map[string]bool{},
		excludes: len(s.opts.Excludes) > 0, slots: make(chan struct{}, readers()),
	}
	if _, err := patternmatcher.New(s.opts.Excludes); err != nil {
		s.trouble = fmt.Errorf(".dockerignore: %w", err)
		return nil
	}
	w.matchers.New = func() any {
		m, _ := patternmatcher.New(s.opts.Excludes) // tried above
		return m
	}
	for _, p := range s.opts.Always {
		w.always[p] = true
	}
	top := w.folder("", patternmatcher.MatchInfo{})
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	s.trouble = w.err
	s.flatten(top)
	s.linkHard()
	return nil
}

// flatten puts the entries into the order in which folders are walked.
func (s *Snapshot) flatten(list []*entry) {
	for _, e := range list {
		s.entries = append(s.entries, e)
		s.flatten(e.children)
		e.children = nil
		e.end = len(s.entries)
		if !e.mode.IsDir() && !e.left {
			s.files++
		}
	}
}

// linkHard finds the paths that are one file. As fsutil, it takes the first of them
// for the file and the others for links to it.
func (s *Snapshot) linkHard() {
	type id struct{ device, inode uint64 }
	first := map[id]string{}
	for _, e := range s.entries {
		if e.links < 2 || e.left || e.mode.IsDir() { // inodes alone may be used again, or be none
			continue
		}
		at := id{e.device, e.inode}
		switch path, ok := first[at]; {
		case !ok:
			first[at] = e.path
		case e.mode&fs.ModeSymlink == 0:
			e.link = path
		}
	}
}

func (w *walker) failed() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err != nil
}

func (w *walker) fail(path string, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = fmt.Errorf("%s cannot be read: %s", filepath.Join(w.s.real, path), cause(err))
	}
}

// folder is what a folder has in it, sorted by name, with what is below.
func (w *walker) folder(path string, above patternmatcher.MatchInfo) []*entry {
	if w.ctx.Err() != nil || w.failed() {
		return nil
	}
	list, infos, err := w.list(path, above)
	if err != nil {
		w.fail(path, err)
		return nil
	}
	var inside sync.WaitGroup
	for i, e := range list {
		if !e.mode.IsDir() || e.left {
			continue
		}
		select {
		case w.slots <- struct{}{}:
			inside.Go(func() {
				defer func() { <-w.slots }()
				e.children = w.folder(e.path, infos[i])
			})
		default:
			e.children = w.folder(e.path, infos[i])
		}
	}
	inside.Wait()
	return list
}

// list is one folder without those below it. infos is of each entry what tells
// whether those in it are excluded.
func (w *walker) list(path string, above patternmatcher.MatchInfo) (list []*entry, infos []patternmatcher.MatchInfo, err error) {
	folder, err := w.s.dir.OpenPlain(cmp.Or(path, "."))
	if err != nil {
		return nil, nil, err
	}
	defer folder.Close() //nolint:errcheck // it was only read
	names, err := folder.ReadDir(-1)
	if err != nil {
		return nil, nil, err
	}
	if w.count.Add(int64(len(names))) > maxEntries {
		return nil, nil, fmt.Errorf("there are more than %d files and folders", maxEntries)
	}
	slices.SortFunc(names, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	under := ""
	if path != "" {
		under = path + "/"
	}
	for _, n := range names {
		if atomicfile.IsTemp(n.Name()) {
			continue // of this build, or of one that crashed
		}
		e := &entry{path: under + n.Name(), known: known{mode: n.Type()}}
		info := w.exclude(e, above)
		if !e.left {
			if ok, err := w.describe(folder, n.Name(), e); err != nil {
				w.fail(e.path, err)
				continue
			} else if !ok {
				continue // it has gone meanwhile
			}
		}
		list, infos = append(list, e), append(infos, info)
	}
	return list, infos, nil
}

// describe fills in what the file system tells of an entry, and what the record
// knows. It is false for one that is not there any more.
func (w *walker) describe(folder *os.File, name string, e *entry) (bool, error) {
	err := e.lstat(folder, name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	e.fresh = e.ctime == 0 || e.ctime > w.settled ||
		e.ctime%int64(time.Second) == 0 && e.ctime > w.settled-int64(coarseTick)
	old, same := w.s.known.of(e)
	if same {
		e.hash, e.hashed = old.hash, old.hashed
	}
	if e.mode&fs.ModeSymlink != 0 {
		if e.link, err = readLink(folder, name); err != nil {
			return !errors.Is(err, fs.ErrNotExist), ignoreGone(err)
		}
	}
	if same && old.plain {
		e.plain = true
		return true, nil
	}
	err = e.readAttributes(filepath.Join(w.s.real, filepath.FromSlash(e.path)))
	e.plain = len(e.xattrs) == 0
	return !errors.Is(err, fs.ErrNotExist), ignoreGone(err)
}

func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// exclude marks what is left out. A folder is, when nothing in it can be wanted.
func (w *walker) exclude(e *entry, above patternmatcher.MatchInfo) patternmatcher.MatchInfo {
	if !w.excludes {
		return above
	}
	m := w.matchers.Get().(*patternmatcher.PatternMatcher) //nolint:errcheck // it has nothing else
	defer w.matchers.Put(m)
	path := filepath.FromSlash(e.path)
	out, info, err := m.MatchesUsingParentResults(path, above)
	if err != nil {
		w.fail(e.path, err)
		return info
	}
	if out && e.mode.IsDir() {
		out = !wantedInside(m, path)
	}
	e.left = out && !w.always[e.path]
	return info
}

// wantedInside tells whether an exception may bring back something in a folder that
// is excluded. It is the rule by which BuildKit's own walk passes a folder over.
func wantedInside(m *patternmatcher.PatternMatcher, folder string) bool {
	if !m.Exclusions() {
		return false
	}
	special := "*[]?^"
	if filepath.Separator != '\\' {
		special += `\`
	}
	within := false
	for _, p := range m.Patterns() {
		if !p.Exclusion() {
			continue
		}
		plain := strings.TrimSuffix(p.String(), string(filepath.Separator)+"**")
		if strings.ContainsAny(plain, special) {
			return true
		}
		within = within || strings.HasPrefix(plain+string(filepath.Separator), folder+string(filepath.Separator))
	}
	return within
}

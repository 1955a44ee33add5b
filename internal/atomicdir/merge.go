package atomicdir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/berthbuild/berth/internal/atomicfile"
)

// merge moves what is in one folder into another.
type merge struct {
	base    *folder // where both are in
	staged  *folder // where what is replaced goes; unused without replace and remove
	replace bool    // what stands under the same name is replaced, else it is a *Clash
	first   bool    // what stands under the same name stays, if that is no folder
	remove  bool    // what only the other folder has goes
	blobs   string  // a folder, from the base: names in it say what a file is; "" for none

	ours  map[string]bool // staging folders, by their path from the base
	steps []step          // what has been done, for takeBack
	gone  int             // how many things have been put aside
	old   *folder         // where
	local []*folder       // staging folders on other file systems
}

// folder merges src into dst. Its errors are *fs.PathError of paths in dst.
func (m *merge) folder(src, dst *folder) error {
	entries, err := src.list()
	if err != nil {
		return at(dst, "", err)
	}
	have := map[string]fs.DirEntry{}
	standing, err := dst.list()
	if err != nil {
		return at(dst, "", err)
	}
	for _, e := range standing {
		have[e.Name()] = e
	}
	for _, e := range entries {
		old, exists := have[e.Name()]
		delete(have, e.Name())
		if err := m.entry(src, dst, e, old, exists, have); err != nil {
			return err
		}
	}
	if !m.remove {
		return nil
	}
	for _, e := range standing {
		if _, only := have[e.Name()]; only && !m.ours[filepath.Join(dst.rel, e.Name())] {
			if err := m.putAside(dst, e.Name()); err != nil {
				return at(dst, e.Name(), err)
			}
		}
	}
	return nil
}

func (m *merge) entry(src, dst *folder, e, old fs.DirEntry, exists bool, have map[string]fs.DirEntry) error {
	name := e.Name()
	if !exists {
		var err error
		if old, err = m.place(src, dst, e, have); old == nil {
			return at(dst, name, err)
		}
		if m.same(src, dst, name) {
			return nil
		}
	}
	switch {
	case e.IsDir() && old.IsDir():
		return m.both(src, dst, name)
	case m.first && !e.IsDir() && !old.IsDir():
		return nil
	case !m.replace:
		return &Clash{Path: filepath.Join(dst.path, name)}
	}
	return at(dst, name, m.exchange(src, dst, e))
}

// place gives something its place, or else gives what stands there: it has appeared
// since dst was listed, for others export into the same folder, or it has another
// name that this file system takes for the same.
func (m *merge) place(src, dst *folder, e fs.DirEntry, have map[string]fs.DirEntry) (fs.DirEntry, error) {
	for range 8 { // what has appeared may go again, but not for ever
		err := m.move(src, dst, e)
		if !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		fi, err := dst.root.Lstat(e.Name())
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return nil, err
		}
		if m.remove {
			forget(dst, fi, have)
		}
		return fs.FileInfoToDirEntry(fi), nil
	}
	return nil, syscall.EEXIST
}

// forget takes the other name of what is new out of those that are to go.
func forget(dst *folder, fi fs.FileInfo, have map[string]fs.DirEntry) {
	for other := range have {
		if o, err := dst.root.Lstat(other); err == nil && os.SameFile(o, fi) {
			delete(have, other)
		}
	}
}

// same says that what has appeared under a name is what was to be put there: a blob,
// whole. Whoever has put it there counts on it.
func (m *merge) same(src, dst *folder, name string) bool {
	if m.blobs == "" || !within(dst.rel, m.blobs) {
		return false
	}
	ours, err := src.root.Lstat(name)
	if err != nil || !ours.Mode().IsRegular() {
		return false
	}
	theirs, err := dst.root.Lstat(name)
	return err == nil && theirs.Mode().IsRegular() && theirs.Size() == ours.Size()
}

// within says that a path is another one, or below it.
func within(path, top string) bool {
	return path == top || strings.HasPrefix(path, top+string(filepath.Separator))
}

// both merges two folders of one name. The other one gets the mode and the time of
// the new one, as all that is exported does.
func (m *merge) both(src, dst *folder, name string) error {
	fi, err := src.root.Lstat(name)
	if err != nil {
		return at(dst, name, err)
	}
	was, err := dst.root.Lstat(name)
	if err != nil {
		return at(dst, name, err)
	}
	rel := filepath.Join(dst.rel, name)
	m.steps = append(m.steps, step{to: rel, was: was})
	if err := errors.Join(unlock(src, name, fi), unlock(dst, name, was)); err != nil {
		return at(dst, name, err)
	}
	s, err := src.open(name)
	if err != nil {
		return at(dst, name, err)
	}
	defer s.close()
	d, err := dst.open(name)
	if err != nil {
		return at(dst, name, err)
	}
	defer d.close()
	if err := m.folder(s, d); err != nil {
		return err
	}
	if !m.replace {
		fi = was
	}
	m.steps = append(m.steps, step{to: rel, open: true}) // to undo what is in it
	if err := dst.root.Chtimes(name, fi.ModTime(), fi.ModTime()); err != nil {
		return at(dst, name, err)
	}
	return at(dst, name, dst.root.Chmod(name, fi.Mode()))
}

// shift does a step and writes it down, also when only a mode could not be given back.
func (m *merge) shift(s step, from, to *folder) error {
	s.from, s.to = from.rel, to.rel
	done, err := s.carry(from, to)
	if done {
		m.steps = append(m.steps, s)
		return err
	}
	for i, at := range []string{filepath.Join(s.from, s.fromName), filepath.Join(s.to, s.toName)} {
		if s.shut[i] != nil { // it has its mode again, or should get it
			m.steps = append(m.steps, step{to: at, was: s.shut[i]})
		}
	}
	return err
}

// move gives something its place, where nothing stands.
func (m *merge) move(src, dst *folder, e fs.DirEntry) error {
	_, err := m.settle(src, dst, e, false)
	return err
}

// exchange gives something its place, and takes what stands there.
func (m *merge) exchange(src, dst *folder, e fs.DirEntry) error {
	from, err := m.settle(src, dst, e, true)
	if from == nil || !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	if err := m.putAside(dst, e.Name()); err != nil {
		return err
	}
	return m.move(from, dst, e)
}

// settle renames something to its place, or exchanges it with what stands there. It
// gives the folder that it took it from, which has a copy where the file systems
// differ, and nil when it could not be copied.
func (m *merge) settle(src, dst *folder, e fs.DirEntry, swapped bool) (*folder, error) {
	s := step{fromName: e.Name(), toName: e.Name(), swapped: swapped}
	err := m.shift(s, src, dst)
	if !crosses(err) {
		return src, err
	}
	from, err := m.bring(src, dst, e)
	if err != nil {
		return nil, err
	}
	return from, m.shift(s, from, dst)
}

// putAside takes something away, for good when all is done.
func (m *merge) putAside(dst *folder, name string) error {
	if m.old == nil {
		if err := m.staged.root.Mkdir("old", 0o700); err != nil {
			return err
		}
		var err error
		if m.old, err = m.staged.open("old"); err != nil {
			return err
		}
	}
	m.gone++
	err := m.shift(step{fromName: name, toName: strconv.Itoa(m.gone)}, dst, m.old)
	if !crosses(err) {
		return err
	}
	to, err := m.localFor(dst)
	if err != nil {
		return err
	}
	// What is brought there has the names of its own.
	return m.shift(step{fromName: name, toName: atomicfile.TempName()}, dst, to)
}

// crosses says that a rename would leave the file system.
func crosses(err error) bool { return errors.Is(err, syscall.EXDEV) }

// tidy removes what lies on other file systems; the rest goes with the staging
// folder.
func (m *merge) tidy() {
	m.close()
	for _, l := range m.local {
		_ = removeAll(m.base.root, l.rel) // a hidden folder is all that could be left
	}
}

func (m *merge) close() {
	if m.old != nil {
		m.old.close()
	}
	for _, l := range m.local {
		l.close()
	}
}

// localFor is a staging folder on dst's own file system.
func (m *merge) localFor(dst *folder) (*folder, error) {
	for _, l := range m.local {
		if filepath.Dir(l.rel) == filepath.Clean(dst.rel) {
			return l, nil
		}
	}
	name := atomicfile.TempName()
	m.ours[filepath.Join(dst.rel, name)] = true
	if err := dst.root.Mkdir(name, 0o700); err != nil {
		return nil, err
	}
	l, err := dst.open(name)
	if err != nil {
		return nil, err
	}
	m.local = append(m.local, l)
	return l, nil
}

// bring copies something to the file system that dst is on. It gives where it is.
func (m *merge) bring(src, dst *folder, e fs.DirEntry) (*folder, error) {
	if m.ours == nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dst.path, e.Name()), syscall.EXDEV)
	}
	l, err := m.localFor(dst)
	if err != nil {
		return nil, err
	}
	if _, err := l.root.Lstat(e.Name()); err == nil {
		return l, nil // before it was seen that something stands in its place
	}
	return l, copyEntry(src.root, l.root, e.Name())
}

// at names what an error is about.
func at(dst *folder, name string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: "write", Path: filepath.Join(dst.path, name), Err: cause(err)}
}

// cutPath splits off a path's first element.
func cutPath(path string) (first, rest string, more bool) {
	return strings.Cut(filepath.ToSlash(path), "/")
}

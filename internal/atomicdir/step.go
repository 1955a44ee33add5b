package atomicdir

import (
	"errors"
	"io/fs"
	"path/filepath"
	"syscall"
)

// step is one thing that was done.
type step struct {
	from, to         string // folders, from the base
	fromName, toName string
	swapped          bool
	shut             [2]fs.FileInfo // of the two, before: the folders that were unlocked for it

	was  fs.FileInfo // of the folder `to`, before its mode and its time were changed
	open bool        // the folder `to` had to be open, and is perhaps not any more
}

// do renames or exchanges.
func (s *step) do(from, to *folder) error {
	if s.swapped {
		return swap(from, s.fromName, to, s.toName)
	}
	return rename(from, s.fromName, to, s.toName)
}

// carry does the step. A folder that this user may not write to cannot go into
// another one, since its way up changes: it is unlocked until it is there. The step
// may be done although there is an error: a mode could not be given back.
func (s *step) carry(from, to *folder) (done bool, err error) {
	err = s.do(from, to)
	if !errors.Is(err, fs.ErrPermission) {
		return err == nil, err
	}
	s.shut[0] = shut(from, s.fromName)
	if s.swapped {
		s.shut[1] = shut(to, s.toName)
	}
	if s.shut[0] == nil && s.shut[1] == nil {
		return false, err
	}
	if errors.Join(unlock(from, s.fromName, s.shut[0]), unlock(to, s.toName, s.shut[1])) == nil {
		err = s.do(from, to)
	} // else they are somebody else's, and the first error says it
	if err == nil {
		return true, errors.Join(restore(to, s.toName, s.shut[0]), restore(from, s.fromName, s.shut[1]))
	}
	return false, errors.Join(err, restore(from, s.fromName, s.shut[0]), restore(to, s.toName, s.shut[1]))
}

// shut gives what is to know of a folder that its owner may not write to, and nil
// for anything else.
func shut(in *folder, name string) fs.FileInfo {
	fi, err := in.root.Lstat(name)
	if err != nil || !fi.IsDir() || fi.Mode().Perm()&0o200 != 0 {
		return nil
	}
	return fi
}

// unlock lets this user work in a folder.
func unlock(in *folder, name string, fi fs.FileInfo) error {
	if fi == nil || fi.Mode().Perm()&0o700 == 0o700 {
		return nil
	}
	return in.root.Chmod(name, fi.Mode()|0o700)
}

// restore gives a folder the mode and the time that it had. What it has still is not
// touched: the folder may be somebody else's.
func restore(in *folder, name string, was fs.FileInfo) error {
	if was == nil {
		return nil
	}
	now, err := in.root.Lstat(name)
	switch {
	case err != nil:
		return err
	case !now.IsDir():
		return syscall.ENOTDIR // a link, perhaps; it would be followed
	case now.Mode() != was.Mode():
		if err := in.root.Chmod(name, was.Mode()); err != nil {
			return err
		}
	}
	if now.ModTime().Equal(was.ModTime()) {
		return nil
	}
	err = in.root.Chtimes(name, was.ModTime(), was.ModTime())
	if errors.Is(err, fs.ErrPermission) {
		return nil // only the owner sets times, and nothing is lost with one
	}
	return err
}

// takeBack undoes all, the last first. The error is of the first thing that could
// not be undone; the others are, as far as that goes.
func (m *merge) takeBack() error {
	var first error
	for i := len(m.steps) - 1; i >= 0; i-- {
		s := m.steps[i]
		if err := m.undo(s); err != nil && first == nil {
			first = at(m.base, filepath.Join(s.to, s.toName), err)
		}
	}
	return first
}

func (m *merge) undo(s step) error {
	// By its name: a folder that is shut cannot be opened, and has to be unlocked
	// before what was done in it can be undone.
	switch {
	case s.open:
		fi, err := m.base.root.Lstat(s.to)
		if err != nil {
			return err
		}
		return unlock(m.base, s.to, fi)
	case s.was != nil:
		return restore(m.base, s.to, s.was)
	}
	to, err := m.base.at(s.to)
	if err != nil {
		return err
	}
	defer to.close()
	from, err := m.base.at(s.from)
	if err != nil {
		return err
	}
	defer from.close()
	back := step{fromName: s.toName, toName: s.fromName, swapped: s.swapped}
	done, err := back.carry(to, from)
	if !done {
		return err
	}
	return errors.Join(err, restore(from, s.fromName, s.shut[0]), restore(to, s.toName, s.shut[1]))
}
